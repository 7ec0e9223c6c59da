"""The values that the questions of lineage return: artifacts, steps, runs, models, pushes.

Input: ML Metadata's protos.  Output: immutable values with plain properties.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from google.protobuf import json_format

MODELS = ("Model", "PushedModel")  # the types of artifacts that carry a digest


@dataclasses.dataclass(frozen=True)
class Artifact:
    """An output of a step."""

    id: int
    type: str
    uri: str
    made: datetime.datetime  # when it was recorded
    properties: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """The digest of a model's files, which identifies the model; "" for other types."""
        return str(self.properties.get("digest", "")) if self.type in MODELS else ""

    @property
    def summary(self) -> str:
        """The one-line summary that its component wrote; "" if there is none."""
        return str(self.properties.get("summary", ""))

    @property
    def spans(self) -> tuple[int, ...]:
        """The spans that examples hold; () if none is recorded, as for transformed examples."""
        spans = self.properties.get("spans") or [self.properties[name] for name in ("span",) if name in self.properties]
        return tuple(int(each) for each in spans) if self.type == "Examples" else ()

    @property
    def copied(self) -> bool:
        """Whether it is the copy of a live model that LiveModel made."""
        return "live" in self.properties


class Link(NamedTuple):
    """One input or output of a step."""

    name: str
    artifact: int


@dataclasses.dataclass(frozen=True)
class File:
    """One file that examples were read from."""

    path: str
    size: int  # bytes
    digest: str
    split: str  # "all" if the config splits the file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Execution:
    """One step of a run."""

    id: int
    node: str
    pipeline: str
    run: str
    state: str  # running, done, cached, failed, dead
    reason: str  # why it failed, if that is known; ""
    started: datetime.datetime
    ended: datetime.datetime  # while it is running: when it last wrote to the store
    properties: Mapping[str, Any]  # its parameters: config, source, …
    inputs: tuple[Link, ...]
    outputs: tuple[Link, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """The files that an example generator read; () for any other step."""
        source = self.properties.get("source")
        splits = source.get("files") if isinstance(source, Mapping) else None
        return tuple(
            File(str(each.get("path", "")), int(each.get("size", 0)), str(each.get("digest", "")), split)
            for split, files in (splits or {}).items()
            for each in files
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The sections of ranking.yaml among its parameters; {} for a step that reads none."""
        config = self.properties.get("config") or self.properties.get("custom_config") or {}
        config = config.get("config", config) if isinstance(config, Mapping) else {}
        return config if isinstance(config, Mapping) else {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One pipeline run and its results."""

    id: str
    pipeline: str
    state: str  # running, done, failed, dead, unfinished (some steps never started), checked (data only)
    reason: str  # which step failed and why, or which steps never started; ""
    started: datetime.datetime
    seconds: float
    steps: int
    cached: int  # how many of the steps
    span: int | None  # the newest span of the data
    spans: tuple[int, ...]  # all of them
    metric: str  # the metric that decided about the model; ""
    value: float | None
    blessed: bool | None  # None: not evaluated
    pushed: str  # the version that the run pushed, or that served the same bytes already; ""
    unchanged: bool  # whether the same bytes served already


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """One model and how its run evaluated it."""

    id: int  # the exporter's artifact, or the trainer's if nothing was exported; 0: only a push is recorded
    digest: str  # "" if it was not exported
    uri: str
    pipeline: str
    run: str
    made: datetime.datetime
    examples: int | None  # the id of the artifact that it was trained on
    spans: tuple[int, ...]  # of these examples
    metric: str  # the metric that decided; ""
    value: float | None
    blessed: bool | None  # None: not evaluated


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushEvent:
    """One change below a destination: a push, a rollback, or a label that moved."""

    id: int  # of the PushedModel artifact
    kind: str  # push, rollback, label
    at: datetime.datetime
    base: str
    version: str
    directory: str
    digest: str
    label: str  # the label that moved to this version; ""
    rollback_of: str  # the version that served before; ""
    restores: str  # the version with the same bytes that is restored; ""
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServingPeriod:
    """What served below a destination between two changes."""

    since: datetime.datetime
    until: datetime.datetime | None  # None: it serves now
    push: PushEvent
    model: ModelRecord | None  # None: the store has no step that made these bytes
    files: tuple[File, ...]  # that the model was trained on


@dataclasses.dataclass(frozen=True)
class LiveVersion:
    """What serves below a destination now."""

    base: str
    version: str  # "" if nothing serves
    digest: str
    seen: bool  # True: read from the destination; False: it is out of reach, this is the last record


@dataclasses.dataclass(frozen=True)
class AffectedModel:
    """One model that some data or a run contributed to."""

    model: ModelRecord
    how: str  # trained, began (warm start from an affected model), evaluated
    pushes: tuple[PushEvent, ...]
    live: tuple[str, ...]  # the destinations where it serves now


@dataclasses.dataclass(frozen=True)
class Impact:
    """The models that were made from some data or by a run, newest first."""

    query: str
    sources: tuple[Artifact, ...]
    models: tuple[AffectedModel, ...]
    live: tuple[LiveVersion, ...]  # of the destinations that they were pushed to


@dataclasses.dataclass(frozen=True)
class Lineage:
    """The artifacts of a query, and the steps that led to them or that used them, latest first."""

    query: str
    down: bool  # True: the steps that used them
    subject: tuple[Artifact, ...]
    executions: tuple[Execution, ...]
    artifacts: Mapping[int, Artifact]  # all inputs and outputs of these steps, by id


def deciding_metric(evaluation: Mapping[str, Any]) -> tuple[str, float | None]:
    """The metric that decided whether a model is blessed, and its value; "" and None if there is none.

    evaluation: the properties of a ModelEvaluation.
    """
    metric = str(evaluation.get("metric") or str(evaluation.get("summary", "")).partition(" ")[0])
    return (metric, evaluation[metric]) if metric in evaluation else ("", None)


def artifact(proto: Any) -> Artifact:
    """ML Metadata's artifact as a value."""
    return Artifact(proto.id, proto.type, proto.uri, time(proto.create_time_since_epoch), properties(proto))


def properties(proto: Any) -> dict[str, Any]:
    """A proto's properties and custom properties as plain values; JSON texts are parsed."""
    return {
        name: _value(value)
        for fields in (proto.properties, proto.custom_properties)
        for name, value in fields.items()
        if not name.startswith("__")
    }


def time(milliseconds: int) -> datetime.datetime:
    """ML Metadata's time as a UTC date-time."""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "proto_value":
        return json_format.MessageToDict(value.proto_value)
    if kind == "struct_value":
        struct = json_format.MessageToDict(value.struct_value)
        return struct.get("__value__", struct)
    return _parsed(getattr(value, kind) if kind else "")


def _parsed(value: Any) -> Any:
    """TFX writes a dict as JSON, and a text in it may be JSON again."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    return {name: _parsed(each) for name, each in value.items()} if isinstance(value, dict) else value
