"""TFRecord files: flat `tf.Example`, ELWC, SequenceExample and list examples.

Enters: a TFRecord file, gzip or plain.  Leaves: chunks of rows (flat Examples) or of lists.  The one idea: a batch of
records is decoded to Arrow columns at once; only a batch that fails is halved until the record at fault stands alone.

A SequenceExample may hold one `Feature` an item (TensorFlow's guide) or all items in one `Feature` (ml4ir); which it
is shows from the label, of which every item has one.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components import column_types, formats
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.list_examples import ROW_LENGTHS, Column

BATCH_ROWS = 8_192
BATCH_LISTS = 512
_SEQUENCE = "#sequence"  # what the decoder calls the struct of feature lists


class Parsed(NamedTuple):
    """Columns of a batch of records; faults: (record in the batch, reason, items) that have to go first."""

    columns: dict[str, pa.Array]
    row_splits: np.ndarray | None
    faults: list[tuple[int, str, int]]


def read(request: formats.Request, kind: str) -> Iterator[formats.Chunk]:
    """The file's chunks.  Raises DataError where the TFRecord framing is broken: nothing after it can be read."""
    parse = _PARSERS[kind]
    rows = kind == "tf_example"
    first = 1
    for records in _batches(request.path, BATCH_ROWS if rows else BATCH_LISTS):
        yield from _safely(parse, records, np.arange(first, first + len(records)), request)
        first += len(records)


def _safely(
    parse: Callable[[list[bytes], formats.Request], Parsed],
    records: list[bytes],
    positions: np.ndarray,
    request: formats.Request,
) -> Iterator[formats.Chunk]:
    if not records:
        return
    import tensorflow as tf

    try:
        parsed = parse(records, request)
    except (RuntimeError, tf.errors.OpError) as error:
        if len(records) == 1:
            yield _only_bad(request, [formats.Bad(int(positions[0]), f"malformed record: {_first_line(error)}")], parse)
            return
        half = len(records) // 2
        yield from _safely(parse, records[:half], positions[:half], request)
        yield from _safely(parse, records[half:], positions[half:], request)
        return
    if parsed.faults:
        wrong = {at: formats.Bad(int(positions[at]), reason, max(1, items)) for at, reason, items in parsed.faults}
        yield _only_bad(request, [wrong[at] for at in sorted(wrong)], parse)
        keep = [i for i in range(len(records)) if i not in wrong]
        yield from _safely(parse, [records[i] for i in keep], positions[keep], request)
        return
    if parsed.row_splits is None:
        count = len(records)
    else:
        count = int(np.maximum(np.diff(parsed.row_splits), 1).sum())  # a list without items is one lost record
    yield formats.Chunk(parsed.columns, positions, count, row_splits=parsed.row_splits)


def _only_bad(request: formats.Request, bad: list[formats.Bad], parse: Any) -> formats.Chunk:
    names = [*request.table, *([request.time] if request.time else [])]
    columns = {name: pa.nulls(0) for name in names}
    splits = None if parse is _flat else np.zeros(1, np.int64)
    return formats.Chunk(columns, np.zeros(0, np.int64), sum(each.items for each in bad), bad, row_splits=splits)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _batches(path: str, size: int) -> Iterator[list[bytes]]:
    import tensorflow as tf

    with formats.open_raw(path) as opened:
        packed = opened.read(2) == b"\x1f\x8b"
    records = 0
    try:
        for batch in tf.data.TFRecordDataset(path, "GZIP" if packed else "").batch(size).as_numpy_iterator():
            records += len(batch)
            yield batch.tolist()
    except tf.errors.DataLossError as error:
        raise DataError(
            f"{path}: the TFRecord file is broken after record {records} ({_first_line(error)}); what follows "
            "cannot be read. Copy the file again, or take it out of the input."
        ) from None


def _columns(record_batch: pa.RecordBatch, names: list[str], rows: int) -> dict[str, pa.Array]:
    """List columns [row] by name, null where the batch has none."""
    found = {}
    for name in names:
        at = record_batch.schema.get_field_index(name)
        found[name] = record_batch.column(at) if at >= 0 else pa.nulls(rows)
    return found


def _names(request: formats.Request, level: str) -> list[str]:
    names = [name for name, column in request.table.items() if column.level == level]
    return [*names, request.time] if request.time and level == "context" else names


def _flat(records: list[bytes], request: formats.Request) -> Parsed:
    names = list(dict.fromkeys([*_names(request, "context"), *_names(request, "items")]))
    return Parsed(_columns(_decode(records), names, len(records)), None, [])


def _decode(records: list[bytes]) -> pa.RecordBatch:
    from tfx_bsl.coders import example_coder

    return example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(records)


def _elwc(records: list[bytes], request: formats.Request) -> Parsed:
    import tensorflow as tf

    from tfx_ranking.components.parsing import ELWC_DESCRIPTOR, ELWC_MESSAGE

    sizes, (examples, context) = tf.io.decode_proto(
        records,
        ELWC_MESSAGE,
        field_names=["examples", "context"],
        output_types=[tf.string, tf.string],
        descriptor_source=ELWC_DESCRIPTOR,
    )
    lengths = sizes[:, 0].numpy().astype(np.int64)
    flat = tf.boolean_mask(examples, tf.sequence_mask(sizes[:, 0], tf.shape(examples)[1])).numpy().tolist()
    head = context[:, 0].numpy().tolist() if context.shape[1] else [b""] * len(records)
    columns = _columns(_decode(head), _names(request, "context"), len(records))
    names = _names(request, "items")
    columns.update(_columns(_decode(flat), names, len(flat)) if flat else {name: pa.nulls(0) for name in names})
    return Parsed(columns, np.concatenate([[0], np.cumsum(lengths)]), [])


