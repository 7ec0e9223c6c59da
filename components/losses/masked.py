"""What every loss does with padding: clean tensors going in, and the counts to divide by.

Input: `[list, item]` tensors and the mask that marks which items exist.  Output: the same tensors with 0 in padding.
"""

from typing import Any

import tensorflow as tf

Tensor = Any  # tf.Tensor; TensorFlow ships no types that mypy could check


def clean(scores: Tensor, labels: Tensor, mask: Tensor, weights: Tensor | None) -> tuple[Tensor, ...]:
    """Scores, labels, mask and weights as tensors, the floats of one dtype and with 0 in padding.

    weights: None stands for 1.0 everywhere.
    A NaN left in padding would spoil a gradient even after a multiplication by 0.
    """
    mask = tf.cast(mask, tf.bool)
    scores = tf.convert_to_tensor(scores)
    labels = tf.cast(labels, scores.dtype)
    weights = tf.ones_like(scores) if weights is None else tf.cast(weights, scores.dtype)
    return (tf.where(mask, scores, 0.0), tf.where(mask, labels, 0.0), mask, tf.where(mask, weights, 0.0))


def mean_over_lists(per_list: Tensor, mask: Tensor) -> Tensor:
    """The mean of `[list]` values over the lists that have an item; 0.0 without such a list."""
    return tf.math.divide_no_nan(tf.reduce_sum(per_list), _lists(mask, per_list.dtype))


def mean_over_slots(total: Tensor, mask: Tensor) -> Tensor:
    """A sum, divided by lists x items of the longest list; 0.0 without an item.

    TensorFlow Ranking divides by the padded size.  Here the longest list counts, so that more padding changes nothing.
    """
    longest = tf.reduce_max(tf.reduce_sum(tf.cast(mask, tf.int32), axis=1))
    slots = _lists(mask, total.dtype) * tf.cast(tf.maximum(longest, 0), total.dtype)
    return tf.math.divide_no_nan(total, slots)


def _lists(mask: Tensor, dtype: Any) -> Tensor:
    return tf.reduce_sum(tf.cast(tf.reduce_any(mask, axis=1), dtype))
