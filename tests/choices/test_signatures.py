"""The signatures of a config, one from outside of the package, and the transform graph's input in every layout."""

import dataclasses
import json
import zlib

import numpy as np
import pytest
import small_rankers
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import signature_exporter
from tfx_ranking.components.choices import signatures
from tfx_ranking.components.choices.signatures import ANSWERS, REQUESTS, SIGNATURES, AnswerKind, RequestKind, Signature
from tfx_ranking.components.config import reference
from tfx_ranking.components.config.serving_section import Serving
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.exported import contract
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns
from tfx_ranking.components.serving import answers, client_requests, serving_process, serving_ranker
from tfx_ranking.pipelines.asking import inspection

RAW = {
    "name": "shop",
    "data": {"input": "x", "format": "csv", "position": "rank"},
    "context": {"age": {}, "place": {"shape": [2]}, "words": {"dtype": "string", "tokens": {}}},
    "items": {"price": {}, "image": {"shape": [3]}, "title": {"dtype": "string", "tokens": {}}},
}  # fmt: skip
CONFIG = ranking_config.parse(RAW)
TABLE = columns(CONFIG)
BATCH = ListBatch(
    {
        "age": tf.constant([30.0, 40.0]),
        "place": tf.constant([[1.0, 2.0], [3.0, 4.0]]),
        "words": Tokens(tf.constant(["a", "b", "c"]), tf.constant([0, 1, 3], tf.int64)),
    },
    {
        "price": tf.constant([1.0, 2.0, 3.0]),
        "image": tf.reshape(tf.range(9.0), [3, 3]),
        "title": Tokens(tf.constant(["x", "y", "z"]), tf.constant([0, 2, 2, 3], tf.int64)),
    },
    tf.constant([0, 2, 3], tf.int64),
)


def _input(name, spec):
    value = serving_ranker._raw_input(name, spec, BATCH, TABLE)
    assert spec.is_compatible_with(value), (spec, value)
    return value.to_list() if isinstance(value, tf.RaggedTensor) else value


def _ragged(dtype, row_splits_dtype=tf.int64):
    return tf.RaggedTensorSpec([None, None], dtype, 1, row_splits_dtype)


def test_the_layouts_of_our_schema():
    assert _input("age", tf.TensorSpec([None], tf.float32)).numpy().tolist() == [30, 40]
    assert _input("place", tf.TensorSpec([None, 2], tf.float32)).numpy().tolist() == [[1, 2], [3, 4]]
    assert _input("words", _ragged(tf.string)) == [[b"a"], [b"b", b"c"]]
    assert _input("price", _ragged(tf.float32)) == [[1, 2], [3]]
    assert _input("image", _ragged(tf.float32)) == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    assert _input("title", _ragged(tf.string)) == [[b"x", b"y"], [b"z"]]
    assert _input("title/row_lengths", _ragged(tf.int64)) == [[2, 0], [1]]


def test_the_layouts_of_a_curated_schema():
    assert _input("age", tf.TensorSpec([None, 1], tf.float32)).numpy().tolist() == [[30], [40]]
    assert _input("age", _ragged(tf.float32)) == [[30], [40]]
    assert _input("price", _ragged(tf.float32, tf.int32)) == [[1, 2], [3]]
    sparse = _input("price", tf.SparseTensorSpec([None, None], tf.float32))
    np.testing.assert_array_equal(tf.sparse.to_dense(sparse), [[1, 2], [3, 0]])


def test_a_column_that_no_request_has_is_blank_and_has_the_lists_shape():
    assert _input("label", _ragged(tf.float32)) == [[0, 0], [0]]
    assert _input("rank", _ragged(tf.int64)) == [[0, 0], [0]]
    assert _input("group_id", tf.TensorSpec([None], tf.string)).numpy().tolist() == [b"", b""]
    assert _input("unknown", _ragged(tf.string)) == [[b""], [b""]]


def _chosen(**serving):
    return list(Serving(**serving).rows)


def test_list_example_is_always_there_and_unknown_names_are_refused():
    assert _chosen(signatures=(), default="list_example") == ["list_example"]
    assert _chosen(signatures=("list_example", "predict")) == ["predict", "list_example"]
    with pytest.raises(ConfigError, match="unknown classify, prdict; choose from predict, sequence_example, list_ex"):
        _chosen(signatures=("prdict", "classify"))
    expected = r"serving\.signatures\[0\]: expected one of predict, .*; got 'prdict'; did you mean 'predict'"
    with pytest.raises(ConfigError, match=expected):
        ranking_config.parse({**RAW, "serving": {"signatures": ["prdict", "classify"]}})


def test_compatibility_adds_the_signatures_of_other_systems():
    others = ["tensorflow/serving/predict", "tensorflow/serving/regress", "serving_tfrecord"]
    assert _chosen(compatibility=("tf_ranking", "ml4ir")) == ["predict", "list_example", *others]
    with pytest.raises(ConfigError, match=r"serving.default: expected one of the signatures .*'serving_tfrecord'"):
        ranking_config.parse({**RAW, "serving": {"default": "tensorflow/serving/predict", "compatibility": ["ml4ir"]}})


def test_postprocessing_adds_a_signature_with_the_functions_name():
    assert _chosen(postprocessing="shop.serving.best_three") == ["predict", "list_example", "best_three"]
    with pytest.raises(ConfigError, match="there is a signature 'rank'; give the function another name"):
        ranking_config.parse({**RAW, "serving": {"postprocessing": "shop.serving.rank"}})


