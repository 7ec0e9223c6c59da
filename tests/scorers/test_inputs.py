"""The network's inputs from the transform graph's outputs."""

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.scorers.inputs import network_inputs


def test_network_inputs_of_every_kind():
    splits = tf.constant([0, 2, 3], tf.int64)
    numeric = tf.reshape(tf.range(6.0), [3, 2])
    tags = tf.RaggedTensor.from_row_lengths([4, 0, 1], [2, 0, 1])
    transformed = {
        "items/numeric": tf.RaggedTensor.from_row_splits(numeric, splits),
        "items/tags": tf.RaggedTensor.from_row_splits(tags, splits),
        "context/numeric": tf.constant([[7.0], [8.0]]),
        "context/text": tf.RaggedTensor.from_row_lengths([3], [0, 1]),
        "context/sparse": tf.sparse.from_dense([[1, 2], [3, 0]]),
        "label": tf.RaggedTensor.from_row_splits([0.0, 1.0, 0.0], splits),
        "group_id": tf.constant([b"a", b"b"]),
    }
    fed = network_inputs(transformed)
    expected = {
        "items/numeric": numeric,
        "items/tags": [4, 0, 1],
        "items/tags/row_lengths": [2, 0, 1],
        "context/numeric": [[7], [8]],
        "context/text": [3],
        "context/text/row_lengths": [0, 1],
        "context/sparse": [1, 2, 3],
        "context/sparse/row_lengths": [2, 1],
        "row_lengths": [2, 1],
    }
    assert set(fed) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(fed[name], value, name)
        assert fed[name].dtype == (tf.float32 if name.endswith("numeric") else tf.int64), name
    # In files, the width of a matrix is a uniform row length.
    uniform = tf.RaggedTensor.from_uniform_row_length(tf.range(6.0), 2)
    stored = network_inputs({"items/numeric": tf.RaggedTensor.from_row_splits(uniform, splits)})
    np.testing.assert_array_equal(stored["items/numeric"], numeric)


def test_refused_outputs():
    with pytest.raises(DataError, match=r"items/x: expected a ragged tensor \[list, \(item\)\]"):
        network_inputs({"items/x": tf.zeros([3])})
    with pytest.raises(DataError, match=r"no items/… output to score by; it gives \['label'\]"):
        network_inputs({"label": tf.zeros([3])})
