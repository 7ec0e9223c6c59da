"""The work of one Beam worker: converts one file, or one bucket of rows, to shards of list examples.

Input: a `Plan` and one of its files.  Output: gzip TFRecord shards for each split, and a `Report` of the records that
were read, written and set aside.  A shard depends on its file or bucket alone, so the same input gives the same bytes,
however the work is distributed.
"""

import collections
import contextlib
import dataclasses
import os
import pickle
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components import storage
from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping, splits
from tfx_ranking.components.ingestion.shards import Shards, parts_folder
from tfx_ranking.components.ingestion.sources import ALL
from tfx_ranking.components.lists.list_examples import columns, encode

BYTES_A_BUCKET = 64 << 20  # of input; a bucket is grouped in memory and becomes one shard


@dataclasses.dataclass(frozen=True)
class Unit:
    """One input file."""

    number: int
    path: str
    name: str
    origin: str  # the split whose files it is one of, or "all"
    size: int = 0
    side: str | None = None
    span: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a worker needs to know; `folder` is where shards and reports go."""

    config: RankingConfig
    units: tuple[Unit, ...]
    folder: str

    @property
    def streamed(self) -> bool:
        """Whether a file goes straight to its shards, without a shuffle."""
        data = self.config.data
        grouped = FORMATS[data.format].lists or data.order == "grouped" or data.group_sizes is not None
        return grouped and self.time is None

    @property
    def time(self) -> str | None:
        """The column that orders lists in time, when splits are cut by it."""
        by = self.config.data.splits.by
        return by if by not in ("group_id", self.config.data.group_id) and self.cut else None

    @property
    def origins(self) -> set[str]:
        return {unit.origin for unit in self.units}

    @property
    def cut(self) -> dict[str, float]:
        return splits.shares(self.config.data.splits, self.origins)

    @property
    def split_names(self) -> list[str]:
        return splits.names(self.config.data.splits, self.origins)

    @property
    def buckets(self) -> int:
        return max(1, sum(unit.size for unit in self.units) // BYTES_A_BUCKET)

    def request(self, unit: Unit) -> chunks.FileRequest:
        return chunks.FileRequest(
            unit.path, unit.name, self.config.data, columns(self.config), time=self.time, side=unit.side
        )


@dataclasses.dataclass
class Report:
    """What happened to the records of one file or bucket.

    counts: records_in, quarantined, capped, dropped, …, `missing/<feature>`, and by split
    `lists/…`, `items/…`, `one_item/…` (lists), `differ/…` (lists that have two labels).
    bad: (file number, Bad).  groups: split of origin → (group id, file number, first row) of each list.
    error: what ended the work early; Beam would bury it under its own stack.
    """

    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    bad: list[tuple[int, chunks.Bad]] = dataclasses.field(default_factory=list)
    groups: dict[str, list[tuple[bytes, int, int]]] = dataclasses.field(default_factory=dict)
    error: RankingError | None = None

    def add_chunk(self, chunk: chunks.Chunk, file: int) -> None:
        self.counts["records_in"] += chunk.records
        self.counts["quarantined"] += sum(bad.items for bad in chunk.bad)
        self.counts["quarantined_records"] += len(chunk.bad)
        self.counts.update(chunk.counts)
        self.bad.extend((file, bad) for bad in chunk.bad)

    def merge(self, other: "Report") -> None:
        self.counts.update(other.counts)
        self.bad.extend(other.bad)
        self.error = self.error or other.error
        for split, groups in other.groups.items():
            self.groups.setdefault(split, []).extend(groups)


def plan(config: RankingConfig, source: dict[str, Any], folder: str) -> Plan:
    """The plan for the files that `sources.resolve` differs."""
    units: list[Unit] = []
    for origin, entries in source["files"].items():
        for entry in entries:
            unit = Unit(
                number=len(units),
                path=entry["path"],
                name=entry["name"],
                origin=origin,
                size=int(entry["size"]),
                side=entry.get("side"),
                span=entry.get("span"),
            )
            units.append(unit)
    return Plan(config, tuple(units), folder)


def read(task: Plan, unit: Unit) -> Iterator[chunks.Chunk]:
    """A file's chunks, checked; `group_id` is always among the columns."""
    return checked(task.request(unit))


