"""The config's sections `context` and `items`: each feature's type, and the steps that make it an input of the model.

Input: a feature's keys.  Output: frozen dataclasses that reject contradictory values.
"""

import dataclasses
import re
from typing import Literal

from tfx_ranking.components.choices.transform_steps import row_of, step_name
from tfx_ranking.components.config.choice_fields import TransformStepField
from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """A vocabulary of the values in the training data, which TensorFlow Transform learns."""

    __pydantic_config__ = STRICT
    top_k: int | None = None
    """How many of the most frequent values to keep; all when left out."""
    frequency_threshold: int | None = None
    """Keeps only values that occur at least this often in training; all when left out."""
    num_oov_buckets: int = 1
    """Number of ids for values that are not in the vocabulary, 1 or more; a hash chooses one of them."""

    @unless_selection
    def __post_init__(self) -> None:
        for key in ("top_k", "frequency_threshold", "num_oov_buckets"):
            value = getattr(self, key)
            if value is not None and value < 1:
                reason = ", since a value that is not in the vocabulary needs an id" if key == "num_oov_buckets" else ""
                raise Refused(key, f"expected at least 1{reason}; got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hash:
    """Ids by hash: a value's hash modulo `num_buckets`, without a vocabulary."""

    __pydantic_config__ = STRICT
    num_buckets: int
    """Number of ids, 1 or more; values with the same id count as the same."""

    @unless_selection
    def __post_init__(self) -> None:
        if self.num_buckets < 1:
            raise Refused("num_buckets", f"expected at least 1; got {self.num_buckets}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenVocabulary(Vocabulary):
    """The words of a text, split at white space (or a list of strings), each looked up in a vocabulary."""

    lower: bool = True
    """`true`: the text is converted to lower case first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Feature:
    """One feature, of the query (`context`) or of each item (`items`)."""

    __pydantic_config__ = STRICT
    dtype: Literal["float", "int", "string"] = "float"
    """Type of the column's values. A record is set aside when its value cannot be read as this type, is infinite, or is
    not a whole number (int)."""
    shape: tuple[int, ...] = ()
    """Shape of a dense vector of floats, as in [128]; a single number when left out. A CSV cell has the numbers between
    spaces or commas, with or without brackets (`[0.1, 0.2]`); other formats have a list. An empty cell is a missing
    value; a vector of another length sets its record aside."""
    default: float | int | str | None = None
    """Replaces a missing value; 0, 0.0 or "" when left out. An empty cell, an absent value and NaN are missing; for
    numbers in text files also NA, N/A, #N/A, n/a, NaN, nan, -NaN, -nan, NULL, null and None. In LETOR an absent feature
    is 0."""
    indicator: bool = False
    """`true`: adds an input that is 1.0 where a float (or any number of a vector) is missing, else 0.0."""
    transform: tuple[TransformStepField, ...] = ()
    """Steps that a number goes through, in this order, as in [log1p, {clip: [0, 9]}]."""
    vocabulary: Vocabulary | None = None
    """Makes a string or int a category, by a vocabulary of the training data's values. Set at most one of vocabulary,
    hash and tokens; a string needs one."""
    hash: Hash | None = None
    """Makes a string or int a category, by a hash of its value."""
    tokens: TokenVocabulary | None = None
    """Splits a string into words, each a category; their embeddings are averaged."""
    embedding: int | None = None
    """Width of a category's embedding in `dnn`, 1 or more. When left out, 16, or the number of ids if that is
    smaller."""

    @unless_selection
    def __post_init__(self) -> None:
        categorical = [key for key in ("vocabulary", "hash", "tokens") if getattr(self, key) is not None]
        buckets = [i for i, step in enumerate(self.transform) if row_of(step).kind == "buckets"]
        if len(categorical) > 1:
            raise Refused(categorical[1], f"expected one of vocabulary, hash, tokens; got {' and '.join(categorical)}")
        if self.tokens is not None and self.dtype != "string":
            raise Refused("tokens", f"tokens need dtype string; got dtype {self.dtype}")
        if self.dtype == "string" and not categorical:
            raise Refused("dtype", "a string needs vocabulary, hash or tokens to become an input")
        if self.dtype == "float" and categorical:
            raise Refused(
                categorical[0],
                "expected dtype string or int; got float, which transform: [{bucketize: n}] makes a category",
            )
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
        """The value that the transform graph writes for a missing value."""
        empty: dict[str, float | int | str] = {"float": 0.0, "int": 0, "string": ""}
        return empty[self.dtype] if self.default is None else self.default

    @property
    def is_category(self) -> bool:
        """Whether the scorer receives the feature as an id to embed, not as a number."""
        bucketized = any(row_of(step).kind == "buckets" for step in self.transform)
        return bucketized or any(part is not None for part in (self.vocabulary, self.hash, self.tokens))

    @property
    def compares_items(self) -> str:
        """The first step whose result depends on the list's other items; "" when there is none."""
        return next((step_name(step) for step in self.transform if row_of(step).compares_items), "")


def by_number(name: str) -> tuple[list[tuple[str, int]], str]:
    """Sort key that orders numbers within names by value; different names have different keys.

    >>> sorted(["f10", "f2", "price", "f02"], key=by_number)
    ['f02', 'f2', 'f10', 'price']
    """
    parts = re.split(r"([0-9]+)", name)
    return [(text, int(number)) for text, number in zip(parts[::2], [*parts[1::2], "0"])], name
