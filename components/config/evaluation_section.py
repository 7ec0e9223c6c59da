"""The config's section `evaluation`: the metrics of the test split, and when a model may be pushed.

Input: the section's keys.  Output: frozen dataclasses that reject contradictory values.
"""

import dataclasses
from collections.abc import Iterable
from typing import Literal

from tfx_ranking.components.config.choice_fields import MetricText
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bless:
    """When a model may be pushed."""

    __pydantic_config__ = STRICT
    metric: MetricText = "ndcg@10"
    """The metric of the test split that decides."""
    min_improvement: float = 0.0
    """Lowest difference to the live model's value that passes, in the metric's units; may be below 0. Not checked when
    there is no live model."""
    min_value: float | None = None
    """Lowest value of the metric that passes; not checked when left out."""
    allow_breaking: bool = False
    """`true`: a model also passes when its signatures or features break the live model's clients."""
    previous_spans: int = 0
    """The model must also pass on the test lists of this many earlier spans, the latest that the live model was blessed
    on. This catches bad labels, which spoil the new test split as well. 0 turns it off; it needs splits by group
    id."""

    @unless_selection
    def __post_init__(self) -> None:
        if self.previous_spans < 0:
            raise Refused("previous_spans", f"expected 0 (off) or more; got {self.previous_spans}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics on the test split, and the convention by which they are computed."""

    __pydantic_config__ = STRICT
    metrics: tuple[MetricText, ...] = ("ndcg@5", "ndcg@10", "mrr")
    """Metrics to report on the test split."""
    slices: tuple[str, ...] = ()
    """Context features with one value a list; the metrics are also reported for each of their values."""
    relevant_from: float = 1.0
    """Lowest label that counts as relevant in mrr, map, precision and recall, and for `data.no_relevant` and
    `data.keep`."""
    gain: Literal["exponential", "linear"] = "exponential"
    """Gain of a label in ndcg: `exponential` is `2**label - 1`, `linear` is the label itself."""
    no_relevant: Literal["drop", "zero", "one"] = "drop"
    """What a list without a relevant item (for ndcg: without a gain) counts as: left out, 0 or 1."""
    bless: Bless = Bless()
    """When the model may be pushed."""

    def check_with(self, data: Data, context: Iterable[str]) -> None:
        """Raises Refused when a key of this section does not fit `data.splits` or the names of the context features."""
        if self.bless.previous_spans and data.splits.by not in ("group_id", data.group_id):
            why = "splits by time would train on lists that the live model was tested on; use data.splits.by: group_id"
            raise Refused("bless.previous_spans", why)
        for i, name in enumerate(self.slices):
            if name not in context:
                hint = did_you_mean(name, context)
                raise Refused(f"slices[{i}]", f"expected a context feature; got {name!r}{hint}")
