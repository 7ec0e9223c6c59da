"""Aligns the item features of a batch of lists, so that each has one entry for each item.

Input: the values of each feature as its record holds them: per item, or all items of a list in one piece.
Output: columns with one entry for each item.  The label defines how many items a list has, because every item has
one; without a label, the longest feature does.
"""

from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.formats import chunks
from tfx_ranking.components.lists.list_examples import Column


class Parsed(NamedTuple):
    """Columns of a batch of records; faults: (record in the batch, reason, items) that have to go first."""

    columns: dict[str, Any]  # Arrow arrays
    row_splits: np.ndarray | None
    faults: list[tuple[int, str, int]]


class Values(NamedTuple):
    """One feature of a batch: flat `values`, cut into `inner` pieces, `outer` of them a record."""

    values: pa.Array
    inner: np.ndarray  # int64 [piece]: values in each
    outer: np.ndarray  # int64 [record]: pieces in each

    def as_lists(self) -> pa.Array:
        """A list of values a piece."""
        if pa.types.is_null(self.values.type):
            return pa.nulls(len(self.inner))
        offsets = np.concatenate([[0], np.cumsum(self.inner)])
        return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), self.values)


Columns = dict[tuple[str, str], Values]  # (level, name) → values


def aligned(columns: Columns, request: chunks.FileRequest) -> Parsed:
    """One value (or list of values) an item for every item feature, or the lists in which the lengths differ."""
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
            reason = f"{name}: {received} values for {int(sizes[at])} items ({reference} says how many there are)"
            faults.append((int(at), reason, int(sizes[at])))
        arrays[name] = array
    return Parsed(arrays, np.concatenate([[0], np.cumsum(sizes)]), faults)


def _totals(values: Values) -> np.ndarray:
    """int64 [list]: values of all pieces."""
    ends = np.concatenate([[0], np.cumsum(values.inner)])
    return np.diff(ends[np.concatenate([[0], np.cumsum(values.outer)])])


def _sizes(label: Values) -> np.ndarray:
    """int64 [list]: items.  Several pieces are one each; a single piece may hold all of them."""
    return np.where(label.outer == 1, np.maximum(_totals(label), 1), label.outer)


def _longest(columns: Columns, request: chunks.FileRequest) -> np.ndarray:
    """int64 [list]: items, as the feature with the most of them has it; tokens in one piece may be of one item."""
    counts = []
    for (level, name), values in columns.items():
        if level == "items":
            column = request.table[name]
            whole = 1 if column.tokens else np.maximum(_totals(values) // column.width, 1)
            counts.append(np.where(values.outer == 1, whole, values.outer))
    return np.max(counts, axis=0)


def _per_item(values: Values, sizes: np.ndarray, column: Column) -> tuple[pa.Array | None, np.ndarray]:
    """The column as lists, one an item, and the lists whose count does not fit (then there is no column)."""
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
