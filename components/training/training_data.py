"""Reads a split of transformed list examples into flat NumPy columns, and makes batches of lists from them.

Input: the Transform component's outputs.  Output: a `ListBatch` in memory, whose columns keep the transform graph's
names (`items/…`, `context/…`, `group_id`, `label`, `weight`, `position`), and a dataset of the network's inputs.
"""

import collections
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import tensorflow as tf

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.training_sections import PowerPropensity
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.features.feature_columns import column_name
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, ListBatch, Tokens, split_files
from tfx_ranking.components.lists.ragged import as_ragged
from tfx_ranking.components.scorers.inputs import DEFAULT_EMBEDDING, Input

SPECIALS = ("group_id", "label", "weight", "position")
PARSED_AT_ONCE = 256  # lists
MOST_IDS = 50_000_000  # of a category; with more ids, the column is probably a number and not an id


class Layout(NamedTuple):
    """How transformed examples are stored."""

    spec: Mapping[str, Any]  # for tf.io.parse_example
    sizes: Mapping[str, int]  # ids per category, by output name; without those that the transform graph does not know


def read_layout(transform_graph_uri: str) -> Layout:
    """The layout of the transform graph's outputs.  Raises DataError for outputs that do not follow the naming rule."""
    import tensorflow_transform as tft

    output = tft.TFTransformOutput(transform_graph_uri)
    spec = output.transformed_feature_spec()
    unknown = sorted(name for name in spec if not name.startswith(("items/", "context/")) and name not in SPECIALS)
    if unknown:
        raise DataError(
            f"preprocessing_fn returns {', '.join(unknown)}: expected outputs named items/<name> (one value an item), "
            f"context/<name> (one a list), {', '.join(SPECIALS)}. Rename them, or leave them out."
        )
    for needed in ("group_id", "label"):
        if needed not in spec:
            raise DataError(f"preprocessing_fn returns no {needed!r}, which training needs; it returns {sorted(spec)}.")
    sizes = {}
    for feature in output.transformed_metadata.schema.feature:
        if feature.HasField("int_domain") and feature.int_domain.max:
            sizes[feature.name.removesuffix("$ragged_values")] = feature.int_domain.max + 1
    return Layout(spec, sizes)


def read_split(examples_uri: str, split: str, layout: Layout) -> tuple[ListBatch, list[str]]:
    """All lists of a split, and the files that were opened.  Raises DataError when the split has no list."""
    files = split_files(examples_uri, split)
    records = tf.data.TFRecordDataset(files, "GZIP", num_parallel_reads=1)
    parsed = records.batch(PARSED_AT_ONCE).map(
        lambda batch: tf.io.parse_example(batch, dict(layout.spec)), num_parallel_calls=tf.data.AUTOTUNE
    )
    parts = [flat_columns(part) for part in parsed.prefetch(2)]
    if not parts:
        raise DataError(
            f"split {split!r} has no list ({len(files)} files in {examples_uri}/Split-{split}): name a split that "
            "exists (train_split, validation_split), or give it a larger share of the lists."
        )
    return _concatenate(parts), files


def flat_columns(transformed: Mapping[str, Any]) -> ListBatch:
    """A batch of the transform graph's outputs as flat NumPy columns.  Raises DataError when lengths disagree."""
    context: dict[str, Any] = {}
    items: dict[str, Any] = {}
    row_splits, first = None, ""
    for name in sorted(transformed):
        value = as_ragged(transformed[name])
        per_item = name.startswith("items/") or name in ("label", "weight", "position")
        if not per_item:
            context[name] = _column(value)
            continue
        if not isinstance(value, tf.RaggedTensor):
            raise DataError(f"{name}: expected a ragged output [list, (item)]; got one of shape {value.shape}.")
        splits = value.row_splits.numpy().astype(np.int64)
        if row_splits is None:
            row_splits, first = splits, name
        elif not np.array_equal(row_splits, splits):
            at = int(np.flatnonzero(np.diff(row_splits) != np.diff(splits))[0])
            raise DataError(
                f"{first} and {name} differ in length in list {context['group_id'][at]!r}: "
                f"{np.diff(row_splits)[at]} and {np.diff(splits)[at]} items."
            )
        items[name] = _column(value.values)
    return ListBatch(context, items, row_splits)


