"""Builds TensorFlow Transform's `preprocessing_fn` from the config.

Input: the raw features of a batch of lists, in the form that the schema of `schema_gen` gives them.
Output: `items/numeric` and `context/numeric`, one float32 matrix each; an int64 id for every category; and, for
training only, `label`, `weight`, `position` and `group_id`.

The graph works in this order: missing floats (NaN) become the feature's default, then the feature's steps are applied,
then the columns are put into the config's order.  The cost of TensorFlow Transform grows with the number of analyzers,
so all numbers that need the same statistic are columns of one matrix.  The graph has only TensorFlow's own ops, so
TensorFlow Serving can run it.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import schema_inference

from tfx_ranking.components import config as config_file
from tfx_ranking.components.choices.transform_steps import Step
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.feature_sections import Feature, TokenVocabulary
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.features.feature_columns import LEVELS, Level, vocabulary_file
from tfx_ranking.components.features.feature_columns import numeric_columns as numeric_columns  # until 0.3: 0.1's place
from tfx_ranking.components.features.numeric_steps import bucket_ids, ends_in_buckets, take_columns, take_steps
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS

READS = (
    *("data.group_id", "data.label", "data.weight", "data.position"),
    *(
        f"{level}.*.{key}"
        for level in LEVELS
        for key in ("dtype", "shape", "default", "indicator", "transform", "vocabulary", "hash", "tokens")
    ),
)


def preprocessing_fn(inputs: Mapping[str, Any], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """TensorFlow Transform's `preprocessing_fn`.  Each feature's steps are rows of `choices.transform_steps`.

    custom_config: {"config": a selection of the config by READS}.
    inputs: the raw features by column name.  Context: scalars [list], vectors [list, d].  Items: scalars ragged
    [list, (item)], vectors flat [list, (item · d)].  Tokens: flat [list, (token)]; those of items have a second column
    `<name>/row_lengths` [list, (item)].
    Returns `items/numeric` float32 ragged [list, (item), D] and `context/numeric` float32 [list, D], whose columns
    `features.feature_columns` names; `<level>/<name>` int64 for each category: [list] or ragged [list, (item)], for
    tokens [list, (token)] or [list, (item), (token)]; and those of `label`, `weight`, `position`, `group_id` that the
    inputs have.  A level without numbers has no matrix; an empty list has no rows.
    Raises DataError when a feature is not in the inputs, or has another layout than above.
    """
    config = config_file.from_selection(custom_config["config"])
    absent = sorted(_needed_columns(config) - {*inputs})
    if absent:
        raise DataError(f"features {absent} of the config are not in the examples' schema; it has {sorted(inputs)}.")
    _check_layout(inputs, config)
    splits = _item_splits(inputs, config)
    outputs: dict[str, Any] = {}
    for level in LEVELS:
        features = getattr(config, level)
        rows = splits if level == "items" else None
        numbers, ids = _numbers(inputs, {name: each for name, each in features.items() if _is_number(each)}, rows)
        if numbers is not None:
            outputs[f"{level}/numeric"] = _in_lists(numbers, rows)
        for name, feature in features.items():
            if feature.tokens is not None:
                ids[name] = _tokens(inputs, level, name, feature, feature.tokens)
            elif not _is_number(feature):
                ids[name] = _category(_flat_rows(inputs[name], feature), level, name, feature)
        outputs.update({f"{level}/{name}": _in_lists(value, rows) for name, value in ids.items()})
    return {**outputs, **_for_training(inputs, config)}


def _needed_columns(config: RankingConfig) -> set[str]:
    lengths = {name + ROW_LENGTHS for name, feature in config.items.items() if feature.tokens}
    return {*config.features, *lengths}


def _check_layout(inputs: Mapping[str, Any], config: RankingConfig) -> None:
    """Raises DataError for a feature that a hand-written schema gives another layout than RankingSchemaGen's."""
    for name, feature in config.features.items():
        ragged = name in config.items or feature.tokens is not None
        if isinstance(inputs[name], tf.RaggedTensor if ragged else tf.Tensor):
            continue
        expected = "a ragged list: no shape, and represent_variable_length_as_ragged: true" if ragged else "a shape"
        raise DataError(f"{name}: expected {expected} in the schema; got a {type(inputs[name]).__name__}.")


def _item_splits(inputs: Mapping[str, Any], config: RankingConfig) -> tf.Tensor:
    """Row splits of the items, int64 [list + 1].  The first item feature decides; all have the same lengths."""
    name, feature = next(iter(config.items.items()))
    if feature.tokens:
        return inputs[name + ROW_LENGTHS].row_splits
    return inputs[name].row_splits // feature.width


def _is_number(feature: Feature) -> bool:
    """Whether the raw feature is used as a number, which a bucketize step may still turn into a category."""
    return feature.vocabulary is None and feature.hash is None and feature.tokens is None


def _flat_rows(value: Any, feature: Feature) -> tf.Tensor:
    """The values [row], or [row, width] for a vector.  A row is a list or an item."""
    values = value.flat_values if isinstance(value, tf.RaggedTensor) else value
    if feature.shape:
        return tf.reshape(values, [-1, feature.width])
    return values if values.shape.rank == 1 else tf.reshape(values, [-1])


