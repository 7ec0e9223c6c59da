"""Lists the steps that a feature's `transform` can name: `log1p`, or with a parameter `{clip: [0, 9]}`.

To add a transform step:
1. Write the function `f(x, parameter, row_splits)` as those of `features/numeric_steps.py`.  x is float32
   [row, column] without NaN, a row for each item of all lists (or, in `context`, for each list); parameter is None for
   a step without one; row_splits is int64 [list + 1] for item features, None for context features.
2. Add a row to `TRANSFORM_STEPS`.  The config, its JSON schema and the preprocessing read this table.
3. Run `python -m tfx_ranking.components.config.reference > docs/config.md`, the page of the config's keys.

From outside the package, do step 2 with `TRANSFORM_STEPS["mine"] = TransformStep(...)` before the config is loaded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from tfx_ranking.components.choices.functions import load_function

_MODULE = "tfx_ranking.components.features.numeric_steps"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parameter:
    """The parameter of a step, as in `{clip: [low, high]}`."""

    shown: str  # for the docs and the messages, as in "[low, high]"
    type: Any  # a type whose values are hashable, as in tuple[float, float]; pydantic reads the YAML's value by it
    refuse: Callable[[Any], str] = lambda value: ""  # the reason why a value is wrong ("expected …"), or ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformStep:
    """A row of `TRANSFORM_STEPS`.

    kind: a "plain" step computes from the values alone.  An "analyzed" step calls TensorFlow Transform's analyzers; all
    columns that take the same step go through it in one call.  A "buckets" step returns a list with the int64 [row]
    category ids of each column; it must come last.
    """

    sentence: str  # for the docs
    function: str  # dotted name
    kind: Literal["plain", "analyzed", "buckets"] = "plain"
    parameter: Parameter | None = None
    compares_items: bool = False  # the result depends on the list's other items: item features only

    @property
    def details(self) -> str:
        """A second sentence for the docs."""
        return "Item features only." if self.compares_items else ""

    def load(self) -> Callable[..., Any]:
        """The function.  Raises ConfigError when it cannot be imported."""
        return load_function(self.function, "the transform step")


def _not_ascending(ends: tuple[float, float]) -> str:
    return "" if ends[0] < ends[1] else "expected [low, high]"


TRANSFORM_STEPS: dict[str, TransformStep] = {
    "z_score": TransformStep(
        sentence="(value - mean) / standard deviation, both of the training data.",
        function=f"{_MODULE}.z_score",
        kind="analyzed",
    ),
    "min_max": TransformStep(
        sentence="Scaled to [0, 1] by the training data's lowest and highest value.",
        function=f"{_MODULE}.min_max",
        kind="analyzed",
    ),
    "log1p": TransformStep(sentence="log(1 + value).", function=f"{_MODULE}.log1p"),
    "sign_log1p": TransformStep(
        sentence="sign(value) · log(1 + abs(value)).",
        function=f"{_MODULE}.sign_log1p",
    ),
    "query_normalise": TransformStep(
        sentence="z-score within the list.",
        function=f"{_MODULE}.query_normalise",
        compares_items=True,
    ),
    "clip": TransformStep(
        sentence="Values outside of [low, high] are set to the nearer end.",
        function=f"{_MODULE}.clip",
        parameter=Parameter(shown="[low, high]", type=tuple[float, float], refuse=_not_ascending),
    ),
    "bucketize": TransformStep(
        sentence="Makes a category: the number of the value's quantile bucket, of n buckets learned in training. "
        "Must be the last step, of a single number.",
        function=f"{_MODULE}.quantile_buckets",
        kind="buckets",
        parameter=Parameter(
            shown="n", type=int, refuse=lambda number: "" if number >= 2 else "expected at least 2 buckets"
        ),
    ),
}


@dataclasses.dataclass(frozen=True)
class StepWithParameter:
    """A step of a feature's `transform` that has a parameter, as in `{clip: [0, 9]}`."""

    name: str
    value: Any

    def as_written(self) -> dict[str, Any]:
        """As it is written in ranking.yaml.

        >>> StepWithParameter("clip", (0.0, 9.0)).as_written()
        {'clip': [0.0, 9.0]}
        """
        return {self.name: list(self.value) if isinstance(self.value, tuple) else self.value}


Step = str | StepWithParameter  # a str names a step without a parameter


def step_name(step: Step) -> str:
    """A step's name in `TRANSFORM_STEPS`."""
    return step if isinstance(step, str) else step.name


def row_of(step: Step) -> TransformStep:
    """A step's row in `TRANSFORM_STEPS`."""
    return TRANSFORM_STEPS[step_name(step)]
