"""Reads the item features of a batch of lists into columns of equal length, inside the TensorFlow graph.

Input: the item features of parsed Examples, or the feature lists of parsed SequenceExamples, and the table of columns.
Output: for each feature one flat tensor with a value for every item of the batch, and the row splits of the lists.

Columns of one dtype and width are stacked and processed together by a few ops, whether there are 46 of them or 300:
starting one op for each column took longer than parsing and scoring a list of 120 items.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import tensorflow as tf

from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, Tokens


class Kind(NamedTuple):
    """Item columns of one dtype and width, stacked; a column of tokens takes part with its row lengths.

    names: the columns.  flat: the values of all lists, one column after another.  splits: int64 [column, list + 1], the
    row splits of each column, counted in values.
    """

    names: list[str]
    flat: tf.Tensor
    splits: tf.Tensor


def kinds_of(table: Mapping[str, Column]) -> list[list[str]]:
    """Groups the columns' names by dtype and width.

    Columns of tokens are grouped by their row lengths, which are one integer per item.
    """
    kinds: dict[tuple[str, int], list[str]] = {}
    for name, column in table.items():
        kinds.setdefault(("int", 1) if column.tokens else (column.dtype, column.width), []).append(name)
    return [*kinds.values()]


def length_key(name: str, column: Column) -> str:
    """Returns the name of the feature that has one value per item: the column itself, or the row lengths of tokens."""
    return name + ROW_LENGTHS if column.tokens else name


def align(
    kinds: Sequence[Kind], tokens: Mapping[str, tf.RaggedTensor], table: Mapping[str, Column]
) -> tuple[dict, tf.Tensor]:
    """Returns the item columns with a value for every item, and the row splits of the lists, int64 [list + 1].

    A column without values in a list is filled with its missing value.  Raises InvalidArgumentError, with the names of
    the feature and the list, for any other number of values.

    The check is one comparison of a [column, list] matrix.  The error message and the filling are in a branch that a
    well-formed batch never enters.  Only one tensor of each kind goes through that branch: with one tensor per column,
    its ops took a fifth of the time of a list of 120 items.
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
    """Fails with the names of the first item feature and list in `wrong`, if there is one.

    wrong: int64 [wrong, 2], feature and list.  lengths: int64 [feature, list], in values.  sizes: int64 [list],
    in items.  widths: int64 [feature, 1].
    """
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
    """Returns the flat values of a kind, filled with the missing value where a list has no values of a column.

    lists, within: int64 [item], the list of an item and its position there.
    """
    first, count = table[kind.names[0]], len(kind.names)
    width = first.width
    rows = tf.reshape(kind.flat, [-1, width])
    splits = kind.splits // width
    ends = tf.cumsum(splits[:, -1:])
    starts = tf.gather(splits[:, :-1] + ends - splits[:, -1:], lists, axis=1)  # [column, item]
    absent = tf.gather(splits[:, 1:] == splits[:, :-1], lists, axis=1)
    blanks = [0 if table[name].tokens else table[name].missing for name in kind.names]  # for tokens: a row length of 0
    blank = tf.repeat(tf.constant(blanks, rows.dtype, [count, 1]), width, axis=1)
    blank_at = ends[-1] + tf.range(count, dtype=tf.int64)[:, tf.newaxis]
    filled = tf.gather(tf.concat([rows, blank], axis=0), tf.where(absent, blank_at, starts + within))
    return tf.reshape(filled, [-1])


def _tokens_of_items(name: str, tokens: tf.RaggedTensor, row_lengths: tf.Tensor, row_splits: tf.Tensor) -> Tokens:
    """Splits each list's tokens into the tokens of its items.

    tokens: [list, (token of any item)].  row_lengths: int64 [item].
    Raises InvalidArgumentError when the row lengths of a list do not add up to its number of tokens.
    """
    inner = tf.concat([[0], tf.cumsum(row_lengths)], axis=0)
    adds_up = tf.reduce_all(tf.gather(inner, row_splits) == tokens.row_splits) & tf.reduce_all(row_lengths >= 0)
    message = f"item feature {name}: {name}{ROW_LENGTHS} does not add up to its number of values in every list"
    with tf.control_dependencies([tf.debugging.Assert(adds_up, [message])]):
        return Tokens(tf.identity(tokens.values), tf.identity(inner))


