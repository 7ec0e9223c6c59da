"""The config's section `data`: where the logs are, what their columns mean, and which lists are trained on.

Input: the section's keys.  Output: frozen dataclasses that reject contradictory values.
"""

import dataclasses
from typing import Literal

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config.choice_fields import InputFormat
from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused

SPLIT_NAMES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """How lists are divided into train, validation and test: by a hash of the group id, or in time by a column."""

    __pydantic_config__ = STRICT
    by: str = "group_id"
    """`group_id`, or a column that orders the lists in time (numbers, dates or ISO 8601 text). In time, the latest
    lists are the test split, the ones before them validation."""
    train: float | None = None
    """Share of the lists, in [0, 1); train, validation and test add up to 1. When left out, train gets the rest."""
    validation: float = 0.1
    """Share of the lists, in [0, 1); not used when `data.input` has a pattern for validation."""
    test: float = 0.1
    """Share of the lists, in [0, 1); not used when `data.input` has a pattern for test."""

    @unless_selection
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
    """Which spans of the input are read together: the last few, or all since the live model's."""

    __pydantic_config__ = STRICT
    spans: int | None = None
    """How many span numbers to read, counted back from the last, including numbers that have no files; set this or
    `since`."""
    since: Literal["live"] | None = None
    """`live`: reads the spans after the newest one that the live model was trained on, or all when no model is live;
    needs `push`."""

    @unless_selection
    def __post_init__(self) -> None:
        if (self.spans is None) == (self.since is None):
            raise Refused("spans", "expected spans or since, and not both")
        if self.spans is not None and self.spans < 1:
            raise Refused("spans", f"expected at least 1; got {self.spans}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Where the logs are and what their columns mean."""

    __pydantic_config__ = STRICT
    input: str | tuple[str, ...] | dict[str, str | tuple[str, ...]]
    """A file pattern, a list of patterns, or either for each split, as in {train: …, test: …}; `splits` takes
    validation and test out of train's lists when they have no pattern. Files are local or in an object store, plain or
    gzip. {SPAN} (or {YYYY}, {MM} and {DD}) and {VERSION} stand for numbers; of each span the newest version is read."""
    format: InputFormat
    """Format of the files."""
    group_id: str = "group_id"
    """Column with the value that the items of one list share; records without it are set aside."""
    group_from: Literal["column", "record"] = "column"
    """`column`: the group id is in the column `group_id`. `record`: it is made of the file's name and the record's
    number, for formats whose records are lists."""
    item_id: str | None = None
    """Column with an item's id, which `rank` returns; in LETOR a key of the comment, as in `# docid = …`. No ids when
    left out."""
    label: str = "label"
    """Column of the label, a number; higher is better. Records without it are set aside."""
    label_range: tuple[float, float] | None = None
    """[lowest, highest] label that is allowed; records with another label are set aside. Any number when left out."""
    weight: str | None = None
    """Column of each item's weight in the loss, 0 or more; records without it are set aside. All weights are 1 when
    left out."""
    position: str | None = None
    """Column of the rank at which the item was shown, a whole number from 1. It is never an input of the model. No
    positions when left out."""
    group_sizes: str | None = None
    """For LETOR without `qid`: the ending of a second file, as in ".query", which is next to each file and has the
    sizes of its lists, one a line. When left out, `qid` is the group id."""
    order: Literal["any", "grouped"] = "any"
    """`any`: rows are grouped into lists by a shuffle. `grouped`: the rows of a list follow each other, so no shuffle
    is needed; the run fails when they do not."""
    duplicates: Literal["last", "refuse"] = "last"
    """For LETOR, when a line has the same feature id twice. `last`: the last value counts. `refuse`: the record is set
    aside."""
    max_bad_fraction: float = 0.001
    """Share of the records, in [0, 1], that may be set aside to quarantine.jsonl; with more, the run fails."""
    max_items: int | None = None
    """Highest number of items that a list keeps; all when left out."""
    keep: Literal["position", "label"] = "position"
    """Which items a list of more than `max_items` keeps. `position`: the first ones shown, by the column `position`.
    `label`: those with the highest labels, down to `evaluation.relevant_from`, then a sample of the rest."""
    no_relevant: Literal["keep", "drop"] = "keep"
    """What to do with lists in which no label reaches `evaluation.relevant_from`: keep them or leave them out."""
    on_anomaly: Literal["fail", "warn"] = "fail"
    """When the data do not fit the schema. `fail`: the run ends before training, and `tfx-ranking retrain` does not
    start one. `warn`: the anomalies are only written to the log."""
    schema: str | None = None
    """File of a curated schema (pbtxt), used instead of the schema made from the config and the training data."""
    span: int | None = None
    """Number of the span to read, or of a window's last span; for dates, days since 1970-01-01. The newest when left
    out."""
    window: Window | None = None
    """Reads several spans together; only `span` when left out."""
    splits: Splits = Splits()
    """How lists are divided; not used when `input` has a pattern for each split."""

    @unless_selection
    def __post_init__(self) -> None:
        if isinstance(self.input, dict):
            unknown = sorted(set(self.input) - set(SPLIT_NAMES))
            if unknown:
                raise Refused(f"input.{unknown[0]}", f"expected a split, one of {', '.join(SPLIT_NAMES)}")
            if "train" not in self.input:
                raise Refused("input", "expected a pattern for train; the other splits can be taken out of its lists")
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
        if self.group_from == "record" and not FORMATS[self.format].lists:
            raise Refused("group_from", f"record needs a format whose records are lists; got format {self.format}")
        if self.group_sizes is not None and not FORMATS[self.format].size_files:
            forms = " or ".join(name for name, form in FORMATS.items() if form.size_files)
            raise Refused("group_sizes", f"files of list sizes need format {forms}; got {self.format}")

    def check_with(self, push: object | None) -> None:
        """Raises Refused when a key of this section needs the config's section `push` and there is none."""
        if self.window and self.window.since and push is None:
            raise Refused("window.since", "the live model is the one that push.base serves; set push.base")

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are not features: role → column name, only those that are set."""
        roles = {role: getattr(self, role) for role in ("group_id", "item_id", "label", "weight", "position")}
        return {role: column for role, column in roles.items() if column is not None}
