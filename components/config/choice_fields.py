"""Defines the types of the config fields whose values are names of a table in `choices`.

Input: a value of ranking.yaml.  Output: the same value, or a `StepWithParameter` for a transform step with a parameter.
A name that is not in the table raises `Refused`.  Each check reads the table again, so rows that were added at run time
count.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Protocol

import pydantic
import pydantic_core

from tfx_ranking.components.choices import transform_steps
from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.choices.losses import LOSSES
from tfx_ranking.components.choices.metrics import METRICS, parse_metric
from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.choices.signatures import SIGNATURES
from tfx_ranking.components.choices.transform_steps import TRANSFORM_STEPS, StepWithParameter
from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.refusals import reading_selection
from tfx_ranking.components.errors import Refused, did_you_mean


class _TableRow(Protocol):
    @property
    def sentence(self) -> str: ...

    @property
    def details(self) -> str: ...


@dataclasses.dataclass(frozen=True)
class Choices:
    """The table that a field's values come from, as metadata of the field's `Annotated` type.

    title: heading of the table in docs/config.md.  check: returns the value to keep, or raises Refused.
    schema: makes the JSON schema of a value.  shown: turns a row's name into what a user writes.
    """

    title: str
    table: Mapping[str, _TableRow]
    check: Callable[[Any], Any]
    schema: Callable[[], dict[str, Any]]
    shown: Callable[[str], str] = str

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return pydantic_core.core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return self.schema()

    def sentences(self) -> dict[str, str]:
        """A row's name as a user writes it → its sentence and details."""
        return {self.shown(name): f"{row.sentence} {row.details}".strip() for name, row in self.table.items()}


def _one_of(table: Mapping[str, Any], more: str = "") -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if isinstance(value, str) and value in table:
            return value
        hint = did_you_mean(value, table) if isinstance(value, str) else ""
        raise Refused("", f"expected one of {', '.join(table)}{more}; got {value!r}{hint}")

    return check


def _names_of(table: Mapping[str, Any]) -> Callable[[], dict[str, Any]]:
    return lambda: {"type": "string", "enum": list(table)}


def _check_metric(value: Any) -> str:
    if not reading_selection.get():
        parse_metric(value)
    return str(value)


def _metric_schema() -> dict[str, Any]:
    return {"type": "string", "pattern": f"^({'|'.join(METRICS)})(@[1-9][0-9]*)?$"}


def _shown_metric(name: str) -> str:
    return {"optional": f"{name}[@k]", "required": f"{name}@k", "none": name}[METRICS[name].cutoff]


def _check_scorer(value: Any) -> str:
    if reading_selection.get():
        return str(value)
    if isinstance(value, str) and "." in value:
        own_code.check_form("", value)
        return value
    return _one_of(SCORERS, ", or the dotted path of a build function")(value)


def _check_signature(value: Any) -> str:
    return str(value) if reading_selection.get() else _one_of(SIGNATURES)(value)


def _check_step(value: Any) -> transform_steps.Step:
    """`log1p` as it is, {clip: [0, 9]} as a StepWithParameter."""
    if isinstance(value, str) and value in TRANSFORM_STEPS and TRANSFORM_STEPS[value].parameter is None:
        return value
    if isinstance(value, Mapping) and len(value) == 1:
        [(name, raw)] = value.items()
        parameter = TRANSFORM_STEPS[name].parameter if name in TRANSFORM_STEPS else None
        if parameter is not None:
            try:
                taken = pydantic.TypeAdapter(parameter.type).validate_json(json.dumps(raw), strict=True)
            except pydantic.ValidationError:
                raise Refused(name, f"expected {parameter.shown}; got {raw!r}") from None
            why = parameter.refuse(taken)
            if why:
                raise Refused(name, f"{why}; got {list(taken) if isinstance(taken, tuple) else taken}")
            return StepWithParameter(name, taken)
    hint = did_you_mean(value, TRANSFORM_STEPS) if isinstance(value, str) else ""
    *names, last = map(_shown_step, TRANSFORM_STEPS)
    raise Refused("", f"expected one of {', '.join(names)} or {last}; got {value!r}{hint}")


def _shown_step(name: str) -> str:
    parameter = TRANSFORM_STEPS[name].parameter
    return name if parameter is None else f"{{{name}: {parameter.shown}}}"


def _step_schema() -> dict[str, Any]:
    plain = [name for name, row in TRANSFORM_STEPS.items() if row.parameter is None]
    others = [
        {
            "type": "object",
            "properties": {name: pydantic.TypeAdapter(row.parameter.type).json_schema()},
            "required": [name],
            "additionalProperties": False,
        }
        for name, row in TRANSFORM_STEPS.items()
        if row.parameter is not None
    ]
    return {"anyOf": [{"type": "string", "enum": plain}, *others]}


InputFormat = Annotated[str, Choices("Input formats", FORMATS, _one_of(FORMATS), _names_of(FORMATS))]
LossName = Annotated[str, Choices("Losses", LOSSES, _one_of(LOSSES), _names_of(LOSSES))]
MetricText = Annotated[str, Choices("Metrics", METRICS, _check_metric, _metric_schema, _shown_metric)]
ScorerName = Annotated[str, Choices("Scorers", SCORERS, _check_scorer, lambda: {"type": "string"})]
SignatureName = Annotated[str, Choices("Signatures", SIGNATURES, _check_signature, _names_of(SIGNATURES))]
TransformStepField = Annotated[
    transform_steps.Step, Choices("Transform steps", TRANSFORM_STEPS, _check_step, _step_schema, _shown_step)
]
