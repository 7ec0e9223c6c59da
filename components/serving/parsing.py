"""Protos to `ListBatch`, inside the TensorFlow graph, with stock ops alone.

Enters: a string tensor `[list]` of serialized protos and the columns to read.  Leaves: a `ListBatch` of raw tensors,
as the transform graph takes them.  The one idea: all items of all lists are parsed at once, flat; no list is padded.

Every parser agrees on the odd cases.  `b""` is an empty list (an item without a value, where requests are items); an
empty batch gives an empty batch; a feature that is missing takes its column's missing value (NaN, the integer's
default, `""`, no tokens), as it is in a list example; features that no column names are ignored.  Undecodable bytes, a
wrong type, or item features of one list that differ in length raise InvalidArgumentError or DataLossError, naming the
feature where there is one; in an ELWC so does a feature that is there without a value.

`parse_tensors` takes what is no proto: a tensor for each feature.
"""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from tfx_ranking.components.choices.signatures import tensor_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.lists import elwc
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, ListBatch, Tokens, columns
from tfx_ranking.components.serving import feature_lists
from tfx_ranking.components.serving.item_columns import Kind, align, kinds_of, length_key

_DTYPES = {"float": tf.float32, "int": tf.int64, "string": tf.string}


def inputs(config: RankingConfig) -> dict[str, Column]:
    """The columns that a request may carry: the config's features; never the label, the position or the group id."""
    return {name: column for name, column in columns(config).items() if name in config.features}


def batch_specs(table: Mapping[str, Column]) -> ListBatch:
    """What every parser gives for these columns, as specs of tensors."""

    def specs(level: str) -> dict[str, tf.TensorSpec | Tokens]:
        found: dict[str, tf.TensorSpec | Tokens] = {}
        for name, column in table.items():
            if column.level == level:
                shape = [None, column.width] if column.width > 1 else [None]
                values = tf.TensorSpec(shape, _DTYPES[column.dtype])
                found[name] = Tokens(values, tf.TensorSpec([None], tf.int64)) if column.tokens else values
        return found

    return ListBatch(specs("context"), specs("items"), tf.TensorSpec([None], tf.int64))


