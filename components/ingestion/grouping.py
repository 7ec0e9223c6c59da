"""Groups rows into lists: the rows of one group id, in the order of the files.

Input: `Chunk`s.  Output: `Lists`, and then a `ListBatch` to write.  `check` sets bad records aside; `arrange` caps or
drops lists, fills in missing values and counts them.
"""

import collections
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.errors import GroupOrderError
from tfx_ranking.components.formats import chunks, column_types
from tfx_ranking.components.lists.list_examples import Column, ListBatch, Tokens

TIME = "#time"  # name of the float64 column with the time of a list; no feature may have this name


class Lists(NamedTuple):
    """Lists whose missing values are still null.

    context: name → Arrow [list], with the group id.  items: name → Arrow [item].  row_splits: int64 [list + 1].
    positions: int64 [list], the position in its file of each list's first record.
    """

    context: dict[str, pa.Array]
    items: dict[str, pa.Array]
    row_splits: np.ndarray
    positions: np.ndarray

    def between(self, start: int, end: int) -> "Lists":
        """The lists from `start` up to, but without, `end`; copies nothing."""
        first, last = int(self.row_splits[start]), int(self.row_splits[end])
        return Lists(
            {name: array.slice(start, end - start) for name, array in self.context.items()},
            {name: array.slice(first, last - first) for name, array in self.items.items()},
            self.row_splits[start : end + 1] - first,
            self.positions[start:end],
        )


def check(chunk: chunks.Chunk, request: chunks.FileRequest) -> chunks.Chunk:
    """The chunk with the config's types.  Rows that break a rule are in its `bad`, and no longer in its columns.

    In a format with one list per record, a bad item makes the whole list bad.
    """
    data = request.data
    rows_of_lists = chunk.row_splits is not None
    lengths = np.diff(chunk.row_splits) if chunk.row_splits is not None else None
    count = len(chunk.positions)
    owner = np.repeat(np.arange(count), lengths) if lengths is not None else None
    reasons: dict[int, str] = {}
    out: dict[str, pa.Array] = {}

    def refuse(level: str, faults: column_types.Faults) -> None:
        for at, reason in faults.items():
            reasons.setdefault(int(owner[at]) if owner is not None and level == "items" else at, reason)

    def where(mask: np.ndarray, reason: Callable[[int], str]) -> column_types.Faults:
        return {int(at): reason(int(at)) for at in np.flatnonzero(mask)}

    for name, column in request.table.items():
        absent = name in request.optional and name not in chunk.columns
        array, faults = column_types.conform(name, pa.nulls(count) if absent else chunk.columns[name], column)
        refuse(column.level, faults)
        out[name] = array
    if request.time:
        out[TIME], faults = column_types.times(request.time, chunk.columns[request.time])
        refuse("context", faults)
    if data.group_id not in request.optional:
        no_group = np.asarray(out[data.group_id].is_null())
        refuse("context", where(no_group, lambda at: f"{data.group_id}: the group id is missing"))
    if data.label in request.table:  # lists that are only scored have no label
        label = out[data.label].to_numpy(zero_copy_only=False)
        refuse("items", where(np.isnan(label), lambda at: f"{data.label}: the label is missing"))
        if data.label_range:
            low, high = data.label_range
            rule = f"is outside data.label_range [{low:g}, {high:g}]"
            refuse("items", where((label < low) | (label > high), lambda at: f"{data.label}: {label[at]:g} {rule}"))
    if data.weight and data.weight in request.table:
        weight = out[data.weight].to_numpy(zero_copy_only=False)
        problem = f"{data.weight}: expected a weight of at least 0; got"
        refuse("items", where(~(weight >= 0), lambda at: f"{problem} {weight[at]:g}"))
    if lengths is not None:
        refuse("context", where(lengths == 0, lambda at: "a list without items"))
    if not reasons:
        return chunks.Chunk(out, chunk.positions, chunk.records, chunk.bad, chunk.counts, chunk.row_splits)

    bad = list(chunk.bad)
    for record in sorted(reasons):
        items = max(1, int(lengths[record])) if lengths is not None else 1
        bad.append(chunks.BadRecord(int(chunk.positions[record]), reasons[record], items))
    keep = np.ones(count, bool)
    keep[list(reasons)] = False
    keep_items = keep[owner] if owner is not None else keep
    for name, array in out.items():
        on_items = not rows_of_lists or (name in request.table and request.table[name].level == "items")
        out[name] = array.filter(pa.array(keep_items if on_items else keep))
    row_splits = np.concatenate([[0], np.cumsum(lengths[keep])]) if lengths is not None else None
    return chunks.Chunk(out, chunk.positions[keep], chunk.records, bad, chunk.counts, row_splits)


