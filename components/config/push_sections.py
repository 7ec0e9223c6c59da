"""The config's sections `push` and `retrain`: where a model goes, and when a new one is trained.

Input: the sections' keys.  Output: frozen dataclasses that reject contradictory values.
"""

import dataclasses
import fnmatch
from collections.abc import Iterable
from typing import Literal

from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused, did_you_mean


@dataclasses.dataclass(frozen=True, kw_only=True)
class Push:
    """Where TensorFlow Serving looks for versions."""

    __pydantic_config__ = STRICT
    base: str
    """Folder that TensorFlow Serving reads versions from, local or in an object store, as in gs://bucket/shop."""
    version: Literal["unix_time", "next"] = "unix_time"
    """Number of a pushed version: `unix_time`, seconds since 1970, or `next`, the highest so far plus 1."""
    keep: int | None = None
    """How many of the newest versions to keep, 1 or more; the live one and those with a label are kept as well. All
    when left out."""
    models_config: str | None = None
    """File of TensorFlow Serving's models.config, in which a push updates the version labels; needs `keep`. No labels
    when left out."""
    label: Literal["stable", "canary"] = "stable"
    """Label of a pushed version in `models_config`; the version with the label stable is the live one."""

    @unless_selection
    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < 1:
            raise Refused("keep", f"expected at least 1 version; got {self.keep}")
        if self.models_config is not None and self.keep is None:
            raise Refused(
                "keep",
                "with models_config, TensorFlow Serving loads every version in the folder: set how many to keep",
            )
        if self.label != "stable" and self.models_config is None:
            raise Refused("label", "labels are written to a models.config: set models_config to its path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drift:
    """How far new data may have moved from the live model's data, in [0, 1]: TFDV's L-infinity distance for strings,
    its Jensen-Shannon divergence for numbers."""

    __pydantic_config__ = STRICT
    label: float | None = None
    """Limit in [0, 1] for the label; not checked when left out."""
    features: dict[str, float] = dataclasses.field(default_factory=dict)
    """Feature name, or pattern with *, → limit in [0, 1]. The first entry that matches a feature counts; a feature that
    no entry matches is not checked."""

    @unless_selection
    def __post_init__(self) -> None:
        limits = {"label": self.label, **{f"features.{name}": limit for name, limit in self.features.items()}}
        for key, limit in limits.items():
            if limit is not None and not 0 <= limit <= 1:
                raise Refused(key, f"expected a distance in [0, 1]; got {limit}")

    def threshold(self, name: str) -> float | None:
        """The limit of a feature; None when the feature is not checked.

        >>> Drift(features={"price": 0.1, "*": 0.3}).threshold("brand")
        0.3
        """
        return next((limit for pattern, limit in self.features.items() if fnmatch.fnmatchcase(name, pattern)), None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrain:
    """When `tfx-ranking retrain` trains: when there are new data and, if any of `min_lists`, `max_age` and `drift` is
    set, one of them is met."""

    __pydantic_config__ = STRICT
    min_lists: int | None = None
    """Trains when there are at least this many new labelled lists, 1 or more."""
    max_age: float | None = None
    """Trains when the live model is older than this many days, above 0."""
    drift: Drift | None = None
    """Trains when the new data moved farther than these limits."""
    refuse: Drift | None = None
    """Does not train on data that moved farther than these limits; all data are accepted when left out."""

    @unless_selection
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
