"""Where a model came from and what came of it, asked of an ML Metadata store.

Enters: a store, and a question.  Leaves: immutable values.  The one idea: artifacts of one digest are one model,
wherever it was copied to; from there the events are walked, a whole generation in a few calls.  Imports neither TFX nor
TensorFlow.
"""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.serving_versions import digest, is_loadable, live_version, version_directories
from tfx_ranking.pipelines.lineage_store import MODELS, Store

COMPARED = ("baseline_model",)  # inputs that a step compares with: what it gives is not made of them
_INPUTS = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT, mlmd.Event.INTERNAL_INPUT)


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
    ended: datetime.datetime
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


@dataclasses.dataclass(frozen=True)
class Run:
    """One pipeline run and what came out."""

    id: str
    pipeline: str
    state: str  # running, done, failed, dead
    reason: str  # which step failed, and why; ""
    started: datetime.datetime
    seconds: float
    steps: int
    cached: int  # of the steps
    span: int | None  # of the data
    metric: str  # that the model is judged by; ""
    value: float | None
    blessed: bool | None  # None: not judged
    pushed: str  # the version that the run pushed, or found serving the same bytes; ""
    unchanged: bool  # the bytes served already


@dataclasses.dataclass(frozen=True)
class Lineage:
    """What was asked for, and the steps that led to it or that it led to, the nearest first."""

    asked: str
    subject: tuple[Artifact, ...]
    executions: tuple[Execution, ...]
    artifacts: Mapping[int, Artifact]  # all that these steps took or gave


def runs(store: Store, limit: int | None = None) -> tuple[Run, ...]:
    """The pipeline runs, newest first, at most `limit`; () in a store without any."""
    contexts = sorted(store.contexts("pipeline_run"), key=lambda c: (c.create_time_since_epoch, c.id), reverse=True)
    contexts = contexts[:limit]
    members = [store.executions_of(context) for context in contexts]
    executions = _executions(store, [each for member in members for each in member], with_run=False)
    artifacts = _artifacts(store, (link.artifact for each in executions.values() for link in each.outputs))
    newest: set[str] = set()
    found = []
    for context, member in zip(contexts, members):
        steps = [executions[each.id] for each in member]
        found.append(_run(store, context, steps, artifacts, newest))
    return tuple(found)


def upstream(store: Store, asked: str) -> Lineage:
    """What led to `asked`, back to the files; through copies of a model to the run that made it.

    asked: a directory, version, digest, artifact id, run id or uri.  Raises RankingError when the store has no such.
    """
    subject = find(store, asked)
    executions: dict[int, Execution] = {}
    artifacts: dict[int, Artifact] = {artifact.id: artifact for artifact in subject}
    ahead = {artifact.id for artifact in _originals(subject)}
    seen: set[int] = set()
    while ahead:
        seen |= ahead
        makers = {event.execution_id for event in store.events_of_artifacts(ahead) if event.type not in _INPUTS}
        new = _executions(store, store.executions(makers - executions.keys()), only_made=True)
        executions |= new
        taken = {link.artifact for each in new.values() for link in each.inputs if link.name not in COMPARED}
        ahead = taken | {a.id for each in new.values() for a in _named_models(store, each)}
        artifacts |= _artifacts(store, _linked(new.values()) | ahead, artifacts)
        ahead |= {each.id for same in _same(store, ahead, artifacts) for each in _originals(same)}
        ahead -= seen
    return _lineage(asked, subject, executions, artifacts)


def downstream(store: Store, asked: str) -> Lineage:
    """What came of `asked`: every step that used it or what was made of it.  Asks as `upstream` does."""
    subject = find(store, asked)
    executions: dict[int, Execution] = {}
    artifacts: dict[int, Artifact] = {artifact.id: artifact for artifact in subject}
    ahead = set(artifacts)
    seen: set[int] = set()
    while ahead:
        seen |= ahead
        users = {
            event.execution_id
            for event in store.events_of_artifacts(ahead)
            if event.type in _INPUTS and _name(event) not in COMPARED
        }
        new = _executions(store, store.executions(users - executions.keys()), only_made=True)
        executions |= new
        ahead = {link.artifact for each in new.values() for link in each.outputs}
        artifacts |= _artifacts(store, _linked(new.values()), artifacts)
        ahead |= {each.id for same in _same(store, ahead, artifacts) for each in same}
        ahead -= seen
    return _lineage(asked, subject, executions, artifacts)