def cut(columns: dict[str, pa.Array], positions: np.ndarray, table: Mapping[str, Column], group_id: str) -> Lists:
    """Cuts rows into lists; the rows of a group must be together.  A list has the context values of its first row."""
    group = columns[group_id]
    rows = len(group)
    if not rows:
        starts = np.zeros(0, np.int64)
    else:
        changes = np.asarray(pc.not_equal(group.slice(1), group.slice(0, rows - 1)))
        starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    at = pa.array(starts)
    context = {name: columns[name].take(at) for name, column in table.items() if column.level == "context"}
    row_splits = np.append(starts, rows)
    if TIME in columns:
        latest = np.maximum.reduceat(columns[TIME].to_numpy(), starts) if rows else np.zeros(0)
        context[TIME] = pa.array(latest)
    items = {name: columns[name] for name, column in table.items() if column.level == "items"}
    return Lists(context, items, row_splits, positions[starts])


def differing_context(columns: dict[str, pa.Array], lists: Lists, table: Mapping[str, Column]) -> int:
    """The number of lists whose rows have different values of a context feature (the first row's value is kept)."""
    lengths = np.diff(lists.row_splits)
    differs = np.zeros(len(lengths), bool)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    for name, column in table.items():
        if column.level != "context" or pa.types.is_list(columns[name].type):
            continue
        codes = columns[name].dictionary_encode("encode").indices.to_numpy()
        off = codes != codes[lists.row_splits[:-1]][owner]
        differs[owner[off]] = True
    return int(differs.sum())


def stream(read: Iterator[chunks.Chunk], request: chunks.FileRequest) -> Iterator[tuple[chunks.Chunk, Lists]]:
    """Groups rows into lists, chunk by chunk; the rows of a group must be together.

    The last group of a chunk may continue in the next chunk, and is kept until then.  Raises GroupOrderError when a
    group appears again after another one.
    """
    group_id = request.data.group_id
    seen: dict[bytes, tuple[int, int]] = {}  # group → first and last row
    waiting: chunks.Chunk | None = None
    for chunk in read:
        columns, positions = chunk.columns, chunk.positions
        if waiting is not None and len(waiting.positions):
            columns = {name: pa.concat_arrays([waiting.columns[name], columns[name]]) for name in columns}
            positions = np.concatenate([waiting.positions, positions])
        lists = cut(columns, positions, request.table, group_id)
        if len(lists.positions):
            last = int(lists.row_splits[-2])
            waiting = chunks.Chunk({name: array.slice(last) for name, array in columns.items()}, positions[last:], 0)
            columns = {name: array.slice(0, last) for name, array in columns.items()}
            lists = cut(columns, positions[:last], request.table, group_id)
            _check_order(lists, positions, seen, request)
        yield _count_differing(chunk, columns, lists, request), lists
    if waiting is not None and len(waiting.positions):
        lists = cut(waiting.columns, waiting.positions, request.table, group_id)
        _check_order(lists, waiting.positions, seen, request)
        yield _count_differing(waiting, waiting.columns, lists, request), lists


def _count_differing(
    chunk: chunks.Chunk, columns: dict[str, pa.Array], lists: Lists, request: chunks.FileRequest
) -> chunks.Chunk:
    differing = differing_context(columns, lists, request.table)
    if differing:
        chunk.counts["context_differs"] = chunk.counts.get("context_differs", 0) + differing
    return chunk


def _check_order(
    lists: Lists, positions: np.ndarray, seen: dict[bytes, tuple[int, int]], request: chunks.FileRequest
) -> None:
    groups = lists.context[request.data.group_id].to_pylist()
    for i, group in enumerate(groups):
        first, last = int(lists.positions[i]), int(positions[lists.row_splits[i + 1] - 1])
        if group in seen:
            raise group_order_error(group, (request.path, seen[group][1]), (request.path, first))
        seen[group] = (first, last)


def group_order_error(group: bytes, earlier: tuple[str, int], later: tuple[str, int]) -> GroupOrderError:
    """The error for a group that appears again after other groups; earlier, later: (file, row)."""
    where = f"rows {earlier[1]} and {later[1]}"
    if earlier[0] != later[0]:
        where = f"row {earlier[1]} and again in {later[0]} at row {later[1]}"
    return GroupOrderError(
        f"{earlier[0]}: group {group.decode('utf-8', 'replace')!r} appears at {where}, with other groups between them. "
        "Sort the input by group, or set data.order: any to accept rows in any order."
    )


