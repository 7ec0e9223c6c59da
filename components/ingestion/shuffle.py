"""Groups rows that are in any order, and splits by time, which needs the times of all lists first.

Input: the files of a `workers.Plan`.  Output: shards and reports, as `workers.ingest_file` writes them.  A row goes to
the bucket of its group's hash.  A bucket is sorted by file and row and becomes one shard, so the order in which Beam
delivers the rows does not matter.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping, splits
from tfx_ranking.components.ingestion.shards import Shards
from tfx_ranking.components.ingestion.sources import ALL
from tfx_ranking.components.ingestion.workers import (
    Formed,
    Plan,
    Report,
    Unit,
    form,
    lists_of_chunk,
    read,
    reporting,
    write,
)

LISTS_AT_A_TIME = 512  # encoded while the ones before are written


class Part(NamedTuple):
    """Some of a file's rows (or lists) on their way to their bucket."""

    unit: int
    chunk: int
    columns: dict[str, pa.Array]
    positions: np.ndarray
    row_splits: np.ndarray | None


class Gathered(NamedTuple):
    """A bucket's lists, encoded, and what happened to them."""

    bucket: int
    report: Report
    formed: list[Formed]


def scatter(task: Plan, unit: Unit) -> Iterator[tuple[int, Part]]:
    """A file's rows by bucket of their group; the lists of a list format stay together, their bucket is the file."""
    group_id = task.config.data.group_id
    with reporting(task, f"file-{unit.number:05d}") as report:
        for number, chunk in enumerate(read(task, unit)):
            report.add_chunk(chunk, unit.number)
            if chunk.row_splits is not None:
                yield unit.number, Part(unit.number, number, chunk.columns, chunk.positions, chunk.row_splits)
                continue
            if task.buckets == 1:
                yield 0, Part(unit.number, number, chunk.columns, chunk.positions, None)
                continue
            coded = chunk.columns[group_id].dictionary_encode()
            # Other bits of the hash than those that choose the split, or a bucket would hold one split only.
            drawn = splits.unit_hash(coded.dictionary.to_pylist()) * 2**20 % 1
            bucket = (drawn * task.buckets).astype(np.int64)[coded.indices.to_numpy()]
            for each in np.unique(bucket):
                at = np.flatnonzero(bucket == each)
                columns = {name: array.take(pa.array(at)) for name, array in chunk.columns.items()}
                yield int(each), Part(unit.number, number, columns, chunk.positions[at], None)


def write_bucket(task: Plan, bucket: int, parts: Iterable[Part]) -> None:
    """A bucket's lists, written as they are made."""
    with reporting(task, f"bucket-{bucket:05d}") as report, Shards(task.folder, bucket) as shards:
        for each in _formed(task, parts, report):
            write(task, each, None, shards, report)


def gather(task: Plan, bucket: int, parts: Iterable[Part]) -> Gathered:
    """A bucket's lists, for `settle`, which knows the times of all buckets."""
    report = Report()
    return Gathered(bucket, report, list(_formed(task, parts, report)))


def _formed(task: Plan, parts: Iterable[Part], report: Report) -> Iterator[Formed]:
    """A bucket's lists in the order of their ids, each with its rows in the order of the files.

    A list belongs to a span: what comes under its id in another one is another list, of the same split.
    """
    ordered = sorted(parts, key=lambda part: (part.unit, part.chunk))
    together: dict[tuple[str, int], list[Part]] = {}
    for part in ordered:
        unit = task.units[part.unit]
        together.setdefault((unit.origin, -1 if unit.span is None else unit.span), []).append(part)
    for _, own in sorted(together.items()):
        for lists, files in _grouped(task, own, report):
            for start in range(0, len(files), LISTS_AT_A_TIME):
                end = min(start + LISTS_AT_A_TIME, len(files))
                yield form(task, task.units[own[0].unit], lists.between(start, end), report, files[start:end])


def _grouped(task: Plan, own: list[Part], report: Report) -> Iterator[tuple[grouping.Lists, np.ndarray]]:
    """Lists, and the file of each."""
    request = task.request(task.units[own[0].unit])
    if own[0].row_splits is not None:
        for part in own:
            chunk = chunks.Chunk(part.columns, part.positions, 0, row_splits=part.row_splits)
            yield lists_of_chunk(chunk, request), np.full(len(part.positions), part.unit)
        return
    columns = {name: pa.concat_arrays([part.columns[name] for part in own]) for name in own[0].columns}
    positions = np.concatenate([part.positions for part in own])
    files = np.concatenate([np.full(len(part.positions), part.unit) for part in own])
    coded = columns[task.config.data.group_id].dictionary_encode()
    rank = np.argsort(np.argsort(np.array(coded.dictionary.to_pylist(), object)))
    order = np.argsort(rank[coded.indices.to_numpy()], kind="stable")
    columns = {name: array.take(pa.array(order)) for name, array in columns.items()}
    lists = grouping.cut(columns, positions[order], request.table, task.config.data.group_id)
    report.counts["context_differs"] += grouping.differing_context(columns, lists, request.table)
    yield lists, files[order][lists.row_splits[:-1]]


def times_of(gathered: Gathered) -> np.ndarray:
    """float64 [list]: the times of the lists that are still to be divided."""
    times = [each.times for each in gathered.formed if each.times is not None and each.origin in (ALL, "train")]
    return np.concatenate([np.zeros(0), *times])


def settle(task: Plan, gathered: Gathered, times: list[np.ndarray] | None) -> None:
    """Writes a bucket's lists; times: those of all buckets, when splits are cut by time."""
    bounds = splits.time_bounds(np.concatenate(times), task.cut) if times is not None else None
    name = f"bucket-{gathered.bucket:05d}"
    with reporting(task, name, gathered.report) as report, Shards(task.folder, gathered.bucket) as shards:
        for each in gathered.formed:
            write(task, each, bounds, shards, report)
