"""Parses requests in the TensorFlow graph, with TensorFlow's own operations only.

Input: a string tensor `[list]` of serialized protos (for `parse_tensors`, a tensor for each feature) and the columns to
read.  Output: a `ListBatch` of raw tensors, the input of the transform graph.  All items of all lists are parsed at
once, flat; no list is padded.

All parsers treat special cases alike:
- `b""` is an empty list; where requests are single items, it is an item without values.
- An empty batch gives an empty batch.
- A missing feature gets its column's missing value (NaN, the integer's default, `""`, no tokens), as in a list example.
- Features without a column are ignored.
- Bytes that are not a valid proto, a wrong type, and item features of one list that differ in length raise
  InvalidArgumentError or DataLossError; the message names the feature if there is one.  In an ELWC a feature without a
  value is an error, too.
"""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfx_ranking.components.choices.signatures import tensor_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.lists import elwc
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, ListBatch, Tokens, columns
from tfx_ranking.components.serving.item_columns import Kind, align, kinds_of, kinds_of_feature_lists, length_key

_DTYPES = {"float": tf.float32, "int": tf.int64, "string": tf.string}


def inputs(config: RankingConfig) -> dict[str, Column]:
    """The columns that a request may have: the config's features, never the label, the position or the group id."""
    return {name: column for name, column in columns(config).items() if name in config.features}


def batch_specs(table: Mapping[str, Column]) -> ListBatch:
    """The specs of the tensors that every parser returns for these columns."""

    def specs(level: str) -> dict[str, tf.TensorSpec | Tokens]:
        of_level: dict[str, tf.TensorSpec | Tokens] = {}
        for name, column in table.items():
            if column.level == level:
                shape = [None, column.width] if column.width > 1 else [None]
                values = tf.TensorSpec(shape, _DTYPES[column.dtype])
                of_level[name] = Tokens(values, tf.TensorSpec([None], tf.int64)) if column.tokens else values
        return of_level

    return ListBatch(specs("context"), specs("items"), tf.TensorSpec([None], tf.int64))


