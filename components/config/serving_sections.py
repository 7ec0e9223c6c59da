"""The config's sections `serving`, `evaluation`, `push` and `retrain`: what is exported, judged, pushed, made anew.

Enters: the sections' keys.  Leaves: frozen dataclasses that cannot hold a contradiction.
"""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Literal

from tfx_ranking.components.choices.signatures import Signature, chosen, refuse_item_by_item
from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.choice_fields import MetricText
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.config.feature_sections import Feature
from tfx_ranking.components.config.refusals import STRICT, unless_cut
from tfx_ranking.components.errors import Refused, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """The exported model's signatures; `list_example` is always among them."""

    __pydantic_config__ = STRICT
    signatures: tuple[str, ...] = ("predict", "list_example")
    """Chosen from predict, sequence_example, list_example, regress, features, rank, rank_list_example, probabilities
    and transform; list_example is always exported."""
    default: str = "predict"
    """Which of them `serving_default` is."""
    compatibility: tuple[Literal["tf_ranking", "ml4ir"], ...] = ()
    """Adds the signatures that clients of these systems call, with their names and padding."""
    postprocessing: str | None = None
    """Dotted path of your own `f(scores, features)`, which gives a dict of tensors: one more signature, by its name;
    none when left out."""
    top_k: int | None = None
    """Places that rank and rank_list_example answer with, 1 or more; the whole list when left out."""
    required_only: bool = False
    """Whether signatures read only the features that the scores depend on, so that requests may lack the others."""
    rename: dict[str, str] = dataclasses.field(default_factory=dict)
    """Feature to its name in requests (list_example's records keep training's names); the same name when left out."""
    tflite: bool = False
    """Whether the network is exported as a TFLite model beside the SavedModel; preprocessing is left to the caller."""
    parity_lists: int = 256
    """Lists of the test split that every signature must score as training does, or nothing is exported."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.postprocessing is not None:
            own_code.check_form("postprocessing", self.postprocessing)
        names = list(self.rows)
        if self.default not in names:
            raise Refused("default", f"expected one of the signatures {names}; got {self.default!r}")
        if self.top_k is not None and self.top_k < 1:
            raise Refused("top_k", f"expected at least 1; got {self.top_k}")
        names = list(self.rename.values())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Refused("rename", f"expected a name of its own for each feature; {twice[0]!r} stands twice")

    def check_with(self, features: Mapping[str, Feature], list_wise: str) -> None:
        """Raises Refused when a key of this section does not fit the config's features.

        list_wise: why an item cannot be scored without its list; "" when it can.
        """
        for name in self.rename:
            if name not in features:
                raise Refused(f"rename.{name}", f"expected a feature{did_you_mean(name, features)}")
        requested = [self.rename.get(name, name) for name in features]
        for name in self.rename.values():
            if requested.count(name) > 1:
                raise Refused("rename", f"two features would be called {name!r} in requests")
        if list_wise:
            refuse_item_by_item(self.rows, list_wise)

    @property
    def rows(self) -> dict[str, Signature]:
        """The signatures to export, by name.  Raises Refused."""
        return chosen(self.signatures, self.compatibility, self.postprocessing)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bless:
    """When a model may be pushed."""

    __pydantic_config__ = STRICT
    metric: MetricText = "ndcg@10"
    """The metric of the test split that decides."""
    min_improvement: float = 0.0
    """Over the live model, in the metric's units, may be below 0; exactly this passes; without a live model it is not
    asked."""
    min_value: float | None = None
    """Lowest value of the metric that passes; not asked when left out."""
    allow_breaking: bool = False
    """Whether a model may pass whose signatures or features break the live model's clients."""
    previous_spans: int = 0
    """It must hold on the test lists of the last so many spans that the live model was blessed on, too: labels that
    went bad are bad in the new test split as well; 0 asks for none; needs splits by group id."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.previous_spans < 0:
            raise Refused("previous_spans", f"expected 0 (not asked) or more; got {self.previous_spans}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The metrics on the test split, and the convention they are computed by."""

    __pydantic_config__ = STRICT
    metrics: tuple[MetricText, ...] = ("ndcg@5", "ndcg@10", "mrr")
    """Metrics to report on the test split."""
    slices: tuple[str, ...] = ()
    """Context features of one value a list, by whose values the metrics are reported as well."""
    relevant_from: float = 1.0
    """Lowest label that counts as relevant in mrr, map, precision and recall, and for `data.no_relevant` and
    `data.keep`."""
    gain: Literal["exponential", "linear"] = "exponential"
    """Of ndcg: exponential is `2**label - 1`, linear the label."""
    no_relevant: Literal["drop", "zero", "one"] = "drop"
    """What a list without a relevant item (ndcg: without a gain) counts as: left out, 0 or 1."""
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push:
    """Where TensorFlow Serving looks for versions."""

    __pydantic_config__ = STRICT
    base: str
    """Folder that TensorFlow Serving reads versions from, local or in an object store, as gs://bucket/shop."""
    version: Literal["unix_time", "next"] = "unix_time"
    """Number of a pushed version: `unix_time`, seconds since 1970, or `next`, the highest so far plus 1."""
    keep: int | None = None
    """Versions to keep, the newest, 1 or more; what is live or has a label stays besides; all when left out."""
    models_config: str | None = None
    """TensorFlow Serving's models.config in which version labels are kept, which needs `keep`; no labels when left
    out."""
    label: Literal["stable", "canary"] = "stable"
    """What a pushed version is labelled there; the one labelled stable is live."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise Refused("keep", f"expected at least 1 version; got {self.keep}")
        if self.models_config is not None and self.keep is None:
            raise Refused(
                "keep", "with labels TensorFlow Serving loads every version that stands there: say how many may"
            )
        if self.label != "stable" and self.models_config is None:
            raise Refused("label", "labels are kept in a models.config: say in models_config where")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How far new data may have moved from those of the live model: TFDV's L-infinity distance of a string's values,
    its Jensen-Shannon divergence of numbers, both in [0, 1]."""

    __pydantic_config__ = STRICT
    label: float | None = None
    """Distance in [0, 1] that the label may move; not asked when left out."""
    features: dict[str, float] = dataclasses.field(default_factory=dict)
    """Feature, or pattern with *, to the distance in [0, 1] that it may move; the first that fits counts; what none
    fits is not asked."""

    @unless_cut
    def __post_init__(self) -> None:
        asked = {f"features.{name}": value for name, value in self.features.items()}
        for key, value in {"label": self.label, **asked}.items():
            if value is not None and not 0 <= value <= 1:
                raise Refused(key, f"expected a distance in [0, 1]; got {value}")

    def threshold(self, name: str) -> float | None:
        """A feature's; None for one that nothing is asked of.

        >>> Drift(features={"price": 0.1, "*": 0.3}).threshold("brand")
        0.3
        """
        return next((value for key, value in self.features.items() if fnmatch.fnmatchcase(name, key)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain:
    """When `tfx-ranking retrain` trains: new data, and one of these reasons where any is given."""

    __pydantic_config__ = STRICT
    min_lists: int | None = None
    """So many new labelled lists are a reason to train, 1 or more."""
    max_age: float | None = None
    """More days than this since the live model was made are a reason to train, above 0."""
    drift: Drift | None = None
    """What moved farther than this is a reason to train."""
    refuse: Drift | None = None
    """Data that moved farther than this are not trained on; none are refused when left out."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.min_lists is not None and self.min_lists < 1:
            raise Refused("min_lists", f"expected at least 1; got {self.min_lists}")
        if self.max_age is not None and self.max_age <= 0:
            raise Refused("max_age", f"expected days, above 0; got {self.max_age}")

    def check_with(self, features: Iterable[str]) -> None:
        """Raises Refused when a drift limit names no feature.  features: the names of all features."""
        for key, drift in {"drift": self.drift, "refuse": self.refuse}.items():
            for name in drift.features if drift else ():
                if not fnmatch.filter(features, name):
                    hint = did_you_mean(name, features)
                    raise Refused(f"{key}.features.{name}", f"expected a feature, or a pattern of some{hint}")