def test_a_ranker_that_looks_at_the_whole_list_has_no_regress():
    rows = Serving(compatibility=("tf_ranking",)).rows
    assert list(signatures.refuse_item_by_item(rows, "of a test")) == ["predict", "list_example", signatures.PREDICT]
    with pytest.raises(ConfigError, match="'regress' scores each item by itself, but of a test; take 'regress' out"):
        signatures.refuse_item_by_item(SIGNATURES, "of a test")


def test_the_functions_of_every_kind_can_be_imported_and_every_kind_is_used():
    for kind in REQUESTS.values():
        assert callable(kind.load_make())
        assert callable(kind.load_parse())
    for kind in ANSWERS.values():
        assert callable(kind.load_build())
        assert callable(kind.load_pairs())
    rows = [row for table in (SIGNATURES, *signatures.COMPATIBILITY.values()) for row in table.values()]
    assert {row.request for row in rows} == set(REQUESTS)
    assert {row.answer for row in rows} == set(ANSWERS) - {"postprocessed"}


def test_an_unknown_kind_is_refused():
    row = Signature(sentence="None.", request="json", answer="scores")
    with pytest.raises(ConfigError, match="unknown kind of request 'json' in a signature; choose from elwc, sequ"):
        _ = row.request_kind
    with pytest.raises(ConfigError, match="unknown kind of answer 'best' in a signature; choose from scores, it"):
        _ = dataclasses.replace(row, answer="best").answer_kind


MODULE = """
import zlib

import tensorflow as tf

from tfx_ranking.components.serving import answers, parsing


def make(list_examples, config, extra_items):
    return [zlib.compress(each) for each in list_examples]


def parse(serialized, table):
    return parsing.parse_list_examples(tf.io.decode_compressed(serialized, "ZLIB"), table)


def build(ranker, batch):
    best = tf.RaggedTensor.from_row_splits(100 * ranker.outputs(batch)["scores"], batch.row_splits)
    return {"percent": best.to_tensor(-1.0)}


def pairs(outputs, trained):
    return [(100 * each, row[: len(each)]) for each, row in zip(trained.scores, outputs["percent"], strict=True)]
"""


def test_a_signature_from_outside_is_exported_proved_and_called(shop, tmp_path, monkeypatch):
    (tmp_path / "shop_signatures.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    raw = {**RAW, "serving": {"signatures": ["compressed"], "default": "compressed"}}
    with pytest.raises(ConfigError, match=r"serving\.signatures\[0\]: expected one of predict, .*; got 'compressed'"):
        ranking_config.parse(raw)
    zipped = RequestKind(
        sentence="a compressed list example for each list",
        make="shop_signatures.make",
        parse="shop_signatures.parse",
        training_names=True,
    )
    percent = AnswerKind(sentence="`percent`", build="shop_signatures.build", pairs="shop_signatures.pairs")
    row = Signature(sentence="Scores compressed list examples.", request="zipped", answer="percent", input="zipped")
    monkeypatch.setitem(REQUESTS, "zipped", zipped)
    monkeypatch.setitem(ANSWERS, "percent", percent)
    monkeypatch.setitem(SIGNATURES, "compressed", row)
    serving = ranking_config.parse(raw).serving
    assert list(serving.rows) == ["list_example", "compressed"]
    meaning = "Scores compressed list examples. Request: a compressed list example for each list. Answer: `percent`."
    assert meaning in json.dumps(reference.json_schema())
    assert meaning in reference.page()

    config = dataclasses.replace(small_rankers.SHOP, serving=dataclasses.replace(serving, parity_lists=4))
    report = signature_exporter.export(shop.paths, config, tmp_path / "out", tmp_path / "parity.json")
    assert list(report["signatures"]["compressed"]) == ["in batches", "alone", "in another order"]
    model = tmp_path / "out" / "Format-Serving"
    promised = contract.read(model)["signatures"]["compressed"]
    assert (promised["request"], promised["answer"]) == ("zipped", "percent")
    assert "compressed" in inspection.inspect(model).samples
    lists = small_rankers.random_lists(config, [2, 0, 3], seed=6)
    feed = client_requests.feed(row, lists, config)
    assert zlib.decompress(feed["zipped"][0]) == lists[0]
    [outputs] = serving_process.ask(str(model), {"compressed": [feed]})["compressed"]
    _, scores = shop.trained(lists)
    for expected, answered in percent.load_pairs()(outputs, answers.TrainedLists(scores=scores)):
        np.testing.assert_allclose(answered, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("request_kind", ["tensors", "sequence_example", "example"])
def test_every_kind_of_request_can_carry_the_items_ids(shop, request_kind, monkeypatch, tmp_path):
    """`ranked` returns them, with kinds of request that no row of the package joins it with."""
    row = Signature(sentence="Ranks.", request=request_kind, answer="ranked")
    monkeypatch.setitem(SIGNATURES, "ranks", row)
    serving = dataclasses.replace(small_rankers.SHOP.serving, signatures=("ranks",), default="ranks", compatibility=())
    config = dataclasses.replace(small_rankers.SHOP, serving=serving)
    ranker = signature_exporter.load_ranker(shop.paths, config)
    serving_ranker.save(ranker, str(tmp_path / "model"))
    lists = small_rankers.random_lists(config, [1] if request_kind == "example" else [3, 2], seed=7)
    feed = client_requests.feed(row, lists, config)
    [outputs] = serving_process.ask(str(tmp_path / "model"), {"ranks": [feed]})["ranks"]
    _, scores = shop.trained(lists)
    first = [b"item%d" % (start + each.argmax()) for start, each in zip((0, 3), scores)]
    assert outputs["item_ids"][:, 0].tolist() == first