# Not converted by AutoGraph: the parsers have no Python control flow over tensors, and converting their loops over
# hundreds of columns took most of an export's time.
@tf.autograph.experimental.do_not_convert
def parse_elwc(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """`ExampleListWithContext` protos, TensorFlow Ranking's format: an Example for each item, and one for the context.

    serialized: string [list].  One `parse_example` runs over all items of the batch.
    """
    examples = elwc.split(serialized)
    return ListBatch(
        _parse_rows(examples.context, table, "context"),
        _parse_rows(examples.items, table, "items"),
        tf.concat([[0], tf.cumsum(examples.lengths)], axis=0),
    )


@tf.autograph.experimental.do_not_convert
def parse_list_examples(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """List examples: one Example for each list; each feature has the values of all its items.

    serialized: string [list].  A list has as many items as its longest item feature.  An item feature that is absent
    from a list is filled with its missing value; one of another length raises InvalidArgumentError, which names it.
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


@tf.autograph.experimental.do_not_convert
def parse_sequence_examples(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """SequenceExamples: a feature list for each item feature, in either layout.

    serialized: string [list].  A feature list has one Feature for each item (an empty one is a missing value), or one
    Feature with the values of all items, as ml4ir writes it; the layout may differ from list to list.  A single Feature
    of tokens belongs to a single item; if the list's other features have more items, it has one token for each.
    """
    of_lists = {name: column for name, column in table.items() if column.level == "context"}
    of_items = {name: column for name, column in table.items() if column.level == "items"}
    context, sequences, _ = tf.io.parse_sequence_example(
        serialized,
        {name: _row_feature(column) for name, column in of_lists.items()} or None,
        {name: _ragged_feature(column.dtype) for name, column in of_items.items()},
    )
    items, row_splits = align(*kinds_of_feature_lists(sequences, of_items), of_items)
    return ListBatch({name: _row_value(context[name], column) for name, column in of_lists.items()}, items, row_splits)


@tf.autograph.experimental.do_not_convert
def parse_examples(serialized: tf.Tensor, table: Mapping[str, Column]) -> ListBatch:
    """An Example for each item, with the context's features beside its own; every item becomes a list of one item.

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
    """The tensors that `parse_tensors` takes, by name: one for each feature, and `sizes`, each list's number of items.

    A context feature is [list], an item feature [list, item], a vector has one dimension more; tokens are strings
    before splitting.  A tensor's name has only letters, digits and _; raises ConfigError when two features would have
    the same one.
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


@tf.autograph.experimental.do_not_convert
def parse_tensors(tensors: Mapping[str, tf.Tensor], table: Mapping[str, Column]) -> ListBatch:
    """Named tensors of features, padded to any length; values after a list's size are ignored.

    tensors: by name, as `tensor_specs` describes them.  Raises InvalidArgumentError, which names the feature, when a
    tensor has another number of lists or items than the others, or when a size is larger than the number of items.
    """
    sizes = tensors["sizes"]
    of_items = {name: column for name, column in table.items() if column.level == "items"}
    first = tensors[tensor_name(next(iter(of_items)))]
    longest = tf.shape(first)[1]
    items: dict[str, tf.Tensor | Tokens] = {}
    context: dict[str, tf.Tensor | Tokens]
    checked = _refuse_shapes(tensors, table, longest)
    with tf.control_dependencies([checked]):  # otherwise an op that takes several tensors fails first and names none
        real = tf.where(tf.reshape(tf.sequence_mask(sizes, longest), [-1]))[:, 0]
        context = {
            name: tf.identity(tensors[tensor_name(name)]) for name, column in table.items() if column.level == "context"
        }
        kinds: dict[tuple[str, int], list[str]] = {}
        for name, column in of_items.items():
            kinds.setdefault((column.dtype, column.width), []).append(name)
        for (_, width), names in kinds.items():
            # One gather for all columns of one kind, instead of hundreds.
            stacked = tf.stack([tensors[tensor_name(name)] for name in names])
            flat = tf.reshape(stacked, [len(names), tf.size(sizes) * longest, *([width] if width > 1 else [])])
            items.update(zip(names, tf.unstack(tf.gather(flat, real, axis=1), len(names)), strict=True))
    for level in (context, items):
        for name in level:
            if table[name].tokens:
                level[name] = Tokens(level[name], tf.range(tf.size(level[name], tf.int64) + 1))
    return ListBatch(context, {name: items[name] for name in of_items}, tf.concat([[0], tf.cumsum(sizes)], axis=0))


def _parse_rows(serialized: tf.Tensor, table: Mapping[str, Column], level: str) -> dict[str, tf.Tensor | Tokens]:
    """The columns of one level, from one Example for each row."""
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
    """Fails when a tensor has another number of lists or items than the others, or a size is larger than that.

    Returns a tensor on which the reading operations depend.
    """
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
    shape, expected = tf.concat(shapes, axis=0), tf.concat(wanted, axis=0)
    wrong = tf.reduce_any(tf.not_equal(shape, expected), axis=1)
    within = tf.reduce_all((sizes >= 0) & (sizes <= tf.cast(items, tf.int64)))

    def refuse() -> tf.Tensor:
        first = tf.argmax(tf.cast(wrong, tf.int32))
        message = tf.strings.join([
            "feature ", tf.gather([name for names in kinds.values() for name in names], first), " has the shape ",
            tf.strings.reduce_join(tf.as_string(tf.gather(shape, first)), separator=" x "),
            ", expected ", tf.strings.reduce_join(tf.as_string(tf.gather(expected, first)), separator=" x "),
            " [list x item], as `sizes` and the first item feature have; a context feature has 0 for item",
        ])  # fmt: skip
        too_long = "sizes: expected 0 to the number of items in the tensors; got"
        with tf.control_dependencies([
            tf.debugging.Assert(tf.logical_not(tf.reduce_any(wrong)), [message]),
            tf.debugging.Assert(within, [too_long, sizes]),
        ]):  # fmt: skip
            return tf.constant(False)

    return tf.cond(within & tf.logical_not(tf.reduce_any(wrong)), lambda: tf.constant(True), refuse)