class _Values(NamedTuple):
    """One item feature of a batch of lists: flat `values`, cut into `inner` pieces, `outer` of them a list."""

    values: pa.Array
    inner: np.ndarray  # int64 [piece]: values in each
    outer: np.ndarray  # int64 [list]: pieces in each


def _sequence(records: list[bytes], request: formats.Request) -> Parsed:
    from tfx_bsl.coders import sequence_example_coder

    decoder = sequence_example_coder.SequenceExamplesToRecordBatchDecoder(_SEQUENCE)
    batch = decoder.DecodeBatch(records)
    columns = _columns(batch, _names(request, "context"), len(records))
    at = batch.schema.get_field_index(_SEQUENCE)
    struct = batch.column(at) if at >= 0 else None
    items = {}
    for name in _names(request, "items"):
        child = struct.type.get_field_index(name) if struct is not None else -1
        if child < 0 or struct is None:
            items[name] = _Values(pa.nulls(0), np.zeros(0, np.int64), np.zeros(len(records), np.int64))
            continue
        lists = struct.field(child)
        inner = lists.flatten()
        items[name] = _Values(inner.flatten(), column_types.list_lengths(inner), column_types.list_lengths(lists))
    return _aligned(columns, items, request)


def _list_examples(records: list[bytes], request: formats.Request) -> Parsed:
    batch = _decode(records)
    columns = _columns(batch, _names(request, "context"), len(records))
    items = {}
    for name in _names(request, "items"):
        column = request.table[name]
        at = batch.schema.get_field_index(name)
        if at < 0:
            items[name] = _Values(pa.nulls(0), np.zeros(0, np.int64), np.zeros(len(records), np.int64))
            continue
        array = batch.column(at)
        lengths = column_types.list_lengths(array)
        lengths_at = batch.schema.get_field_index(name + ROW_LENGTHS) if column.tokens else -1
        if lengths_at >= 0:
            rows = batch.column(lengths_at)
            inner = np.asarray(rows.flatten(), np.int64)
            items[name] = _Values(array.flatten(), inner, column_types.list_lengths(rows))
        else:  # all items in one piece
            items[name] = _Values(array.flatten(), lengths[lengths > 0], (lengths > 0).astype(np.int64))
    return _aligned(columns, items, request)


_PARSERS: dict[str, Callable[[list[bytes], formats.Request], Parsed]] = {
    "tf_example": _flat,
    "elwc": _elwc,
    "sequence_example": _sequence,
    "list_example": _list_examples,
}


def _aligned(columns: dict[str, pa.Array], items: dict[str, _Values], request: formats.Request) -> Parsed:
    """One value (or list of values) an item for every item feature, or the lists in which the lengths differ."""
    label = items[request.data.label]
    sizes = _sizes(label)
    faults: list[tuple[int, str, int]] = []
    for name, values in items.items():
        array, wrong = _per_item(values, sizes, request.table[name])
        for at in np.flatnonzero(wrong):
            came = int(values.outer[at]) if values.outer[at] != 1 else int(_totals(values)[at])
            reason = f"{name}: {came} values for {int(sizes[at])} items ({request.data.label} says how many there are)"
            faults.append((int(at), reason, int(sizes[at])))
        if array is not None:
            columns[name] = array
    return Parsed(columns, np.concatenate([[0], np.cumsum(sizes)]), faults)


def _totals(values: _Values) -> np.ndarray:
    """int64 [list]: values of all pieces."""
    ends = np.concatenate([[0], np.cumsum(values.inner)])
    return np.diff(ends[np.concatenate([[0], np.cumsum(values.outer)])])


def _sizes(label: _Values) -> np.ndarray:
    """int64 [list]: items.  Several pieces are one each; a single piece may hold all of them."""
    return np.where(label.outer == 1, np.maximum(_totals(label), 1), label.outer)


def _per_item(values: _Values, sizes: np.ndarray, column: Column) -> tuple[pa.Array | None, np.ndarray]:
    """The column as lists, one an item, and the lists whose count does not fit (then there is no column)."""
    totals = _totals(values)
    nothing = (values.outer == 0) | ((values.outer == 1) & (totals == 0))
    each = ~nothing & (values.outer == sizes)
    whole = ~nothing & ~each & (values.outer == 1) & (totals == sizes * column.width)
    wrong = ~(nothing | each | whole)
    if wrong.any():
        return None, wrong
    lengths = np.zeros(int(sizes.sum()), np.int64)
    lengths[np.repeat(each, sizes)] = values.inner[np.repeat(each, values.outer)]
    lengths[np.repeat(whole, sizes)] = column.width
    if not len(values.values):
        return pa.nulls(len(lengths)), wrong
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.values), wrong
