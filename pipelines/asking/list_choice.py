"""Selects a few lists from files of any input format, by row or by group, to make a request from.

Input: the files that `unlabelled.requests` returns.  Output: whole lists.  A row selects the list that it belongs to;
the other rows of that list may be anywhere in the files.
"""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.errors import RankingError, UsageError
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping, workers
from tfx_ranking.pipelines.asking import unlabelled


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which lists a request has: `count` lists, beginning with that of a row or a group, or with the first."""

    row: int | None = None  # or record, from 1; the header of a CSV does not count
    group: str | None = None
    count: int = 1


FIRST = Choice()


def choose(files: list[chunks.FileRequest], choice: Choice, reading: unlabelled.Reading) -> grouping.Lists:
    """Returns the lists in the order of their first rows, beginning with the chosen one.

    reading: collects each record that cannot be used; such a row may be missing in a list.
    Raises RankingError if the row or group does not exist or cannot be used, or if there are too few lists.
    """
    if choice.count < 1:
        raise UsageError(f"--lists: expected at least 1; got {choice.count}.")
    if choice.row is not None and choice.group is not None:
        raise UsageError("--row and --group both choose a list; give one of them.")
    if choice.row is not None and len(files) > 1:
        raise RankingError(f"--row: {len(files)} files match, and each has its own rows; name one file, or --group.")
    chosen = _chosen_records if FORMATS[files[0].data.format].lists else _chosen_rows
    lists = chosen(files, choice, reading)
    if len(lists.positions) < choice.count:
        where = "there" if choice.row is not None or choice.group is not None else "the first"
        raise RankingError(f"--lists {choice.count}: from {where} on there are only {len(lists.positions)}.")
    return lists


def _chosen_records(files: list[chunks.FileRequest], choice: Choice, reading: unlabelled.Reading) -> grouping.Lists:
    last = 0
    parts: list[grouping.Lists] = []
    count = 0
    for lists in unlabelled.records_as_lists(files, reading):
        last = max([last, *lists.positions.tolist()])
        start: int | None = 0
        if not parts:
            start = _start(lists.positions, lists.context[files[0].data.group_id], choice.row, choice.group)
            _refuse_bad([bad for _, bad in reading.bad], choice.row)
        if start is not None and len(lists.positions):
            parts.append(lists.between(start, min(start + choice.count - count, len(lists.positions))))
            count += len(parts[-1].positions)
        if count == choice.count:
            break
    if not parts:
        raise _not_there(files, choice, "record", last)
    return _joined(parts)


def _chosen_rows(files: list[chunks.FileRequest], choice: Choice, reading: unlabelled.Reading) -> grouping.Lists:
    """Reads the files twice: first for the groups' ids, then for their rows, which may be anywhere."""
    group_id = files[0].data.group_id
    header = 1 if files[0].data.format == "csv" else 0
    row = None if choice.row is None else choice.row + header
    groups: list[bytes] = []
    last = 0
    for chunk in (chunk for request in files for chunk in workers.checked(request)):
        _refuse_bad(chunk.bad, row, header)
        last = max([last, *chunk.positions[-1:].tolist(), *(bad.position for bad in chunk.bad)])
        start = 0 if groups else _start(chunk.positions, chunk.columns[group_id], row, choice.group)
        if start is not None:
            own = chunk.columns[group_id].slice(start).unique().to_pylist()
            groups = list(dict.fromkeys([*groups, *own]))[: choice.count]
        if len(groups) == choice.count:
            break
    if not groups:
        raise _not_there(files, choice, "row", last - header)
    wanted = pa.array(groups, pa.binary())
    parts = []
    for request in files:
        for chunk in workers.checked(request):
            reading.add(chunk, request.path)
            keep = pc.is_in(chunk.columns[group_id], value_set=wanted)
            columns = {name: array.filter(keep) for name, array in chunk.columns.items()}
            parts.append(chunks.Chunk(columns, chunk.positions[np.asarray(keep)], 0))
    lists = unlabelled.grouped(parts, files[0])
    # A group may begin before the chosen row.
    at = [lists.context[group_id].to_pylist().index(group) for group in groups]
    return _joined([lists.between(each, each + 1) for each in at])


def _start(positions: npt.NDArray[Any], groups: pa.Array, row: int | None, group: str | None) -> int | None:
    """The index of the chosen row or group; None if it is not here."""
    if row is not None:
        matches = np.flatnonzero(positions == row)
    elif group is not None:
        matches = np.flatnonzero(np.asarray(pc.equal(groups, group.encode())))
    else:
        matches = np.arange(min(1, len(positions)))
    return int(matches[0]) if len(matches) else None


def _refuse_bad(bad: list[chunks.BadRecord], row: int | None, header: int = 0) -> None:
    for each in bad:
        if each.position == row:
            raise RankingError(f"--row {row - header}: it cannot be used: {each.reason}. Choose another row.")


def _not_there(files: list[chunks.FileRequest], choice: Choice, what: str, last: int) -> RankingError:
    names = ", ".join(request.path for request in files[:3])
    if choice.row is not None:
        there = f"it has {what}s 1 to {last}" if last else f"it has no {what}"
        return RankingError(f"--row {choice.row}: {names} has no such {what}; {there}.")
    if choice.group is not None:
        return RankingError(f"--group {choice.group}: no list of {names} has this value in {files[0].data.group_id!r}.")
    return RankingError(
        f"{names}: no usable list; the file was read as {files[0].data.format}; set another format with --format."
    )


def _joined(parts: list[grouping.Lists]) -> grouping.Lists:
    lengths = np.concatenate([np.diff(part.row_splits) for part in parts])
    return grouping.Lists(
        {name: pa.concat_arrays([part.context[name] for part in parts]) for name in parts[0].context},
        {name: pa.concat_arrays([part.items[name] for part in parts]) for name in parts[0].items},
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.positions for part in parts]),
    )
