"""Reads CSV and Parquet files with one row per item and a column with the group id.

Input: a file with named columns.  Output: chunks of rows.  A CSV file is read in blocks, with the config's types.  From
the first block that fails, cells are read as text, so a bad cell costs its row and not the file.  In a CSV cell, a
dense vector is numbers separated by spaces or commas, with or without brackets (`0.1 0.2`, `[0.1, 0.2]`); in Parquet it
is a list.
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.formats import chunks, column_types
from tfx_ranking.components.lists.list_examples import is_gzip

BLOCK_BYTES = 4 << 20
BATCH_ROWS = 65_536


def read_csv(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The rows in the file's order; the header is row 1.  Raises DataError when the file lacks a column."""
    names = _csv_columns(request)
    if not names:
        return
    row = 2
    try:
        # One reader per file, because each call of pyarrow.csv visits every object in the process (pyarrow 10).
        for batch in _batches(request, names, _types(request, names)):
            columns = dict(zip(names, batch.columns))
            yield chunks.Chunk(columns, np.arange(row, row + batch.num_rows), batch.num_rows)
            row += batch.num_rows
    except pa.ArrowInvalid:
        yield from _read_as_text(request, names, row)


def _read_as_text(request: chunks.FileRequest, names: list[str], start: int) -> Iterator[chunks.Chunk]:
    """Reads cells as bytes, from row `start` on; all rows before it are good.

    Rows with too few or too many cells are bad records here; `grouping.check` finds bad cells later.
    """
    waiting: list[chunks.BadRecord] = []
    row = 2

    def refuse(row: Any) -> str:
        reason = f"malformed row: expected {row.expected_columns} cells; got {row.actual_columns}"
        waiting.append(chunks.BadRecord(int(row.number), reason))
        return "skip"

    try:
        for batch in _batches(request, names, dict.fromkeys(names, pa.binary()), refuse):
            known = min(max(start - row, 0), batch.num_rows)
            row, batch = row + known, batch.slice(known)
            positions = _positions(row, batch.num_rows, [each.position for each in waiting])
            row = int(positions[-1]) + 1 if len(positions) else row
            bad = [each for each in waiting if each.position < row]  # the others are in the next block
            waiting[:] = [each for each in waiting if each.position >= row]
            yield chunks.Chunk(dict(zip(names, batch.columns)), positions, batch.num_rows + len(bad), bad)
    except pa.ArrowInvalid as error:
        raise DataError(f"{request.path}: not a readable CSV file after row {row - 1}: {error}") from None
    if waiting:
        none = {name: pa.nulls(0, pa.binary()) for name in names}
        yield chunks.Chunk(none, np.zeros(0, np.int64), len(waiting), waiting)


def _batches(
    request: chunks.FileRequest, names: list[str], types: dict[str, pa.DataType], refuse: Any = None
) -> Iterator[pa.RecordBatch]:
    """The file's rows.  Raises ArrowInvalid for a bad cell, and for a bad row if you do not pass `refuse`."""
    with _arrow_file(request.path) as opened:
        yield from pyarrow.csv.open_csv(
            opened,
            pyarrow.csv.ReadOptions(
                use_threads=refuse is None,  # with threads, Arrow does not know the number of a bad row
                block_size=BLOCK_BYTES,
            ),
            pyarrow.csv.ParseOptions(newlines_in_values=True, invalid_row_handler=refuse),
            pyarrow.csv.ConvertOptions(
                include_columns=names, column_types=types, null_values=column_types.MISSING_WORDS.to_pylist()
            ),
        )


def _arrow_file(path: str) -> Any:
    """Opens the file with Arrow: with a Python file, the threads of Arrow's reader would wait for the GIL and hang."""
    with chunks.open_raw(path) as opened:
        packed = is_gzip(opened)
        raw = pa.BufferReader(opened.read()) if "://" in path else pa.OSFile(path)
    return pa.CompressedInputStream(raw, "gzip") if packed else raw


def _types(request: chunks.FileRequest, names: list[str]) -> dict[str, pa.DataType]:
    """The type to read each column with: numbers where the config has plain numbers, otherwise bytes."""
    numeric = {"float": pa.float64(), "int": pa.int64()}
    types = {}
    for name in names:
        column = request.table.get(name)
        plain = column is not None and column.width == 1 and not column.tokens
        types[name] = numeric.get(column.dtype, pa.binary()) if plain and column is not None else pa.binary()
    return types


def _csv_columns(request: chunks.FileRequest) -> list[str]:
    """The names of the columns to read; [] where the file is empty.  Raises DataError when one is not in the header."""
    with chunks.open_file(request.path) as opened:
        rows = csv.reader(io.TextIOWrapper(opened, "utf-8-sig", newline=""))  # type: ignore[type-var]
        try:
            header = next((row for row in rows if row), None)
        except UnicodeDecodeError as error:
            wrong = error.object[error.start]
            raise DataError(
                f"{request.path}: the file is not UTF-8: it has the byte 0x{wrong:02x}. Convert it, for example "
                "with iconv."
            ) from None
    if header is None:
        return []
    for name in header:
        if header.count(name) > 1:
            raise DataError(f"{request.path}: the header has the column {name!r} twice; give each its own name.")
    return _wanted(request, header)


def read_parquet(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """The rows in the file's order, counted from 1.  Raises DataError when the file lacks a column."""
    with chunks.open_file(request.path) as opened:
        try:
            source = opened if opened.seekable() and not hasattr(opened, "mtime") else io.BytesIO(opened.read())
            file = pyarrow.parquet.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise DataError(f"{request.path}: not a readable Parquet file: {error}") from None
        names = _wanted(request, file.schema_arrow.names)
        row = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            columns = {name: batch.column(batch.schema.get_field_index(name)) for name in names}
            yield chunks.Chunk(columns, np.arange(row, row + batch.num_rows), batch.num_rows)
            row += batch.num_rows


def _wanted(request: chunks.FileRequest, present: list[str]) -> list[str]:
    names = [name for name in request.table if name in present or name not in request.optional]
    if request.time and request.time not in names:
        names.append(request.time)
    for name in names:
        if name not in present:
            raise chunks.absent_column(request, "column", name, present)
    return names


def _positions(first: int, rows: int, skipped: list[int]) -> np.ndarray:
    """The numbers of `rows` rows, from `first` on, without the skipped numbers.

    >>> _positions(2, 3, [3])
    array([2, 4, 5])
    """
    numbers = np.setdiff1d(np.arange(first, first + rows + len(skipped)), np.array(skipped, np.int64))
    return numbers[:rows]