def _in_lists(rows: Any, splits: tf.Tensor | None) -> Any:
    """Item rows as ragged [list, (item), …]; context rows, without splits, as they are."""
    return rows if splits is None else tf.RaggedTensor.from_row_splits(rows, splits, validate=False)


def _for_training(inputs: Mapping[str, Any], config: RankingConfig) -> dict[str, Any]:
    outputs = {}
    for role, column in config.data.columns.items():
        if role in ("label", "weight", "position", "group_id") and column in inputs:
            outputs[role] = inputs[column]
    if "weight" in outputs:  # a missing weight counts as 1
        outputs["weight"] = outputs["weight"].with_flat_values(_fill(outputs["weight"].flat_values, 1.0))
    return outputs


def _numbers(
    inputs: Mapping[str, Any], features: Mapping[str, Feature], splits: tf.Tensor | None
) -> tuple[tf.Tensor | None, dict[str, tf.Tensor]]:
    """The matrix of numbers, and the ids of the bucketized features.

    Returns float32 [row, column], its columns as in `feature_columns.columns`, or None without a column; and int64
    [row] by feature name.
    """
    owners = [name for name, feature in features.items() for _ in range(feature.width)]  # the feature of each column
    if not owners:
        return None, {}
    raw = _matrix([tf.cast(_flat_rows(inputs[name], feature), tf.float32) for name, feature in features.items()])
    nan = tf.math.is_nan(raw)
    filled = tf.where(nan, tf.constant([float(features[name].missing) for name in owners]), raw)

    columns: dict[tuple[Step, ...], list[int]] = {}  # the numbers of the columns with the same steps
    for number, name in enumerate(owners):
        columns.setdefault(features[name].transform, []).append(number)
    blocks = {steps: take_columns(filled, numbers) for steps, numbers in columns.items()}
    blocks = take_steps(blocks, splits)
    ids = {owners[at]: column for at, column in bucket_ids(blocks, columns, splits).items()}

    numeric = [steps for steps in blocks if not ends_in_buckets(steps)]
    parts = [blocks[steps] for steps in numeric]
    order = [number for steps in numeric for number in columns[steps]]
    if order != sorted(order):
        parts = [take_columns(tf.concat(parts, axis=1), [order.index(number) for number in sorted(order)])]
    for name, feature in features.items():
        if feature.indicator:
            missing = take_columns(nan, [number for number, owner in enumerate(owners) if owner == name])
            parts.append(tf.cast(tf.reduce_any(missing, axis=1, keepdims=True), tf.float32))
    return (tf.concat(parts, axis=1) if parts else None), ids


def _matrix(columns: Sequence[tf.Tensor]) -> tf.Tensor:
    """Columns [row] and [row, width] side by side, as [row, column].  One op stacks all neighbouring scalars."""
    parts: list[tf.Tensor] = []
    for is_scalar, run in itertools.groupby(columns, lambda column: column.shape.rank == 1):
        each = list(run)
        parts += [tf.stack(each, axis=1)] if is_scalar else each
    return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)


def _category(values: tf.Tensor, level: Level, name: str, feature: Feature) -> tf.Tensor:
    """The int64 ids of the values, in the same shape.  A missing string becomes the feature's default first."""
    if feature.dtype == "string" and feature.missing:
        values = tf.where(values == "", tf.constant(feature.missing), values)
    if feature.hash is not None:
        strings = values if values.dtype == tf.string else tf.strings.as_string(values)
        ids = tf.strings.to_hash_bucket_fast(strings, feature.hash.num_buckets)
        last = tf.constant(feature.hash.num_buckets - 1, tf.int64)
        schema_inference.set_tensor_schema_override(ids, tf.constant(0, tf.int64), last)
        return ids
    learned = feature.tokens or feature.vocabulary
    assert learned is not None  # the config has no string without a vocabulary or a hash
    return tft.compute_and_apply_vocabulary(
        values,
        top_k=learned.top_k,
        frequency_threshold=learned.frequency_threshold,
        num_oov_buckets=learned.num_oov_buckets,
        vocab_filename=vocabulary_file(level, name),
    )


def _tokens(
    inputs: Mapping[str, Any], level: Level, name: str, feature: Feature, how: TokenVocabulary
) -> tf.RaggedTensor:
    """The ids of the tokens, ragged [row, (token)].  A text, or each of several strings, is split at white space."""
    if level == "items":
        pieces = tf.RaggedTensor.from_row_lengths(
            inputs[name].flat_values, inputs[name + ROW_LENGTHS].flat_values, validate=False
        )
    else:
        pieces = inputs[name]
    text = tf.strings.lower(pieces.flat_values, encoding="utf-8") if how.lower else pieces.flat_values
    tokens = pieces.with_flat_values(tf.strings.split(text)).merge_dims(1, 2)
    if feature.missing:
        empty = tf.cast(tokens.row_lengths() == 0, tf.int64)
        defaults = tf.fill([tf.reduce_sum(empty)], tf.constant(feature.missing))
        tokens = tf.concat([tokens, tf.RaggedTensor.from_row_lengths(defaults, empty, validate=False)], axis=1)
    return tokens.with_flat_values(_category(tokens.flat_values, level, name, feature))


def _fill(values: tf.Tensor, default: float) -> tf.Tensor:
    return tf.where(tf.math.is_nan(values), tf.constant(default, values.dtype), values)