def kinds_of_feature_lists(
    sequences: Mapping[str, tf.RaggedTensor], table: Mapping[str, Column]
) -> tuple[list[Kind], dict[str, tf.RaggedTensor]]:
    """Reads the feature lists of SequenceExamples, in either layout, into kinds of columns.

    sequences: each item feature as ragged [list, (piece), (value)]; a piece is one `Feature`.  In the usual layout a
    piece holds the values of one item, and an empty piece is a missing value.  In ml4ir's layout a list's only piece
    holds the values of all its items.  The values are in the same order in both, so only missing ones are inserted.

    Returns the kinds, the row lengths of tokens among them, and the tokens, [list, (token of any item)].
    Raises InvalidArgumentError, with the feature's name, for a piece that has neither no value nor one item's value.
    """
    numbers = kinds_of({name: column for name, column in table.items() if not column.tokens})
    kinds = [_kind_of_pieces(names, [sequences[name] for name in names], table) for names in numbers]
    tokens = [name for name, column in table.items() if column.tokens]
    if tokens:
        counts = [(kind.splits[:, 1:] - kind.splits[:, :-1]) // table[kind.names[0]].width for kind in kinds]
        counts.append(tf.stack([sequences[name].row_lengths() for name in tokens]))
        sizes = tf.reduce_max(tf.concat(counts, axis=0), axis=0)
        lengths = [_tokens_an_item(sequences[name], sizes) for name in tokens]
        flat = tf.concat([each.values for each in lengths], axis=0)
        kinds.append(Kind(tokens, flat, tf.stack([each.row_splits for each in lengths])))
    return kinds, {name: sequences[name].merge_dims(1, 2) for name in tokens}


def _kind_of_pieces(names: list[str], sequences: Sequence[tf.RaggedTensor], table: Mapping[str, Column]) -> Kind:
    """Stacks columns of one dtype and width, and fills each empty piece with its column's missing value.

    The pieces of all columns are processed as one sequence: column by column it took 2,000 ops for 46 features, and
    starting them took four times as long as parsing and scoring a list of 120 items.
    """
    width = table[names[0]].width
    outer = tf.stack([each.row_splits for each in sequences])  # in pieces
    inner = tf.concat([each.values.row_splits for each in sequences], axis=0)  # of the pieces, in values
    of_column = tf.cumsum(outer[:, -1:] + 1, exclusive=True)  # the start of each column's splits in `inner`
    at = of_column + outer
    count = outer[:, 1:] - outer[:, :-1]
    fits = tf.cumsum(tf.cast(tf.equal(inner[1:] - inner[:-1], width), tf.int64))
    fits = tf.gather(tf.concat([[0], fits], axis=0), at)
    # A list's only piece may hold all its items; each of several pieces holds one item.
    whole = tf.reduce_all(tf.equal(count, 1) | tf.equal(count, fits[:, 1:] - fits[:, :-1]))
    values = tf.concat([each.flat_values for each in sequences], axis=0)

    def with_blanks() -> tuple[tf.Tensor, tf.Tensor]:
        pieces = outer[:, -1]
        of_piece = tf.repeat(tf.range(len(names), dtype=tf.int64), pieces)  # the column of each piece
        # The last split of a column and the first of the next one enclose no piece: skip one position per column.
        split_at = tf.range(tf.size(of_piece, tf.int64)) + of_piece
        starts = tf.gather(inner, split_at)
        lengths = tf.gather(inner, split_at + 1) - starts
        alone = tf.repeat(tf.reshape(tf.equal(count, 1), [-1]), tf.reshape(count, [-1]))
        expected = tf.where(alone, lengths, tf.constant(width, tf.int64))
        wrong = tf.not_equal(lengths, expected) & tf.not_equal(lengths, 0)
        name = tf.gather(tf.constant(names), tf.gather(of_piece, tf.argmax(tf.cast(wrong, tf.int64))))
        message = tf.strings.join([
            "item feature ", name, f": expected {width} value(s) in each item, or none where it is missing"
        ])  # fmt: skip
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(wrong)), [message])]):
            piece = tf.repeat(tf.range(tf.size(expected, tf.int64)), expected)
        ends = tf.concat([[0], tf.cumsum(expected)], axis=0)
        within = tf.range(tf.size(piece, tf.int64)) - tf.gather(ends, piece)
        before = tf.cumsum(tf.gather(inner, at[:, -1]), exclusive=True)  # number of values in the columns before
        source = tf.gather(before, of_piece) + starts
        blanks = tf.constant([table[name].missing for name in names], values.dtype)
        present = tf.gather(tf.not_equal(lengths, 0), piece)
        blank_at = tf.size(values, tf.int64) + tf.gather(of_piece, piece)
        positions = tf.where(present, tf.gather(source, piece) + within, blank_at)
        filled = tf.gather(tf.concat([values, blanks], axis=0), positions)
        splits = tf.gather(ends, tf.cumsum(pieces, exclusive=True)[:, tf.newaxis] + outer)
        return filled, splits - splits[:, :1]

    return Kind(names, *tf.cond(whole, lambda: (values, tf.gather(inner, at)), with_blanks))


def _tokens_an_item(pieces: tf.RaggedTensor, sizes: tf.Tensor) -> tf.RaggedTensor:
    """Counts the tokens of each item, int64 ragged [list, (item)].

    pieces: [list, (piece), (token)].  sizes: int64 [list], the number of items.  A piece holds the tokens of one item;
    a list's only piece holds one token for each item when the list has more than one item.
    """
    count, lengths = pieces.row_lengths(), pieces.values.row_lengths()
    apart = tf.repeat(tf.equal(count, 1) & (sizes > 1), count)
    ones = tf.ones_like(lengths)
    repeats = tf.where(apart, lengths, ones)
    ends = tf.concat([[0], tf.cumsum(repeats)], axis=0)
    values = tf.repeat(tf.where(apart, ones, lengths), repeats)
    return tf.RaggedTensor.from_row_splits(values, tf.gather(ends, pieces.row_splits), validate=False)
