"""Groups rows that are in any order, and splits lists by time, which needs the times of all lists first.

Input: the files of a `Plan`.  Output: shards and reports, as `workers.ingest_file` writes them.  The hash of a row's
group id chooses the row's bucket.  A bucket is sorted by file and row and becomes one shard, so the order in which Beam
delivers the rows does not matter.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping, splits
from tfx_ranking.components.ingestion.plan import InputFile, Plan, Report
from tfx_ranking.components.ingestion.shards import Shards
from tfx_ranking.components.ingestion.sources import ALL
from tfx_ranking.components.ingestion.workers import EncodedLists, encode_lists, lists_of_chunk, read, reporting, write

LISTS_PER_BATCH = 512  # encoded while the previous batch is written


class Part(NamedTuple):
    """Some of a file's rows (or lists), for one bucket."""

    file: int
    chunk: int
    columns: dict[str, pa.Array]
    positions: np.ndarray
    row_splits: np.ndarray | None


class EncodedBucket(NamedTuple):
    """A bucket's encoded lists, and their counts."""

    bucket: int
    report: Report
    batches: list[EncodedLists]


def scatter(plan: Plan, file: InputFile) -> Iterator[tuple[int, Part]]:
    """A file's rows, by bucket.  The bucket of a format with one list per record is the file."""
    group_id = plan.config.data.group_id
    with reporting(plan, f"file-{file.number:05d}") as report:
        for number, chunk in enumerate(read(plan, file)):
            report.add_chunk(chunk, file.number)
            if chunk.row_splits is not None:
                yield file.number, Part(file.number, number, chunk.columns, chunk.positions, chunk.row_splits)
                continue
            if plan.buckets == 1:
                yield 0, Part(file.number, number, chunk.columns, chunk.positions, None)
                continue
            coded = chunk.columns[group_id].dictionary_encode()
            # Not the bits of the hash that choose the split: with them, all lists of a bucket would be in one split.
            drawn = splits.unit_hash(coded.dictionary.to_pylist()) * 2**20 % 1
            bucket_of_row = (drawn * plan.buckets).astype(np.int64)[coded.indices.to_numpy()]
            for bucket in np.unique(bucket_of_row):
                at = np.flatnonzero(bucket_of_row == bucket)
                columns = {name: array.take(pa.array(at)) for name, array in chunk.columns.items()}
                yield int(bucket), Part(file.number, number, columns, chunk.positions[at], None)


def write_bucket(plan: Plan, bucket: int, parts: Iterable[Part]) -> None:
    """Groups, encodes and writes a bucket's lists, batch by batch."""
    with reporting(plan, f"bucket-{bucket:05d}") as report, Shards(plan.folder, bucket) as shards:
        for lists in _encoded(plan, parts, report):
            write(plan, lists, None, shards, report)


def encode_bucket(plan: Plan, bucket: int, parts: Iterable[Part]) -> EncodedBucket:
    """Groups and encodes a bucket's lists; `write_by_time` writes them when the times of all buckets are known."""
    report = Report()
    return EncodedBucket(bucket, report, list(_encoded(plan, parts, report)))


def times_of(bucket: EncodedBucket) -> np.ndarray:
    """float64 [list]: the times of the lists whose split depends on time."""
    times = [lists.times for lists in bucket.batches if lists.times is not None and lists.origin in (ALL, "train")]
    return np.concatenate([np.zeros(0), *times])


def write_by_time(plan: Plan, bucket: EncodedBucket, times: list[np.ndarray]) -> None:
    """Writes a bucket's lists to the splits that their times choose.

    times: what `times_of` returns for all buckets.
    """
    bounds = splits.time_bounds(np.concatenate(times), plan.cut)
    name = f"bucket-{bucket.bucket:05d}"
    with reporting(plan, name, bucket.report) as report, Shards(plan.folder, bucket.bucket) as shards:
        for lists in bucket.batches:
            write(plan, lists, bounds, shards, report)


def _encoded(plan: Plan, parts: Iterable[Part], report: Report) -> Iterator[EncodedLists]:
    """A bucket's lists in the order of their ids, each with its rows in the order of the files.

    A list belongs to one span: rows with the same id in another span are another list, in the same split.
    """
    ordered = sorted(parts, key=lambda part: (part.file, part.chunk))
    together: dict[tuple[str, int], list[Part]] = {}
    for part in ordered:
        file = plan.files[part.file]
        together.setdefault((file.origin, -1 if file.span is None else file.span), []).append(part)
    for _, of_span in sorted(together.items()):
        file = plan.files[of_span[0].file]
        for lists, files in _grouped(plan, of_span, report):
            for start in range(0, len(files), LISTS_PER_BATCH):
                end = min(start + LISTS_PER_BATCH, len(files))
                yield encode_lists(plan, file, lists.between(start, end), report, files[start:end])


def _grouped(plan: Plan, parts: list[Part], report: Report) -> Iterator[tuple[grouping.Lists, np.ndarray]]:
    """Lists, and int [list] the number of each list's file."""
    request = plan.request(plan.files[parts[0].file])
    if parts[0].row_splits is not None:
        for part in parts:
            chunk = chunks.Chunk(part.columns, part.positions, 0, row_splits=part.row_splits)
            yield lists_of_chunk(chunk, request), np.full(len(part.positions), part.file)
        return
    columns = {name: pa.concat_arrays([part.columns[name] for part in parts]) for name in parts[0].columns}
    positions = np.concatenate([part.positions for part in parts])
    files = np.concatenate([np.full(len(part.positions), part.file) for part in parts])
    coded = columns[plan.config.data.group_id].dictionary_encode()
    rank = np.argsort(np.argsort(np.array(coded.dictionary.to_pylist(), object)))
    order = np.argsort(rank[coded.indices.to_numpy()], kind="stable")
    columns = {name: array.take(pa.array(order)) for name, array in columns.items()}
    lists = grouping.cut(columns, positions[order], request.table, plan.config.data.group_id)
    report.counts["context_differs"] += grouping.differing_context(columns, lists, request.table)
    yield lists, files[order][lists.row_splits[:-1]]