def check(data: ListBatch, split: str) -> None:
    """Raises DataError for a split without items, or with a label that is not a finite number."""
    if len(data.row_splits) < 2 or data.row_splits[-1] == 0:
        raise DataError(f"the {split} split is empty: it has {len(data.row_splits) - 1} lists and no item.")
    bad = np.flatnonzero(~np.isfinite(data.items["label"]))
    if bad.size:
        raise DataError(
            f"the {split} split's list {group_of(data, bad[0])!r} has a label that is not a finite number: "
            "drop such records, or declare data.label_range to have them quarantined."
        )


def group_of(data: ListBatch, item: int) -> bytes:
    """The group id of the list that an item belongs to."""
    return bytes(data.context["group_id"][int(np.searchsorted(data.row_splits, item, side="right")) - 1])


def in_hash_order(data: ListBatch) -> ListBatch:
    """The lists in the order of their group ids' hashes, so that the order in the files does not matter.

    Lists with the same group id are ordered by their content.
    """
    keys = [hashlib.blake2b(_bytes(group), digest_size=16).digest() for group in data.context["group_id"]]
    if len(set(keys)) < len(keys):
        count = collections.Counter(keys)
        keys = [key + _content(data, i) if count[key] > 1 else key for i, key in enumerate(keys)]
    return take(data, np.array(sorted(range(len(keys)), key=keys.__getitem__), np.int64))


def take(data: ListBatch, lists: np.ndarray) -> ListBatch:
    """The lists with these numbers, in this order."""
    splits = np.asarray(data.row_splits)
    items, lengths = _ranges(splits, lists)
    return ListBatch(
        {name: _take(column, lists) for name, column in data.context.items()},
        {name: _take(column, items) for name, column in data.items.items()},
        np.append(0, np.cumsum(lengths)),
    )


def item_weights(data: ListBatch, propensity: PowerPropensity | Sequence[float] | None) -> np.ndarray | None:
    """Float32 [item]: the weight column; times 1 / the propensity of the item's position where the item was clicked.

    An item is clicked when its label is above 0.  The others keep their weight, because without a click nobody knows
    whether the item was looked at.  Positions count from 1; beyond the end of `propensity` its last value is used.
    None when there are neither weights nor propensities.
    Raises DataError for a clicked item without a position.

    >>> lists = ListBatch({"group_id": [b"q"]}, {"label": np.array([0, 1]), "position": np.array([1, 2])}, [0, 2])
    >>> item_weights(lists, (1.0, 0.25))
    array([1., 4.], dtype=float32)
    """
    weights = data.items.get("weight")
    if propensity is None:
        return weights
    if "position" not in data.items:
        raise DataError(
            "training.propensity: the transformed examples have no 'position'; preprocessing_fn must pass it on."
        )
    label, position = np.asarray(data.items["label"]), np.asarray(data.items["position"])
    bad = np.flatnonzero((label > 0) & (position < 1))
    if bad.size:
        raise DataError(
            f"list {group_of(data, bad[0])!r}: a clicked item has position {int(position[bad[0]])}; positions count "
            "from 1, and training.propensity needs one for every clicked item."
        )
    rank = np.maximum(position, 1)
    if isinstance(propensity, PowerPropensity):
        seen = rank.astype(np.float64) ** -propensity.power
    else:
        seen = np.asarray(propensity, np.float64)[np.minimum(rank, len(propensity)) - 1]
    weighted = np.where(label > 0, 1 / seen, 1.0) * (1.0 if weights is None else weights)
    return weighted.astype(np.float32)


