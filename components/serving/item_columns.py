"""Item columns of one dtype and width looked at as one, inside the TensorFlow graph.

Enters: the flat values of the columns, one column after another, and each column's splits.  Leaves: every column's flat
values, all of one length a list.  The one idea: a kind of columns is a few ops, be they 46 or 300; starting an op a
column took longer than parsing and scoring a list of 120.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, Tokens


class Kind(NamedTuple):
    """Item columns of one dtype and width (columns of tokens by their row lengths), looked at as one.

    flat: the values of all lists, one column after another.  splits: int64 [column, list + 1], in values.
    """

    names: list[str]
    flat: tf.Tensor
    splits: tf.Tensor


def kinds_of(table: Mapping[str, Column]) -> list[list[str]]:
    """The columns' names by dtype and width; columns of tokens by their row lengths, an integer an item."""
    kinds: dict[tuple[str, int], list[str]] = {}
    for name, column in table.items():
        kinds.setdefault(("int", 1) if column.tokens else (column.dtype, column.width), []).append(name)
    return [*kinds.values()]


def length_key(name: str, column: Column) -> str:
    """Under which name a column has one value an item."""
    return name + ROW_LENGTHS if column.tokens else name


def align(
    kinds: Sequence[Kind], tokens: Mapping[str, tf.RaggedTensor], table: Mapping[str, Column]
) -> tuple[dict, tf.Tensor]:
    """Item columns of one length a list, and the row splits; absent ones are filled, other lengths refused.

    The check is one comparison of a [column, list] matrix; naming what is wrong and filling happen in a branch that
    a well-formed batch never enters.  Only one tensor a kind goes through that branch: with one a column, its ops
    took a fifth of the time of a list of 120.
    """
    names = [name for kind in kinds for name in kind.names]
    keys = [length_key(name, table[name]) for name in names]
    widths = tf.constant([[table[name].width] for name in names], tf.int64)
    lengths = tf.concat([kind.splits[:, 1:] - kind.splits[:, :-1] for kind in kinds], axis=0)
    sizes = tf.reduce_max(tf.math.floordiv(lengths, widths), axis=0)
    row_splits = tf.concat([[0], tf.cumsum(sizes)], axis=0)

    def filled() -> list[tf.Tensor]:
        wrong = tf.where((lengths != sizes * widths) & (lengths != 0))
        with tf.control_dependencies([_refuse_lengths(wrong, names, keys, lengths, sizes, widths)]):
            lists = tf.repeat(tf.range(tf.size(sizes, tf.int64)), sizes)
            within = tf.range(row_splits[-1]) - tf.gather(row_splits, lists)
            return [_fill(kind, table, lists, within) for kind in kinds]

    aligned = tf.cond(tf.reduce_all(lengths == sizes * widths), lambda: [kind.flat for kind in kinds], filled)
    items: dict[str, tf.Tensor | Tokens] = {}
    for kind, flat in zip(kinds, aligned, strict=True):
        width = table[kind.names[0]].width
        shape = [len(kind.names), -1, width] if width > 1 else [len(kind.names), -1]
        for name, value in zip(kind.names, tf.unstack(tf.reshape(flat, shape), len(kind.names)), strict=True):
            column = table[name]
            items[name] = _tokens_of_items(name, tokens[name], value, row_splits) if column.tokens else value
    return {name: items[name] for name in table}, row_splits


def _refuse_lengths(
    wrong: tf.Tensor, names: Sequence[str], keys: Sequence[str], lengths: tf.Tensor, sizes: tf.Tensor, widths: tf.Tensor
) -> tf.Operation:
    """Fails, naming the first item feature and list in `wrong` (int64 [?, 2]: feature, list), if there is one."""
    first = tf.concat([wrong, [[0, 0]]], axis=0)[0]
    if lengths.shape[1] == 0:
        return tf.no_op()
    expected = tf.gather(sizes, first[1]) * widths[first[0], 0]
    longest = tf.argmax(tf.math.floordiv(tf.gather(lengths, first[1], axis=1), widths[:, 0]))
    message = tf.strings.join([
        "list ", tf.as_string(first[1]), " of the batch: item feature ", tf.gather(tf.constant(keys), first[0]),
        " has ", tf.as_string(tf.gather_nd(lengths, first)), " values, expected ", tf.as_string(expected),
        " as ", tf.gather(tf.constant(names), longest), " has ", tf.as_string(tf.gather(sizes, first[1])),
        " items; give every item a value, or leave the feature out",
    ])  # fmt: skip
    return tf.debugging.Assert(tf.equal(tf.shape(wrong)[0], 0), [message])


def _fill(kind: Kind, table: Mapping[str, Column], lists: tf.Tensor, within: tf.Tensor) -> tf.Tensor:
    """The flat values, a column's missing value for every item of a list that has none.

    lists, within: int64 [item], an item's list and its place there.
    """
    first, count = table[kind.names[0]], len(kind.names)
    width = first.width
    rows = tf.reshape(kind.flat, [-1, width])
    splits = kind.splits // width
    ends = tf.cumsum(splits[:, -1:])
    starts = tf.gather(splits[:, :-1] + ends - splits[:, -1:], lists, axis=1)  # [column, item]
    absent = tf.gather(splits[:, 1:] == splits[:, :-1], lists, axis=1)
    blanks = [0 if table[name].tokens else table[name].missing for name in kind.names]  # of tokens, how many there are
    blank = tf.repeat(tf.constant(blanks, rows.dtype, [count, 1]), width, axis=1)
    blank_at = ends[-1] + tf.range(count, dtype=tf.int64)[:, tf.newaxis]
    filled = tf.gather(tf.concat([rows, blank], axis=0), tf.where(absent, blank_at, starts + within))
    return tf.reshape(filled, [-1])


def _tokens_of_items(name: str, tokens: tf.RaggedTensor, row_lengths: tf.Tensor, row_splits: tf.Tensor) -> Tokens:
    """tokens: [list, (token of any item)].  row_lengths: int64 [item]."""
    inner = tf.concat([[0], tf.cumsum(row_lengths)], axis=0)
    adds_up = tf.reduce_all(tf.gather(inner, row_splits) == tokens.row_splits) & tf.reduce_all(row_lengths >= 0)
    message = f"item feature {name}: {name}{ROW_LENGTHS} does not add up to its number of values in every list"
    with tf.control_dependencies([tf.debugging.Assert(adds_up, [message])]):
        return Tokens(tf.identity(tokens.values), tf.identity(inner))
