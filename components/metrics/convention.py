"""What a metric's name leaves open, as a value: which gain, which labels are relevant, how ties count.

Input: the config's `evaluation` section, or keyword arguments.  Output: a `Convention`, whose text is printed beside
every number, so that nobody compares two numbers of different conventions.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Literal, get_args

from tfx_ranking.components.config.evaluation_section import Evaluation
from tfx_ranking.components.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Convention:
    """The choices on which libraries differ although they use the same name for a metric."""

    gain: Literal["exponential", "linear"] = "exponential"  # NDCG: 2**label - 1, or label; a label below 0 gains 0
    no_relevant: Literal["drop", "zero", "one"] = "drop"  # value of a list without a relevant item (NDCG: a gain)
    relevant_from: float = 1.0  # lowest label that counts as relevant (MRR, MAP, precision, recall)
    ties: Literal["averaged", "stable"] = "averaged"  # over all orders of equal scores, or in input order
    short_lists: Literal["k", "items"] = "k"  # precision@k of a list with fewer than k items divides by k, or by items

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            allowed, value = get_args(field.type), getattr(self, field.name)
            if allowed and value not in allowed:
                raise ConfigError(f"Convention.{field.name}: expected one of {list(allowed)}; got {value!r}.")

    def __str__(self) -> str:
        return self.text(field.name for field in dataclasses.fields(self))

    @classmethod
    def of(cls, evaluation: Evaluation) -> "Convention":
        """The convention of the config's `evaluation` section."""
        return cls(gain=evaluation.gain, no_relevant=evaluation.no_relevant, relevant_from=evaluation.relevant_from)

    def text(self, fields: Iterable[str]) -> str:
        """The named fields and their values.

        >>> Convention().text(["gain", "relevant_from"])
        'gain=exponential, relevant_from=1'
        """
        return ", ".join(f"{name}={_short(getattr(self, name))}" for name in fields)


DEFAULT = Convention()


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)