def inputs(data: ListBatch, config: RankingConfig, sizes: Mapping[str, int]) -> list[Input]:
    """The network's inputs, by the columns' dtypes: floats are numbers, integers are ids of a category."""
    network_inputs = []
    for name, column in {**data.context, **data.items}.items():
        if name in SPECIALS:
            continue
        values = column.values if isinstance(column, Tokens) else column
        if values.ndim > 2 or (values.ndim == 2 and not np.issubdtype(values.dtype, np.floating)):
            raise DataError(f"{name}: expected one number, one vector or one id a row; got rows of {values.shape[1:]}.")
        if np.issubdtype(values.dtype, np.floating) and not isinstance(column, Tokens):
            network_inputs.append(Input(name, "numeric", values.shape[1] if values.ndim > 1 else 1))
            continue
        if not np.issubdtype(values.dtype, np.integer):
            expected = "int64 ids" if isinstance(column, Tokens) else "float32 numbers or int64 ids"
            raise DataError(f"{name}: expected {expected}; got {values.dtype}. Look it up in a vocabulary.")
        size = sizes.get(name) or int(values.max(initial=0)) + 1
        if size > MOST_IDS:
            raise DataError(
                f"{name}: ids up to {size - 1:,} would need an embedding each; at most {MOST_IDS:,} are allowed. "
                "Give it a vocabulary or a hash, or make it a float."
            )
        feature = config.features.get(name.partition("/")[2])
        width = (feature.embedding if feature else None) or min(DEFAULT_EMBEDDING, size)
        network_inputs.append(Input(name, "tokens" if isinstance(column, Tokens) else "category", size, width))
    return network_inputs


def batches(data: ListBatch, indices: tf.data.Dataset, batch_lists: int) -> tf.data.Dataset:
    """Batches of `batch_lists` lists: (network inputs, {label, weight, lists}).

    indices: a dataset of list numbers, in the order of the batches.
    The columns stay in memory once; a batch is gathered from them in the graph, while the one before it trains.
    """
    fed = {name: _tensors(column) for name, column in {**data.context, **data.items}.items() if name not in SPECIALS}
    targets = {name: tf.constant(data.items[name], tf.float32) for name in ("label", "weight") if name in data.items}
    splits = tf.constant(data.row_splits, tf.int64)

    @tf.autograph.experimental.do_not_convert
    def gather(lists: tf.Tensor) -> tuple[dict[str, tf.Tensor], dict[str, tf.Tensor]]:
        items, lengths = _ranges_in_graph(splits, lists)
        chosen = {"row_lengths": lengths}
        for name, column in fed.items():
            rows = items if name.startswith("items/") else lists
            if isinstance(column, Tokens):
                tokens, chosen[name + ROW_LENGTHS] = _ranges_in_graph(column.row_splits, rows)
                chosen[name] = tf.gather(column.values, tokens)
            else:
                chosen[name] = tf.gather(column, rows)
        return chosen, {**{name: tf.gather(column, items) for name, column in targets.items()}, "lists": lists}

    return indices.batch(batch_lists).map(gather, num_parallel_calls=2, deterministic=True).prefetch(2)


def largest(data: ListBatch, lists: np.ndarray, config: RankingConfig) -> tuple[str, float, Any]:
    """The number with the largest magnitude in these lists: the feature's name, the value, the list's group id.

    A value that is not finite counts as the largest.  `config` gives the columns of `items/numeric` their names.
    """
    part = take(data, lists)
    worst = ("none", 0.0, part.context["group_id"][0])
    for name, column in {**part.items, **part.context}.items():
        if name in SPECIALS or isinstance(column, Tokens) or not np.issubdtype(column.dtype, np.floating):
            continue
        matrix = column.reshape(len(column), -1)
        magnitude = np.where(np.isfinite(matrix), np.abs(matrix), np.inf)
        if matrix.size and magnitude.max() > abs(worst[1]):
            row, number = np.unravel_index(int(np.argmax(magnitude)), matrix.shape)
            group = group_of(part, int(row)) if name in part.items else part.context["group_id"][row]
            worst = (_described(name, int(number), matrix.shape[1], config), float(matrix[row, number]), group)
    return worst


