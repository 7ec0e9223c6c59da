"""Computes ranking metrics: one number for each list, from the scores and labels of whole lists.

Input: flat `[item]` arrays and the row splits that cut them into lists.  Output: float64 `[list]` for each metric, NaN
where the convention drops the list.  Libraries disagree about gains, ties and lists without a relevant item, so these
choices are a `Convention`, and `describe` prints it with the metric's name.

>>> from tfx_ranking.components.metrics.convention import Convention
>>> values = per_list(["ndcg@2", "mrr"], scores=[0.1, 0.9, 0.5], labels=[1, 0, 0], row_splits=[0, 2, 3])
>>> values["mrr"]  # the first list's relevant item has rank 2; the second list has no relevant item
array([0.5, nan])
>>> describe("mrr", Convention())
'mrr(relevant_from=1, no_relevant=drop, ties=averaged)'
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.metrics import METRICS, MetricName, parse_metric
from tfx_ranking.components.errors import ConfigError, Refused
from tfx_ranking.components.metrics.convention import DEFAULT, Convention
from tfx_ranking.components.metrics.ranking import Floats, rank_lists


def per_list(
    names: Iterable[str],
    scores: npt.ArrayLike,
    labels: npt.ArrayLike,
    row_splits: npt.ArrayLike,
    convention: Convention = DEFAULT,
) -> dict[str, Floats]:
    """Each named metric of each list.

    names: as in `parse`.  scores, labels: [item], the items of all lists one after another.
    row_splits: [list + 1]; list i has the items row_splits[i] to row_splits[i + 1] - 1.
    Returns {name: float64 [list]}; NaN where `convention` drops the list.  An empty list has no relevant item.
    Raises DataError when the shapes disagree, and for a score or a label that is NaN.
    """
    chosen = {str(name): parse(name) for name in names}
    ranking = rank_lists(scores, labels, row_splits, convention)
    without_relevant = {"drop": np.nan, "zero": 0.0, "one": 1.0}[convention.no_relevant]
    values = {}
    for name, metric in chosen.items():
        row = METRICS[metric.name]
        counts = ranking.sum(ranking.best_gain) if row.by_gain else ranking.relevant
        with np.errstate(invalid="ignore", divide="ignore"):
            values[name] = np.where(counts > 0, row.load()(ranking, metric.k, convention), without_relevant)
    return values


def mean(values: npt.ArrayLike) -> float:
    """Mean over the lists that were not dropped; NaN when all lists were dropped.

    >>> mean([0.5, np.nan, 1.0])
    0.75
    """
    kept = np.asarray(values, np.float64)
    kept = kept[~np.isnan(kept)]
    return float(kept.mean()) if len(kept) else float("nan")


def parse(name: str) -> MetricName:
    """`ndcg@10` or `mrr` as a `MetricName`.  Raises ConfigError for an unknown metric or a wrong cutoff.

    >>> parse("ndcg@10")
    MetricName(name='ndcg', k=10)
    """
    try:
        return parse_metric(str(name))
    except Refused as refused:
        raise ConfigError(f"metric {name!r}: {refused}") from None


def describe(name: str, convention: Convention) -> str:
    """The metric's name and the part of the convention that it depends on.  Print it beside every number."""
    metric = parse(name)
    return f"{metric}({convention.text(METRICS[metric.name].depends_on)})"
