"""The steps of numeric features, on blocks of columns.

Enters: float32 matrices [row, column] without NaN, each the columns that take the same steps.  Leaves: the same after
their steps, and the ids of what is bucketized.  The one idea: blocks that stand before the same analyzer go through it
side by side, so there is one analyzer for all numbers that need its statistic.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft

from tfx_ranking.components.config.feature_sections import Bucketize, Clip, Step

Blocks = dict[tuple[Step, ...], tf.Tensor]  # float32 [row, column], by the steps that its columns take


def take_steps(blocks: Blocks, splits: tf.Tensor | None) -> Blocks:
    """All steps but bucketize.  Blocks that stand before the same analyzer go through it side by side."""
    blocks = dict(blocks)
    left = {steps: [step for step in steps if not isinstance(step, Bucketize)] for steps in blocks}
    while any(left.values()):
        for steps, coming in left.items():
            while coming and coming[0] not in ANALYZED:
                blocks[steps] = PLAIN[_kind(coming[0])](blocks[steps], coming[0], splits)
                coming.pop(0)
        for kind, scale in ANALYZED.items():
            together = [steps for steps, coming in left.items() if coming[:1] == [kind]]
            if together:
                widths = [blocks[steps].shape[1] for steps in together]
                scaled = scale(tf.concat([blocks[steps] for steps in together], axis=1))
                for steps, block in zip(together, tf.split(scaled, widths, axis=1)):
                    blocks[steps] = block
                    left[steps].pop(0)
    return blocks


def _kind(step: Step) -> Any:
    return step if isinstance(step, str) else type(step)


def _log1p(x: tf.Tensor, step: Step, splits: tf.Tensor | None) -> tf.Tensor:
    return tf.math.log1p(tf.maximum(x, -1 + 2**-24))  # the next float32 above -1: no infinity, no NaN


def _sign_log1p(x: tf.Tensor, step: Step, splits: tf.Tensor | None) -> tf.Tensor:
    return tf.sign(x) * tf.math.log1p(tf.abs(x))


def _clip(x: tf.Tensor, step: Clip, splits: tf.Tensor | None) -> tf.Tensor:
    return tf.clip_by_value(x, *step.clip)


def _query_normalise(x: tf.Tensor, step: Step, splits: tf.Tensor) -> tf.Tensor:
    """(x - mean) / std over the items of each list, std with divisor n.

    Counted from each list's lowest value: then equal values are exactly 0 and no rounding error is blown up.
    """
    of = tf.ragged.row_splits_to_segment_ids(splits)
    x -= tf.gather(tf.math.segment_min(x, of), of)
    x -= tf.gather(tf.math.segment_mean(x, of), of)
    return tf.math.divide_no_nan(x, tf.sqrt(tf.gather(tf.math.segment_mean(x * x, of), of)))


def _z_score(x: tf.Tensor) -> tf.Tensor:
    """In float64, where sums of float32 values are exact: a constant column has no deviation at all, and is 0.

    TFT's own `scale_to_z_score` leaves what differs from a constant unscaled, and makes ±1 of rounding errors.
    """
    x = tf.cast(x, tf.float64)
    mean, variance = tft.mean(x, reduce_instance_dims=False), tft.var(x, reduce_instance_dims=False)
    # Only the difference needs float64's digits; the division in it took a third of the step when serving.
    scale = tf.math.reciprocal_no_nan(tf.sqrt(variance))
    return tf.cast(x - mean, tf.float32) * tf.cast(scale, tf.float32)


def _min_max(x: tf.Tensor) -> tf.Tensor:
    """One analyzer for both ends; TFT's own `scale_to_0_1` makes sigmoids of a constant column."""
    width = x.shape[1]
    high = tft.max(tf.concat([x, -x], axis=1), reduce_instance_dims=False)
    low = -high[width:]
    return tf.math.divide_no_nan(x - low, high[:width] - low)


ANALYZED: dict[str, Callable[[tf.Tensor], tf.Tensor]] = {"z_score": _z_score, "min_max": _min_max}
PLAIN: dict[Any, Callable[..., tf.Tensor]] = {
    "log1p": _log1p,
    "sign_log1p": _sign_log1p,
    "query_normalise": _query_normalise,
    Clip: _clip,
}


def ends_in_buckets(steps: Sequence[Step]) -> bool:
    return any(isinstance(step, Bucketize) for step in steps)


def bucketize(blocks: Blocks, places: Mapping[tuple[Step, ...], list[int]]) -> dict[int, tf.Tensor]:
    """The bucket of each value, int64 [row], by the column's place; one analyzer for each number of buckets."""
    by_number: dict[int, list[tuple[Step, ...]]] = {}
    for steps in blocks:
        if steps and isinstance(steps[-1], Bucketize):
            by_number.setdefault(steps[-1].bucketize, []).append(steps)
    ids = {}
    for number, together in by_number.items():
        x = tf.concat([blocks[steps] for steps in together], axis=1)
        epsilon = min(1 / number, 0.01)  # as tft.bucketize has it
        boundaries = tft.quantiles(x, number, epsilon, reduce_instance_dims=False)
        for i, place in enumerate(place for steps in together for place in places[steps]):
            ids[place] = tft.apply_buckets(x[:, i], boundaries[i : i + 1])
    return ids


def take_columns(matrix: tf.Tensor, places: list[int]) -> tf.Tensor:
    return matrix if places == list(range(matrix.shape[1])) else tf.gather(matrix, places, axis=1)
