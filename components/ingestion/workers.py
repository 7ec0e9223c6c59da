"""The work of one Beam worker: converts one input file, or one bucket of rows, to shards of list examples.

Input: a `Plan` and one of its files.  Output: gzip TFRecord shards for each split, and a `Report` that counts the
records that were read, written and set aside.  A shard depends on its file or bucket alone, so the same input gives
the same bytes, however Beam distributes the work.
"""

import contextlib
import os
import pickle
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components import storage
from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping, splits
from tfx_ranking.components.ingestion.plan import InputFile, Plan, Report
from tfx_ranking.components.ingestion.shards import Shards, parts_folder
from tfx_ranking.components.ingestion.sources import ALL
from tfx_ranking.components.lists.list_examples import columns, encode


def read(plan: Plan, file: InputFile) -> Iterator[chunks.Chunk]:
    """A file's chunks, checked; `group_id` is always among the columns."""
    return checked(plan.request(file))


def checked(request: chunks.FileRequest) -> Iterator[chunks.Chunk]:
    """A file's chunks with the config's types, without bad records; `group_id` is always among the columns."""
    file_format = FORMATS[request.data.format]
    for chunk in chunks.read_ahead(file_format.load()(request)):
        if file_format.lists:
            _name_lists(chunk, request)
        yield grouping.check(chunk, request)


def ingest_file(plan: Plan, file: InputFile) -> None:
    """Streams one file to its shards, in each split."""
    request = plan.request(file)
    with reporting(plan, f"file-{file.number:05d}") as report, Shards(plan.folder, file.number) as shards:
        for chunk, lists in _lists_of(plan, file, request):
            report.add_chunk(chunk, file.number)
            encoded = encode_lists(plan, file, lists, report, np.full(len(lists.positions), file.number))
            write(plan, encoded, None, shards, report)


def _lists_of(
    plan: Plan, file: InputFile, request: chunks.FileRequest
) -> Iterator[tuple[chunks.Chunk, grouping.Lists]]:
    if not FORMATS[plan.config.data.format].lists:
        yield from grouping.stream(read(plan, file), request)
        return
    for chunk in read(plan, file):
        yield chunk, lists_of_chunk(chunk, request)


def lists_of_chunk(chunk: chunks.Chunk, request: chunks.FileRequest) -> grouping.Lists:
    """The lists of a chunk whose format has one list per record."""
    assert chunk.row_splits is not None
    level = {name: column.level for name, column in request.table.items()}
    context = {name: array for name, array in chunk.columns.items() if level.get(name) != "items"}
    items = {name: array for name, array in chunk.columns.items() if level.get(name) == "items"}
    return grouping.Lists(context, items, chunk.row_splits, chunk.positions)


class EncodedLists(NamedTuple):
    """Encoded lists whose split may not be known yet.

    All lists have one origin and one span; records, groups, lengths, labels_differ and times have one entry per list.
    """

    origin: str
    span: int | None
    records: list[bytes]
    groups: list[bytes]
    lengths: np.ndarray
    labels_differ: np.ndarray  # bool: whether the list has at least two different labels
    times: np.ndarray | None


def encode_lists(plan: Plan, file: InputFile, lists: grouping.Lists, report: Report, files: np.ndarray) -> EncodedLists:
    """Caps, fills in, counts and encodes lists.

    file: one of their files; all of them have its origin and span.  files: int [list], the number of each list's file.
    """
    config = plan.config
    table = columns(config)
    groups = lists.context[config.data.group_id].to_pylist()
    report.groups.setdefault(file.origin, []).extend(
        (group, int(number), int(row)) for group, number, row in zip(groups, files, lists.positions)
    )
    lists, batch, counts = grouping.arrange(lists, config.data, table, config.evaluation.relevant_from)
    report.counts.update(counts)
    lengths = np.diff(lists.row_splits)
    return EncodedLists(
        origin=file.origin,
        span=file.span,
        records=encode(batch, table),
        groups=lists.context[config.data.group_id].to_pylist(),
        lengths=lengths,
        labels_differ=_differ_within_list(np.asarray(batch.items[config.data.label]), lengths),
        times=lists.context[grouping.TIME].to_numpy() if grouping.TIME in lists.context else None,
    )


def _differ_within_list(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """bool [list]: whether a list has at least two different values.

    >>> _differ_within_list(np.array([1.0, 0.0, 2.0, 2.0, 3.0]), np.array([2, 2, 0, 1]))
    array([ True, False, False, False])
    """
    differ = np.zeros(len(lengths), bool)
    starts = (np.cumsum(lengths) - lengths)[lengths > 0]
    if len(starts):
        differ[lengths > 0] = np.maximum.reduceat(values, starts) != np.minimum.reduceat(values, starts)
    return differ


def write(plan: Plan, lists: EncodedLists, bounds: dict[str, float] | None, shards: Shards, report: Report) -> None:
    """Writes encoded lists to the shards of their splits.

    bounds: split → its earliest time; None where time does not decide the split.
    """
    if lists.origin not in (ALL, "train") or not plan.cut:
        split_of_list = np.full(len(lists.records), "train" if lists.origin == ALL else lists.origin, object)
    elif bounds is not None:
        assert lists.times is not None
        split_of_list = splits.by_time(lists.times, bounds)
    else:
        split_of_list = splits.by_hash(lists.groups, plan.cut)
    for split in plan.split_names:
        chosen = np.flatnonzero(split_of_list == split)
        report.counts[f"lists/{split}"] += len(chosen)
        report.counts[f"items/{split}"] += int(lists.lengths[chosen].sum())
        report.counts[f"one_item/{split}"] += int((lists.lengths[chosen] < 2).sum())
        report.counts[f"labels_differ/{split}"] += int(lists.labels_differ[chosen].sum())
        shards.write(split, lists.span, [lists.records[i] for i in chosen])


@contextlib.contextmanager
def reporting(plan: Plan, name: str, report: Report | None = None) -> Iterator[Report]:
    """Saves a report at the end, with the RankingError that ended the work, if there was one."""
    report = report or Report()
    try:
        yield report
    except RankingError as error:
        report.error = error
    files = storage.artifact_files()
    files.makedirs(parts_folder(plan.folder, "reports"))
    with files.open(os.path.join(parts_folder(plan.folder, "reports"), f"{name}.pickle"), "wb") as opened:
        opened.write(pickle.dumps(report))


def _name_lists(chunk: chunks.Chunk, request: chunks.FileRequest) -> None:
    """Adds the group ids of records that are lists: their own, or `<file>:<record>` with `data.group_from: record`."""
    name = request.data.group_id
    if request.data.group_from == "record":
        generated = [f"{request.name}:{position}".encode() for position in chunk.positions.tolist()]
        chunk.columns[name] = pa.array(generated, pa.binary())
    elif name not in chunk.columns:
        chunk.columns[name] = pa.nulls(len(chunk.positions), pa.binary())
