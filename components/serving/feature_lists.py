"""SequenceExample's feature lists in either layout, as one piece a list, inside the TensorFlow graph.

Enters: each item feature as ragged [list, (piece), (value)], a piece being a Feature.  Leaves: kinds of columns,
[list, (value)].  The one idea: in both layouts the values stand in the same order, so only what is missing has to be
put in.
"""

from collections.abc import Mapping, Sequence

import tensorflow as tf

from tfx_ranking.components.lists.list_examples import Column
from tfx_ranking.components.serving.item_columns import Kind, kinds_of


def in_one_piece(
    sequences: Mapping[str, tf.RaggedTensor], table: Mapping[str, Column]
) -> tuple[list[Kind], dict[str, tf.RaggedTensor]]:
    """The columns by kind; and the tokens, [list, (token of any item)], whose row lengths are a kind.

    A piece is one item's, or all of its list's where it is the only one.  Empty pieces among others are missing values.
    Raises InvalidArgumentError, naming the feature, for a piece of another length than an item's value has.
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
    """Columns of one dtype and width, empty pieces filled with the column's missing value.

    The columns' pieces are looked at as one sequence: column by column it was 2,000 ops for 46 features, whose starting
    alone took four times as long as parsing and scoring a list of 120.
    """
    width = table[names[0]].width
    outer = tf.stack([each.row_splits for each in sequences])  # in pieces
    inner = tf.concat([each.values.row_splits for each in sequences], axis=0)  # of the pieces, in values
    of_column = tf.cumsum(outer[:, -1:] + 1, exclusive=True)  # where a column's splits begin in `inner`
    at = of_column + outer
    count = outer[:, 1:] - outer[:, :-1]
    fits = tf.cumsum(tf.cast(tf.equal(inner[1:] - inner[:-1], width), tf.int64))
    fits = tf.gather(tf.concat([[0], fits], axis=0), at)
    # A list's only piece may hold all its items; of several each holds one.
    whole = tf.reduce_all(tf.equal(count, 1) | tf.equal(count, fits[:, 1:] - fits[:, :-1]))
    values = tf.concat([each.flat_values for each in sequences], axis=0)

    def with_blanks() -> tuple[tf.Tensor, tf.Tensor]:
        pieces = outer[:, -1]
        of_piece = tf.repeat(tf.range(len(names), dtype=tf.int64), pieces)  # its column
        # Between the splits of two columns there is no piece.
        here = tf.range(tf.size(of_piece, tf.int64)) + of_piece
        starts = tf.gather(inner, here)
        lengths = tf.gather(inner, here + 1) - starts
        alone = tf.repeat(tf.reshape(tf.equal(count, 1), [-1]), tf.reshape(count, [-1]))
        wanted = tf.where(alone, lengths, tf.constant(width, tf.int64))
        wrong = tf.not_equal(lengths, wanted) & tf.not_equal(lengths, 0)
        named = tf.gather(tf.constant(names), tf.gather(of_piece, tf.argmax(tf.cast(wrong, tf.int64))))
        message = tf.strings.join([
            "item feature ", named, f": expected {width} value(s) in each item, or none where it is missing"
        ])  # fmt: skip
        with tf.control_dependencies([tf.debugging.Assert(tf.logical_not(tf.reduce_any(wrong)), [message])]):
            piece = tf.repeat(tf.range(tf.size(wanted, tf.int64)), wanted)
        ends = tf.concat([[0], tf.cumsum(wanted)], axis=0)
        within = tf.range(tf.size(piece, tf.int64)) - tf.gather(ends, piece)
        before = tf.cumsum(tf.gather(inner, at[:, -1]), exclusive=True)  # values of the columns before
        source = tf.gather(before, of_piece) + starts
        blanks = tf.constant([table[name].missing for name in names], values.dtype)
        present = tf.gather(tf.not_equal(lengths, 0), piece)
        blank_at = tf.size(values, tf.int64) + tf.gather(of_piece, piece)
        places = tf.where(present, tf.gather(source, piece) + within, blank_at)
        filled = tf.gather(tf.concat([values, blanks], axis=0), places)
        splits = tf.gather(ends, tf.cumsum(pieces, exclusive=True)[:, tf.newaxis] + outer)
        return filled, splits - splits[:, :1]

    return Kind(names, *tf.cond(whole, lambda: (values, tf.gather(inner, at)), with_blanks))


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
