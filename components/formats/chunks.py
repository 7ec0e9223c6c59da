"""Chunks: consecutive records of one input file, as columns, and the bad records with their positions and reasons.

Input: one file and the config's `data` section, as a `FileRequest`.  Output: the readers of `choices.formats.FORMATS`
yield `Chunk`s in the file's order, with the file's types; `column_types.conform` converts them to the config's types.
A reader parses a whole chunk with vectorised code.  Only if that fails, it looks at single records, and it reports
each bad one.
"""

import contextlib
import dataclasses
import gzip
import io
import queue
import threading
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components import storage
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.errors import DataError, did_you_mean
from tfx_ranking.components.lists.list_examples import Column, is_gzip


class BadRecord(NamedTuple):
    """A record that cannot be used."""

    position: int  # line of a text file, row of a table, record of a TFRecord file, counted from 1
    reason: str
    items: int = 1  # items in the record, which are lost; a record that cannot be read counts as one


@dataclasses.dataclass
class Chunk:
    """Consecutive records of one file.

    columns: name → Arrow array with one value per row.  In a format with one list per record: context columns with one
    value per list and item columns with one value per item; `row_splits` (int64 [list + 1]) marks where lists begin.
    Such a format may have no column of group ids.
    positions: int64, of each row or list in the file.  records: number of rows or items read, bad ones included.
    """

    columns: dict[str, pa.Array]
    positions: np.ndarray
    records: int
    bad: list[BadRecord] = dataclasses.field(default_factory=list)
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    row_splits: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class FileRequest:
    """A file to read, and the columns to read from it.

    name: the file's name in generated group ids.  side: the path of the file of list sizes.
    optional: columns of `table` that the file need not have; a column that it does not have is read as null.
    """

    path: str
    name: str
    data: Data
    table: Mapping[str, Column]
    time: str | None = None  # the column with the time of a list
    side: str | None = None
    optional: frozenset[str] = frozenset()


def open_file(path: str) -> io.BufferedIOBase:
    """Opens a file for reading, and unpacks gzip; the file's first bytes show whether it is gzip, not its name."""
    opened = open_raw(path)
    return gzip.GzipFile(fileobj=opened) if is_gzip(opened) else opened  # type: ignore[return-value, arg-type]


def open_raw(path: str) -> Any:
    """Opens a file for reading, without unpacking."""
    return storage.open_file(path)


def whole_lines(opened: Any, size: int) -> Iterator[bytes]:
    """A file's bytes, in pieces of about `size` bytes that end with a newline."""
    rest = b""
    while block := opened.read(size):
        cut = block.rfind(b"\n") + 1
        if cut:
            yield rest + block[:cut]
            rest = block[cut:]
        else:
            rest += block
    if rest:
        yield rest + b"\n"


def read_ahead(chunks: Iterator[Any]) -> Iterator[Any]:
    """The same chunks; another thread reads the next one while the caller works on this one."""
    ready: queue.Queue[Any] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(item: Any) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                ready.put(item, timeout=0.1)
                return

    def run() -> None:
        try:
            for chunk in chunks:
                put((chunk, None))
                if stopped.is_set():
                    return
            put((None, None))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while True:
            chunk, error = ready.get()
            if error is not None:
                raise error
            if chunk is None:
                return
            yield chunk
    finally:
        stopped.set()
        thread.join()


def absent_column(request: FileRequest, what: str, name: str, present: list[str]) -> DataError:
    """The error for a column that the config names and the file does not have."""
    other = next((each for each in (";", "\t", "|") if len(present) == 1 and each in present[0]), "")
    if other:
        return DataError(
            f"{request.path}: {what} {name!r} is not in the file. It has: {present[0]}. "
            f"The header looks separated by {other!r}; expected ','."
        )
    hint = did_you_mean(name, present) or "."
    return DataError(f"{request.path}: {what} {name!r} is not in the file{hint} It has: {', '.join(sorted(present))}.")