def checked(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """What a reader gives, with the config's types; `group_id` is always among the columns."""
    form = FORMATS[request.data.format]
    for chunk in chunks.ahead(form.load()(request)):
        if form.lists:
            _name_lists(chunk, request)
        yield grouping.check(chunk, request)


def ingest_file(task: Plan, unit: Unit) -> None:
    """One file, streamed to one shard a split."""
    request = task.request(unit)
    with reporting(task, f"file-{unit.number:05d}") as report, Shards(task.folder, unit.number) as shards:
        for chunk, lists in _lists_of(task, unit, request):
            report.add_chunk(chunk, unit.number)
            formed = form(task, unit, lists, report, np.full(len(lists.positions), unit.number))
            write(task, formed, None, shards, report)


def _lists_of(task: Plan, unit: Unit, request: chunks.FileRequest) -> Iterator[tuple[chunks.Chunk, grouping.Lists]]:
    if not FORMATS[task.config.data.format].lists:
        yield from grouping.stream(read(task, unit), request)
        return
    for chunk in read(task, unit):
        yield chunk, lists_of_chunk(chunk, request)


def lists_of_chunk(chunk: chunks.Chunk, request: chunks.FileRequest) -> grouping.Lists:
    """A list format's chunk as it stands."""
    assert chunk.row_splits is not None
    level = {name: column.level for name, column in request.table.items()}
    context = {name: array for name, array in chunk.columns.items() if level.get(name) != "items"}
    items = {name: array for name, array in chunk.columns.items() if level.get(name) == "items"}
    return grouping.Lists(context, items, chunk.row_splits, chunk.positions)


class Formed(NamedTuple):
    """Encoded lists on their way to a split that may not be known yet."""

    origin: str
    span: int | None
    records: list[bytes]
    groups: list[bytes]
    lengths: np.ndarray
    differ: np.ndarray  # bool [list]: whether its items differ in label
    times: np.ndarray | None


def form(task: Plan, unit: Unit, lists: grouping.Lists, report: Report, files: np.ndarray) -> Formed:
    """Lists capped, filled, counted and encoded; unit: one of their files, which all have its origin and span."""
    config = task.config
    table = columns(config)
    groups = lists.context[config.data.group_id].to_pylist()
    report.groups.setdefault(unit.origin, []).extend(
        (group, int(file), int(row)) for group, file, row in zip(groups, files, lists.positions)
    )
    lists, batch, counts = grouping.arrange(lists, config.data, table, config.evaluation.relevant_from)
    report.counts.update(counts)
    groups = lists.context[config.data.group_id].to_pylist()
    times = lists.context[grouping.TIME].to_numpy() if grouping.TIME in lists.context else None
    labels = np.asarray(batch.items[config.data.label])
    records, lengths = encode(batch, table), np.diff(lists.row_splits)
    return Formed(unit.origin, unit.span, records, groups, lengths, _differ(labels, lengths), times)


def _differ(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """bool [list]: whether a list has two values.

    >>> _differ(np.array([1.0, 0.0, 2.0, 2.0, 3.0]), np.array([2, 2, 0, 1]))
    array([ True, False, False, False])
    """
    differs = np.zeros(len(lengths), bool)
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    if len(starts):
        differs[lengths > 0] = np.maximum.reduceat(values, starts) != np.minimum.reduceat(values, starts)
    return differs


def write(task: Plan, formed: Formed, bounds: dict[str, float] | None, shards: Shards, report: Report) -> None:
    """Writes encoded lists; bounds: where splits begin in time, when they are cut by time."""
    if formed.origin not in (ALL, "train") or not task.cut:
        where = np.full(len(formed.records), "train" if formed.origin == ALL else formed.origin, object)
    elif bounds is not None:
        assert formed.times is not None
        where = splits.by_time(formed.times, bounds)
    else:
        where = splits.by_hash(formed.groups, task.cut)
    for split in task.split_names:
        chosen = np.flatnonzero(where == split)
        report.counts[f"lists/{split}"] += len(chosen)
        report.counts[f"items/{split}"] += int(formed.lengths[chosen].sum())
        report.counts[f"one_item/{split}"] += int((formed.lengths[chosen] < 2).sum())
        report.counts[f"differ/{split}"] += int(formed.differ[chosen].sum())
        shards.write(split, formed.span, [formed.records[i] for i in chosen])


@contextlib.contextmanager
def reporting(task: Plan, name: str, report: Report | None = None) -> Iterator[Report]:
    """A report that is saved at the end, with the error that ended the work, if it was ours."""
    report = report or Report()
    try:
        yield report
    except RankingError as error:
        report.error = error
    fileio = storage.artifact_files()

    fileio.makedirs(parts_folder(task.folder, "reports"))
    with fileio.open(os.path.join(parts_folder(task.folder, "reports"), f"{name}.pickle"), "wb") as opened:
        opened.write(pickle.dumps(report))


def _name_lists(chunk: chunks.Chunk, request: chunks.FileRequest) -> None:
    """The group id of a list format's records: its column, or `<file>:<record>` with `data.group_from: record`."""
    name = request.data.group_id
    if request.data.group_from == "record":
        made_up = [f"{request.name}:{position}".encode() for position in chunk.positions.tolist()]
        chunk.columns[name] = pa.array(made_up, pa.binary())
    elif name not in chunk.columns:
        chunk.columns[name] = pa.nulls(len(chunk.positions), pa.binary())
