"""Tests that an exported model scores raw protos as training scores features, and that it is refused otherwise."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import serving_client
import small_rankers
import tensorflow as tf
from small_rankers import SIZES

from tfx_ranking.components import signature_exporter
from tfx_ranking.components.choices.signatures import PREDICT, SIGNATURES
from tfx_ranking.components.config.training_sections import Transform
from tfx_ranking.components.errors import ConfigError, DataError, RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists.list_examples import read_records, write_records
from tfx_ranking.components.serving import (
    client_requests,
    parity,
    parity_sample,
    parsing,
    serving_ranker,
)

CONFIG = small_rankers.SHOP
EVERYTHING = CONFIG.serving.rows


@pytest.fixture
def paths(shop):
    return shop.paths


def _protos(signature, paths):
    row = EVERYTHING[signature]
    return client_requests.feed(row, list(read_records(paths.examples)), CONFIG)[row.input].tolist()


FEW = dataclasses.replace(
    CONFIG, serving=dataclasses.replace(CONFIG.serving, signatures=("predict", "list_example"), compatibility=())
)  # quick to export


def _serving(**changes):
    return dataclasses.replace(CONFIG, serving=dataclasses.replace(CONFIG.serving, **changes))


def test_the_report_has_figures_for_every_signature_and_way_of_calling(shop):
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


def test_the_properties_of_a_model_have_the_largest_difference_of_each_way_of_calling():
    report = {
        "lists": 7,
        "signatures": {
            "predict": {"in batches": {"max_difference": 1e-6}, "alone": {"max_difference": 3e-6}},
            "features": {"in batches": {"max_difference": 2e-6}},
        },
        "tflite_max_difference": 5e-7,
    }
    assert signature_exporter.parity_properties(report) == {
        "signatures": "predict,features",
        "parity_lists": 7,
        "parity_max_difference": 3e-6,
        "max_difference in batches": 2e-6,
        "max_difference alone": 3e-6,
        "summary": "2 signatures, equal to training on 7 lists to 3e-06",
        "tflite_max_difference": 5e-7,
    }


def test_the_default_signature_is_the_one_of_the_config(paths, tmp_path):
    config = _serving(signatures=("predict",), default="list_example", compatibility=())
    signature_exporter.save(signature_exporter.load_ranker(paths, config), str(tmp_path))
    loaded = tf.saved_model.load(str(tmp_path))
    assert set(loaded.signatures) == {"predict", "list_example", "serving_default"}
    proto = _protos("list_example", paths)[:1]
    default, named = (
        loaded.signatures[name](inputs=tf.constant(proto)) for name in ("serving_default", "list_example")
    )
    np.testing.assert_array_equal(default["scores"], named["scores"])


def test_vocabularies_are_assets_and_every_op_is_part_of_tensorflow(shop):
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


def test_saved_model_cli_shows_every_signature(shop):
    cli = str(pathlib.Path(sys.executable).with_name("saved_model_cli"))
    shown = subprocess.run(
        [cli, "show", "--dir", shop.served, "--all"], capture_output=True, text=True, check=True
    ).stdout
    for signature in (*EVERYTHING, "serving_default"):
        assert f"signature_def['{signature}']" in shown
    assert "inputs['inputs'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)" in shown
    assert "outputs['scores'] tensor_info:\n        dtype: DT_FLOAT\n        shape: (-1, -1)" in shown
    assert "outputs['sizes'] tensor_info:\n        dtype: DT_INT64\n        shape: (-1)" in shown


def test_an_export_without_lists_in_the_test_split_is_refused(paths, tmp_path):
    write_records(str(tmp_path / "empty.gz"), [])
    empty = dataclasses.replace(paths, examples=(str(tmp_path / "empty.gz"),))
    with pytest.raises(DataError, match=r"the test split has 0 lists.*cannot be compared with training"):
        signature_exporter.export(empty, FEW, tmp_path, tmp_path / "report.json")
    other = dataclasses.replace(paths, transformed_examples=(str(tmp_path / "empty.gz"),))
    with pytest.raises(DataError, match=r"the test split has 16 lists.*none is in the transformed examples"):
        signature_exporter.export(other, FEW, tmp_path, tmp_path / "report.json")


def _tamper(paths, tmp_path, name, change):
    """Returns the same ranker with one transformed feature changed, as if training had read the changed values."""
    changed = []
    for record in read_records(paths.transformed_examples):
        example = tf.train.Example.FromString(record)
        change(next(feature for key, feature in example.features.feature.items() if key.startswith(name)))
        changed.append(example.SerializeToString())
    write_records(str(tmp_path / "changed.gz"), changed)
    return dataclasses.replace(paths, transformed_examples=(str(tmp_path / "changed.gz"),))


def _double_price(feature):
    columns = 6  # image[0], image[1], image[2], price, sales, stock
    matrix = np.array(feature.float_list.value).reshape(-1, columns)
    matrix[:, 3] *= 2
    feature.float_list.value[:] = matrix.reshape(-1)


def _next_brand(feature):
    feature.int64_list.value[:] = [(value + 1) % 16 for value in feature.int64_list.value]


def _refused(paths, config, tmp_path):
    """Returns the message and the reported failure of an export that is refused because its scores differ."""
    report = tmp_path / "reports" / "parity.json"
    with pytest.raises(parity.ParityError) as refused:
        signature_exporter.export(paths, config, tmp_path / "out", report)
    assert not (tmp_path / "out" / "Format-Serving").exists()
    message = str(refused.value)
    assert f"The report is in {report}" in message
    failure = json.loads(report.read_text())["failure"]
    assert set(failure) >= {"signature", "asked", "list", "item", "trained", "served", "feature"}
    assert failure["trained"] != failure["served"]
    assert message.startswith(
        f"signature {failure['signature']!r}, called in batches, scores differently from training on "
    )
    worst = f"the worst is list {failure['list']}, item {failure['item']}: {failure['trained']:.9g} in training, "
    assert worst + f"{failure['served']:.9g} served. The feature that differs most is " in message
    return message, failure


@pytest.mark.parametrize(
    ("output", "change", "feature"),
    [
        ("items/numeric", _double_price, r"items/numeric \(price\): "),
        pytest.param("items/brand", _next_brand, "items/brand: ", marks=pytest.mark.slow),
    ],
)
def test_a_feature_that_differs_from_training_is_refused_and_named(output, change, feature, paths, tmp_path):
    message, failure = _refused(_tamper(paths, tmp_path, output, change), FEW, tmp_path)
    assert failure["signature"] == "predict"
    assert failure["list"].startswith("'s2-q")
    assert re.search(f"The feature that differs most is {feature}", message), message


def test_a_swapped_vocabulary_is_refused(paths, tmp_path):
    """Two words of the exported graph's vocabulary are exchanged."""
    graph = tmp_path / "transform_graph"
    shutil.copytree(paths.transform_graph, graph)
    (vocabulary,) = [file for file in (graph / "transform_fn" / "assets").iterdir() if "country" in file.name]
    words = vocabulary.read_bytes().splitlines(keepends=True)
    vocabulary.write_bytes(b"".join([*words[1::-1], *words[2:]]))
    message, failure = _refused(dataclasses.replace(paths, transform_graph=str(graph)), FEW, tmp_path)
    assert failure["signature"] == "predict"
    assert re.search(r"differs most is context/country: [01] in training, [01] served", message), message


