"""The config's sections `context` and `items`: one feature each, its type and the steps that make it an input.

Enters: a feature's keys.  Leaves: frozen dataclasses that cannot hold a contradiction.
"""

import dataclasses
import re
from typing import Literal

from tfx_ranking.components.choices.transform_steps import row_of, step_name
from tfx_ranking.components.config.choice_fields import TransformStepField
from tfx_ranking.components.config.refusals import STRICT, unless_cut
from tfx_ranking.components.errors import Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """The values that occur in training, as TensorFlow Transform learns them."""

    __pydantic_config__ = STRICT
    top_k: int | None = None
    """Values to keep, the most frequent; all when left out."""
    frequency_threshold: int | None = None
    """How often a value must occur in training to be kept; once when left out."""
    num_oov_buckets: int = 1
    """Ids for values that training never saw, 1 or more; a hash chooses among them."""

    @unless_cut
    def __post_init__(self) -> None:
        for key in ("top_k", "frequency_threshold", "num_oov_buckets"):
            value = getattr(self, key)
            if value is not None and value < 1:
                reason = "; a value that training never saw needs an id" if key == "num_oov_buckets" else ""
                raise Refused(key, f"expected at least 1{reason}; got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hash:
    """A value's hash modulo `num_buckets`: no vocabulary to learn."""

    __pydantic_config__ = STRICT
    num_buckets: int
    """Number of ids, 1 or more; values that share one are not told apart."""

    @unless_cut
    def __post_init__(self) -> None:
        if self.num_buckets < 1:
            raise Refused("num_buckets", f"expected at least 1; got {self.num_buckets}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens(Vocabulary):
    """Text cut at white space (or tokens that came apart already), looked up one by one."""

    lower: bool = True
    """Whether letters are made small first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature, of the query (`context`) or of each item (`items`)."""

    __pydantic_config__ = STRICT
    dtype: Literal["float", "int", "string"] = "float"
    """Of the column's values; a number that cannot be read, is infinite, or is no whole number (int) sets its record
    aside."""
    shape: tuple[int, ...] = ()
    """Of a dense vector of floats, as in [128]: in a CSV cell numbers between spaces or commas, with or without
    brackets (`[0.1, 0.2]`), elsewhere a list; an empty cell is missing, another length sets the record aside; one
    number when left out."""
    default: float | int | str | None = None
    """In place of a missing value: 0, 0.0 or "" when left out. Missing is an empty cell, an absent value or NaN; where
    numbers stand as text also NA, N/A, #N/A, n/a, NaN, nan, -NaN, -nan, NULL, null and None; in LETOR an absent feature
    is 0."""
    indicator: bool = False
    """One more input of a float: 1.0 where the value (or any number of a vector) is missing, else 0.0."""
    transform: tuple[TransformStepField, ...] = ()
    """Steps that a number goes through, in this order, as in [log1p, {clip: [0, 9]}]; none when left out."""
    vocabulary: Vocabulary | None = None
    """Makes a category of a string or int: ids of the values that training saw. One of vocabulary, hash and tokens; a
    string needs one."""
    hash: Hash | None = None
    """Makes a category of a string or int without learning its values."""
    tokens: Tokens | None = None
    """Makes words of a string, each an id; their embeddings are averaged."""
    embedding: int | None = None
    """Width of a category's embedding in `dnn`, 1 or more; when left out 16, or the number of its ids where they
    are fewer."""

    @unless_cut
    def __post_init__(self) -> None:
        categorical = [key for key in ("vocabulary", "hash", "tokens") if getattr(self, key) is not None]
        buckets = [i for i, step in enumerate(self.transform) if row_of(step).kind == "buckets"]
        if len(categorical) > 1:
            raise Refused(categorical[1], f"expected one of vocabulary, hash, tokens; got {' and '.join(categorical)}")
        if self.tokens is not None and self.dtype != "string":
            raise Refused("tokens", f"tokens are cut from dtype string; got dtype {self.dtype}")
        if self.dtype == "string" and not categorical:
            raise Refused("dtype", "a string needs vocabulary, hash or tokens to become an input")
        if self.dtype == "float" and categorical:
            raise Refused(categorical[0], "expected dtype string or int; got float (bucketize makes floats categories)")
        if categorical and self.transform:
            raise Refused("transform", f"transforms are for numbers; this feature is a category by {categorical[0]}")
        if self.shape and (self.dtype != "float" or categorical):
            raise Refused("shape", "a dense vector has dtype float and no vocabulary, hash or tokens")
        if any(size < 1 for size in self.shape):
            raise Refused("shape", f"expected sizes of at least 1; got {list(self.shape)}")
        if buckets and (buckets[0] != len(self.transform) - 1 or self.shape):
            name = step_name(self.transform[buckets[0]])
            raise Refused(f"transform[{buckets[0]}]", f"{name} comes last and takes one number, not a vector")
        if self.embedding is not None and not (categorical or buckets):
            raise Refused("embedding", "an embedding needs a category: vocabulary, hash, tokens or bucketize")
        if self.embedding is not None and self.embedding < 1:
            raise Refused("embedding", f"expected a width of at least 1; got {self.embedding}")
        if self.indicator and (self.dtype != "float"):
            raise Refused("indicator", f"only a float can be missing (NaN); got dtype {self.dtype}")
        expected: tuple[type, ...] = {"float": (int, float), "int": (int,), "string": (str,)}[self.dtype]
        if self.default is not None and (not isinstance(self.default, expected) or isinstance(self.default, bool)):
            raise Refused("default", f"expected a value of dtype {self.dtype}; got {self.default!r}")

    @property
    def width(self) -> int:
        """Numbers per value: the product of `shape`, 1 for a scalar."""
        width = 1
        for size in self.shape:
            width *= size
        return width

    @property
    def missing(self) -> float | int | str:
        """What stands in place of a missing value once the transform graph has run."""
        empty: dict[str, float | int | str] = {"float": 0.0, "int": 0, "string": ""}
        return empty[self.dtype] if self.default is None else self.default

    @property
    def is_category(self) -> bool:
        """Whether the feature reaches the scorer as an id to embed and not as a number."""
        bucketized = any(row_of(step).kind == "buckets" for step in self.transform)
        return bucketized or any(part is not None for part in (self.vocabulary, self.hash, self.tokens))

    @property
    def compares_items(self) -> str:
        """The first step whose result depends on the list's other items; "" when there is none."""
        return next((step_name(step) for step in self.transform if row_of(step).compares_items), "")


def by_number(name: str) -> tuple[list[tuple[str, int]], str]:
    """Sorts features' names as people do; no two names are equal.

    >>> sorted(["f10", "f2", "price", "f02"], key=by_number)
    ['f02', 'f2', 'f10', 'price']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "0"])], name
