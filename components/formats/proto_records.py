"""Reads TFRecord files: flat `tf.Example`, ELWC, SequenceExample and list examples.

Input: a TFRecord file, gzip or plain.  Output: chunks of rows (flat Examples) or of lists.  A batch of records is
decoded to Arrow columns at once.  A batch that fails is halved until the bad record is alone.

A SequenceExample may have one `Feature` per item (TensorFlow's guide) or all items in one `Feature` (ml4ir).  The label
shows which layout it is, because every item has a label; without labels, the longest feature shows it.
"""

import abc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.formats import chunks, column_types
from tfx_ranking.components.formats.item_alignment import Columns, Parsed, Values, aligned
from tfx_ranking.components.lists import elwc
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, is_gzip

BATCH_ROWS = 8_192
BATCH_LISTS = 512
BATCH_FIRST = 16
_SEQUENCE = "#sequence"  # the decoder's name for the struct of feature lists


def read_elwc(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The chunks of a TFRecord file of ExampleListWithContexts.

    This reader and the three below raise DataError where the frame of a record is broken: nothing after it can be read.
    """
    return _read(request, _Elwc(request))


def read_sequence_example(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The chunks of a TFRecord file of SequenceExamples."""
    return _read(request, _Sequence(request))


def read_tf_example(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The chunks of a TFRecord file with one Example per item."""
    return _read(request, _Flat(request))


def read_list_example(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The chunks of a TFRecord file with one Example per list."""
    return _read(request, _ListExamples(request))


def _read(request: chunks.FileRequest, reader: "_Reader") -> Iterator[chunks.Chunk]:
    first = 1
    for records in _batches(request.path, BATCH_LISTS if reader.lists else BATCH_ROWS):
        yield from _safely(reader, records, np.arange(first, first + len(records)))
        first += len(records)


def _safely(reader: "_Reader", records: list[bytes], positions: np.ndarray) -> Iterator[chunks.Chunk]:
    if not records:
        return
    try:
        parsed = reader.parse(records)
    except RuntimeError as error:
        if len(records) == 1:
            yield reader.only_bad([chunks.BadRecord(int(positions[0]), f"malformed record: {_first_line(error)}")])
            return
        half = len(records) // 2
        yield from _safely(reader, records[:half], positions[:half])
        yield from _safely(reader, records[half:], positions[half:])
        return
    if parsed.faults:
        wrong = {at: chunks.BadRecord(int(positions[at]), reason, max(1, items)) for at, reason, items in parsed.faults}
        yield reader.only_bad([wrong[at] for at in sorted(wrong)])
        keep = [i for i in range(len(records)) if i not in wrong]
        yield from _safely(reader, [records[i] for i in keep], positions[keep])
        return
    if parsed.row_splits is None:
        count = len(records)
    else:
        count = int(np.maximum(np.diff(parsed.row_splits), 1).sum())  # a list without items is one lost record
    yield chunks.Chunk(parsed.columns, positions, count, row_splits=parsed.row_splits)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]


def _batches(path: str, size: int) -> Iterator[list[bytes]]:
    import tensorflow as tf

    with chunks.open_raw(path) as opened:
        packed = is_gzip(opened)
    records = 0
    try:
        for batch in tf.data.TFRecordDataset(path, "GZIP" if packed else "").batch(size).as_numpy_iterator():
            read = batch.tolist()
            # Only a few first, to learn the types: the decoder that finds them is slow.
            for part in (read,) if records else (read[:BATCH_FIRST], read[BATCH_FIRST:]):
                records += len(part)
                yield part
    except tf.errors.DataLossError as error:
        raise DataError(
            f"{path}: the TFRecord file is broken after record {records} ({_first_line(error)}); the rest "
            "cannot be read. Copy the file again, or remove it from the input."
        ) from None


class _Reader(abc.ABC):
    """Decodes batches of records.

    tfx-bsl's decoders read the first batches.  They accept any type, report the type of each feature, and fail on every
    broken record.  TensorFlow's parsers read the rest.  They are several times faster, but need the types.
    """

    lists = True

    def __init__(self, request: chunks.FileRequest):
        self.request = request
        self.names = {level: self._names(level) for level in ("context", "items")}
        self._kinds: dict[tuple[str, str], Any] = {}  # (level, name) → TensorFlow dtype
        self._compiled: Any = None

    def parse(self, records: list[bytes]) -> Parsed:
        """Raises RuntimeError when a record is malformed."""
        import tensorflow as tf

        if self._kinds:
            if self._compiled is None:
                self._compiled = tf.function(self._parse).get_concrete_function(tf.TensorSpec([None], tf.string))
            try:
                return self._arranged(self._compiled(tf.constant(records, tf.string)), len(records))
            except (tf.errors.OpError, UnicodeDecodeError):  # a broken record, or a type that is new in this batch
                pass
        columns = self._decode(records)
        for at, values in columns.items():
            if at not in self._kinds and not pa.types.is_null(values.values.type):
                self._kinds[at], self._compiled = _tensorflow_type(values.values.type), None
        return self._arrange(columns, len(records))

    def only_bad(self, bad: list[chunks.BadRecord]) -> chunks.Chunk:
        columns = {name: pa.nulls(0) for names in self.names.values() for name in names}
        splits = np.zeros(1, np.int64) if self.lists else None
        return chunks.Chunk(columns, np.zeros(0, np.int64), sum(each.items for each in bad), bad, row_splits=splits)

    @abc.abstractmethod
    def _decode(self, records: list[bytes]) -> "Columns":
        """Decodes the batch with tfx-bsl.  Raises RuntimeError for a malformed record."""

    @abc.abstractmethod
    def _parse(self, records: Any) -> dict[str, Any]:
        """Decodes the batch with TensorFlow: "level/name" → ragged tensor.  Raises OpError for a malformed record."""

    @abc.abstractmethod
    def _arrange(self, columns: "Columns", lists: int) -> Parsed:
        """The columns with one entry per item, and the bad records."""

    def _arranged(self, tensors: dict[str, Any], lists: int) -> Parsed:
        columns = {}
        for level, names in self.names.items():
            for name in names:
                columns[level, name] = _from_ragged(tensors[f"{level}/{name}"])
        return self._arrange(columns, lists)

    def _spec(self, level: str) -> dict[str, Any]:
        import tensorflow as tf

        of_config = {"float": tf.float32, "int": tf.int64, "string": tf.string}
        spec = {}
        for name in self.names[level]:
            column = self.request.table.get(name)
            kind = self._kinds.get((level, name), of_config[column.dtype if column else "string"])
            spec[name] = tf.io.RaggedFeature(kind, row_splits_dtype=tf.int64)
        return spec

    def _names(self, level: str) -> list[str]:
        names = [name for name, column in self.request.table.items() if column.level == level]
        time = self.request.time
        return [*names, time] if time and level == "context" and time not in self.request.table else names


class _Flat(_Reader):
    """One item per record."""

    lists = False

    def _decode(self, records: list[bytes]) -> Columns:
        return _decoded(records, {(level, name): name for level in self.names for name in self.names[level]})

    def _parse(self, records: Any) -> dict[str, Any]:
        import tensorflow as tf

        parsed = tf.io.parse_example(records, {**self._spec("context"), **self._spec("items")})
        return {f"{level}/{name}": parsed[name] for level in self.names for name in self.names[level]}

    def _arrange(self, columns: Columns, lists: int) -> Parsed:
        return Parsed({name: values.as_lists() for (_, name), values in columns.items()}, None, [])


class _Elwc(_Reader):
    """ExampleListWithContext: one Example for the list, and one per item."""

    def _decode(self, records: list[bytes]) -> Columns:
        import tensorflow as tf

        try:
            context, items, lengths = elwc.split(records)
        except (tf.errors.OpError, UnicodeDecodeError):  # TensorFlow's message contains the bytes of the record
            raise RuntimeError("not an ExampleListWithContext") from None
        columns = _decoded(context.numpy().tolist(), {("context", name): name for name in self.names["context"]})
        of_items = _decoded(items.numpy().tolist(), {("items", name): name for name in self.names["items"]})
        sizes = lengths.numpy()
        return {**columns, **{at: values._replace(outer=sizes) for at, values in of_items.items()}}

    def _parse(self, records: Any) -> dict[str, Any]:
        import tensorflow as tf

        context, items, lengths = elwc.split(records)
        parsed: dict[str, Any] = {}
        if self.names["context"]:
            of_lists = tf.io.parse_example(context, self._spec("context"))
            parsed.update({f"context/{name}": value for name, value in of_lists.items()})
        of_items = tf.io.parse_example(items, self._spec("items"))
        for name, value in of_items.items():
            parsed[f"items/{name}"] = tf.RaggedTensor.from_row_lengths(value, lengths, validate=False)
        return parsed

    def _arrange(self, columns: Columns, lists: int) -> Parsed:
        sizes = next(values.outer for (level, _), values in columns.items() if level == "items")  # one Example per item
        arrays = {name: values.as_lists() for (_, name), values in columns.items()}
        return Parsed(arrays, np.concatenate([[0], np.cumsum(sizes)]), [])


class _Sequence(_Reader):
    """SequenceExample, in either layout."""

    def _decode(self, records: list[bytes]) -> Columns:
        from tfx_bsl.coders import sequence_example_coder

        batch = sequence_example_coder.SequenceExamplesToRecordBatchDecoder(_SEQUENCE).DecodeBatch(records)
        columns: Columns = {("context", name): _from_batch(batch, name, len(records)) for name in self.names["context"]}
        at = batch.schema.get_field_index(_SEQUENCE)
        struct = batch.column(at) if at >= 0 else None
        for name in self.names["items"]:
            child = struct.type.get_field_index(name) if struct is not None else -1
            if struct is None or child < 0:
                columns["items", name] = _no_values(len(records))
                continue
            lists = struct.field(child)
            inner = lists.flatten()
            lengths = column_types.list_lengths(inner), column_types.list_lengths(lists)
            columns["items", name] = Values(inner.flatten(), *lengths)
        return columns

    def _parse(self, records: Any) -> dict[str, Any]:
        import tensorflow as tf

        of_lists, of_items, _ = tf.io.parse_sequence_example(records, self._spec("context"), self._spec("items"))
        parsed = {f"context/{name}": value for name, value in of_lists.items()}
        return {**parsed, **{f"items/{name}": value for name, value in of_items.items()}}

    def _arrange(self, columns: Columns, lists: int) -> Parsed:
        return aligned(columns, self.request)


class _ListExamples(_Reader):
    """List examples as this project writes them: a feature's values of all items in one list, and row lengths."""

    def __init__(self, request: chunks.FileRequest):
        super().__init__(request)
        tokens = [name for name in self.names["items"] if request.table[name].tokens]
        self._row_lengths = {name: name + ROW_LENGTHS for name in tokens}
        self.names["lengths"] = list(self._row_lengths.values())

    def _decode(self, records: list[bytes]) -> Columns:
        return _decoded(records, {(level, name): name for level in self.names for name in self.names[level]})

    def _spec(self, level: str) -> dict[str, Any]:
        import tensorflow as tf

        if level == "lengths":
            return {name: tf.io.RaggedFeature(tf.int64, row_splits_dtype=tf.int64) for name in self.names[level]}
        return super()._spec(level)

    def _parse(self, records: Any) -> dict[str, Any]:
        import tensorflow as tf

        parsed = tf.io.parse_example(records, {**self._spec("context"), **self._spec("items"), **self._spec("lengths")})
        return {f"{level}/{name}": parsed[name] for level in self.names for name in self.names[level]}

    def _arrange(self, columns: Columns, lists: int) -> Parsed:
        cut: Columns = {at: values for at, values in columns.items() if at[0] == "context"}
        for name in self.names["items"]:
            flat, count = columns["items", name].values, columns["items", name].inner
            lengths = columns["lengths", self._row_lengths[name]] if name in self._row_lengths else None
            if lengths is not None and len(lengths.values):
                cut["items", name] = Values(flat, np.asarray(lengths.values, np.int64), lengths.inner)
            else:  # one piece has all items
                cut["items", name] = Values(flat, count[count > 0], (count > 0).astype(np.int64))
        return aligned(cut, self.request)


def _decoded(records: list[bytes], names: dict[tuple[str, str], str]) -> Columns:
    """Decodes Examples with tfx-bsl: one piece per record.  Raises RuntimeError for a malformed record."""
    from tfx_bsl.coders import example_coder

    if not records:
        return {at: _no_values(0) for at in names}
    batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(records)
    return {at: _from_batch(batch, name, len(records)) for at, name in names.items()}


def _from_batch(batch: pa.RecordBatch, name: str, records: int) -> Values:
    at = batch.schema.get_field_index(name)
    if at < 0 or pa.types.is_null(batch.column(at).type):
        return Values(pa.nulls(0), np.zeros(records, np.int64), np.ones(records, np.int64))
    array = batch.column(at)
    return Values(array.flatten(), column_types.list_lengths(array), np.ones(records, np.int64))


def _no_values(records: int) -> Values:
    return Values(pa.nulls(0), np.zeros(0, np.int64), np.zeros(records, np.int64))


def _from_ragged(ragged: Any) -> Values:
    inner = ragged.values if ragged.ragged_rank == 2 else ragged
    values = inner.values.numpy()
    array = pa.array(values, pa.binary()) if values.dtype == object else pa.array(values)
    outer = ragged.row_lengths().numpy() if ragged.ragged_rank == 2 else np.ones(int(ragged.nrows()), np.int64)
    return Values(array, inner.row_lengths().numpy(), outer)


def _tensorflow_type(kind: pa.DataType) -> Any:
    import tensorflow as tf

    return tf.float32 if pa.types.is_floating(kind) else tf.int64 if pa.types.is_integer(kind) else tf.string
