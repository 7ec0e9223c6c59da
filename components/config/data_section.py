"""The config's section `data`: where the logs are, what their columns mean, which lists are trained on.

Enters: the section's keys.  Leaves: frozen dataclasses that cannot hold a contradiction.
"""

import dataclasses
from typing import Literal

from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config.choice_fields import InputFormat
from tfx_ranking.components.config.refusals import STRICT, unless_cut
from tfx_ranking.components.errors import Refused

SPLIT_NAMES = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Splits:
    """How lists are divided: by a hash of the group id, or by a time column (the latest lists are tested on)."""

    __pydantic_config__ = STRICT
    by: str = "group_id"
    """`group_id`, or a column that orders lists in time: numbers, dates or ISO 8601 text; the latest lists are tested
    on, those before validate."""
    train: float | None = None
    """Share of the lists, in [0, 1); with validation and test it adds up to 1; what the others leave when left out."""
    validation: float = 0.1
    """Share of the lists, in [0, 1); without meaning where `data.input` has a pattern for validation."""
    test: float = 0.1
    """Share of the lists, in [0, 1); without meaning where `data.input` has a pattern for test."""

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
    spans: int | None = None
    """The last so many span numbers, whether every one was delivered or not; say this or `since`."""
    since: Literal["live"] | None = None
    """`live`: the spans after the newest that the live model was trained on, all where nothing serves; needs `push`."""

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
    input: str | tuple[str, ...] | dict[str, str | tuple[str, ...]]
    """File pattern, list of patterns, or either per split ({train: …, test: …}, validation and test cut out of train's
    lists by `splits` where they are not named); local or of an object store, plain or gzip; {SPAN}, or {YYYY}, {MM} and
    {DD}, and {VERSION} mark spans, of which the newest version is read."""
    format: InputFormat
    """Format of the files. Where a row or record is one item, the items are grouped into lists by `group_id`."""
    group_id: str = "group_id"
    """Column whose value the items of a list share; a record without one is set aside."""
    group_from: Literal["column", "record"] = "column"
    """`record`: the file's name and the record's number name the list, for formats whose records are lists; `column`:
    `group_id` does."""
    item_id: str | None = None
    """Column that names an item, which `rank` answers with; in LETOR the key in the comment, as in `# docid = …`; no
    ids when left out."""
    label: str = "label"
    """Column of the label, a number, higher is better; a record without one is set aside."""
    label_range: tuple[float, float] | None = None
    """[lowest, highest] label, both allowed; a record with another is set aside; any number when left out."""
    weight: str | None = None
    """Column of each item's weight in the loss, 0 or more; a record without one is set aside; all weigh the same when
    left out."""
    position: str | None = None
    """Column of the rank at which the item was shown, a whole number from 1; never an input; no positions when left
    out."""
    group_sizes: str | None = None
    """LETOR without `qid`: ending of the file beside each file that holds its list sizes, one a line, as in ".query";
    when left out, `qid` names the list."""
    order: Literal["any", "grouped"] = "any"
    """`grouped`: the rows of a list stand together, anything else fails the run, and no shuffle is needed; `any`: rows
    are grouped by a shuffle."""
    duplicates: Literal["last", "refuse"] = "last"
    """LETOR, the same feature id twice on one line: the `last` counts, or the record is set aside (`refuse`)."""
    max_bad_fraction: float = 0.001
    """Share of the records, in [0, 1], that may be set aside to quarantine.jsonl; above it the run fails."""
    max_items: int | None = None
    """Items that a list keeps at most; all when left out."""
    keep: Literal["position", "label"] = "position"
    """Which items a list of more than `max_items` keeps: by `position` (which must be named) those shown first; by
    `label` the highest labels from `evaluation.relevant_from` on, then a sample of the rest."""
    no_relevant: Literal["keep", "drop"] = "keep"
    """`drop` leaves out the lists in which no label reaches `evaluation.relevant_from`; `keep` takes them in."""
    on_anomaly: Literal["fail", "warn"] = "fail"
    """What data that break the schema do: `fail` ends the run before training (and has `tfx-ranking retrain` refuse
    them), `warn` writes them to the log."""
    schema: str | None = None
    """File of a curated schema (pbtxt) in place of the one made from the config and the training data."""
    span: int | None = None
    """Number of the span to read, a window's last; of a date its days since 1970-01-01; the newest when left out."""
    window: Window | None = None
    """Several spans at once; `span` alone when left out."""
    splits: Splits = Splits()
    """How lists are divided; without meaning where `input` names a pattern for each split."""

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
        if self.group_from == "record" and not FORMATS[self.format].lists:
            raise Refused(
                "group_from", f"only a format whose records are lists can name them; got format {self.format}"
            )
        if self.group_sizes is not None and not FORMATS[self.format].size_files:
            raise Refused("group_sizes", f"a side file of list sizes goes with format letor; got {self.format}")

    def check_with(self, push: object | None) -> None:
        """Raises Refused when a key of this section needs the config's section `push` and there is none."""
        if self.window and self.window.since and push is None:
            raise Refused("window.since", "the live model is the one that push.base serves; set push.base")

    @property
    def columns(self) -> dict[str, str]:
        """The columns that are no features: role to column name, only those that are set."""
        roles = {role: getattr(self, role) for role in ("group_id", "item_id", "label", "weight", "position")}
        return {role: column for role, column in roles.items() if column is not None}