def test_a_doubled_feature_is_refused(paths, tmp_path, monkeypatch):
    """The parser of one signature multiplies a price by two."""
    parse = parsing.parse_elwc

    def doubled(serialized, table):
        batch = parse(serialized, table)
        return batch._replace(items={**batch.items, "price-eur": batch.items["price-eur"] * 2})

    monkeypatch.setattr(parsing, "parse_elwc", doubled)
    message, failure = _refused(
        paths, dataclasses.replace(FEW, serving=_serving_of("list_example", "predict")), tmp_path
    )
    assert failure["signature"] == "predict"
    assert "differs most is items/numeric (price): " in message


def test_a_dropped_default_is_refused(paths, tmp_path, monkeypatch):
    """A missing price is read as 0 instead of the default 9."""
    parse = parsing.parse_sequence_examples

    def without_default(serialized, table):
        batch = parse(serialized, table)
        price = batch.items["price-eur"]
        return batch._replace(items={**batch.items, "price-eur": tf.where(tf.math.is_nan(price), 0.0, price)})

    monkeypatch.setattr(parsing, "parse_sequence_examples", without_default)
    serving = _serving_of("list_example", "sequence_example")
    message, failure = _refused(paths, dataclasses.replace(FEW, serving=serving), tmp_path)
    assert failure["signature"] == "sequence_example"
    assert "differs most is items/numeric (price): " in message


