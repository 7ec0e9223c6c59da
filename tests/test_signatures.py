"""What the transform graph is fed, in whatever layout its schema gave the raw features."""

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import signatures
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.list_examples import ListBatch, Tokens, columns

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "position": "rank"},
    "context": {"age": {}, "place": {"shape": [2]}, "words": {"dtype": "string", "tokens": {}}},
    "items": {"price": {}, "image": {"shape": [3]}, "title": {"dtype": "string", "tokens": {}}},
})  # fmt: skip
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
    value = signatures._raw_input(name, spec, BATCH, TABLE)
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


def test_list_example_is_always_there_and_unknown_names_are_refused():
    assert signatures.chosen_signatures([]) == ["list_example"]
    assert signatures.chosen_signatures(["list_example", "predict"]) == ["predict", "list_example"]
    with pytest.raises(ConfigError, match="unknown classify, prdict; choose from predict, list_example"):
        signatures.chosen_signatures(["prdict", "classify"])
    assert set(signatures.PROTOS) == set(signatures.SIGNATURES)