def find(store: Store, asked: str) -> tuple[Artifact, ...]:
    """The artifacts that `asked` means; of a model, every artifact that is these bytes.

    Raises RankingError when the store knows none, or when a number is both a version and an artifact's id.
    """
    directory = pathlib.Path(asked)
    model = _model_in(directory) if directory.is_dir() else None
    if model is not None:
        bytes_of = digest(model)
        found = _model(store, bytes_of)
        if found:
            return found
        raise RankingError(
            f"{model}: {store.name} knows no model of these bytes (digest {bytes_of[:12]}); its files were changed, or "
            f"it was made with another store: name that with --metadata.{_said_by(model)}"
        )
    kind, _, rest = asked.partition(":")
    number = rest if kind in ("version", "artifact") else asked
    if number.isdecimal():
        return _numbered(store, number, kind if number is rest else "")
    of_uri = store.artifacts_of_uri(asked) or store.artifacts_of_uri(str(directory.absolute()))
    if of_uri:
        return tuple(_artifact(each) for each in of_uri)
    for context in store.contexts("pipeline_run"):
        if context.name == asked:
            steps = _executions(store, store.executions_of(context), with_run=False)
            return tuple(_artifacts(store, (link.artifact for e in steps.values() for link in e.outputs)).values())
    if len(asked) >= 8:
        alike = [bytes_of for bytes_of in store.models() if bytes_of.startswith(asked)]
        if len(alike) == 1:
            return _model(store, alike[0])
    raise RankingError(
        f"{asked}: {store.name} knows no such thing; expected a model's directory, a version, a digest, an artifact's "
        "id, a run's id or a uri. `tfx-ranking runs` lists the runs."
    )


def _numbered(store: Store, number: str, kind: str) -> tuple[Artifact, ...]:
    groups = [_model(store, bytes_of) for bytes_of in store.pushed_as(number)]
    by_id = store.artifacts([int(number)])
    versions = [] if kind == "artifact" else groups
    ids = [] if kind == "version" else by_id
    if len(versions) > 1:
        places = sorted(
            str(a.properties.get("pushed_destination")) for g in groups for a in g if a.type == "PushedModel"
        )
        raise RankingError(f"{number}: more than one model was pushed as this version; name one: {', '.join(places)}")
    if versions and ids:
        raise RankingError(
            f"{number} is a version and the id of an artifact ({ids[0].type}): say version:{number} or "
            f"artifact:{number}."
        )
    if versions:
        return versions[0]
    if ids:
        artifact = _artifact(ids[0])
        return (artifact,)
    raise RankingError(f"{number}: {store.name} knows no {kind or 'version and no artifact'} of this number.")


def _model_in(directory: pathlib.Path) -> pathlib.Path | None:
    """The SavedModel in `directory`, of a folder of versions the live one; None where there is none."""
    if is_loadable(directory):
        return directory
    version = live_version(directory)
    if version is not None:
        return version_directories(directory)[version]
    return directory / "Format-Serving" if is_loadable(directory / "Format-Serving") else None


def _said_by(model: pathlib.Path) -> str:
    from tfx_ranking.components.serving_versions import LINEAGE_IN_MODEL

    file = model / LINEAGE_IN_MODEL
    told = json.loads(file.read_text()) if file.is_file() else {}
    return f" It says that it is of pipeline {told['pipeline']}, run {told['run']}." if told.get("run") else ""


def _model(store: Store, bytes_of: str) -> tuple[Artifact, ...]:
    """Every artifact that is these bytes, oldest first; () for none."""
    return tuple(_artifact(each) for each in store.models().get(bytes_of, ()))


def _same(store: Store, ids: Iterable[int], artifacts: Mapping[int, Artifact]) -> list[tuple[Artifact, ...]]:
    """The models among some artifacts, each as every artifact of its bytes."""
    return [_model(store, bytes_of) for bytes_of in {artifacts[i].digest for i in ids} - {""}]


def _originals(same: Iterable[Artifact]) -> list[Artifact]:
    """Without the copies that LiveModel took, and the pushes that found the same bytes serving."""
    same = list(same)
    made = [a for a in same if "live" not in a.properties and not a.properties.get("unchanged")]
    return made or same


def _named_models(store: Store, execution: Execution) -> list[Artifact]:
    """The models that a step began from by digest alone, without an event."""
    named = execution.properties.get("initial_model")
    return _originals(_model(store, str(named))) if named else []


def _linked(executions: Iterable[Execution]) -> set[int]:
    return {link.artifact for each in executions for link in (*each.inputs, *each.outputs)}


