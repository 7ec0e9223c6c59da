"""The config's section `data`: where the logs are, what their columns mean, which lists are trained on.

Enters: the section's keys.  Leaves: frozen dataclasses that cannot hold a contradiction.
"""

import dataclasses
from typing import Literal

from tfx_ranking.components.config_errors import STRICT, Refused, unless_cut

SPLIT_NAMES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """How lists are divided: by a hash of the group id, or by a time column (the latest lists are tested on)."""

    __pydantic_config__ = STRICT
    by: str = "group_id"  # "group_id", or the name of a column whose values order the lists in time
    train: float | None = None  # share of the lists; the rest when left out
    validation: float = 0.1  # share of the lists
    test: float = 0.1  # share of the lists

    @unless_cut
    def __post_init__(self) -> None:
        shares = {"train": self.train, "validation": self.validation, "test": self.test}
        for name, share in shares.items():
            if share is not None and not 0 <= share < 1:
                raise Refused(name, f"expected a share of the lists in [0, 1); got {share}")
        if self.train is not None and abs(self.train + self.validation + self.test - 1) > 1e-6:
            total = self.train + self.validation + self.test
            raise Refused("train", f"train, validation and test are shares that add up to 1; got {total:g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
    """Which spans of the input are taken together: the last so many, or all that came since the live model's."""

    __pydantic_config__ = STRICT
    spans: int | None = None  # the last so many numbers, whether every one was delivered or not
    since: Literal["live"] | None = None  # after the newest that the live model was trained on; all without one

    @unless_cut
    def __post_init__(self) -> None:
        if (self.spans is None) == (self.since is None):
            raise Refused("spans", "expected spans or since, and not both")
        if self.spans is not None and self.spans < 1:
            raise Refused("spans", f"expected at least 1; got {self.spans}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where the logs are and what their columns mean."""

    __pydantic_config__ = STRICT
    input: str | tuple[str, ...] | dict[str, str | tuple[str, ...]]  # file pattern(s), or pattern(s) per split
    format: Literal["letor", "csv", "parquet", "elwc", "sequence_example", "tf_example", "list_example"]
    group_id: str = "group_id"
    group_from: Literal["column", "record"] = "column"  # record: a list format's file and record number name the list
    item_id: str | None = None  # LETOR: the key in the comment, as in "# docid = …"
    label: str = "label"
    label_range: tuple[float, float] | None = None  # lowest and highest label, both allowed
    weight: str | None = None  # per item
    position: str | None = None  # rank at which the item was shown, from 1
    group_sizes: str | None = None  # suffix of the side file that holds the list sizes, e.g. ".query"
    order: Literal["any", "grouped"] = "any"  # grouped: the rows of a list stand together, no shuffle
    duplicates: Literal["last", "refuse"] = "last"  # LETOR: the same feature id twice on one line
    max_bad_fraction: float = 0.001  # of all records
    max_items: int | None = None  # items a list keeps
    keep: Literal["position", "label"] = "position"  # which items a capped list keeps
    no_relevant: Literal["keep", "drop"] = "keep"  # lists without a relevant item
    on_anomaly: Literal["fail", "warn"] = "fail"
    schema: str | None = None  # a curated schema (pbtxt) in place of the inferred one
    span: int | None = None  # with {SPAN} in the pattern, a window's last; the newest when left out
    window: Window | None = None  # several spans; that one alone when left out
    splits: Splits = Splits()

    @unless_cut
    def __post_init__(self) -> None:
        if isinstance(self.input, dict):
            unknown = sorted(set(self.input) - set(SPLIT_NAMES))
            if unknown:
                raise Refused(f"input.{unknown[0]}", f"expected a split, one of {', '.join(SPLIT_NAMES)}")
            if "train" not in self.input:
                raise Refused("input", "expected a pattern for train; the other splits may be hashed out of it")
        for key in ("window", "span"):
            if getattr(self, key) is None:
                continue
            several = self.input.values() if isinstance(self.input, dict) else (self.input,)
            patterns = [each for some in several for each in ((some,) if isinstance(some, str) else some)]
            bare = [each for each in patterns if "{SPAN" not in each and "{DD}" not in each]
            if bare:
                raise Refused(key, f"spans need {{SPAN}}, or {{YYYY}}, {{MM}} and {{DD}}, in {bare[0]!r}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise Refused("max_bad_fraction", f"expected a fraction in [0, 1]; got {self.max_bad_fraction}")
        if self.max_items is not None and self.max_items < 1:
            raise Refused("max_items", f"expected at least 1 item; got {self.max_items}")
        if self.max_items is not None and self.keep == "position" and self.position is None:
            raise Refused("keep", "keeping by position needs data.position; name it, or set keep: label")
        if self.label_range is not None and self.label_range[0] >= self.label_range[1]:
            raise Refused("label_range", f"expected [lowest, highest]; got {list(self.label_range)}")
        if self.group_from == "record" and self.format not in ("elwc", "sequence_example", "list_example"):
            raise Refused(
                "group_from", f"only a format whose records are lists can name them; got format {self.format}"
            )
        if self.group_sizes is not None and self.format != "letor":
            raise Refused("group_sizes", f"a side file of list sizes goes with format letor; got {self.format}")

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are no features: role to column name, only those that are set."""
        roles = {role: getattr(self, role) for role in ("group_id", "item_id", "label", "weight", "position")}
        return {role: column for role, column in roles.items() if column is not None}
