"""The steps of numeric features, on blocks of columns.

Enters: float32 matrices [row, column] without NaN, each the columns that take the same steps.  Leaves: the same after
their steps, and the ids of what is bucketized.  The one idea: blocks that stand before the same analyzer go through it
side by side, so there is one analyzer for all numbers that need its statistic.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from tfx_ranking.components.choices.transform_steps import TRANSFORM_STEPS, Step, StepWithParameter, row_of, step_name

Blocks = dict[tuple[Step, ...], tf.Tensor]  # float32 [row, column], by the steps that its columns take


def take_steps(blocks: Blocks, splits: tf.Tensor | None) -> Blocks:
    """All steps but those that make buckets.  Blocks that stand before the same analyzer go through it side by side."""
    blocks = dict(blocks)
    left = {steps: [step for step in steps if row_of(step).kind != "buckets"] for steps in blocks}
    while any(left.values()):
        for steps, coming in left.items():
            while coming and row_of(coming[0]).kind == "plain":
                blocks[steps] = _call(coming.pop(0), blocks[steps], splits)
        for step in _in_the_tables_order(coming[0] for coming in left.values() if coming):
            together = [steps for steps, coming in left.items() if coming[:1] == [step]]
            widths = [blocks[steps].shape[1] for steps in together]
            scaled = _call(step, tf.concat([blocks[steps] for steps in together], axis=1), splits)
            for steps, block in zip(together, tf.split(scaled, widths, axis=1)):
                blocks[steps] = block
                left[steps].pop(0)
    return blocks


def ends_in_buckets(steps: Sequence[Step]) -> bool:
    return any(row_of(step).kind == "buckets" for step in steps)


def bucket_ids(
    blocks: Blocks, places: Mapping[tuple[Step, ...], list[int]], splits: tf.Tensor | None
) -> dict[int, tf.Tensor]:
    """The bucket of each value, int64 [row], by the column's place; one analyzer for each number of buckets."""
    by_step: dict[Step, list[tuple[Step, ...]]] = {}
    for steps in blocks:
        if steps and row_of(steps[-1]).kind == "buckets":
            by_step.setdefault(steps[-1], []).append(steps)
    ids: dict[int, tf.Tensor] = {}
    for step, together in by_step.items():
        columns = _call(step, tf.concat([blocks[steps] for steps in together], axis=1), splits)
        ids.update(zip((place for steps in together for place in places[steps]), columns))
    return ids


def _call(step: Step, x: tf.Tensor, row_splits: tf.Tensor | None) -> Any:
    parameter = step.value if isinstance(step, StepWithParameter) else None
    return row_of(step).load()(x, parameter, row_splits)


def _in_the_tables_order(steps: Iterable[Step]) -> list[Step]:
    order = list(TRANSFORM_STEPS)
    return sorted(dict.fromkeys(steps), key=lambda step: order.index(step_name(step)))


def log1p(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """log(1 + x); a value of -1 or less is taken as the next float32 above -1: no infinity, no NaN."""
    return tf.math.log1p(tf.maximum(x, -1 + 2**-24))


def sign_log1p(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """sign(x) · log(1 + abs(x))."""
    return tf.sign(x) * tf.math.log1p(tf.abs(x))


def clip(x: tf.Tensor, ends: tuple[float, float], row_splits: tf.Tensor | None) -> tf.Tensor:
    """Values outside of the ends are set to the nearer end."""
    return tf.clip_by_value(x, *ends)


def query_normalise(x: tf.Tensor, parameter: None, row_splits: tf.Tensor) -> tf.Tensor:
    """(x - mean) / std over the items of each list, std with divisor n.

    Counted from each list's lowest value: then equal values are exactly 0 and no rounding error is blown up.
    """
    of = tf.ragged.row_splits_to_segment_ids(row_splits)
    x -= tf.gather(tf.math.segment_min(x, of), of)
    x -= tf.gather(tf.math.segment_mean(x, of), of)
    return tf.math.divide_no_nan(x, tf.sqrt(tf.gather(tf.math.segment_mean(x * x, of), of)))


def z_score(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """In float64, where sums of float32 values are exact: a constant column has no deviation at all, and is 0.

    TFT's own `scale_to_z_score` leaves what differs from a constant unscaled, and makes ±1 of rounding errors.
    """
    x = tf.cast(x, tf.float64)
    mean, variance = tft.mean(x, reduce_instance_dims=False), tft.var(x, reduce_instance_dims=False)
    # Only the difference needs float64's digits; the division in it took a third of the step when serving.
    scale = tf.math.reciprocal_no_nan(tf.sqrt(variance))
    return tf.cast(x - mean, tf.float32) * tf.cast(scale, tf.float32)


def min_max(x: tf.Tensor, parameter: None, row_splits: tf.Tensor | None) -> tf.Tensor:
    """One analyzer for both ends; TFT's own `scale_to_0_1` makes sigmoids of a constant column."""
    width = x.shape[1]
    high = tft.max(tf.concat([x, -x], axis=1), reduce_instance_dims=False)
    low = -high[width:]
    return tf.math.divide_no_nan(x - low, high[:width] - low)


def quantile_buckets(x: tf.Tensor, number: int, row_splits: tf.Tensor | None) -> list[tf.Tensor]:
    """The quantile bucket of each value: int64 [row], 0 to number - 1, for each column."""
    epsilon = min(1 / number, 0.01)  # as tft.bucketize has it
    boundaries = tft.quantiles(x, number, epsilon, reduce_instance_dims=False)
    return [tft.apply_buckets(x[:, i], boundaries[i : i + 1]) for i in range(x.shape[1])]


def take_columns(matrix: tf.Tensor, places: list[int]) -> tf.Tensor:
    return matrix if places == list(range(matrix.shape[1])) else tf.gather(matrix, places, axis=1)
