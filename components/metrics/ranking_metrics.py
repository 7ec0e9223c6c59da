"""Ranking metrics: scores and labels of whole lists in, one number per list out.

Enters: flat `[item]` arrays and the row splits that cut them into lists.  Leaves: float64 `[list]` per metric, NaN
where the convention drops the list.  The one idea: what is not agreed upon between libraries (gain, lists without a
relevant item, ties) is a `Convention`, and its text travels with every number (`describe`).

>>> values = per_list(["ndcg@2", "mrr"], scores=[0.1, 0.9, 0.5], labels=[1, 0, 0], row_splits=[0, 2, 3])
>>> values["mrr"]  # the relevant item is second of the first list; the second list has none
array([0.5, nan])
>>> describe("mrr", Convention())
'mrr(relevant_from=1, no_relevant=drop, ties=averaged)'
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from tfx_ranking.components.choices.metrics import METRICS, MetricName, parse_metric
from tfx_ranking.components.config.evaluation_section import Evaluation
from tfx_ranking.components.errors import ConfigError, DataError, Refused

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Convention:
    """What two libraries may mean by the same metric's name."""

    gain: Literal["exponential", "linear"] = "exponential"  # of NDCG: 2**label - 1, or label; a label below 0 gains 0
    no_relevant: Literal["drop", "zero", "one"] = "drop"  # a list without a relevant item (NDCG: without a gain)
    relevant_from: float = 1.0  # lowest label that counts as relevant (MRR, MAP, precision, recall)
    ties: Literal["averaged", "stable"] = "averaged"  # over all orders of equal scores, or in input order
    short_lists: Literal["k", "items"] = "k"  # precision@k of fewer than k items is a share of k, or of the items

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Convention":
        """The convention that the config's `evaluation` section names."""
        return cls(gain=evaluation.gain, no_relevant=evaluation.no_relevant, relevant_from=evaluation.relevant_from)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            allowed, value = get_args(field.type), getattr(self, field.name)
            if allowed and value not in allowed:
                raise ConfigError(f"Convention.{field.name}: expected one of {list(allowed)}; got {value!r}.")

    def __str__(self) -> str:
        return _show(self, tuple(field.name for field in dataclasses.fields(self)))


class Ranking(NamedTuple):
    """Every list's places, best first, list after list; what the metrics are computed from.

    A *tie* is a run of places whose items may change order: one place each where ties are `stable`, else equal scores.
    """

    list_of: Ints  # [place] number of the list
    rank: Floats  # [place] from 1
    size: Floats  # [list] items
    gain: Floats  # [place] expected gain
    best_gain: Floats  # [place] gain in the ideal order
    tie_start: Floats  # [place] places before the tie
    tie_size: Floats  # [place]
    tie_relevant: Floats  # [place] relevant items in the tie
    relevant_before: Floats  # [place] relevant items before the tie
    relevant: Floats  # [list] relevant items

    def sum(self, values: Floats, k: int | None = None) -> Floats:
        """Per list, over the first k places."""
        values = values if k is None else np.where(self.rank <= k, values, 0.0)
        return np.bincount(self.list_of, values, minlength=len(self.size)).astype(np.float64)


def per_list(
    names: Iterable[str],
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    row_splits: npt.ArrayLike,
    convention: Convention = Convention(),
) -> dict[str, Floats]:
    """Each named metric of each list.

    names: as `parse` reads them.  scores, labels: [item], all lists' items one after another.
    row_splits: [list + 1], list i is items row_splits[i] to row_splits[i + 1].
    Returns {name: float64 [list]}; NaN where `convention` drops the list.  An empty list has no relevant item.
    Raises DataError when shapes disagree or a score is NaN.
    """
    chosen = {str(name): parse(name) for name in names}
    ranking = rank_lists(scores, labels, row_splits, convention)
    instead = {"drop": np.nan, "zero": 0.0, "one": 1.0}[convention.no_relevant]
    values = {}
    for name, metric in chosen.items():
        kind = METRICS[metric.name]
        counts = ranking.sum(ranking.best_gain) if kind.by_gain else ranking.relevant
        with np.errstate(invalid="ignore", divide="ignore"):
            values[name] = np.where(counts > 0, kind.load()(ranking, metric.k, convention), instead)
    return values


def mean(values: npt.ArrayLike) -> float:
    """Mean over the lists that were not dropped; NaN when all were.

    >>> mean([0.5, np.nan, 1.0])
    0.75
    """
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")


