"""Which signatures a config has, and what the transform graph is fed, whatever layout its schema gave the features."""

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices import signatures
from tfx_ranking.components.config.serving_section import Serving
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns
from tfx_ranking.components.serving import answers, parsing, serving_ranker

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


def _fed(name, spec):
    value = serving_ranker._raw_input(name, spec, BATCH, TABLE)
    assert spec.is_compatible_with(value), (spec, value)
    return value.to_list() if isinstance(value, tf.RaggedTensor) else value


def _ragged(dtype, row_splits_dtype=tf.int64):
    return tf.RaggedTensorSpec([None, None], dtype, 1, row_splits_dtype)


def test_the_layouts_of_our_schema():
    assert _fed("age", tf.TensorSpec([None], tf.float32)).numpy().tolist() == [30, 40]
    assert _fed("place", tf.TensorSpec([None, 2], tf.float32)).numpy().tolist() == [[1, 2], [3, 4]]
    assert _fed("words", _ragged(tf.string)) == [[b"a"], [b"b", b"c"]]
    assert _fed("price", _ragged(tf.float32)) == [[1, 2], [3]]
    assert _fed("image", _ragged(tf.float32)) == [[0, 1, 2, 3, 4, 5], [6, 7, 8]]
    assert _fed("title", _ragged(tf.string)) == [[b"x", b"y"], [b"z"]]
    assert _fed("title/row_lengths", _ragged(tf.int64)) == [[2, 0], [1]]


def test_the_layouts_of_a_curated_schema():
    assert _fed("age", tf.TensorSpec([None, 1], tf.float32)).numpy().tolist() == [[30], [40]]
    assert _fed("age", _ragged(tf.float32)) == [[30], [40]]
    assert _fed("price", _ragged(tf.float32, tf.int32)) == [[1, 2], [3]]
    sparse = _fed("price", tf.SparseTensorSpec([None, None], tf.float32))
    np.testing.assert_array_equal(tf.sparse.to_dense(sparse), [[1, 2], [3, 0]])


def test_what_no_request_carries_is_blank_in_the_lists_shape():
    assert _fed("label", _ragged(tf.float32)) == [[0, 0], [0]]
    assert _fed("rank", _ragged(tf.int64)) == [[0, 0], [0]]
    assert _fed("group_id", tf.TensorSpec([None], tf.string)).numpy().tolist() == [b"", b""]
    assert _fed("unheard_of", _ragged(tf.string)) == [[b""], [b""]]


def _chosen(**serving):
    return list(Serving(**serving).rows)


def test_list_example_is_always_there_and_unknown_names_are_refused():
    assert _chosen(signatures=(), default="list_example") == ["list_example"]
    assert _chosen(signatures=("list_example", "predict")) == ["predict", "list_example"]
    with pytest.raises(ConfigError, match="unknown classify, prdict; choose from predict, sequence_example, list_ex"):
        ranking_config.parse({**RAW, "serving": {"signatures": ["prdict", "classify"]}})


def test_compatibility_adds_what_clients_of_other_systems_call():
    others = ["tensorflow/serving/predict", "tensorflow/serving/regress", "serving_tfrecord"]
    assert _chosen(compatibility=("tf_ranking", "ml4ir")) == ["predict", "list_example", *others]
    with pytest.raises(ConfigError, match=r"serving.default: expected one of the signatures .*'serving_tfrecord'"):
        ranking_config.parse({**RAW, "serving": {"default": "tensorflow/serving/predict", "compatibility": ["ml4ir"]}})


def test_postprocessing_adds_a_signature_of_the_functions_name():
    assert _chosen(postprocessing="shop.serving.best_three") == ["predict", "list_example", "best_three"]
    with pytest.raises(ConfigError, match="there is a signature 'rank'; give the function another name"):
        ranking_config.parse({**RAW, "serving": {"postprocessing": "shop.serving.rank"}})


def test_a_ranker_that_looks_at_the_whole_list_has_no_regress():
    rows = Serving(compatibility=("tf_ranking",)).rows
    assert list(signatures.refuse_item_by_item(rows, "it says so")) == ["predict", "list_example", signatures.PREDICT]
    with pytest.raises(ConfigError, match="'regress' scores each item by itself, but it says so; take 'regress' out"):
        signatures.refuse_item_by_item(signatures.SIGNATURES, "it says so")


def test_every_row_has_a_parser_and_an_answer_that_the_proof_can_read():
    tables = (signatures.SIGNATURES, *signatures.COMPATIBILITY.values())
    rows = [*(row for table in tables for row in table.values()), signatures.Signature("elwc", "postprocessed")]
    assert {row.request for row in rows} == {*parsing.PARSERS, "tensors"}
    assert {row.answer for row in rows} == set(answers.ANSWERS)
    assert {name for name, answer in answers.ANSWERS.items() if not answer.read} == {"transformed", "postprocessed"}