def _lineage(
    asked: str, subject: Sequence[Artifact], executions: Mapping[int, Execution], artifacts: Mapping[int, Artifact]
) -> Lineage:
    ordered = sorted(executions.values(), key=lambda each: each.id, reverse=True)
    return Lineage(asked, tuple(subject), tuple(ordered), dict(sorted(artifacts.items())))


def _executions(
    store: Store, protos: Sequence[Any], with_run: bool = True, only_made: bool = False
) -> dict[int, Execution]:
    """only_made: without those that took what an earlier execution had made."""
    protos = [each for each in protos if not (only_made and each.last_known_state == mlmd.Execution.CACHED)]
    links: dict[int, tuple[list[Link], list[Link]]] = {each.id: ([], []) for each in protos}
    for event in store.events_of_executions(links):
        links[event.execution_id][event.type not in _INPUTS].append(Link(_name(event), event.artifact_id))
    found = {}
    for each in protos:
        pipeline, run, node = store.place(each) if with_run else ("", "", each.type.rsplit(".", 1)[-1])
        properties = _properties(each)
        state = store.state(each)
        found[each.id] = Execution(
            each.id,
            node,
            pipeline,
            run,
            state,
            str(properties.pop("reason", "")) or ("its process died" if state == "dead" else ""),
            _time(each.create_time_since_epoch),
            _time(each.last_update_time_since_epoch),
            properties,
            tuple(links[each.id][0]),
            tuple(links[each.id][1]),
        )
    return found


def _run(
    store: Store, context: Any, steps: Sequence[Execution], artifacts: Mapping[int, Artifact], newest: set[str]
) -> Run:
    given = [artifacts[link.artifact] for step in steps for link in step.outputs if link.artifact in artifacts]

    def last(kind: str, having: str = "") -> Mapping[str, Any]:
        of_kind = [a.properties for a in given if a.type == kind and (not having or having in a.properties)]
        return of_kind[-1] if of_kind else {}

    pipeline = store.pipeline_of(steps[0].id) if steps else ""
    under_way = pipeline not in newest and store.begun_here(pipeline, context.create_time_since_epoch)
    newest.add(pipeline)
    states = {step.state for step in steps} | ({"running"} if under_way else set())
    state = next((each for each in ("running", "dead", "failed") if each in states), "done")
    ill = next((step for step in steps if step.state == state and state in ("dead", "failed")), None)
    started = _time(context.create_time_since_epoch)
    ended = store.now() if state == "running" else max((step.ended for step in steps), default=started)
    evaluation, pushed = last("ModelEvaluation"), last("PushedModel")
    metric = str(evaluation.get("summary", "")).partition(" ")[0]
    judged = last("ModelBlessing").get("blessed")
    return Run(
        context.name,
        pipeline,
        state,
        f"{ill.node}: {ill.reason}" if ill else "",
        started,
        round((ended - started).total_seconds(), 1),
        len(steps),
        sum(step.state == "cached" for step in steps),
        last("Examples", "span").get("span"),
        metric if metric in evaluation else "",
        evaluation.get(metric),
        None if judged is None else bool(judged),
        str(pushed.get("pushed_version", "")) if pushed.get("pushed") else "",
        bool(pushed.get("unchanged")),
    )


def _artifacts(store: Store, ids: Iterable[int], known: Mapping[int, Artifact] | None = None) -> dict[int, Artifact]:
    return {each.id: _artifact(each) for each in store.artifacts(set(ids) - set(known or ()))}


def _artifact(proto: Any) -> Artifact:
    return Artifact(proto.id, proto.type, proto.uri, _time(proto.create_time_since_epoch), _properties(proto))


def _properties(proto: Any) -> dict[str, Any]:
    return {
        name: _value(value)
        for held in (proto.properties, proto.custom_properties)
        for name, value in held.items()
        if not name.startswith("__")
    }


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "proto_value":
        return json_format.MessageToDict(value.proto_value)
    if kind == "struct_value":
        held = json_format.MessageToDict(value.struct_value)
        return held.get("__value__", held)
    plain = getattr(value, kind) if kind else ""
    return _unpacked(plain) if isinstance(plain, str) else plain


def _unpacked(text: str) -> Any:
    """TFX writes a dict as JSON, and a dict in it as JSON again."""
    if text[:1] not in "{[" or not text:
        return text
    try:
        held = json.loads(text)
    except ValueError:
        return text
    if isinstance(held, dict):
        return {name: _unpacked(value) if isinstance(value, str) else value for name, value in held.items()}
    return held


def _name(event: Any) -> str:
    return next((step.key for step in event.path.steps if step.key), "")


def _time(milliseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(milliseconds / 1000, datetime.timezone.utc)
