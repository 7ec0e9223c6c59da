"""CSV and Parquet: one row an item, a column that holds the group id.

Enters: a file with named columns.  Leaves: chunks of rows.  The one idea: CSV cells are taken as text first and cast a
column at a time, so a bad cell costs its row and not the file.  A dense vector in a CSV cell is numbers between spaces
or commas, with or without brackets: `0.1 0.2` or `[0.1, 0.2]`; in Parquet it is a list column.
"""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from tfx_ranking.components import formats
from tfx_ranking.components.errors import DataError

BLOCK_BYTES = 4 << 20
BATCH_ROWS = 65_536


def read_csv(request: formats.Request) -> Iterator[formats.Chunk]:
    """Rows in the file's order; the header is row 1.  Raises DataError when a column of the config is absent."""
    with formats.open_file(request.path) as opened:
        header = _header(opened)
        opened.seek(0)
        if header is None:
            return
        names = _wanted(request, header)
        bad: list[formats.Bad] = []

        def refuse(row: Any) -> str:
            reason = f"malformed row: expected {row.expected_columns} cells; got {row.actual_columns}"
            bad.append(formats.Bad(int(row.number), reason))
            return "skip"

        try:
            batches = pyarrow.csv.open_csv(
                opened,
                pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),  # threads lose the row's number
                pyarrow.csv.ParseOptions(invalid_row_handler=refuse, newlines_in_values=True),
                # Bytes, not text: a cell that is no UTF-8 must not fail the file.
                pyarrow.csv.ConvertOptions(include_columns=names, column_types=dict.fromkeys(names, pa.binary())),
            )
            row = 2
            for batch in batches:
                # Bad rows may already belong to the next block; each goes with the rows that stand before it.
                here = [each for each in bad if each.position < row + batch.num_rows + len(bad)]
                positions = _positions(row, batch.num_rows, [each.position for each in here])
                here = [each for each in here if not len(positions) or each.position <= positions[-1]]
                bad = [each for each in bad if each not in here]
                columns = dict(zip(names, batch.columns))
                row = int(positions[-1]) + 1 if len(positions) else row
                yield formats.Chunk(columns, positions, batch.num_rows + len(here), here)
        except pa.ArrowInvalid as error:
            raise DataError(f"{request.path}: not a readable CSV file: {error}") from None
        if bad:
            columns = {name: pa.nulls(0, pa.binary()) for name in names}
            yield formats.Chunk(columns, np.zeros(0, np.int64), len(bad), bad)


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


def _header(opened: Any) -> list[str] | None:
    """The column names of a CSV file; None where the file is empty."""
    text = b""
    while b"\n" not in text and (block := opened.read(BLOCK_BYTES)):
        text += block
    if not text.strip():
        return None
    names: list[str] = pyarrow.csv.read_csv(
        io.BytesIO(text), parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=lambda row: "skip")
    ).column_names
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"the CSV header has the column {name!r} twice; give each its own name.")
    return names


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
