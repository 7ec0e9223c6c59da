"""Reads sparse tensors as ragged ones.

Input: a tensor of any kind, as `tf.io.parse_example` gives it.  Output: the same values; a `tf.SparseTensor` becomes a
`tf.RaggedTensor`.  TensorFlow Transform writes ragged outputs whose spec TensorFlow may read back as sparse.
"""

from typing import Any

import tensorflow as tf


def as_ragged(value: Any) -> Any:
    """The tensor as it is, but a sparse one as ragged.

    >>> as_ragged(tf.sparse.from_dense([[1, 2], [3, 0]])).to_list()
    [[1, 2], [3]]
    """
    return tf.RaggedTensor.from_sparse(value) if isinstance(value, tf.SparseTensor) else value