def check_anomalies(uri: str, splits: Sequence[str], on_anomaly: Literal["fail", "warn"]) -> None:
    """Raises DataError, or warns, when ExampleValidator reports anomalies in these splits.  The message names them.

    TFX's ExampleValidator succeeds even when it finds anomalies, so the trainer checks its report.
    """
    from absl import logging
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    reported = []
    for split in splits:
        for file in sorted(tf.io.gfile.glob(f"{uri.rstrip('/')}/Split-{split}/*.pb")):
            with tf.io.gfile.GFile(file, "rb") as opened:
                anomalies = anomalies_pb2.Anomalies.FromString(opened.read())
            for feature, info in sorted(anomalies.anomaly_info.items()):
                reported.append(f"{split}: {feature}: {info.short_description} ({info.description})")
            if anomalies.HasField("dataset_anomaly_info"):
                reported.append(f"{split}: {anomalies.dataset_anomaly_info.description}")
    if not reported:
        return
    message = f"{len(reported)} anomalies in the data: " + "; ".join(reported)
    if on_anomaly == "fail":
        raise DataError(message + ". Mend the data or the schema (data.schema), or set data.on_anomaly: warn.")
    logging.warning(message)


def _described(name: str, number: int, width: int, config: RankingConfig) -> str:
    feature = column_name(config, name, number, width)
    if feature is not None:
        return f"{name.partition('/')[0]}.{feature} (column {number} of {name})"
    return f"{name}[{number}]" if width > 1 else name


def _column(value: Any) -> Any:
    """A tensor as a NumPy column.  A ragged one becomes `Tokens`, or a matrix if it has a uniform row length."""
    if isinstance(value, tf.RaggedTensor):
        if value.uniform_row_length is not None:
            return value.flat_values.numpy().reshape(-1, int(value.uniform_row_length))
        return Tokens(value.flat_values.numpy(), value.row_splits.numpy().astype(np.int64))
    return value.numpy()


def _concatenate(parts: Sequence[ListBatch]) -> ListBatch:
    def join(columns: list[Any]) -> Any:
        if isinstance(columns[0], Tokens):
            return Tokens(
                np.concatenate([each.values for each in columns]), _join_splits([c.row_splits for c in columns])
            )
        return np.concatenate(columns)

    return ListBatch(
        {name: join([part.context[name] for part in parts]) for name in parts[0].context},
        {name: join([part.items[name] for part in parts]) for name in parts[0].items},
        _join_splits([part.row_splits for part in parts]),
    )


def _join_splits(parts: list[np.ndarray]) -> np.ndarray:
    return np.append(0, np.cumsum(np.concatenate([np.diff(part) for part in parts]))).astype(np.int64)


def _ranges(splits: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row r the indices splits[r] to splits[r + 1] - 1, one row after another; and each row's length."""
    lengths = splits[rows + 1] - splits[rows]
    shift = splits[rows] - (np.cumsum(lengths) - lengths)
    return np.repeat(shift, lengths) + np.arange(lengths.sum()), lengths


def _ranges_in_graph(splits: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    starts = tf.gather(splits, rows)
    lengths = tf.gather(splits, rows + 1) - starts
    shift = starts - tf.cumsum(lengths, exclusive=True)
    return tf.repeat(shift, lengths) + tf.range(tf.reduce_sum(lengths)), lengths


def _take(column: Any, rows: np.ndarray) -> Any:
    if not isinstance(column, Tokens):
        return np.asarray(column)[rows]
    tokens, lengths = _ranges(np.asarray(column.row_splits), rows)
    return Tokens(np.asarray(column.values)[tokens], np.append(0, np.cumsum(lengths)))


def _tensors(column: Any) -> Any:
    if isinstance(column, Tokens):
        return Tokens(tf.constant(column.values, tf.int64), tf.constant(column.row_splits, tf.int64))
    return tf.constant(column, tf.float32 if np.issubdtype(column.dtype, np.floating) else tf.int64)


def _bytes(group: Any) -> bytes:
    return group if isinstance(group, bytes) else str(group).encode()


def _content(data: ListBatch, number: int) -> bytes:
    part = take(data, np.array([number]))
    digest = hashlib.blake2b(digest_size=16)
    for name, column in sorted({**part.context, **part.items}.items()):
        for values in column if isinstance(column, Tokens) else (column,):
            digest.update(name.encode() + b"\0" + repr(np.asarray(values).tolist()).encode())
    return digest.digest()
