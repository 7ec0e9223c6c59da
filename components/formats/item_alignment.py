"""Aligns the item features of a batch of lists, so that each feature has one entry per item.

Input: the values of each feature as the records have them: one piece per item, or one piece with all items of a list.
Output: columns with one entry per item.  The label shows how many items a list has, because every item has a label;
without labels, the longest feature shows it.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.formats import chunks
from tfx_ranking.components.lists.list_examples import Column


class Parsed(NamedTuple):
    """Columns of a batch of records.

    faults: (record in the batch, reason, its items).  Where there are faults, `columns` is not complete: parse the
    batch again without these records.
    """

    columns: dict[str, Any]  # Arrow arrays
    row_splits: np.ndarray | None
    faults: list[tuple[int, str, int]]


class Values(NamedTuple):
    """One feature of a batch: flat values in pieces, and one or more pieces per record."""

    values: pa.Array
    inner: np.ndarray  # int64 [piece]: values in each piece
    outer: np.ndarray  # int64 [record]: pieces in each record

    def as_lists(self) -> pa.Array:
        """One list of values per piece."""
        if pa.types.is_null(self.values.type):
            return pa.nulls(len(self.inner))
        offsets = np.concatenate([[0], np.cumsum(self.inner)])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), self.values)


Columns = dict[tuple[str, str], Values]  # (level, name) → values


def aligned(columns: Columns, request: chunks.FileRequest) -> Parsed:
    """Gives every item feature one value (or list of values) per item; lists whose lengths differ are faults."""
    label = columns.get(("items", request.data.label))
    sizes = _sizes(label) if label else _longest(columns, request)
    reference = request.data.label if label else "the longest feature"
    faults: list[tuple[int, str, int]] = []
    arrays = {}
    for (level, name), values in columns.items():
        if level == "context":
            arrays[name] = values.as_lists()
            continue
        array, wrong = _per_item(values, sizes, request.table[name])
        for at in np.flatnonzero(wrong):
            received = int(values.outer[at]) if values.outer[at] != 1 else int(_totals(values)[at])
            reason = f"{name}: expected {int(sizes[at])} values, as many as {reference} has; got {received}"
            faults.append((int(at), reason, int(sizes[at])))
        arrays[name] = array
    return Parsed(arrays, np.concatenate([[0], np.cumsum(sizes)]), faults)


def _totals(values: Values) -> np.ndarray:
    """int64 [list]: the number of values in all pieces of the list."""
    ends = np.concatenate([[0], np.cumsum(values.inner)])
    return np.diff(ends[np.concatenate([[0], np.cumsum(values.outer)])])


def _sizes(label: Values) -> np.ndarray:
    """int64 [list]: the number of items.  Each of several pieces is one item; a single piece may be all items."""
    return np.where(label.outer == 1, np.maximum(_totals(label), 1), label.outer)


def _longest(columns: Columns, request: chunks.FileRequest) -> np.ndarray:
    """int64 [list]: the number of items, from the longest feature; all tokens of one piece may belong to one item."""
    counts = []
    for (level, name), values in columns.items():
        if level == "items":
            column = request.table[name]
            whole = 1 if column.tokens else np.maximum(_totals(values) // column.width, 1)
            counts.append(np.where(values.outer == 1, whole, values.outer))
    return np.max(counts, axis=0)


def _per_item(values: Values, sizes: np.ndarray, column: Column) -> tuple[pa.Array | None, np.ndarray]:
    """The column with one list of values per item, and bool [list]: whether a list has the wrong number of values.

    The column is None where a list has the wrong number.
    """
    totals = _totals(values)
    nothing = (values.outer == 0) | ((values.outer == 1) & (totals == 0))
    each = ~nothing & (values.outer == sizes)
    whole = ~nothing & ~each & (values.outer == 1) & (totals == sizes * column.width)
    wrong = ~(nothing | each | whole)
    if wrong.any():
        return None, wrong
    lengths = np.zeros(int(sizes.sum()), np.int64)
    lengths[np.repeat(each, sizes)] = values.inner[np.repeat(each, values.outer)]
    lengths[np.repeat(whole, sizes)] = column.width
    if not len(values.values):
        return pa.nulls(len(lengths)), wrong
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.values), wrong
