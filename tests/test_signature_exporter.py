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

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import parity, serving_versions, signature_exporter
from tfx_ranking.components.errors import ConfigError, DataError, RankingError
from tfx_ranking.components.list_examples import read_records, write_records
from tfx_ranking.components.signatures import PROTOS, SIGNATURES

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "query_id", "position": "rank"},
    "context": {
        "age": {"transform": ["z_score"], "default": 40.0, "indicator": True},
        "country": {"dtype": "string", "vocabulary": {"num_oov_buckets": 2}, "embedding": 3},
        "words": {"dtype": "string", "tokens": {}, "embedding": 4},
    },
    "items": {
        "price": {"transform": ["log1p", "z_score"], "default": 9.0},
        "sales": {"transform": ["query_normalise"]},
        "stock": {"dtype": "int", "default": 7},
        "visits": {"transform": [{"bucketize": 4}], "embedding": 2},
        "brand": {"dtype": "string", "hash": {"num_buckets": 16}, "embedding": 3},
        "title": {"dtype": "string", "tokens": {}, "embedding": 4},
        "image": {"shape": [3], "transform": ["min_max"]},
    },
    "model": {"hidden": [16, 8], "normalisation": "batch"},
    "serving": {"parity_lists": 12},
})  # fmt: skip
SIZES = [1, 2, 7, 3, 11, 4, 5, 1, 6, 9, 2, 8, 10, 13, 3, 2]


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranker")
    train = small_rankers.random_lists(CONFIG, [5] * 40, seed=1)
    return small_rankers.make(folder, CONFIG, train, small_rankers.random_lists(CONFIG, SIZES, seed=2))