def parse_elwc(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """`ExampleListWithContext` protos, TensorFlow Ranking's format: an Example an item and one for the context.

    serialized: string [list].  One `parse_example` runs over all items of the batch.
    """
    examples = elwc.split(serialized)
    return ListBatch(
        _parse_rows(examples.context, table, "context"),
        _parse_rows(examples.items, table, "items"),
        tf.concat([[0], tf.cumsum(examples.lengths)], axis=0),
    )


def parse_list_examples(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """List examples: one Example a list, the values of all its items in one feature each.

    serialized: string [list].  The longest item feature says how many items a list has; one that is absent from a
    list is filled with its missing value, one of another length is an InvalidArgumentError that names it.
    """
    of_lists = {name: column for name, column in table.items() if column.level == "context"}
    of_items = {name: column for name, column in table.items() if column.level == "items"}
    spec = {name: _row_feature(column) for name, column in of_lists.items()}
    for name, column in of_items.items():
        spec[name] = _ragged_feature(column.dtype)
        if column.tokens:
            spec[name + ROW_LENGTHS] = _ragged_feature("int")
    parsed = tf.io.parse_example(serialized, spec)
    context = {name: _row_value(parsed[name], column) for name, column in of_lists.items()}
    kinds = []
    for names in kinds_of(of_items):
        of_kind = [parsed[length_key(name, of_items[name])] for name in names]
        flat = tf.concat([each.values for each in of_kind], axis=0)
        kinds.append(Kind(names, flat, tf.stack([each.row_splits for each in of_kind])))
    items, row_splits = align(kinds, parsed, of_items)
    return ListBatch(context, items, row_splits)


def parse_sequence_examples(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """SequenceExamples: a feature list for each item feature, in either layout.

    serialized: string [list].  A feature list holds one Feature an item (an empty one is a missing value), or one
    Feature with the values of all items, as ml4ir writes it; which it is may differ from list to list.  One Feature of
    tokens is that of a single item, or one token string an item where the list's other features have more.
    """
    of_lists = {name: column for name, column in table.items() if column.level == "context"}
    of_items = {name: column for name, column in table.items() if column.level == "items"}
    context, sequences, _ = tf.io.parse_sequence_example(
        serialized,
        {name: _row_feature(column) for name, column in of_lists.items()} or None,
        {name: _ragged_feature(column.dtype) for name, column in of_items.items()},
    )
    items, row_splits = align(*feature_lists.in_one_piece(sequences, of_items), of_items)
    return ListBatch({name: _row_value(context[name], column) for name, column in of_lists.items()}, items, row_splits)


def parse_examples(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """An Example an item, each with its context's features beside its own: every item is a list by itself.

    serialized: string [item].
    """
    parsed = tf.io.parse_example(serialized, {name: _row_feature(column) for name, column in table.items()})
    values = {name: _row_value(parsed[name], column) for name, column in table.items()}
    return ListBatch(
        {name: value for name, value in values.items() if table[name].level == "context"},
        {name: value for name, value in values.items() if table[name].level == "items"},
        tf.range(tf.size(serialized, tf.int64) + 1),
    )


def tensor_specs(table: Mapping[str, Column]) -> dict[str, tf.TensorSpec]:
    """The tensors that `parse_tensors` takes, by name: one a feature, and `sizes`, the number of items of each list.

    A context feature is [list], an item feature [list, item], a vector one dimension more; tokens are strings before
    splitting.  Raises ConfigError where two names would be one: a tensor's name has letters, digits and _ alone.
    """
    specs = {"sizes": tf.TensorSpec([None], tf.int64, name="sizes")}
    for name, column in table.items():
        tensor = tensor_name(name)
        if tensor in specs:
            raise ConfigError(
                f"serving.signatures: 'features' needs a tensor of its own for {name!r}, and there is another "
                f"{tensor!r}; give the feature another name (serving.rename)."
            )
        shape = [None] * (2 if column.level == "items" else 1) + ([column.width] if column.width > 1 else [])
        specs[tensor] = tf.TensorSpec(shape, _DTYPES[column.dtype], name=tensor)
    return specs


def parse_tensors(tensors: Mapping[str, tf.Tensor], table: Mapping[str, Column]) -> ListBatch:
    """Named tensors of features, padded to any length: what stands behind a list's size is not looked at.

    tensors: as `tensor_specs` says.  Raises InvalidArgumentError, naming the feature, for another number of lists or
    items than the rest has, and for a size beyond the items that there are.
    """
    sizes = tensors["sizes"]
    of_items = {name: column for name, column in table.items() if column.level == "items"}
    first = tensors[tensor_name(next(iter(of_items)))]
    longest = tf.shape(first)[1]
    items: dict[str, tf.Tensor | Tokens] = {}
    context: dict[str, tf.Tensor | Tokens]
    checked = _refuse_shapes(tensors, table, longest)
    with tf.control_dependencies([checked]):  # else an op that takes several of them fails first, and names none
        real = tf.where(tf.reshape(tf.sequence_mask(sizes, longest), [-1]))[:, 0]
        context = {
            name: tf.identity(tensors[tensor_name(name)]) for name, column in table.items() if column.level == "context"
        }
        kinds: dict[tuple[str, int], list[str]] = {}
        for name, column in of_items.items():
            kinds.setdefault((column.dtype, column.width), []).append(name)
        for (_, width), names in kinds.items():
            # Columns of one kind are picked together: one gather for hundreds of features.
            stacked = tf.stack([tensors[tensor_name(name)] for name in names])
            flat = tf.reshape(stacked, [len(names), tf.size(sizes) * longest, *([width] if width > 1 else [])])
            items.update(zip(names, tf.unstack(tf.gather(flat, real, axis=1), len(names)), strict=True))
    for level in (context, items):
        for name in level:
            if table[name].tokens:
                level[name] = Tokens(level[name], tf.range(tf.size(level[name], tf.int64) + 1))
    return ListBatch(context, {name: items[name] for name in of_items}, tf.concat([[0], tf.cumsum(sizes)], axis=0))


# Not converted by AutoGraph: they have no Python control flow over tensors, and converting their loops over hundreds of
# columns took most of an export's time.
PARSERS: dict[str, Callable[[tf.Tensor, Mapping[str, Column]], ListBatch]] = {
    "elwc": tf.autograph.experimental.do_not_convert(parse_elwc),
    "sequence_example": tf.autograph.experimental.do_not_convert(parse_sequence_examples),
    "list_example": tf.autograph.experimental.do_not_convert(parse_list_examples),
    "example": tf.autograph.experimental.do_not_convert(parse_examples),
}


def _parse_rows(serialized: tf.Tensor, table: Mapping[str, Column], level: str) -> dict[str, tf.Tensor | Tokens]:
    """One Example a row: the columns of one level."""
    wanted = {name: column for name, column in table.items() if column.level == level}
    if not wanted:
        return {}
    parsed = tf.io.parse_example(serialized, {name: _row_feature(column) for name, column in wanted.items()})
    return {name: _row_value(parsed[name], column) for name, column in wanted.items()}


def _row_feature(column: Column) -> tf.io.FixedLenFeature | tf.io.RaggedFeature:
    if column.tokens:
        return _ragged_feature(column.dtype)
    shape = [column.width] if column.width > 1 else []
    return tf.io.FixedLenFeature(shape, _DTYPES[column.dtype], default_value=np.full(shape, column.missing).tolist())


def _ragged_feature(dtype: str) -> tf.io.RaggedFeature:
    return tf.io.RaggedFeature(_DTYPES[dtype], row_splits_dtype=tf.int64)


def _row_value(parsed: tf.Tensor | tf.RaggedTensor, column: Column) -> tf.Tensor | Tokens:
    return Tokens(parsed.values, parsed.row_splits) if column.tokens else parsed


def _refuse_shapes(tensors: Mapping[str, tf.Tensor], table: Mapping[str, Column], items: tf.Tensor) -> tf.Tensor:
    """Fails for a tensor that has another number of lists or items than the others, and for sizes beyond them."""
    sizes = tensors["sizes"]
    kinds: dict[tuple[str, int], list[str]] = {}
    for name, column in table.items():
        kinds.setdefault((column.level, column.width), []).append(name)
    shapes, wanted = [], []
    for (level, _), of_kind in kinds.items():  # a few ops for hundreds of shapes
        axes = 2 if level == "items" else 1
        of_kind_shapes = tf.stack([tf.shape(tensors[tensor_name(name)]) for name in of_kind])[:, :axes]
        shapes.append(tf.pad(of_kind_shapes, [[0, 0], [0, 2 - axes]]))
        wanted.append(tf.tile([[tf.size(sizes), items if level == "items" else 0]], [len(of_kind), 1]))
    came, expected = tf.concat(shapes, axis=0), tf.concat(wanted, axis=0)
    wrong = tf.reduce_any(tf.not_equal(came, expected), axis=1)
    within = tf.reduce_all((sizes >= 0) & (sizes <= tf.cast(items, tf.int64)))

    def refuse() -> tf.Tensor:
        first = tf.argmax(tf.cast(wrong, tf.int32))
        message = tf.strings.join([
            "feature ", tf.gather([name for names in kinds.values() for name in names], first), " has the shape ",
            tf.strings.reduce_join(tf.as_string(tf.gather(came, first)), separator=" x "),
            ", expected ", tf.strings.reduce_join(tf.as_string(tf.gather(expected, first)), separator=" x "),
            " [list, item] as `sizes` and the first item feature have them (an item count of 0: a context feature)",
        ])  # fmt: skip
        too_long = "sizes: expected 0 to the number of items that the tensors hold, came"
        with tf.control_dependencies([
            tf.debugging.Assert(tf.logical_not(tf.reduce_any(wrong)), [message]),
            tf.debugging.Assert(within, [too_long, sizes]),
        ]):  # fmt: skip
            return tf.constant(False)

    return tf.cond(within & tf.logical_not(tf.reduce_any(wrong)), lambda: tf.constant(True), refuse)
