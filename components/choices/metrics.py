"""Lists the metrics that the config can name, with or without a cutoff as in `ndcg@10`.

To add a metric:
1. Write the function `f(ranking, k, convention)` in `metrics/measures.py` or in a file of yours: it takes a `Ranking`
   of all lists, the cutoff (None for the whole list) and the `Convention`; it returns float64 [list].
2. Add a row to `METRICS`.  The config, its JSON schema and `ranking_metrics` read this table.
3. Run `python -m tfx_ranking.components.config.reference > docs/config.md`, the page of the config's keys.

From outside the package, do step 2 with `METRICS["mine"] = Metric(...)` before the config is loaded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from tfx_ranking.components.choices.functions import load_function
from tfx_ranking.components.errors import Refused, did_you_mean

IN_CONFIG = ("gain", "relevant_from", "no_relevant")  # fields of the convention that `evaluation` sets
_MODULE = "tfx_ranking.components.metrics.measures"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of `METRICS`."""

    sentence: str  # for the docs
    function: str  # dotted name
    cutoff: Literal["optional", "required", "none"] = "optional"  # whether the name takes `@k`
    depends_on: tuple[str, ...]  # fields of `metrics.convention.Convention` that change the value
    by_gain: bool = False  # whether a list without a gain, not one without a relevant item, falls under `no_relevant`

    @property
    def details(self) -> str:
        """A second sentence for the docs."""
        keys = [f"`evaluation.{field}`" for field in self.depends_on if field in IN_CONFIG]
        return f"Depends on {' and '.join(keys)}." if keys else ""

    def load(self) -> Callable[..., Any]:
        """The function.  Raises ConfigError when it cannot be imported."""
        return load_function(self.function, "the metric")


METRICS: dict[str, Metric] = {
    "ndcg": Metric(
        sentence="Normalised discounted cumulative gain, discount 1 / log2(1 + rank).",
        function=f"{_MODULE}.ndcg",
        depends_on=("gain", "no_relevant", "ties"),
        by_gain=True,
    ),
    "mrr": Metric(
        sentence="1 / rank of the first relevant item; 0 when that rank is beyond the cutoff.",
        function=f"{_MODULE}.mrr",
        depends_on=("relevant_from", "no_relevant", "ties"),
    ),
    "map": Metric(
        sentence="Average precision: the mean, over the list's relevant items, of the precision at each one's rank.",
        function=f"{_MODULE}.average_precision",
        depends_on=("relevant_from", "no_relevant", "ties"),
    ),
    "precision": Metric(
        sentence="Share of relevant items among the first k ranks.",
        function=f"{_MODULE}.precision",
        cutoff="required",
        depends_on=("relevant_from", "no_relevant", "ties", "short_lists"),
    ),
    "recall": Metric(
        sentence="Share of the list's relevant items that are among the first k ranks.",
        function=f"{_MODULE}.recall",
        cutoff="required",
        depends_on=("relevant_from", "no_relevant", "ties"),
    ),
}


class MetricName(NamedTuple):
    """A metric's name in `METRICS` and its cutoff; `k` None means the whole list."""

    name: str
    k: int | None

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"


def parse_metric(text: str) -> MetricName:
    """`ndcg@10` or `mrr` as a `MetricName`.  Raises Refused, without a key, for an unknown metric or a wrong cutoff.

    >>> parse_metric("ndcg@10")
    MetricName(name='ndcg', k=10)
    >>> parse_metric("precision")
    Traceback (most recent call last):
    ...
    tfx_ranking.components.errors.Refused: expected a cutoff, as in precision@10; got 'precision'.
    """
    name, at, cutoff = str(text).partition("@")
    is_number = cutoff.isascii() and cutoff.isdigit()
    if name not in METRICS or (at and not is_number):
        hint = did_you_mean(name, METRICS, at + cutoff if is_number else "")
        raise Refused("", f"expected one of {', '.join(METRICS)}, with a cutoff as in ndcg@10; got {text!r}{hint}")
    if at and METRICS[name].cutoff == "none":
        raise Refused("", f"{name} takes no cutoff; got {text!r}")
    if not at and METRICS[name].cutoff == "required":
        raise Refused("", f"expected a cutoff, as in {name}@10; got {text!r}")
    if at and int(cutoff) < 1:
        raise Refused("", f"expected a cutoff of at least 1; got {text!r}")
    return MetricName(name, int(cutoff) if at else None)