def _serving_of(*signatures):
    return dataclasses.replace(FEW.serving, signatures=signatures, default=signatures[-1])


def test_regress_with_a_list_wise_transform_is_refused_with_the_reason():
    items = {**CONFIG.items, "sales": dataclasses.replace(CONFIG.items["sales"], transform=("query_normalise",))}
    reason = (
        "'regress' scores each item by itself, but items.sales.transform has query_normalise, which compares the it"
    )
    with pytest.raises(Exception, match=reason):
        dataclasses.replace(CONFIG, items=items)
    left = dataclasses.replace(CONFIG, items=items, serving=_serving_of("predict", "list_example"))
    assert left.list_wise


def test_regress_with_a_list_wise_scorer_is_refused_with_the_reason(paths):
    ranker = signature_exporter.load_ranker(paths, CONFIG)
    ranker.network.list_wise = True
    with pytest.raises(
        ConfigError, match="'regress' scores each item by itself, but the scorer dnn looks at the whole"
    ):
        serving_ranker.rows_of(ranker)
    ranker.config = _serving(signatures=("predict",))  # TF-Ranking's regress is left out
    assert list(serving_ranker.rows_of(ranker)) == ["predict", "list_example", PREDICT, "serving_tfrecord"]


class TwoOutputs(keras.Model):
    """A network that returns a probability and a score."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner
        self.built = True

    def call(self, inputs, training=False):
        scores = self.inner(inputs, training=training)
        return {"clicked": tf.sigmoid(scores), "scores": scores}


def value_for_money(scores, features):
    """Post-processing as a user writes it: ragged inputs, dense and ragged outputs, strings and numbers."""
    price = tf.where(tf.math.is_nan(features["price"]), 9.0, features["price"])
    return {"value": scores / (1 + price), "best": tf.reduce_max(scores, axis=1), "country": features["country"]}


def test_several_outputs_postprocessing_and_the_top_k(shop, tmp_path):
    config = _serving(
        signatures=("predict", "rank"),
        compatibility=(),
        default="rank",
        top_k=3,
        postprocessing="test_signature_exporter.value_for_money",
    )
    plain = signature_exporter.load_ranker(shop.paths, config)
    transform_fn = f"{shop.paths.transform_graph}/transform_fn"
    ranker = serving_ranker.ServingRanker(TwoOutputs(plain.network), transform_fn, config)
    signature_exporter.save(ranker, str(tmp_path))
    report, _ = parity.prove(ranker, str(tmp_path), shop.sample, serving_ranker.rows_of(ranker), {})
    assert list(report["signatures"]) == ["predict", "list_example", "rank", "value_for_money"]

    lists = small_rankers.random_lists(CONFIG, [5, 0, 2], seed=4, missing=0)
    _, scores = shop.trained(lists)
    rows = config.serving.rows
    calls = [(name, client_requests.feed(rows[name], lists, config)) for name in ("predict", "rank", "value_for_money")]
    calls.append(("serving_default", calls[1][1]))
    predicted, ranked, worth, default = serving_client.cpp(tmp_path, calls)
    assert set(predicted) == {"scores", "clicked", "sizes"}
    np.testing.assert_allclose(predicted["clicked"][0], 1 / (1 + np.exp(-scores[0])), rtol=1e-5)
    best = np.argsort(-scores[0])[:3]
    assert ranked["indices"].tolist() == [best.tolist(), [-1] * 3, [*np.argsort(-scores[2]), -1]]
    assert ranked["item_ids"][0].tolist() == [b"item%d" % i for i in best]
    assert ranked["item_ids"][1].tolist() == [b""] * 3
    np.testing.assert_allclose(ranked["scores"][0], scores[0][best], rtol=1e-5)
    assert {name: value.tolist() for name, value in default.items()} == {
        name: value.tolist() for name, value in ranked.items()
    }
    prices = [client_requests.read(one, config).items for one in lists]
    value = [one / (1 + item["price-eur"].values[0]) for one, item in zip(scores[0], prices[0], strict=True)]
    np.testing.assert_allclose(worth["value"][0], value, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(worth["best"][2], scores[2].max(), rtol=1e-5)
    assert worth["country"].tolist() == [
        client_requests.read(one, config).context["country"].values[0] for one in lists
    ]


def test_a_model_that_only_python_can_load_is_refused(paths, tmp_path, monkeypatch):
    """Without the raw variables Python can score, but TensorFlow Serving's loader fails at the first request."""
    ranker = signature_exporter.load_ranker(paths, FEW)
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
    with pytest.raises(RankingError, match="scoring in a separate process failed"):
        parity.prove(ranker, str(tmp_path / "bad"), sample, {"predict": SIGNATURES["predict"]}, {})