def arrange(
    lists: Lists, data: Data, table: Mapping[str, Column], relevant_from: float
) -> tuple[Lists, ListBatch, collections.Counter[str]]:
    """Drops and caps lists as the config says, and fills in missing values.

    Returns the lists that are left, the same lists as a batch to write, and counts: `dropped_lists`, `dropped` (items),
    `capped_lists`, `capped` (items) and `missing/<feature>`.
    """
    counts: collections.Counter[str] = collections.Counter()
    lengths = np.diff(lists.row_splits)
    if data.no_relevant == "drop" and len(lengths):
        relevant = lists.items[data.label].to_numpy(zero_copy_only=False) >= relevant_from
        keep = np.add.reduceat(relevant, lists.row_splits[:-1]) > 0
        if not keep.all():
            counts["dropped_lists"] = int((~keep).sum())
            counts["dropped"] = int(lengths[~keep].sum())
            lists = _select(lists, keep, np.repeat(keep, lengths), lengths[keep])
            lengths = np.diff(lists.row_splits)
    if data.max_items is not None and np.any(lengths > data.max_items):
        keep_items = _capped(lists, data, relevant_from)
        counts["capped_lists"] = int((lengths > data.max_items).sum())
        counts["capped"] = int((~keep_items).sum())
        lists = _select(lists, np.ones(len(lengths), bool), keep_items, np.minimum(lengths, data.max_items))
    context: dict[str, object] = {}
    items: dict[str, object] = {}
    for name, column in table.items():
        at, into = (lists.items, items) if column.level == "items" else (lists.context, context)
        into[name], missing = _filled(at[name], column)
        if missing:
            counts[f"missing/{name}"] = missing
    return lists, ListBatch(context, items, lists.row_splits), counts


def _select(lists: Lists, keep: np.ndarray, keep_items: np.ndarray, lengths: np.ndarray) -> Lists:
    return Lists(
        {name: array.filter(pa.array(keep)) for name, array in lists.context.items()},
        {name: array.filter(pa.array(keep_items)) for name, array in lists.items.items()},
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        lists.positions[keep],
    )


def _capped(lists: Lists, data: Data, relevant_from: float) -> np.ndarray:
    """bool [item]: whether an item stays when its list is capped.

    With `data.keep: position`, the items that were shown first stay.  With `label`, the highest labels of at least
    `relevant_from` stay, and then a random sample of the rest; the group id is its seed.
    """
    keep = np.ones(int(lists.row_splits[-1]), bool)
    limit = data.max_items or 0
    groups = lists.context[data.group_id]
    by_position = data.keep == "position"
    column = lists.items[data.position if by_position and data.position else data.label]
    for i in np.flatnonzero(np.diff(lists.row_splits) > limit):
        start, end = int(lists.row_splits[i]), int(lists.row_splits[i + 1])
        values = column.slice(start, end - start).to_numpy(zero_copy_only=False).astype(np.float64)
        if by_position:
            order = np.argsort(values, kind="stable")  # a missing position is NaN, which is last
        else:
            seed = int.from_bytes(hashlib.blake2b(groups[int(i)].as_py(), digest_size=8).digest(), "big")
            drawn = np.random.Generator(np.random.PCG64(seed)).random(end - start)
            order = np.lexsort((drawn, -np.where(values >= relevant_from, values, -np.inf)))
        keep[start + order[limit:]] = False
    return keep


def _filled(array: pa.Array, column: Column) -> tuple[object, int]:
    """The column without nulls, and the number of missing values."""
    if column.tokens:
        lengths = column_types.list_lengths(array)
        values = array.flatten()
        return Tokens(values, np.concatenate([[0], np.cumsum(lengths)])), int((lengths == 0).sum())
    if column.width > 1:
        lengths = column_types.list_lengths(array)
        flat = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        if (lengths == 0).any():
            full = np.full((len(lengths), column.width), np.nan, np.float32)
            full[lengths > 0] = flat.reshape(-1, column.width)
            flat = full
        matrix = flat.reshape(-1, column.width)
        return matrix, int(np.isnan(matrix).any(axis=1).sum())
    if column.dtype == "float":
        values = array.to_numpy(zero_copy_only=False)
        return values, int(np.isnan(values).sum())
    missing = array.null_count
    return (pc.fill_null(array, pa.scalar(column.missing, array.type)) if missing else array), missing
