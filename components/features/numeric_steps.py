"""Applies the transform steps of numeric features, to blocks of columns.

Input: float32 matrices [row, column] without NaN; the columns of a matrix have the same steps.  Output: the matrices
after their steps, and the ids of bucketized columns.
The cost of TensorFlow Transform grows with the number of analyzers.  So all blocks whose next step is the same analyzer
go through it side by side, in one call.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from tfx_ranking.components.choices.transform_steps import TRANSFORM_STEPS, Step, StepWithParameter, row_of, step_name

Blocks = dict[tuple[Step, ...], tf.Tensor]  # float32 [row, column], by the steps of its columns


def take_steps(blocks: Blocks, splits: tf.Tensor | None) -> Blocks:
    """The blocks after all their steps except those that make buckets.

    splits: int64 [list + 1] for item features, None for context features.
    """
    blocks = dict(blocks)
    todo = {steps: [step for step in steps if row_of(step).kind != "buckets"] for steps in blocks}
    while any(todo.values()):
        for steps, remaining in todo.items():
            while remaining and row_of(remaining[0]).kind == "plain":
                blocks[steps] = _call(remaining.pop(0), blocks[steps], splits)
        for step in _in_table_order(remaining[0] for remaining in todo.values() if remaining):
            together = [steps for steps, remaining in todo.items() if remaining[:1] == [step]]
            widths = [blocks[steps].shape[1] for steps in together]
            scaled = _call(step, tf.concat([blocks[steps] for steps in together], axis=1), splits)
            for steps, block in zip(together, tf.split(scaled, widths, axis=1)):
                blocks[steps] = block
                todo[steps].pop(0)
    return blocks


def ends_in_buckets(steps: Sequence[Step]) -> bool:
    """Whether the steps turn a number into a category."""
    return any(row_of(step).kind == "buckets" for step in steps)


def bucket_ids(
    blocks: Blocks, columns: Mapping[tuple[Step, ...], list[int]], splits: tf.Tensor | None
) -> dict[int, tf.Tensor]:
    """The bucket of each value, int64 [row], by the column's number; one analyzer for each number of buckets.

    columns: the numbers of each block's columns in the whole matrix.
    """
    by_step: dict[Step, list[tuple[Step, ...]]] = {}
    for steps in blocks:
        if steps and row_of(steps[-1]).kind == "buckets":
            by_step.setdefault(steps[-1], []).append(steps)
    ids: dict[int, tf.Tensor] = {}
    for step, together in by_step.items():
        buckets = _call(step, tf.concat([blocks[steps] for steps in together], axis=1), splits)
        ids.update(zip((number for steps in together for number in columns[steps]), buckets))
    return ids


def _call(step: Step, x: tf.Tensor, row_splits: tf.Tensor | None) -> Any:
    parameter = step.value if isinstance(step, StepWithParameter) else None
    return row_of(step).load()(x, parameter, row_splits)


def _in_table_order(steps: Iterable[Step]) -> list[Step]:
    order = list(TRANSFORM_STEPS)
    return sorted(dict.fromkeys(steps), key=lambda step: order.index(step_name(step)))


def log1p(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """log(1 + x).  A value of -1 or less counts as the next float32 above -1, so the result is always finite."""
    return tf.math.log1p(tf.maximum(x, -1 + 2**-24))


def sign_log1p(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """sign(x) · log(1 + abs(x))."""
    return tf.sign(x) * tf.math.log1p(tf.abs(x))


def clip(x: tf.Tensor, ends: tuple[float, float], row_splits: tf.Tensor | None) -> tf.Tensor:
    """x, with values outside of the ends set to the nearer end."""
    return tf.clip_by_value(x, *ends)


def query_normalise(x: tf.Tensor, parameter: None, row_splits: tf.Tensor) -> tf.Tensor:
    """(x - mean) / std over the items of each list, std with divisor n.

    The list's lowest value is subtracted first, so that equal values become exactly 0 and not a rounding error.
    """
    of = tf.ragged.row_splits_to_segment_ids(row_splits)
    x -= tf.gather(tf.math.segment_min(x, of), of)
    x -= tf.gather(tf.math.segment_mean(x, of), of)
    return tf.math.divide_no_nan(x, tf.sqrt(tf.gather(tf.math.segment_mean(x * x, of), of)))


def z_score(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """(x - mean) / std of the training data; 0 for a constant column.

    The sums are in float64, where they are exact for float32 values, so a constant column has a deviation of exactly 0.
    TFT's own `scale_to_z_score` turns the rounding errors of a constant column into ±1.
    """
    x = tf.cast(x, tf.float64)
    mean, variance = tft.mean(x, reduce_instance_dims=False), tft.var(x, reduce_instance_dims=False)
    # Only the difference needs float64. A division in float64 took a third of this step's time in serving.
    scale = tf.math.reciprocal_no_nan(tf.sqrt(variance))
    return tf.cast(x - mean, tf.float32) * tf.cast(scale, tf.float32)


def min_max(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """(x - min) / (max - min) of the training data; 0 for a constant column.

    One analyzer computes both ends.  TFT's own `scale_to_0_1` replaces a constant column by its sigmoid.
    """
    width = x.shape[1]
    high = tft.max(tf.concat([x, -x], axis=1), reduce_instance_dims=False)
    low = -high[width:]
    return tf.math.divide_no_nan(x - low, high[:width] - low)


def quantile_buckets(x: tf.Tensor, number: int, row_splits: tf.Tensor | None) -> list[tf.Tensor]:
    """The quantile bucket of each value: int64 [row], 0 to number - 1, for each column."""
    epsilon = min(1 / number, 0.01)  # as in tft.bucketize
    boundaries = tft.quantiles(x, number, epsilon, reduce_instance_dims=False)
    return [tft.apply_buckets(x[:, i], boundaries[i : i + 1]) for i in range(x.shape[1])]


def take_columns(matrix: tf.Tensor, numbers: list[int]) -> tf.Tensor:
    """The columns of these numbers, in this order."""
    return matrix if numbers == list(range(matrix.shape[1])) else tf.gather(matrix, numbers, axis=1)
