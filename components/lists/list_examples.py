"""Encodes and decodes list examples: a query and its items as one `tf.train.Example`; `ListBatch` in memory.

Input: columns, flat over all items of a batch, and the row splits that cut them into lists.  Output: serialized
Examples; `decode` goes the other way.  A list is never padded and never cut.

An Example holds, under the config's names: a context feature's value(s) once a list; an item feature's value(s) once
an item, all items of the list in their order (a vector of shape [d]: d numbers an item); the tokens of all items one
after the other, and `<name>/row_lengths` to tell whose they are.  Every value is written, missing ones as NaN, `""`,
the integer's default or a row of no tokens.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import DataError

SPANS_OF_SHARDS = "spans.json"  # in an Examples artifact of an input with spans: {split: {shard: span}}
_GZIP_MAGIC = b"\x1f\x8b"
ROW_LENGTHS = "/row_lengths"  # suffix of the feature with the number of tokens of each item


class Tokens(NamedTuple):
    """A multi-valued column: `values` flat, `row_splits` int64 [row + 1], a row being a list or an item."""

    values: Any
    row_splits: Any


class ListBatch(NamedTuple):
    """Lists in columns, NumPy/Arrow arrays or tensors alike.

    context: name → [list] or [list, width].  items: name → [item] or [item, width], all items of the batch flat, the
    first list's first.  row_splits: int64 [list + 1], list i's items are row_splits[i]:row_splits[i + 1].
    Token columns are `Tokens`.  An empty list has two equal splits; an empty batch has row_splits [0].
    """

    context: Mapping[str, Any]
    items: Mapping[str, Any]
    row_splits: Any


@dataclasses.dataclass(frozen=True)
class Column:
    """How one column of a list example is laid out."""

    level: Literal["context", "items"]
    dtype: Literal["float", "int", "string"]
    width: int = 1  # numbers per value
    tokens: bool = False
    missing: float | int | bytes = 0  # what is written where the source has no value

    @property
    def numpy(self) -> type:
        return {"float": np.float32, "int": np.int64, "string": object}[self.dtype]

    @property
    def arrow(self) -> pa.DataType:
        return {"float": pa.float32(), "int": pa.int64(), "string": pa.binary()}[self.dtype]


def columns(config: RankingConfig) -> dict[str, Column]:
    """Every column of a list example in the order in which it is written: group id, context, items, label and so on.

    >>> from tfx_ranking.components.config import parse
    >>> config = parse({"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f1": {}}})
    >>> {name: (column.level, column.dtype) for name, column in columns(config).items()}
    {'group_id': ('context', 'string'), 'f1': ('items', 'float'), 'label': ('items', 'float')}
    """
    data = config.data
    table = {data.group_id: Column("context", "string", missing=b"")}
    for level in ("context", "items"):
        for name, feature in getattr(config, level).items():
            default = feature.default if feature.dtype == "int" and feature.default is not None else 0
            missing = {"float": float("nan"), "int": default, "string": b""}[feature.dtype]
            tokens = feature.tokens is not None
            table[name] = Column(level, feature.dtype, feature.width, tokens, missing)
    table[data.label] = Column("items", "float", missing=float("nan"))
    if data.weight:
        table[data.weight] = Column("items", "float", missing=float("nan"))
    if data.position:
        table[data.position] = Column("items", "int")
    if data.item_id:
        table[data.item_id] = Column("items", "string", missing=b"")
    return table


def encode(batch: ListBatch, table: Mapping[str, Column]) -> list[bytes]:
    """One serialized `tf.train.Example` a list.

    batch: NumPy or Arrow columns for every name in `table`.  Raises DataError when a column is absent or its length
    is not what the row splits say.

    >>> table = {"q": Column("context", "string"), "x": Column("items", "float")}
    >>> batch = ListBatch({"q": np.array([b"a", b"b"], object)}, {"x": np.float32([1, 2, 3])}, np.array([0, 2, 3]))
    >>> decode(encode(batch, table), table).items["x"]
    array([1., 2., 3.], dtype=float32)
    """
    from tfx_bsl.coders import example_coder

    arrays: dict[str, pa.Array] = {}
    splits = np.asarray(batch.row_splits, np.int64)
    lists = len(splits) - 1
    if lists < 1:
        return []
    for name, column in table.items():
        rows = splits if column.level == "items" else np.arange(lists + 1)
        values = getattr(batch, column.level).get(name)
        if values is None:
            raise DataError(
                f"{column.level} column {name!r} is not in the batch; it holds {sorted(getattr(batch, column.level))}."
            )
        if column.tokens:
            inner = np.asarray(values.row_splits, np.int64)
            _check_length(name, len(inner) - 1, int(rows[-1]))
            arrays[name] = _list_array(values.values, inner[rows], column)
            if column.level == "items":
                arrays[name + ROW_LENGTHS] = _list_array(np.diff(inner), rows, _LENGTHS)
        else:
            flat = values.reshape(-1) if isinstance(values, np.ndarray) else values
            _check_length(name, len(flat), int(rows[-1]) * column.width)
            arrays[name] = _list_array(flat, rows * column.width, column)
    # Column by column, then joined: in one call the order of the features, and so the bytes, varies from run to run.
    encoder = example_coder.RecordBatchToExamplesEncoder()
    encoded = [encoder.encode(pa.RecordBatch.from_arrays([array], [name])) for name, array in arrays.items()]
    return [_joined(parts) for parts in zip(*encoded)]


def decode(serialized: Sequence[bytes], table: Mapping[str, Column]) -> ListBatch:
    """The columns of `table` in serialized list examples, as NumPy arrays; string columns hold bytes.

    The row splits are those of the item columns; a table without any gives a batch whose lists are all empty.
    Raises DataError where a column is absent or the item columns of a list differ in length.
    """
    from tfx_bsl.coders import example_coder

    context: dict[str, Any] = {}
    items: dict[str, Any] = {}
    row_splits: np.ndarray | None = None
    record_batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(list(serialized)) if serialized else None

    def read(name: str, column: Column) -> tuple[np.ndarray, np.ndarray]:
        if record_batch is None:
            return np.empty(0, column.numpy), np.zeros(1, np.int64)
        at = record_batch.schema.get_field_index(name)
        array = record_batch.column(at) if at >= 0 else pa.nulls(record_batch.num_rows)
        if array.null_count and pa.types.is_null(array.type):  # nowhere in the batch
            return np.empty(0, column.numpy), np.zeros(record_batch.num_rows + 1, np.int64)
        lengths = np.diff(np.asarray(array.offsets, np.int64)) * np.asarray(array.is_valid(), np.int64)
        values = array.flatten()
        if values.type != column.arrow and values.type != pa.large_binary():
            raise DataError(f"column {name!r}: expected {column.dtype} values; got {values.type}.")
        flat = values.to_numpy(zero_copy_only=False)
        return flat.astype(column.numpy, copy=False), np.concatenate([[0], np.cumsum(lengths)])

    for name, column in table.items():
        values, offsets = read(name, column)
        if column.tokens and column.level == "context":
            context[name] = Tokens(values, offsets)
            continue
        if column.tokens:
            lengths, rows = read(name + ROW_LENGTHS, _LENGTHS)
            inner = np.concatenate([[0], np.cumsum(lengths)])
            if not np.array_equal(inner[rows], offsets):
                raise DataError(f"column {name!r}: {name}{ROW_LENGTHS} does not add up to the number of tokens.")
            items[name] = Tokens(values, inner)
        else:
            if np.any(offsets % column.width):
                raise DataError(f"column {name!r}: expected {column.width} numbers a value; a list has another count.")
            rows = offsets // column.width
            shaped = values.reshape(-1, column.width) if column.width > 1 else values
            if column.level == "context":
                bad = np.flatnonzero(np.diff(rows) != 1)
                if bad.size:
                    raise DataError(f"column {name!r}: expected one value a list; one has {np.diff(rows)[bad[0]]}.")
                context[name] = shaped
                continue
            items[name] = shaped
        if row_splits is None:
            row_splits, first = rows, name
        elif not np.array_equal(row_splits, rows):
            bad = np.flatnonzero(np.diff(row_splits) != np.diff(rows))
            raise DataError(
                f"list {bad[0]} of the batch: {first!r} has {np.diff(row_splits)[bad[0]]} items, "
                f"{name!r} has {np.diff(rows)[bad[0]]}; all item columns of a list have one length."
            )
    return ListBatch(context, items, np.zeros(len(serialized) + 1, np.int64) if row_splits is None else row_splits)


def group_text(group_id: bytes | str) -> str:
    """A group id as text for people; bytes that are not UTF-8 are shown as escapes.

    >>> group_text(b"q7"), group_text("q7")
    ('q7', 'q7')
    """
    return group_id.decode("utf-8", "backslashreplace") if isinstance(group_id, bytes) else str(group_id)


def split_files(examples_uri: str, split: str) -> list[str]:
    """The TFRecord files of one split of an Examples artifact, sorted."""
    import tensorflow as tf

    return sorted(tf.io.gfile.glob(f"{examples_uri.rstrip('/')}/Split-{split}/*"))


def is_gzip(opened: IO[bytes]) -> bool:
    """Whether an open file starts with gzip's two magic bytes; the file is at its start afterwards."""
    packed = opened.read(2) == _GZIP_MAGIC
    opened.seek(0)
    return packed


