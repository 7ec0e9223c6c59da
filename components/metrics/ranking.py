"""Sorts every list by its scores and counts what the metrics need.

Input: flat `[item]` scores and labels, and the row splits that cut them into lists.  Output: a `Ranking`, from which
each metric is computed for all lists at once.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.metrics.convention import Convention

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Ranking(NamedTuple):
    """The items of every list in rank order, best first, one list after another.

    A *tie* is a run of ranks whose items may change order.  With `Convention.ties` averaged, items with equal scores
    are a tie; with stable, each item is a tie by itself.
    """

    list_of: Ints  # [item] number of the list
    rank: Floats  # [item] from 1
    size: Floats  # [list] items
    gain: Floats  # [item] expected gain at this rank
    best_gain: Floats  # [item] gain at this rank in the ideal order
    tie_start: Floats  # [item] ranks before the tie
    tie_size: Floats  # [item] items in the tie
    tie_relevant: Floats  # [item] relevant items in the tie
    relevant_before: Floats  # [item] relevant items before the tie
    relevant: Floats  # [list] relevant items

    def sum(self, values: Floats, k: int | None = None) -> Floats:
        """The sum of [item] values over the first k ranks of each list; over all ranks for None.  Returns [list]."""
        values = values if k is None else np.where(self.rank <= k, values, 0.0)
        return np.bincount(self.list_of, values, minlength=len(self.size)).astype(np.float64)


def rank_lists(
    scores: npt.ArrayLike, labels: npt.ArrayLike, row_splits: npt.ArrayLike, convention: Convention
) -> Ranking:
    """Sorts every list by score, best first; items with equal scores keep their input order.

    scores, labels: [item].  row_splits: [list + 1], from 0 to the number of items.
    Raises DataError when the shapes disagree, and for a score or a label that is NaN.
    """
    score, label, splits = np.asarray(scores), np.asarray(labels, np.float64), np.asarray(row_splits, np.int64)
    if score.ndim != 1 or score.shape != label.shape or not _are_splits(splits, len(score)):
        raise DataError(
            f"expected scores and labels of one length and row_splits from 0 to it; got scores {score.shape}, "
            f"labels {label.shape}, row_splits {splits.shape} ending in {splits[-1:]}."
        )
    sizes = np.diff(splits)
    list_of = np.repeat(np.arange(len(sizes)), sizes)
    if np.isnan(score).any():
        raise DataError(f"list {list_of[np.isnan(score)][0]}: a score is NaN, so it has no rank; look at the model.")
    if np.isnan(label).any():
        raise DataError(f"list {list_of[np.isnan(label)][0]}: a label is NaN; labels must be numbers.")
    order = np.lexsort((-score, list_of))  # stable: equal scores stay in input order
    gains = np.exp2(np.maximum(label, 0)) - 1 if convention.gain == "exponential" else np.maximum(label, 0)
    relevant = (label >= convention.relevant_from).astype(np.float64)

    index = np.arange(len(score))  # of the item in rank order
    start = splits[:-1][list_of]
    begins = index == start  # where a tie begins
    if convention.ties == "averaged":
        begins |= np.append(True, score[order][1:] != score[order][:-1])[: len(score)]
    else:
        begins[:] = True
    tie = np.cumsum(begins) - 1
    first = index[begins]
    tie_size = np.bincount(tie).astype(np.float64)
    tie_relevant = np.bincount(tie, relevant[order])
    before = np.append(0.0, np.cumsum(relevant[order]))
    return Ranking(
        list_of=list_of,
        rank=(index - start + 1).astype(np.float64),
        size=sizes.astype(np.float64),
        gain=(np.bincount(tie, gains[order]) / tie_size)[tie],
        best_gain=gains[np.lexsort((-gains, list_of))],
        tie_start=(first[tie] - start).astype(np.float64),
        tie_size=tie_size[tie],
        tie_relevant=tie_relevant[tie],
        relevant_before=before[first[tie]] - before[start],
        relevant=np.bincount(list_of, relevant, minlength=len(sizes)).astype(np.float64),
    )


def _are_splits(splits: Ints, items: int) -> bool:
    return bool(
        splits.ndim == 1 and len(splits) and splits[0] == 0 and splits[-1] == items and (np.diff(splits) >= 0).all()
    )
