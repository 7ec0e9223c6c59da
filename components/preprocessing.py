"""Preprocessing derived from the config: raw list examples in, the scorer's numbers and ids out.

Enters: the raw features of a batch of lists, as the schema of `schema_gen` gives them.  Leaves: `items/numeric` and
`context/numeric`, one float32 matrix each, an int64 id for every category, and, for training only, `label`, `weight`,
`position` and `group_id`.  The one idea: the cost of TensorFlow Transform follows the number of analyzers, so all
numbers that need one statistic are columns of one matrix.

In the order of the graph: missing floats (NaN) become the feature's default, then the feature's steps, then the
columns go back to the config's order.  Only ops of TensorFlow itself, so TensorFlow Serving runs the graph.
"""

import ast
import hashlib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_transform import schema_inference

from tfx_ranking.components import config as config_file
from tfx_ranking.components.config import Bucketize, Clip, Feature, RankingConfig, Step, Tokens
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.list_examples import ROW_LENGTHS

Level = Literal["context", "items"]
LEVELS: tuple[Level, ...] = ("context", "items")
READS = (
    *("data.group_id", "data.label", "data.weight", "data.position"),
    *(
        f"{level}.*.{key}"
        for level in LEVELS
        for key in ("dtype", "shape", "default", "indicator", "transform", "vocabulary", "hash", "tokens")
    ),
)


def preprocessing_fn(inputs: Mapping[str, Any], custom_config: Mapping[str, Any]) -> dict[str, Any]:
    """TensorFlow Transform's `preprocessing_fn`, as `custom_config["config"]` (a selection of the config) has it.

    inputs: raw features by column; context scalars [list], vectors [list, d], item features ragged [list, (item)],
    vectors flat [list, (item · d)], tokens flat [list, (token)] beside `<name>/row_lengths` [list, (item)].
    Returns `items/numeric` float32 ragged [list, (item), D], `context/numeric` float32 [list, D], their columns named
    by `numeric_columns`; `<level>/<name>` int64 for each category: [list], ragged [list, (item)], tokens
    [list, (token)] or [list, (item), (token)]; and what of `label`, `weight`, `position`, `group_id` is in the inputs.
    A level without numbers has no matrix; an empty list has no rows.

    The steps of a feature: z_score (0 for a constant column), min_max ([0, 1] in training, not cut in serving; 0 for a
    constant column), log1p (of a number of -1 and less: of the smallest float32 step above -1), sign_log1p
    (sign(x) · log1p(|x|)), clip, query_normalise (z-score within the list; 0 where all its items are equal),
    bucketize (quantiles; the bucket's number is a category).
    Raises DataError when a feature is not in the inputs.
    """
    config = config_file.from_selection(dict(custom_config["config"]))
    absent = sorted(_wanted(config) - {*inputs})
    if absent:
        raise DataError(f"features {absent} of the config are not in the examples' schema; it holds {sorted(inputs)}.")
    sparse = sorted(name for name in config.items if not isinstance(inputs[name], tf.RaggedTensor))
    if sparse:
        raise DataError(
            f"item features {sparse}: expected ragged lists; got {type(inputs[sparse[0]]).__name__}. "
            "Set represent_variable_length_as_ragged: true in the curated schema (data.schema), and give them no shape."
        )
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


def numeric_columns(config: RankingConfig, level: Level) -> list[str]:
    """The names of the columns of `<level>/numeric`: features in the config's order, then the indicators.

    >>> items = {"price": {"indicator": True}, "grade": {"transform": [{"bucketize": 4}]}, "image": {"shape": [2]}}
    >>> config = config_file.parse({"name": "a", "data": {"input": "x", "format": "csv"}, "items": items})
    >>> numeric_columns(config, "items")
    ['price', 'image[0]', 'image[1]', 'price/missing']
    """
    features: Mapping[str, Feature] = getattr(config, level)
    names = []
    for name, feature in features.items():
        if not feature.is_category:
            names += [f"{name}[{i}]" for i in range(feature.width)] if feature.shape else [name]
    return names + [f"{name}/missing" for name, feature in features.items() if feature.indicator]


def function_digest(dotted: str) -> str:
    """Digest of the source of the module behind a dotted path, so that an edited line is another execution property.

    The module is found but not run.  Raises ConfigError when there is no such module or no such name in it.

    >>> len(function_digest("tfx_ranking.components.preprocessing.preprocessing_fn"))
    32
    """
    module, _, name = dotted.rpartition(".")
    try:
        spec = importlib.util.find_spec(module) if module else None
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise ConfigError(
            f"{dotted}: there is no module {module!r} to import. Expected package.module.function; "
            "put the module's folder on PYTHONPATH, or install it."
        )
    with open(spec.origin, "rb") as file:
        source = file.read()
    if spec.origin.endswith(".py") and name not in (names := _names(source)) and "*" not in names:
        raise ConfigError(f"{dotted}: {spec.origin} has no {name!r}; it defines {sorted(names)}. Define it there.")
    return hashlib.blake2b(source, digest_size=16).hexdigest()