def read_records(files: Sequence[str]) -> Iterator[bytes]:
    """The records of TFRecord files, gzip or plain, in order."""
    import tensorflow as tf

    for file in files:
        with tf.io.gfile.GFile(file, "rb") as opened:
            compressed = is_gzip(opened)
        yield from tf.data.TFRecordDataset(file, "GZIP" if compressed else "").as_numpy_iterator()


def write_records(file: str, records: Sequence[bytes]) -> None:
    """A gzip TFRecord file; the same records give the same bytes."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(file, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for record in records:
            writer.write(record)


_LENGTHS = Column("items", "int")


def _joined(parts: Sequence[bytes]) -> bytes:
    """One Example out of Examples of one feature each: their `features` messages, one after the other, are one."""
    # The header of a message below 128 bytes is 2 bytes long, below 16,384 it is 3.
    bare = [p[2:] if len(p) < 130 else p[3:] if len(p) < 16_387 else p[1 + _varint_size(len(p)) :] for p in parts]
    body = b"".join(bare)
    return b"\x0a" + _varint(len(body)) + body


def _varint_size(total: int) -> int:
    """Bytes of the length field in a message of one length-delimited field that has `total` bytes in all."""
    size = 1
    while total - 1 - size >= 1 << (7 * size):
        size += 1
    return size


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _check_length(name: str, received: int, expected: int) -> None:
    if received != expected:
        raise DataError(f"column {name!r}: the row splits ask for {expected} values; it has {received}.")


def _list_array(values: Any, offsets: np.ndarray, column: Column) -> pa.Array:
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = pa.array(values, column.arrow)
    elif values.type != column.arrow:
        values = values.cast(column.arrow)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