def parse(name: str) -> MetricName:
    """`ndcg@10` or `mrr` as a `MetricName`.  Raises ConfigError for a metric or a cutoff that does not exist.

    >>> parse("ndcg@10")
    MetricName(name='ndcg', k=10)
    """
    try:
        return parse_metric(str(name))
    except Refused as refused:
        raise ConfigError(f"metric {name!r}: {refused}") from None


def describe(name: str, convention: Convention) -> str:
    """The metric with the part of the convention that it depends on: the label of every number."""
    metric = parse(name)
    return f"{metric}({_show(convention, METRICS[metric.name].depends_on)})"


def rank_lists(
    scores: npt.ArrayLike, labels: npt.ArrayLike, row_splits: npt.ArrayLike, convention: Convention
) -> Ranking:
    """Sorts every list by score, best first; equal scores stand in input order.  Shapes and errors as `per_list`."""
    score, label, splits = np.asarray(scores), np.asarray(labels, np.float64), np.asarray(row_splits, np.int64)
    if score.ndim != 1 or score.shape != label.shape or not _cuts(splits, len(score)):
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

    place = np.arange(len(score))
    start = splits[:-1][list_of]
    begins = place == start
    if convention.ties == "averaged":
        begins |= np.append(True, score[order][1:] != score[order][:-1])[: len(score)]
    else:
        begins[:] = True
    tie = np.cumsum(begins) - 1
    first = place[begins]
    tie_size = np.bincount(tie).astype(np.float64)
    tie_relevant = np.bincount(tie, relevant[order])
    before = np.append(0.0, np.cumsum(relevant[order]))
    return Ranking(
        list_of=list_of,
        rank=(place - start + 1).astype(np.float64),
        size=sizes.astype(np.float64),
        gain=(np.bincount(tie, gains[order]) / tie_size)[tie],
        best_gain=gains[np.lexsort((-gains, list_of))],
        tie_start=(first[tie] - start).astype(np.float64),
        tie_size=tie_size[tie],
        tie_relevant=tie_relevant[tie],
        relevant_before=before[first[tie]] - before[start],
        relevant=np.bincount(list_of, relevant, minlength=len(sizes)).astype(np.float64),
    )


def ndcg(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Normalised discounted cumulative gain, discount 1 / log2(1 + rank) (Järvelin & Kekäläinen, 2002)."""
    discount = 1 / np.log2(1 + ranking.rank)
    return ranking.sum(ranking.gain * discount, k) / ranking.sum(ranking.best_gain * discount, k)


def mrr(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """1 / rank of the first relevant item; 0 where it is beyond k."""
    n, r, j = ranking.tie_size, ranking.tie_relevant, ranking.rank - ranking.tie_start
    # Chance that the tie's first relevant item stands at its j-th place: C(n - j, r - 1) / C(n, r).
    possible = (ranking.relevant_before == 0) & (r > 0) & (n - j >= r - 1)
    n, r, j = (np.where(possible, each, 1.0) for each in (n, r, j))
    log_chance = _log_choose(n - j, r - 1) - _log_choose(n, r)
    return ranking.sum(np.where(possible, np.exp(log_chance), 0.0) / ranking.rank, k)


def average_precision(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Mean of the precision at each relevant item, over all relevant items of the list, those beyond k included.

    Within a tie of n places with r relevant items, a place is relevant with chance r / n and then has
    (place - 1)(r - 1) / (n - 1) relevant ones of the tie above it (McSherry & Najork, 2008).
    """
    n, r, j = ranking.tie_size, ranking.tie_relevant, ranking.rank - ranking.tie_start
    above = ranking.relevant_before + (j - 1) * (r - 1) / np.maximum(n - 1, 1)
    return ranking.sum(r / n * (above + 1) / ranking.rank, k) / ranking.relevant


def precision(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Share of relevant items among the first k places."""
    places = np.full_like(ranking.size, k or np.inf)
    places = places if convention.short_lists == "k" else np.minimum(places, ranking.size)
    return ranking.sum(ranking.tie_relevant / ranking.tie_size, k) / places


def recall(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Share of the list's relevant items that stand in its first k places."""
    return ranking.sum(ranking.tie_relevant / ranking.tie_size, k) / ranking.relevant


def _show(convention: Convention, fields: tuple[str, ...]) -> str:
    def text(value: Any) -> str:
        return f"{value:g}" if isinstance(value, (int, float)) else str(value)

    return ", ".join(f"{name}={text(getattr(convention, name))}" for name in fields)


def _cuts(splits: Ints, items: int) -> bool:
    return bool(
        splits.ndim == 1 and len(splits) and splits[0] == 0 and splits[-1] == items and (np.diff(splits) >= 0).all()
    )


def _log_choose(n: Floats, k: Floats) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), np.float64)