def own_preprocessing_fn(inputs, custom_config):
    """As a user writes it: its own feature names, a dense context output, nothing derived from the config."""
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


@pytest.mark.slow
def test_a_users_own_preprocessing_fn_and_only_the_features_it_reads(tmp_path):
    serving = dataclasses.replace(FEW.serving, signatures=("predict", "features"), required_only=True)
    transform = Transform(preprocessing_fn="test.own_preprocessing_fn")
    config = dataclasses.replace(CONFIG, transform=transform, serving=serving)
    records = small_rankers.random_lists(config, SIZES, seed=2)
    paths = small_rankers.make(tmp_path / "own", config, records, records, own_preprocessing_fn)
    report = signature_exporter.export(paths, config, tmp_path, tmp_path / "report.json")
    assert report["lists"] == 12
    loaded = tf.saved_model.load(str(tmp_path / "Format-Serving"))
    assert set(loaded.signatures["features"].structured_input_signature[1]) == {"sizes", "age", "price_eur"}
    example = tf.train.Example.FromString(records[0])
    example.features.feature["stock"].bytes_list.value[:] = [b"not a number, and not read"]
    both = loaded.signatures["list_example"](inputs=tf.constant([records[0], example.SerializeToString()]))["scores"]
    np.testing.assert_array_equal(both[0], both[1])
    leaking, _ = small_rankers.learn(tmp_path / "leaking", config, records, leaking_preprocessing_fn)
    with pytest.raises(RankingError, match="'items/oracle' is computed from 'label', which no request has"):
        signature_exporter.load_ranker(dataclasses.replace(paths, transform_graph=leaking), config)


@pytest.mark.slow
def test_the_component_under_tfx(paths, tmp_path):
    """The outputs and properties are those that the evaluator and the pusher read; a refused export leaves no model."""
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
        importers = {
            name: Importer(source_uri=str(uri), artifact_type=kind).with_id(f"{transformed}-{name}")
            for name, (uri, kind) in artifacts.items()
        }
        exporter = signature_exporter.SignatureExporter(
            trained_model=importers["model"].outputs["result"],
            transform_graph=importers["graph"].outputs["result"],
            schema=importers["schema"].outputs["result"],
            examples=importers["examples"].outputs["result"],
            transformed_examples=importers["transformed"].outputs["result"],
            config=FEW.select(*signature_exporter.READS),
        )
        steps = [*importers.values(), exporter]
        root = str(tmp_path / "artifacts")
        LocalDagRunner().run(pipeline.Pipeline("shop", root, connection, steps, enable_cache=False))

    run("transformed")
    store = metadata_store.MetadataStore(connection)
    (model,) = [
        each for each in store.get_artifacts_by_type("Model") if each.uri.startswith(str(tmp_path / "artifacts"))
    ]
    properties = model.custom_properties
    assert properties["signatures"].string_value == "predict,list_example"
    assert properties["digest"].string_value == model_files.digest(pathlib.Path(model.uri) / "Format-Serving")
    assert properties["parity_lists"].int_value == 12
    assert properties["parity_max_difference"].double_value < 1e-5
    assert properties["summary"].string_value.startswith("2 signatures, equal to training on 12 lists to ")
    with pytest.raises(Exception, match=r"items/numeric \(price\)"):
        run("tampered")
    reports = list((tmp_path / "artifacts" / "SignatureExporter").rglob("parity-*.json"))
    assert [json.loads(report.read_text())["failure"]["signature"] for report in reports] == ["predict"]
    assert len(list((tmp_path / "artifacts").rglob("saved_model.pb"))) == 1
