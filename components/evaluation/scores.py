"""Scores lists with an exported model's `list_example` signature.

Input: serialized list examples.  Output: one score per item, without the padding of short lists.
"""

from typing import Any

import numpy as np

from tfx_ranking.components.errors import DataError

SIGNATURE = "list_example"


def scores_and_sizes(signature: Any, serialized: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Scores serialized list examples.

    signature: the exported `list_example` signature.
    Returns the scores, float32 [item], the first list's scores first, and the lists' sizes, int64 [list].
    """
    import tensorflow as tf

    outputs = signature(inputs=tf.constant(serialized, tf.string))
    scores, sizes = outputs["scores"].numpy(), outputs["sizes"].numpy()
    return scores[np.arange(scores.shape[1]) < sizes[:, None]], sizes


def score_lists(signature: Any, serialized: list[bytes], row_splits: np.ndarray) -> np.ndarray:
    """Scores serialized list examples with labels; returns the scores, float32 [item].

    row_splits: int64 [list + 1], of the labels.
    Raises DataError if the model scores another number of items in a list than there are labels.
    """
    scores, sizes = scores_and_sizes(signature, serialized)
    expected = np.diff(row_splits)
    if not np.array_equal(sizes, expected):
        bad = int(np.flatnonzero(sizes != expected)[0])
        raise DataError(f"list {bad} of the batch: expected {expected[bad]} scores, one per label; got {sizes[bad]}.")
    return scores
