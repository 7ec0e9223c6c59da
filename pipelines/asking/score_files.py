"""Writes scores as CSV, JSON lines or Parquet.

Input: `Scored` blocks.  Output: one file, which gets its name only when it is complete.  Arrow makes the lines, column
by column, so that no single value is handled in Python.

To add a format: 1. write a subclass of `Writer`; 2. add its file ending to `WRITERS`.
"""

import abc
import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from tfx_ranking.components.errors import RankingError, UsageError

SCHEMA = pa.schema([("group_id", pa.string()), ("item_id", pa.string()), ("score", pa.float32()), ("rank", pa.int64())])
_ROWS = 65_536  # written at a time


class Scored(NamedTuple):
    """One entry for each item, in the order of the input."""

    group_id: pa.Array  # string
    item_id: pa.Array  # string
    score: np.ndarray  # float32
    rank: np.ndarray  # int64, from 1 within its list

    @property
    def batch(self) -> pa.RecordBatch:
        return pa.RecordBatch.from_arrays(
            [self.group_id, self.item_id, pa.array(self.score, pa.float32()), pa.array(self.rank, pa.int64())],
            schema=SCHEMA,
        )


class Writer(abc.ABC):
    """Collects blocks and writes them; `close` writes what is left."""

    def __init__(self, file: IO[bytes]):
        self.file = file
        self._waiting: list[pa.RecordBatch] = []
        self._rows = 0
        self.start()

    def write(self, scored: Scored) -> None:
        self._waiting.append(scored.batch)
        self._rows += len(scored.score)
        if self._rows >= _ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self.end()

    def _flush(self) -> None:
        if self._rows:
            self.put(pa.Table.from_batches(self._waiting).combine_chunks())
        self._waiting, self._rows = [], 0

    def start(self) -> None:  # noqa: B027, most formats need nothing there
        """Before the first block."""

    @abc.abstractmethod
    def put(self, table: pa.Table) -> None:
        """One block of at least one row."""

    def end(self) -> None:  # noqa: B027
        """After the last block."""


class Csv(Writer):
    """RFC 4180, a header, `\\n` after every line; texts are quoted only where necessary."""

    def start(self) -> None:
        self.file.write((",".join(SCHEMA.names) + "\n").encode())

    def put(self, table: pa.Table) -> None:
        group, item, score, rank = (table.column(name).chunk(0) for name in SCHEMA.names)
        cells = [_quoted(group), _quoted(item), score.cast(pa.string()), rank.cast(pa.string())]
        self.file.write(_lines(pc.binary_join_element_wise(*cells, ",")))


class JsonLines(Writer):
    """One object for each line; a score that is not finite becomes null."""

    def put(self, table: pa.Table) -> None:
        group, item, score, rank = (table.column(name).chunk(0) for name in SCHEMA.names)
        number = pc.if_else(pc.is_finite(score), score.cast(pa.string()), "null")
        parts: list[Any] = ['{"group_id": ', _json(group), ', "item_id": ', _json(item)]
        parts += [', "score": ', number, ', "rank": ', rank.cast(pa.string()), "}"]
        self.file.write(_lines(pc.binary_join_element_wise(*parts, "")))


class Parquet(Writer):
    """One row group for each block."""

    def start(self) -> None:
        self._writer = pyarrow.parquet.ParquetWriter(self.file, SCHEMA)

    def put(self, table: pa.Table) -> None:
        self._writer.write_table(table)

    def end(self) -> None:
        self._writer.close()


WRITERS: dict[str, Callable[[IO[bytes]], Writer]] = {".csv": Csv, ".jsonl": JsonLines, ".parquet": Parquet}


def writer_of(output: pathlib.Path | None) -> Callable[[IO[bytes]], Writer]:
    """The row of `WRITERS` for a file's name; CSV for standard output.  Raises UsageError for an unknown ending."""
    if output is None:
        return Csv
    if output.suffix not in WRITERS:
        raise UsageError(f"--output {output}: the ending sets the format; expected one of {', '.join(WRITERS)}.")
    if not output.absolute().parent.is_dir():
        raise RankingError(f"--output {output}: there is no folder {output.absolute().parent}; make it first.")
    return WRITERS[output.suffix]


@contextlib.contextmanager
def whole(output: pathlib.Path | None) -> Iterator[IO[bytes]]:
    """Opens a file to write; it gets its name, or is copied to standard output, only if the block does not raise."""
    if output is None:
        with tempfile.TemporaryFile() as file:
            yield file
            file.seek(0)
            shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            yield file
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)


def text(array: pa.Array) -> pa.Array:
    """Bytes as strings; bytes that are not valid UTF-8 are escaped."""
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array(
            [None if value is None else value.decode("utf-8", "backslashreplace") for value in array.to_pylist()]
        )


def _lines(lines: pa.Array) -> bytes:
    one = pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines)
    joined: bytes = pc.binary_join(one, "\n")[0].as_buffer().to_pybytes()
    return joined + b"\n"


def _quoted(cells: pa.Array) -> pa.Array:
    odd = pc.match_substring_regex(cells, r'[",\r\n]')
    if not pc.any(odd).as_py():
        return cells
    doubled = pc.replace_substring(cells, '"', '""')
    return pc.if_else(odd, pc.binary_join_element_wise('"', doubled, '"', ""), cells)


def _json(cells: pa.Array) -> pa.Array:
    quoted = pc.binary_join_element_wise('"', cells, '"', "")
    odd = pc.match_substring_regex(cells, r'["\\\x00-\x1f]')
    if not pc.any(odd).as_py():
        return quoted
    escaped = pa.array([json.dumps(value, ensure_ascii=False) for value in cells.filter(odd).to_pylist()], pa.string())
    return pc.replace_with_mask(quoted, odd, escaped)