def _names(source: bytes) -> set[str]:
    """What a module's source binds at its top level; "*" when it imports all of another."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names.update(alias.asname or alias.name for alias in node.names)
    return names


def _wanted(config: RankingConfig) -> set[str]:
    lengths = {name + ROW_LENGTHS for name, feature in config.items.items() if feature.tokens}
    return {*config.features, *lengths}


def _item_splits(inputs: Mapping[str, Any], config: RankingConfig) -> tf.Tensor:
    """Row splits of the items, int64 [list + 1]; all item features of a list have one length."""
    name, feature = next(iter(config.items.items()))
    if feature.tokens:
        return inputs[name + ROW_LENGTHS].row_splits
    return inputs[name].row_splits // feature.width


def _is_number(feature: Feature) -> bool:
    """Whether it starts as a number, which bucketize may then turn into a category."""
    return feature.vocabulary is None and feature.hash is None and feature.tokens is None


def _flat_rows(value: Any, feature: Feature) -> tf.Tensor:
    """[row], or [row, width] for a vector: a row is a list or an item."""
    values = value.flat_values if isinstance(value, tf.RaggedTensor) else value
    return tf.reshape(values, [-1, feature.width] if feature.shape else [-1])


def _in_lists(rows: Any, splits: tf.Tensor | None) -> Any:
    """Rows of items as ragged [list, (item), …]; rows of the context as they are."""
    return rows if splits is None else tf.RaggedTensor.from_row_splits(rows, splits, validate=False)


def _for_training(inputs: Mapping[str, Any], config: RankingConfig) -> dict[str, Any]:
    outputs = {}
    for role, column in config.data.columns.items():
        if role in ("label", "weight", "position", "group_id") and column in inputs:
            outputs[role] = inputs[column]
    if "weight" in outputs:  # a weight that nobody gave counts as one
        outputs["weight"] = outputs["weight"].with_flat_values(_fill(outputs["weight"].flat_values, 1.0))
    return outputs


# --- numbers: columns of one matrix, in blocks that take the same steps


def _numbers(
    inputs: Mapping[str, Any], features: Mapping[str, Feature], splits: tf.Tensor | None
) -> tuple[tf.Tensor | None, dict[str, tf.Tensor]]:
    """float32 [row, column] as `numeric_columns` has it, None without a column; and int64 [row] by bucketized name."""
    owners = [name for name, feature in features.items() for _ in range(feature.width)]  # of each column
    if not owners:
        return None, {}
    raw = tf.concat(
        [tf.reshape(tf.cast(_flat_rows(inputs[name], feature), tf.float32), [-1, feature.width])
         for name, feature in features.items()], axis=1,
    )  # fmt: skip
    nan = tf.math.is_nan(raw)
    filled = tf.where(nan, tf.constant([float(features[name].missing) for name in owners]), raw)

    places: dict[tuple[Step, ...], list[int]] = {}
    for place, name in enumerate(owners):
        places.setdefault(features[name].transform, []).append(place)
    blocks = {steps: _take_columns(filled, at) for steps, at in places.items()}
    blocks = _take_steps(blocks, splits)
    ids = {owners[at]: column for at, column in _bucketize(blocks, places).items()}

    stay = [steps for steps in blocks if not _ends_in_buckets(steps)]
    parts = [blocks[steps] for steps in stay]
    order = [place for steps in stay for place in places[steps]]
    if order != sorted(order):
        parts = [_take_columns(tf.concat(parts, axis=1), [order.index(place) for place in sorted(order)])]
    for name, feature in features.items():
        if feature.indicator:
            of_it = _take_columns(nan, [place for place, owner in enumerate(owners) if owner == name])
            parts.append(tf.cast(tf.reduce_any(of_it, axis=1, keepdims=True), tf.float32))
    return (tf.concat(parts, axis=1) if parts else None), ids


def _take_columns(matrix: tf.Tensor, places: list[int]) -> tf.Tensor:
    return matrix if places == list(range(matrix.shape[1])) else tf.gather(matrix, places, axis=1)


Blocks = dict[tuple[Step, ...], tf.Tensor]  # float32 [row, column], by the steps that its columns take


def _take_steps(blocks: Blocks, splits: tf.Tensor | None) -> Blocks:
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
    """In float64: sums of float32 values are exact there, so a constant column has no deviation but 0."""
    return tf.cast(tft.scale_to_z_score(tf.cast(x, tf.float64), elementwise=True), tf.float32)


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


def _ends_in_buckets(steps: Sequence[Step]) -> bool:
    return any(isinstance(step, Bucketize) for step in steps)


def _bucketize(blocks: Blocks, places: Mapping[tuple[Step, ...], list[int]]) -> dict[int, tf.Tensor]:
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


# --- categories


def _category(values: tf.Tensor, level: Level, name: str, feature: Feature) -> tf.Tensor:
    """int64 ids of the values' shape; a missing string takes the feature's default first."""
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
        vocab_filename=re.sub(r"[^A-Za-z0-9_.-]", "_", f"{level}_{name}"),
    )


def _tokens(inputs: Mapping[str, Any], level: Level, name: str, feature: Feature, how: Tokens) -> tf.RaggedTensor:
    """Ids of the tokens, ragged [row, (token)]; tokens that came apart already are only cut at white space."""
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
