"""Writes the gzip TFRecord shards of one file or bucket.

Input: encoded lists, with their split and span.  Output: shards in the `parts` folder; `ingestion.accounts` renames
them when their number is known.  The bytes of a shard depend on its file or bucket alone.
"""

import collections
import os
import queue
import threading
from typing import Any

WRITERS = 2  # threads that compress, and shards per split
BYTES_IN_TURN = 4 << 20  # so many bytes of records go to one shard, then to the other


class Shards:
    """The TFRecord shards of one file or bucket: one or two per split and span, none for a split without records.

    Two threads compress and write, because that is the slowest step, and it runs without the GIL.  The number of bytes
    before a record alone decides which of the two shards it goes to.
    """

    def __init__(self, folder: str, number: int):
        self._folder, self._number = folder, number
        self._bytes: collections.Counter[tuple[str, int | None]] = collections.Counter()
        self._waiting: list[queue.Queue[Any]] = [queue.Queue(maxsize=8) for _ in range(WRITERS)]
        self._error: BaseException | None = None
        run = [threading.Thread(target=self._run, args=(half,), daemon=True) for half in range(WRITERS)]
        self._threads = run

    def __enter__(self) -> "Shards":
        for thread in self._threads:
            thread.start()
        return self

    def write(self, split: str, span: int | None, records: list[bytes]) -> None:
        """Queues records.  An error while writing earlier records is raised here, or at the end."""
        if self._error:
            raise self._error
        key = split, span
        halves: list[list[bytes]] = [[] for _ in range(WRITERS)]
        for record in records:
            halves[self._bytes[key] // BYTES_IN_TURN % WRITERS].append(record)
            self._bytes[key] += len(record)
        for half, chosen in enumerate(halves):
            if chosen:
                self._waiting[half].put((key, chosen))

    def __exit__(self, *_: object) -> None:
        for waiting in self._waiting:
            waiting.put(None)
        for thread in self._threads:
            thread.join()
        if self._error:
            raise self._error

    def _run(self, half: int) -> None:
        writers: dict[tuple[str, int | None], Any] = {}
        while (work := self._waiting[half].get()) is not None:
            if self._error is None:
                try:
                    key, records = work
                    if key not in writers:
                        writers[key] = self._writer(key, half)
                    for record in records:
                        writers[key].write(record)
                except BaseException as error:  # for example a full disk; `write` or `__exit__` raises it again
                    self._error = error
        for writer in writers.values():
            writer.close()

    def _writer(self, key: tuple[str, int | None], half: int) -> Any:
        import tensorflow as tf

        split, span = key
        tf.io.gfile.makedirs(parts_folder(self._folder, split))
        path = os.path.join(parts_folder(self._folder, split), shard_name(self._number, span, half))
        # Level 1: on real data sets, files are a tenth larger than with the default, and writing takes half the time.
        return tf.io.TFRecordWriter(path, tf.io.TFRecordOptions(compression_type="GZIP", compression_level=1))


def shard_name(number: int, span: int | None, half: int) -> str:
    """The name of a shard in the `parts` folder; `span_of` reads the span from it.

    >>> shard_name(3, 17, 0), span_of(shard_name(3, 17, 0)), span_of(shard_name(3, None, 1))
    ('00003-0000000017-0.gz', 17, None)
    """
    return f"{number:05d}{'' if span is None else f'-{span:010d}'}-{half}.gz"


def span_of(name: str) -> int | None:
    """The span of the lists in a shard, from its name in the `parts` folder; None where the input has no spans."""
    between = name.split("-")[1:-1]
    return int(between[0]) if between else None


def parts_folder(folder: str, kind: str) -> str:
    """The folder of a split's shards, or of the reports, during the run; it is removed at the end."""
    return os.path.join(folder, "parts", kind)
