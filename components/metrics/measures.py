"""The metrics' formulas, each for all lists at once.

Input: a `Ranking`, the cutoff k (None for the whole list) and the `Convention`.  Output: float64 `[list]`.
Items with equal scores count by the mean over all their orders, in closed form: within a tie of n items with r relevant
ones, each rank is relevant with the probability r / n.

The table `choices.metrics.METRICS` lists them.  `ranking_metrics.per_list` replaces the value of lists without a
relevant item, so a formula may divide by 0 there.
"""

import numpy as np
from scipy.special import gammaln

from tfx_ranking.components.metrics.convention import Convention
from tfx_ranking.components.metrics.ranking import Floats, Ranking


def ndcg(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Normalised discounted cumulative gain, discount 1 / log2(1 + rank) (Järvelin & Kekäläinen, 2002)."""
    discount = 1 / np.log2(1 + ranking.rank)
    return ranking.sum(ranking.gain * discount, k) / ranking.sum(ranking.best_gain * discount, k)


def mrr(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """1 / rank of the first relevant item; 0 where that rank is beyond k."""
    n, r, j = ranking.tie_size, ranking.tie_relevant, ranking.rank - ranking.tie_start
    # Probability that the tie's first relevant item is its j-th: C(n - j, r - 1) / C(n, r).
    possible = (ranking.relevant_before == 0) & (r > 0) & (n - j >= r - 1)
    n, r, j = (np.where(possible, each, 1.0) for each in (n, r, j))
    log_probability = _log_choose(n - j, r - 1) - _log_choose(n, r)
    return ranking.sum(np.where(possible, np.exp(log_probability), 0.0) / ranking.rank, k)


def average_precision(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Mean of the precision at each relevant item, over all relevant items of the list, those beyond k included.

    If the j-th item of a tie of n items, r of them relevant, is relevant, then (j - 1)(r - 1) / (n - 1) of the tie's
    items above it are relevant on average (McSherry & Najork, 2008).
    """
    n, r, j = ranking.tie_size, ranking.tie_relevant, ranking.rank - ranking.tie_start
    above = ranking.relevant_before + (j - 1) * (r - 1) / np.maximum(n - 1, 1)
    return ranking.sum(r / n * (above + 1) / ranking.rank, k) / ranking.relevant


def precision(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Share of relevant items among the first k ranks."""
    ranks = np.full_like(ranking.size, k or np.inf)
    ranks = ranks if convention.short_lists == "k" else np.minimum(ranks, ranking.size)
    return ranking.sum(ranking.tie_relevant / ranking.tie_size, k) / ranks


def recall(ranking: Ranking, k: int | None, convention: Convention) -> Floats:
    """Share of the list's relevant items that are among its first k ranks."""
    return ranking.sum(ranking.tie_relevant / ranking.tie_size, k) / ranking.relevant


def _log_choose(n: Floats, k: Floats) -> Floats:
    return np.asarray(gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1), np.float64)
