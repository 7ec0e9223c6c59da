"""What lineage speaks of: artifacts, the steps that took and gave them, runs, models, what served.

Enters: ML Metadata's protos.  Leaves: immutable values with plain properties.
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
    """What a step gave."""

    id: int
    type: str
    uri: str
    made: datetime.datetime  # when it was recorded
    properties: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Of a model: its identity; "" for anything else."""
        return str(self.properties.get("digest", "")) if self.type in MODELS else ""

    @property
    def summary(self) -> str:
        """The one line that its component wrote of it; "" where it wrote none."""
        return str(self.properties.get("summary", ""))

    @property
    def spans(self) -> tuple[int, ...]:
        """Of examples: the spans that they hold; () where none is named, as on the transformed ones."""
        held = self.properties.get("spans") or [self.properties[name] for name in ("span",) if name in self.properties]
        return tuple(int(each) for each in held) if self.type == "Examples" else ()

    @property
    def copied(self) -> bool:
        """Whether it is a copy of what served, as LiveModel takes it."""
        return "live" in self.properties


class Link(NamedTuple):
    """One artifact as a step took or gave it."""

    name: str
    artifact: int


@dataclasses.dataclass(frozen=True)
class File:
    """One file that examples were read from."""

    path: str
    size: int  # bytes
    digest: str
    split: str  # "all" where the config splits it


@dataclasses.dataclass(frozen=True)
class Execution:
    """One step of a run."""

    id: int
    node: str
    pipeline: str
    run: str
    state: str  # running, done, cached, failed, dead
    reason: str  # why it failed, as far as it says; ""
    started: datetime.datetime
    ended: datetime.datetime  # of one that is running: when it last said something
    properties: Mapping[str, Any]  # what it was called with: config, source, …
    inputs: tuple[Link, ...]
    outputs: tuple[Link, ...]

    @property
    def files(self) -> tuple[File, ...]:
        """Of an example generator: what it read, with digests; () of any other step."""
        source = self.properties.get("source")
        splits = source.get("files") if isinstance(source, Mapping) else None
        return tuple(
            File(str(each.get("path", "")), int(each.get("size", 0)), str(each.get("digest", "")), split)
            for split, files in (splits or {}).items()
            for each in files
        )

    @property
    def config(self) -> Mapping[str, Any]:
        """The sections of ranking.yaml that it was called with; {} of a step that reads none."""
        held = self.properties.get("config") or self.properties.get("custom_config") or {}
        held = held.get("config", held) if isinstance(held, Mapping) else {}
        return held if isinstance(held, Mapping) else {}


@dataclasses.dataclass(frozen=True)
class Run:
    """One pipeline run and what came out."""

    id: str
    pipeline: str
    state: str  # running, done, failed, dead, unfinished (what began is done), checked (data alone)
    reason: str  # which step failed, and why, or which ones did not begin; ""
    started: datetime.datetime
    seconds: float
    steps: int
    cached: int  # of the steps
    span: int | None  # of the data, the newest
    spans: tuple[int, ...]  # all of them
    metric: str  # that the model is judged by; ""
    value: float | None
    blessed: bool | None  # None: not judged
    pushed: str  # the version that the run pushed, or found serving the same bytes; ""
    unchanged: bool  # the bytes served already


@dataclasses.dataclass(frozen=True)
class Model:
    """One model, and what its run said of it."""

    id: int  # the artifact that the exporter gave, or the trainer where nothing was exported; 0: only a push is known
    digest: str  # "" of one that was not exported
    uri: str
    pipeline: str
    run: str
    made: datetime.datetime
    examples: int | None  # the artifact that it was made of
    spans: tuple[int, ...]  # of these; ()
    metric: str  # that it was judged by; ""
    value: float | None
    blessed: bool | None  # None: not judged


@dataclasses.dataclass(frozen=True)
class Push:
    """Something changed below a destination: a push, a rollback, or a label that moved."""

    id: int  # the PushedModel's
    kind: str  # push, rollback, label
    at: datetime.datetime
    base: str
    version: str
    directory: str
    digest: str
    label: str  # that moved to this version; ""
    rollback_of: str  # the version that served before; ""
    restores: str  # the version whose bytes these are; ""
    reason: str


@dataclasses.dataclass(frozen=True)
class Served:
    """What served below a destination from one change to the next."""

    since: datetime.datetime
    until: datetime.datetime | None  # None: it still does
    push: Push
    model: Model | None  # None: the store does not know where these bytes come from
    files: tuple[File, ...]  # that it was made of


@dataclasses.dataclass(frozen=True)
class Live:
    """What serves below a destination now."""

    base: str
    version: str  # "" for nothing
    digest: str
    seen: bool  # on the disk; False: as it was recorded last


@dataclasses.dataclass(frozen=True)
class Touched:
    """One model that some data or a run had a part in."""

    model: Model
    how: str  # trained, began (from a model that was), evaluated
    pushes: tuple[Push, ...]
    live: tuple[str, ...]  # the destinations below which it serves now


@dataclasses.dataclass(frozen=True)
class Impact:
    """The models that came of something, the newest first."""

    asked: str
    sources: tuple[Artifact, ...]
    models: tuple[Touched, ...]
    live: tuple[Live, ...]  # of the destinations that they were pushed to


@dataclasses.dataclass(frozen=True)
class Lineage:
    """What was asked for, and the steps that led to it or that it led to, the latest first."""

    asked: str
    down: bool  # what it led to
    subject: tuple[Artifact, ...]
    executions: tuple[Execution, ...]
    artifacts: Mapping[int, Artifact]  # all that these steps took or gave


def judged_by(evaluation: Mapping[str, Any]) -> tuple[str, float | None]:
    """The metric that a ModelEvaluation's verdict stands on, and its value; "" and None where it has none."""
    metric = str(evaluation.get("metric") or str(evaluation.get("summary", "")).partition(" ")[0])
    return (metric, evaluation[metric]) if metric in evaluation else ("", None)


def artifact(proto: Any) -> Artifact:
    """ML Metadata's artifact as a value."""
    return Artifact(proto.id, proto.type, proto.uri, time(proto.create_time_since_epoch), properties(proto))


def properties(proto: Any) -> dict[str, Any]:
    """Its type's and its own properties as plain values; JSON in a text is unpacked."""
    return {
        name: _value(value)
        for held in (proto.properties, proto.custom_properties)
        for name, value in held.items()
        if not name.startswith("__")
    }


def time(milliseconds: int) -> datetime.datetime:
    """ML Metadata's time."""
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "proto_value":
        return json_format.MessageToDict(value.proto_value)
    if kind == "struct_value":
        held = json_format.MessageToDict(value.struct_value)
        return held.get("__value__", held)
    plain = getattr(value, kind) if kind else ""
    return _unpacked(plain)


def _unpacked(held: Any) -> Any:
    """TFX writes a dict as JSON, and a text in it may be JSON again."""
    if isinstance(held, str) and held[:1] in ("{", "["):
        try:
            held = json.loads(held)
        except ValueError:
            return held
    return {name: _unpacked(value) for name, value in held.items()} if isinstance(held, dict) else held
