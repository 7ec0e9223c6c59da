"""SequenceExample's feature lists in either layout, as one piece a list, inside the TensorFlow graph.

Enters: each item feature as ragged [list, (piece), (value)], a piece being a Feature.  Leaves: [list, (value)].  The
one idea: in both layouts the values stand in the same order, so only what is missing has to be put in.
"""

from collections.abc import Mapping

import tensorflow as tf

from tfx_ranking.components.list_examples import ROW_LENGTHS, Column


def in_one_piece(sequences: Mapping[str, tf.RaggedTensor], table: Mapping[str, Column]) -> dict[str, tf.RaggedTensor]:
    """Ragged [list, (value)] by feature; tokens [list, (token)] with their `<name>/row_lengths` [list, (item)].

    A piece is one item's, or all of its list's where it is the only one.  Empty pieces among others are missing values.
    Raises InvalidArgumentError, naming the feature, for a piece of another length than an item's value has.
    """
    numbers = {name: column for name, column in table.items() if not column.tokens}
    joined: dict[str, tf.RaggedTensor] = {}
    if numbers:
        # One piece a list, as ml4ir writes it, needs no work a column; the branch saves ten ops a feature.
        pieces = tf.stack([sequences[name].row_splits for name in numbers])
        alone = tf.reduce_all(pieces[:, 1:] - pieces[:, :-1] <= 1)
        columns = tf.cond(
            alone,
            lambda: [_as_it_is(sequences[name]) for name in numbers],
            lambda: _by_piece({name: sequences[name] for name in numbers}, numbers),
        )
        for name, (values, splits) in zip(numbers, columns, strict=True):
            joined[name] = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
    counts = [joined[name].row_lengths() // column.width for name, column in numbers.items()]
    tokens = [name for name, column in table.items() if column.tokens]
    if tokens:
        sizes = tf.reduce_max(tf.stack([*counts, *(sequences[name].row_lengths() for name in tokens)]), axis=0)
        for name in tokens:
            joined[name] = sequences[name].merge_dims(1, 2)
            joined[name + ROW_LENGTHS] = _tokens_an_item(sequences[name], sizes)
    return joined


def _as_it_is(pieces: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
    return tf.identity(pieces.flat_values), tf.gather(pieces.values.row_splits, pieces.row_splits)


def _by_piece(
    sequences: Mapping[str, tf.RaggedTensor], table: Mapping[str, Column]
) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Values and splits by list, the missing value in place of empty pieces."""
    came = {name: pieces.values.row_lengths() for name, pieces in sequences.items()}
    wanted = {}
    for name, pieces in sequences.items():
        count = pieces.row_lengths()
        alone = tf.repeat(tf.equal(count, 1), count)
        wanted[name] = tf.where(alone, came[name], tf.constant(table[name].width, tf.int64))
    complete = tf.reduce_all(tf.concat([*came.values()], 0) == tf.concat([*wanted.values()], 0))
    values = tf.cond(
        complete,
        lambda: [tf.identity(pieces.flat_values) for pieces in sequences.values()],
        lambda: [_with_blanks(name, sequences[name].values, wanted[name], table[name]) for name in sequences],
    )
    ends = [tf.concat([[0], tf.cumsum(each)], axis=0) for each in wanted.values()]
    splits = [tf.gather(end, pieces.row_splits) for end, pieces in zip(ends, sequences.values(), strict=True)]
    return list(zip(values, splits, strict=True))


def _with_blanks(name: str, pieces: tf.RaggedTensor, wanted: tf.Tensor, column: Column) -> tf.Tensor:
    """The pieces' values one after another, the missing value in place of empty ones; wanted: int64 [piece]."""
    lengths = pieces.row_lengths()
    fits = tf.reduce_all(tf.equal(lengths, wanted) | tf.equal(lengths, 0))
    message = f"item feature {name}: expected {column.width} value(s) in each item, or none where it is missing"
    with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
        piece = tf.repeat(tf.range(tf.size(wanted, tf.int64)), wanted)
    within = tf.range(tf.size(piece, tf.int64)) - tf.gather(tf.cumsum(wanted, exclusive=True), piece)
    values = tf.concat([pieces.values, tf.constant([column.missing], pieces.values.dtype)], axis=0)
    at = tf.gather(pieces.row_splits, piece) + within
    return tf.gather(values, tf.where(tf.gather(lengths, piece) > 0, at, tf.size(pieces.values, tf.int64)))


def _tokens_an_item(pieces: tf.RaggedTensor, sizes: tf.Tensor) -> tf.RaggedTensor:
    """How many tokens each item has, int64 ragged [list, (item)]; sizes: int64 [list], the items of each list.

    A piece holds an item's tokens; where it is the only one and the list has more items, a token string an item.
    """
    count, lengths = pieces.row_lengths(), pieces.values.row_lengths()
    apart = tf.repeat(tf.equal(count, 1) & (sizes > 1), count)
    ones = tf.ones_like(lengths)
    repeats = tf.where(apart, lengths, ones)
    ends = tf.concat([[0], tf.cumsum(repeats)], axis=0)
    values = tf.repeat(tf.where(apart, ones, lengths), repeats)
    return tf.RaggedTensor.from_row_splits(values, tf.gather(ends, pieces.row_splits), validate=False)
