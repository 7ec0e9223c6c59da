"""Encodes and decodes list examples: one `tf.train.Example` with a query and all its items.

Input: a `ListBatch`: columns with the values of all items of a batch, and the row splits between lists.  Output:
serialized Examples; `decode` does the reverse.  A list is never padded or shortened.

The features of an Example have the names of the config.  A context feature has one value.  An item feature has one
value per item, in the order of the items; a vector of shape [d] has d numbers per item.  A token feature has the tokens
of all items in order, and `<name>/row_lengths` has the number of tokens of each item.  A missing value is written as
NaN, `""`, the integer's default or zero tokens.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import DataError

SPANS_OF_SHARDS = "spans.json"  # file of an Examples artifact whose input has spans: {split: {shard: span}}
_GZIP_MAGIC = b"\x1f\x8b"
ROW_LENGTHS = "/row_lengths"  # suffix of the feature with the number of tokens of each item


class Tokens(NamedTuple):
    """A column with many values per row: all values, and row_splits int64 [row + 1]; a row is a list or an item."""

    values: Any
    row_splits: Any


class ListBatch(NamedTuple):
    """A batch of lists as columns: NumPy arrays, Arrow arrays or tensors.

    context: name → [list] or [list, width].  items: name → [item] or [item, width], with the items of all lists in
    order.  row_splits: int64 [list + 1]; the items of list i are row_splits[i]:row_splits[i + 1].
    Token columns are `Tokens`.  An empty list has two equal splits; an empty batch has row_splits [0].
    """

    context: Mapping[str, Any]
    items: Mapping[str, Any]
    row_splits: Any


@dataclasses.dataclass(frozen=True)
class Column:
    """The level, the type and the width of one column of a list example."""

    level: Literal["context", "items"]
    dtype: Literal["float", "int", "string"]
    width: int = 1  # numbers per value
    tokens: bool = False
    missing: float | int | bytes = 0  # the value that is written where the source has none

    @property
    def numpy(self) -> type:
        return {"float": np.float32, "int": np.int64, "string": object}[self.dtype]

    @property
    def arrow(self) -> pa.DataType:
        return {"float": pa.float32(), "int": pa.int64(), "string": pa.binary()}[self.dtype]


def columns(config: RankingConfig) -> dict[str, Column]:
    """Every column of a list example, in the order of writing: group id, context, items, label and so on.

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
    """One serialized `tf.train.Example` per list.

    batch: has a NumPy or Arrow column for every name in `table`.  Raises DataError when a column is absent, or when its
    length does not fit the row splits.

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
                f"{column.level} column {name!r} is not in the batch; it has {sorted(getattr(batch, column.level))}."
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
    # Each column alone, then joined: in one call the order of the features, and so the bytes, differs between runs.
    encoder = example_coder.RecordBatchToExamplesEncoder()
    encoded = [encoder.encode(pa.RecordBatch.from_arrays([array], [name])) for name, array in arrays.items()]
    return [_joined(parts) for parts in zip(*encoded)]


def decode(serialized: Sequence[bytes], table: Mapping[str, Column]) -> ListBatch:
    """The columns of `table` in serialized list examples, as NumPy arrays; the values of string columns are bytes.

    The item columns give the row splits; with a table without item columns, all lists of the batch are empty.
    Raises DataError where the item columns of a list differ in length, or a column has the wrong type or width.
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
        if array.null_count and pa.types.is_null(array.type):  # absent from the whole batch
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
                raise DataError(f"column {name!r}: the sum of {name}{ROW_LENGTHS} is not the number of tokens.")
            items[name] = Tokens(values, inner)
        else:
            if np.any(offsets % column.width):
                raise DataError(f"column {name!r}: expected {column.width} numbers per value.")
            rows = offsets // column.width
            shaped = values.reshape(-1, column.width) if column.width > 1 else values
            if column.level == "context":
                bad = np.flatnonzero(np.diff(rows) != 1)
                if bad.size:
                    raise DataError(f"column {name!r}: expected one value per list; got {np.diff(rows)[bad[0]]}.")
                context[name] = shaped
                continue
            items[name] = shaped
        if row_splits is None:
            row_splits, first = rows, name
        elif not np.array_equal(row_splits, rows):
            bad = np.flatnonzero(np.diff(row_splits) != np.diff(rows))
            raise DataError(
                f"list {bad[0]} of the batch: {first!r} has {np.diff(row_splits)[bad[0]]} items, "
                f"{name!r} has {np.diff(rows)[bad[0]]}; all item columns of a list must have the same length."
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
    """Whether an open file starts with the two magic bytes of gzip; leaves the file at its start."""
    packed = opened.read(2) == _GZIP_MAGIC
    opened.seek(0)
    return packed


def read_records(files: Sequence[str]) -> Iterator[bytes]:
    """The records of TFRecord files, in order; a file may be gzip or plain."""
    import tensorflow as tf

    for file in files:
        with tf.io.gfile.GFile(file, "rb") as opened:
            compressed = is_gzip(opened)
        yield from tf.data.TFRecordDataset(file, "GZIP" if compressed else "").as_numpy_iterator()


def write_records(file: str, records: Sequence[bytes]) -> None:
    """Writes a gzip TFRecord file; the same records give the same bytes."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(file, tf.io.TFRecordOptions(compression_type="GZIP")) as writer:
        for record in records:
            writer.write(record)


_LENGTHS = Column("items", "int")


def _joined(parts: Sequence[bytes]) -> bytes:
    """Joins Examples that have one feature each to one Example: protobuf merges concatenated `features` messages."""
    # The header of a message has 2 bytes below 128 bytes, and 3 bytes below 16,384.
    bare = [p[2:] if len(p) < 130 else p[3:] if len(p) < 16_387 else p[1 + _varint_size(len(p)) :] for p in parts]
    body = b"".join(bare)
    return b"\x0a" + _varint(len(body)) + body


def _varint_size(total: int) -> int:
    """Bytes of the length field, in a message of `total` bytes that is one length-delimited field."""
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
        raise DataError(f"column {name!r}: expected {expected} values, from the row splits; got {received}.")


def _list_array(values: Any, offsets: np.ndarray, column: Column) -> pa.Array:
    if not isinstance(values, (pa.Array, pa.ChunkedArray)):
        values = pa.array(values, column.arrow)
    elif values.type != column.arrow:
        values = values.cast(column.arrow)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
