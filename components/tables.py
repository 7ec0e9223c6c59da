"""CSV and Parquet: one row an item, a column that holds the group id.

Enters: a file with named columns.  Leaves: chunks of rows.  The one idea: a block of rows is read at once; only a block
that fails is read again as text, so that a bad cell costs its row and not the file.  A dense vector in a CSV cell is
numbers between spaces or commas, with or without brackets: `0.1 0.2` or `[0.1, 0.2]`; in Parquet it is a list column.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tfx_ranking.components import column_types, formats
from tfx_ranking.components.errors import DataError

BLOCK_BYTES = 4 << 20
BATCH_ROWS = 65_536


def read_csv(request: formats.Request) -> Iterator[formats.Chunk]:
    """Rows in the file's order; the header is row 1.  Raises DataError when a column of the config is absent."""
    with formats.open_file(request.path) as opened:
        header, names, row = b"", list[str](), 2
        for block in formats.whole_lines(opened, BLOCK_BYTES, quoted=True):
            if not header:
                header, block = _cut_header(block)
                names = _wanted(request, _header_names(request.path, header))
            if block.strip():
                chunk = _parse_csv(request, header + block, names, row)
                row += chunk.records
                yield chunk


def _parse_csv(request: formats.Request, text: bytes, names: list[str], first_row: int) -> formats.Chunk:
    """Rows below a header.  Numbers are read as such; where a cell of the block is none, as text to be looked at."""
    numeric = {"float": pa.float64(), "int": pa.int64()}
    types = {}
    for name in names:
        column = request.table.get(name)
        plain = column is not None and column.width == 1 and not column.tokens
        types[name] = numeric.get(column.dtype, pa.binary()) if plain and column is not None else pa.binary()
    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(text),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=names, column_types=types, null_values=column_types.MISSING_WORDS.to_pylist()
            ),
        )
        bad: list[formats.Bad] = []
    except pa.ArrowInvalid:
        table, bad = _parse_doubtful(request, text, names, first_row)
    positions = _positions(first_row, table.num_rows, [each.position for each in bad])
    columns = {name: table.column(name).combine_chunks() for name in names}
    return formats.Chunk(columns, positions, table.num_rows + len(bad), bad)


def _parse_doubtful(
    request: formats.Request, text: bytes, names: list[str], first_row: int
) -> tuple[pa.Table, list[formats.Bad]]:
    """All cells as bytes, so that a bad one does not fail the block, and the rows with too few or too many."""
    bad: list[formats.Bad] = []

    def refuse(row: Any) -> str:
        reason = f"malformed row: expected {row.expected_columns} cells; got {row.actual_columns}"
        bad.append(formats.Bad(first_row + int(row.number) - 2, reason))
        return "skip"

    try:
        table = pyarrow.csv.read_csv(
            pa.py_buffer(text),
            pyarrow.csv.ReadOptions(use_threads=False),  # threads lose the number of a bad row
            pyarrow.csv.ParseOptions(invalid_row_handler=refuse, newlines_in_values=True),
            pyarrow.csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.binary())),
        )
    except pa.ArrowInvalid as error:
        raise DataError(f"{request.path}: not a readable CSV file after row {first_row}: {error}") from None
    return table, bad


def _cut_header(block: bytes) -> tuple[bytes, bytes]:
    """The first row, which may hold newlines between quotes, and what follows."""
    block = block.removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n")
    end = 0
    while True:
        end = block.index(b"\n", end) + 1
        if block.count(b'"', 0, end) % 2 == 0 or end == len(block):
            return block[:end], block[end:]


def _header_names(path: str, header: bytes) -> list[str]:
    try:
        names: list[str] = pyarrow.csv.read_csv(pa.py_buffer(header)).column_names
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: the first line is no CSV header: {error}") from None
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{path}: the header has the column {name!r} twice; give each its own name.")
    return names


def read_parquet(request: formats.Request) -> Iterator[formats.Chunk]:
    """Rows in the file's order, counted from 1.  Raises DataError when a column of the config is absent."""
    with formats.open_file(request.path) as opened:
        try:
            source = opened if opened.seekable() and not hasattr(opened, "mtime") else io.BytesIO(opened.read())
            file = pyarrow.parquet.ParquetFile(source)
        except pa.ArrowInvalid as error:
            raise DataError(f"{request.path}: not a readable Parquet file: {error}") from None
        names = _wanted(request, file.schema_arrow.names)
        row = 1
        for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names):
            columns = {name: batch.column(batch.schema.get_field_index(name)) for name in names}
            yield formats.Chunk(columns, np.arange(row, row + batch.num_rows), batch.num_rows)
            row += batch.num_rows


def _wanted(request: formats.Request, present: list[str]) -> list[str]:
    names = list(request.table)
    if request.time and request.time not in names:
        names.append(request.time)
    for name in names:
        if name not in present:
            raise formats.absent(request, "column", name, present)
    return names


def _positions(first: int, rows: int, skipped: list[int]) -> np.ndarray:
    """The numbers from `first` on that are not skipped, one a row.

    >>> _positions(2, 3, [3])
    array([2, 4, 5])
    """
    numbers = np.setdiff1d(np.arange(first, first + rows + len(skipped)), np.array(skipped, np.int64))
    return numbers[:rows]
