"""Converts sparse tensors to ragged tensors.

Input: any tensor that `tf.io.parse_example` returns.  Output: the same values; a `tf.SparseTensor` becomes a
`tf.RaggedTensor`.  This is needed because TensorFlow may read ragged outputs of TensorFlow Transform as sparse.
"""

from typing import Any

import tensorflow as tf


def as_ragged(value: Any) -> Any:
    """The same tensor, but a ragged one where it is sparse.

    >>> as_ragged(tf.sparse.from_dense([[1, 2], [3, 0]])).to_list()
    [[1, 2], [3]]
    """
    return tf.RaggedTensor.from_sparse(value) if isinstance(value, tf.SparseTensor) else value
