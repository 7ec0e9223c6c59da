"""An export scores raw protos as training scores features, in processes that know nothing of us; or it is refused."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import serving_client
import small_rankers
import tensorflow as tf
from small_rankers import SIZES

from tfx_ranking.components import (
    answers,
    client_requests,
    parity,
    parity_sample,
    serving_ranker,
    serving_versions,
    signature_exporter,
)
from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.list_examples import read_records, write_records
from tfx_ranking.components.signatures import SIGNATURES, chosen

CONFIG = small_rankers.SHOP
EVERYTHING = chosen(CONFIG.serving)
OF_LISTS = [name for name, row in SIGNATURES.items() if row.answer == "scores" and row.request != "tensors"]


@pytest.fixture
def paths(shop):
    return shop.paths


def _protos(signature, paths):
    row = EVERYTHING[signature]
    return client_requests.feed(row, list(read_records(paths.examples)), CONFIG)[row.input].tolist()


def _serving(**changes):
    return dataclasses.replace(CONFIG, serving=dataclasses.replace(CONFIG.serving, **changes))


def test_the_report_has_a_figure_for_every_signature_and_way_of_asking(shop):
    assert shop.report["lists"] == 12
    assert shop.report["list_sizes"] == [min(SIZES), max(SIZES)]
    assert list(shop.report["signatures"]) == list(EVERYTHING)
    for name, ways in shop.report["signatures"].items():
        order = [] if name == "transform" else ["in another order"]
        padding = ["with more padding"] if name == "features" else []
        assert list(ways) == ["in batches", "alone", *order, *padding], name
        for figures in ways.values():
            assert figures["max_difference"] < 1e-5
            assert figures["lists_in_another_order"] == 0


@pytest.mark.parametrize("client", serving_client.CLIENTS)
def test_a_moved_model_gives_clients_that_know_only_tensorflow_the_training_scores(client, shop, tmp_path):
    moved = tmp_path / "elsewhere"
    shutil.copytree(shop.served, moved)
    records = shop.sample.list_examples
    calls = [(name, client_requests.feed(row, records, CONFIG)) for name, row in EVERYTHING.items()]
    came = serving_client.CLIENTS[client](moved, calls)
    for (name, row), outputs in zip(EVERYTHING.items(), came, strict=True):
        read = answers.ANSWERS[row.answer].read
        for expected, scores in read(outputs, shop.sample.scores) if read else ():
            assert parity.compare(expected, scores).agrees, name


def test_the_default_signature_is_the_configs(paths, tmp_path):
    config = _serving(signatures=("predict",), default="list_example", compatibility=())
    signature_exporter.save(signature_exporter.load_ranker(paths, config), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert set(loaded.signatures) == {"predict", "list_example", "serving_default"}
    proto = _protos("list_example", paths)[:1]
    default, named = (
        loaded.signatures[name](inputs=tf.constant(proto)) for name in ("serving_default", "list_example")
    )
    np.testing.assert_array_equal(default["scores"], named["scores"])


def test_vocabularies_are_assets_and_every_op_is_tensorflows_own(shop):
    served = shop.served
    assert list((served / "assets").iterdir())
    program = """
import sys
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry
import tensorflow
graph = saved_model_pb2.SavedModel.FromString(open(sys.argv[1], "rb").read()).meta_graphs[0].graph_def
functions = {function.signature.name for function in graph.library.function}
ops = {node.op for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes} - functions
python = {"PyFunc", "EagerPyFunc", "PyFuncStateless"}
strange = sorted(op for op in ops if op_def_registry.get(op) is None or op in python)
sys.exit(f"not TensorFlow's: {strange}" if strange else 0)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(served / "saved_model.pb")], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr


def test_saved_model_cli_shows_and_runs_it(shop):
    cli = str(pathlib.Path(sys.executable).with_name("saved_model_cli"))
    shown = subprocess.run(
        [cli, "show", "--dir", shop.served, "--all"], capture_output=True, text=True, check=True
    ).stdout
    for signature in (*EVERYTHING, "serving_default"):
        assert f"signature_def['{signature}']" in shown
    assert "inputs['inputs'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)" in shown
    assert "outputs['scores'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, -1)" in shown
    assert "outputs['sizes'] tensor_info:\n        dtype: DT_INT64\n        shape: (-1)" in shown
    command = [cli, "run", "--dir", shop.served, "--tag_set", "serve", "--signature_def", "predict"]
    command += ["--input_exprs", "inputs=[b'']"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Result for output key sizes:\n[0]" in ran.stdout


def test_no_test_list_no_export(paths, tmp_path):
    write_records(str(tmp_path / "empty.gz"), [])
    empty = dataclasses.replace(paths, examples=(str(tmp_path / "empty.gz"),))
    with pytest.raises(DataError, match=r"the test split has 0 lists.*nothing to prove the export on"):
        signature_exporter.export(empty, CONFIG, tmp_path, tmp_path / "report.json")
    other = dataclasses.replace(paths, transformed_examples=(str(tmp_path / "empty.gz"),))
    with pytest.raises(DataError, match=r"the test split has 16 lists.*none is in the transformed examples"):
        signature_exporter.export(other, CONFIG, tmp_path, tmp_path / "report.json")


def _tamper(paths, tmp_path, name, change):
    """The same ranker with materialised features of which one has been changed, as if training had seen it so."""
    changed = []
    for record in read_records(paths.transformed_examples):
        example = tf.train.Example.FromString(record)
        change(next(feature for key, feature in example.features.feature.items() if key.startswith(name)))
        changed.append(example.SerializeToString())
    write_records(str(tmp_path / "changed.gz"), changed)
    return dataclasses.replace(paths, transformed_examples=(str(tmp_path / "changed.gz"),))


def _double_price(feature):
    columns = 6  # price, sales, stock, image[0], image[1], image[2]
    matrix = np.array(feature.float_list.value).reshape(-1, columns)
    matrix[:, 0] *= 2
    feature.float_list.value[:] = matrix.reshape(-1)


def _next_brand(feature):
    feature.int64_list.value[:] = [(value + 1) % 16 for value in feature.int64_list.value]


@pytest.mark.parametrize(
    ("output", "change", "said"),
    [("items/numeric", _double_price, r"items/numeric \(price\): "), ("items/brand", _next_brand, "items/brand: ")],
)
def test_a_feature_that_differs_from_training_is_refused_and_named(output, change, said, paths, tmp_path):
    other = _tamper(paths, tmp_path, output, change)
    report = tmp_path / "reports" / "parity.json"
    with pytest.raises(parity.ParityError) as refused:
        signature_exporter.export(other, CONFIG, tmp_path / "out", report)
    message = str(refused.value)
    assert message.startswith("signature 'predict', asked in batches, scores otherwise than training on ")
    assert "worst is list 's2-q" in message
    assert f"The report is in {report}" in message
    assert re.search(f"The feature that differs most is {said}", message), message
    assert json.loads(report.read_text())["failure"]["signature"] == "predict"
    assert not (tmp_path / "out" / "Format-Serving").exists()


def test_a_model_that_only_python_can_load_is_refused(paths, tmp_path, monkeypatch):
    """Without the raw variables Python scores, and TensorFlow Serving's loader fails at the first request."""
    ranker = signature_exporter.load_ranker(paths, CONFIG)
    saved = serving_ranker.savable

    def untracked(ranker):
        module = saved(ranker)
        del module.variables, module.trainable_variables
        return module

    monkeypatch.setattr(serving_ranker, "savable", untracked)
    signature_exporter.save(ranker, str(tmp_path / "bad"))
    assert tf.saved_model.load(str(tmp_path / "bad")).signatures["predict"](inputs=tf.constant([b""]))["sizes"] == [0]
    sample = parity_sample.draw(
        ranker, paths.examples, paths.transformed_examples, signature_exporter.transformed_specs(paths), 4
    )
    with pytest.raises(RankingError, match="scoring in a process of its own failed"):
        parity.prove(ranker, str(tmp_path / "bad"), sample, {"predict": SIGNATURES["predict"]}, {})


def own_preprocessing_fn(inputs, custom_config):
    """As a user writes it: other names, a dense context output, nothing derived from the config."""
    price = inputs["price"]
    return {
        "items/cheap": tf.RaggedTensor.from_row_splits(
            tf.where(tf.math.is_nan(price.values), 0.0, 1 / (1 + price.values))[:, None], price.row_splits
        ),
        "context/age": tf.where(tf.math.is_nan(inputs["age"]), 0.0, inputs["age"] / 100),
        "label": inputs["label"],
        "group_id": inputs["query_id"],
    }


def leaking_preprocessing_fn(inputs, custom_config):
    outputs = own_preprocessing_fn(inputs, custom_config)
    label = inputs["label"]
    return {**outputs, "items/oracle": label.with_values(label.values[:, None])}


def test_a_preprocessing_fn_of_the_users_own(tmp_path):
    config = dataclasses.replace(
        CONFIG, transform=ranking_config.Transform(preprocessing_fn="test.own_preprocessing_fn")
    )
    records = small_rankers.random_lists(config, SIZES, seed=2)
    paths = small_rankers.make(tmp_path / "own", config, records, records, own_preprocessing_fn)
    report = signature_exporter.export(paths, config, tmp_path, tmp_path / "report.json")
    assert report["lists"] == 12
    leaking, _ = small_rankers.learn(tmp_path / "leaking", config, records, leaking_preprocessing_fn)
    with pytest.raises(RankingError, match="'items/oracle' is computed from 'label', which no request carries"):
        signature_exporter.load_ranker(dataclasses.replace(paths, transform_graph=leaking), config)


def test_the_component_under_tfx(paths, tmp_path):
    """Channels and properties as the evaluator and the pusher find them; a failed proof leaves no model."""
    from ml_metadata.metadata_store import metadata_store
    from tfx.dsl.components.common.importer import Importer
    from tfx.orchestration import metadata, pipeline
    from tfx.orchestration.local.local_dag_runner import LocalDagRunner
    from tfx.types.standard_artifacts import Examples, Model, Schema, TransformGraph

    def place(folder, source):
        target = tmp_path / folder
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)

    place("model/Format-Keras/ranker.keras", paths.keras_model)
    place("examples/Split-test/data_tfrecord-00000-of-00001.gz", paths.examples[0])
    place("transformed/Split-test/transformed_examples-00000-of-00001.gz", paths.transformed_examples[0])
    (tmp_path / "schema").mkdir()
    other = _tamper(paths, tmp_path, "items/numeric", _double_price)
    place("tampered/Split-test/transformed_examples-00000-of-00001.gz", other.transformed_examples[0])
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "metadata.sqlite"))

    def run(transformed):
        artifacts = {
            "model": (tmp_path / "model", Model),
            "graph": (paths.transform_graph, TransformGraph),
            "schema": (tmp_path / "schema", Schema),
            "examples": (tmp_path / "examples", Examples),
            "transformed": (tmp_path / transformed, Examples),
        }
        given = {
            name: Importer(source_uri=str(uri), artifact_type=kind).with_id(f"{transformed}-{name}")
            for name, (uri, kind) in artifacts.items()
        }
        exporter = signature_exporter.SignatureExporter(
            trained_model=given["model"].outputs["result"],
            transform_graph=given["graph"].outputs["result"],
            schema=given["schema"].outputs["result"],
            examples=given["examples"].outputs["result"],
            transformed_examples=given["transformed"].outputs["result"],
            config=CONFIG.select(*signature_exporter.READS),
        )
        steps = [*given.values(), exporter]
        root = str(tmp_path / "artifacts")
        LocalDagRunner().run(pipeline.Pipeline("shop", root, connection, steps, enable_cache=False))

    run("transformed")
    store = metadata_store.MetadataStore(connection)
    (model,) = [
        each for each in store.get_artifacts_by_type("Model") if each.uri.startswith(str(tmp_path / "artifacts"))
    ]
    properties = model.custom_properties
    assert properties["signatures"].string_value == ",".join(EVERYTHING)
    assert properties["digest"].string_value == serving_versions.digest(pathlib.Path(model.uri) / "Format-Serving")
    assert properties["parity_lists"].int_value == 12
    assert properties["parity_max_difference"].double_value < 1e-5
    assert properties["summary"].string_value.startswith("12 signatures, equal to training on 12 lists to ")
    with pytest.raises(Exception, match=r"items/numeric \(price\)"):
        run("tampered")
    reports = list((tmp_path / "artifacts" / "SignatureExporter").rglob("parity-*.json"))
    assert [json.loads(report.read_text())["failure"]["signature"] for report in reports] == ["predict"]
    assert len(list((tmp_path / "artifacts").rglob("saved_model.pb"))) == 1