@pytest.fixture(scope="module")
def exported(paths, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    report = signature_exporter.export(paths, CONFIG, folder, folder / "reports" / "parity.json")
    return folder / "Format-Serving", report


@pytest.fixture(scope="module")
def expected(paths):
    """Group id → the training path's scores: materialised features through the Keras model."""
    ranker = signature_exporter.load_ranker(paths, CONFIG)
    specs = signature_exporter.transformed_specs(paths)
    sample = parity.draw(ranker, paths.examples, paths.transformed_examples, specs, 1000)
    return dict(zip(sample.group_ids, sample.scores, strict=True))


def _protos(signature, paths):
    records = list(read_records(paths.examples))
    return records if PROTOS[signature] == "list_example" else [parity.to_elwc(one, CONFIG) for one in records]


def _group(record):
    return tf.train.Example.FromString(record).features.feature["query_id"].bytes_list.value[0]


def test_the_report_has_a_figure_for_every_signature(exported):
    _, report = exported
    assert report["lists"] == 12
    assert report["list_sizes"] == [min(SIZES), max(SIZES)]
    assert list(report["signatures"]) == ["predict", "list_example"]
    for figures in report["signatures"].values():
        assert figures["max_difference"] < 1e-5
        assert figures["lists_in_another_order"] == 0


@pytest.mark.parametrize("client", [serving_client.score, serving_client.fresh_process_score])
@pytest.mark.parametrize("signature", SIGNATURES)
def test_clients_that_know_only_tensorflow_get_the_training_scores(
    client, signature, exported, expected, paths, tmp_path
):
    moved = tmp_path / "elsewhere"
    subprocess.run(["cp", "-r", exported[0], moved], check=True)
    scores, sizes = client(moved, signature, [*_protos(signature, paths), b""])
    assert sizes.tolist() == [*SIZES, 0]
    groups = [_group(record) for record in read_records(paths.examples)]
    np.testing.assert_allclose(scores, np.concatenate([expected[group] for group in groups]), rtol=1e-5, atol=1e-5)


def test_the_default_signature_is_the_configs(paths, tmp_path):
    serving = dataclasses.replace(CONFIG.serving, signatures=("predict",), default="list_example")
    config = dataclasses.replace(CONFIG, serving=serving)
    signature_exporter.save(signature_exporter.load_ranker(paths, config), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert set(loaded.signatures) == {"predict", "list_example", "serving_default"}
    proto = _protos("list_example", paths)[:1]
    default, named = (
        loaded.signatures[name](inputs=tf.constant(proto)) for name in ("serving_default", "list_example")
    )
    np.testing.assert_array_equal(default["scores"], named["scores"])


def test_an_unknown_signature_is_refused_with_the_tables_names(paths, tmp_path):
    serving = dataclasses.replace(CONFIG.serving, signatures=("predict", "classify"))
    with pytest.raises(ConfigError, match=r"serving.signatures: unknown classify; choose from predict, list_example"):
        signature_exporter.export(paths, dataclasses.replace(CONFIG, serving=serving), tmp_path, tmp_path / "report")
    assert not (tmp_path / "Format-Serving").exists()


def test_vocabularies_are_assets_and_every_op_is_tensorflows_own(exported):
    served, _ = exported
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


def test_saved_model_cli_shows_and_runs_it(exported, paths, tmp_path):
    cli = str(pathlib.Path(sys.executable).with_name("saved_model_cli"))
    shown = subprocess.run(
        [cli, "show", "--dir", exported[0], "--all"], capture_output=True, text=True, check=True
    ).stdout
    for signature in (*SIGNATURES, "serving_default"):
        assert f"signature_def['{signature}']" in shown
    assert "inputs['inputs'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)" in shown
    assert "outputs['scores'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, -1)" in shown
    assert "outputs['sizes'] tensor_info:\n        dtype: DT_INT64\n        shape: (-1)" in shown
    np.save(tmp_path / "requests.npy", np.array(_protos("predict", paths)[:3], object), allow_pickle=True)
    command = [cli, "run", "--dir", exported[0], "--tag_set", "serve", "--signature_def", "predict"]
    command += ["--input_exprs", "inputs=[b'']"]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "Result for output key sizes:\n[0]" in ran.stdout


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_list_scores_alone_as_among_others(signature, exported, paths):
    protos = _protos(signature, paths)
    together, sizes = serving_client.score(exported[0], signature, protos, lists_a_call=len(protos))
    alone, same_sizes = serving_client.score(exported[0], signature, [*protos, b"", b""], lists_a_call=1)
    assert same_sizes.tolist() == [*sizes, 0, 0]
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("signature", SIGNATURES)
def test_an_empty_batch_is_answered(signature, exported):
    for client in (serving_client.score, serving_client.fresh_process_score):
        scores, sizes = client(exported[0], signature, [])
        assert (scores.shape, sizes.shape) == ((0,), (0,))


def test_corrupt_bytes_end_the_call_and_not_the_server(exported):
    for signature in SIGNATURES:
        with pytest.raises(serving_client.ClientError, match=r"INVALID_ARGUMENT|DATA_LOSS"):
            serving_client.score(exported[0], signature, [b"not a proto"])


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
    assert message.startswith("signature 'predict' scores otherwise than training on ")
    assert "worst is list 's2-q" in message
    assert f"The report is in {report}" in message
    assert re.search(f"The feature that differs most is {said}", message), message
    assert json.loads(report.read_text())["failure"]["signature"] == "predict"
    assert not (tmp_path / "out" / "Format-Serving").exists()


def test_a_model_that_only_python_can_load_is_refused(paths, tmp_path):
    """Without the raw variables Python scores, and TensorFlow Serving's loader fails at the first request."""
    ranker = signature_exporter.load_ranker(paths, CONFIG)
    del ranker.module.network_variables
    signature_exporter.save(ranker, str(tmp_path / "bad"))
    assert tf.saved_model.load(str(tmp_path / "bad")).signatures["predict"](inputs=tf.constant([b""]))["sizes"] == [0]
    sample = parity.draw(
        ranker, paths.examples, paths.transformed_examples, signature_exporter.transformed_specs(paths), 4
    )
    with pytest.raises(RankingError, match="scoring in a process of its own failed"):
        parity.prove(ranker, str(tmp_path / "bad"), sample, ["predict", "list_example"])


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
    assert properties["signatures"].string_value == "predict,list_example"
    assert properties["digest"].string_value == serving_versions.digest(pathlib.Path(model.uri) / "Format-Serving")
    assert properties["parity_lists"].int_value == 12
    assert properties["parity_max_difference"].double_value < 1e-5
    assert properties["summary"].string_value.startswith("2 signatures, equal to training on 12 lists to ")
    with pytest.raises(Exception, match=r"items/numeric \(price\)"):
        run("tampered")
    reports = list((tmp_path / "artifacts" / "SignatureExporter").rglob("parity-*.json"))
    assert [json.loads(report.read_text())["failure"]["signature"] for report in reports] == ["predict"]
    assert len(list((tmp_path / "artifacts").rglob("saved_model.pb"))) == 1
