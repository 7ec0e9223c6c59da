"""What ML Metadata knows of pushes, and what a push or a rollback by hand leaves there.

Enters: a store, and what was done.  Leaves: an execution `tfx_ranking.Push` or `tfx_ranking.Rollback` that gives a
PushedModel with the properties that RankingPusher writes.  The one idea: whoever asks what served asks one kind of
artifact, whoever pushed.  Imports neither TFX nor TensorFlow.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components import places
from tfx_ranking.components.push import versions
from tfx_ranking.components.push.pushing import Pushed

PUSH, ROLLBACK = "tfx_ranking.Push", "tfx_ranking.Rollback"


class Judged(NamedTuple):
    """What a store says of a model: "" for what it does not know."""

    blessing: str = ""  # "blessed", "not blessed"
    reason: str = ""
    metric: str = ""  # e.g. "ndcg@10 0.6021"


def highest_version(store: metadata_store.MetadataStore, base: places.Path) -> int | None:
    """The highest version that was ever recorded as pushed to a base; None where none was."""
    here = places.absolute(base)
    given = []
    for each in store.get_artifacts_by_type("PushedModel"):
        if _text(each, "pushed_destination").rpartition("/")[0] == here:
            given.append(versions.parse_version(_text(each, "pushed_version")))
    return max((version for version in given if version is not None), default=None)


def judged(store: metadata_store.MetadataStore, digest: str) -> Judged:
    """How a model was evaluated last; a blessing says so by the id of its model."""
    ids = {str(each.id) for each in _models(store, digest)}
    blessings = [
        each for each in store.get_artifacts_by_type("ModelBlessing") if _text(each, "current_model_id") in ids
    ]
    if not blessings:
        return Judged()
    last = max(blessings, key=lambda each: each.id)
    blessed = "blessed" if _text(last, "blessed") == "1" else "not blessed"
    name, _, rest = _text(last, "summary").partition(" ")
    value = rest.partition(" ")[0]
    is_metric = value.replace(".", "", 1).replace("-", "", 1).isdigit()
    return Judged(blessed, _text(last, "reason"), f"{name} {value}" if is_metric else "")


def record(
    store: metadata_store.MetadataStore, kind: str, base: places.Path, done: Pushed, reason: str, summary: str
) -> int:
    """Writes that a version was pushed or rolled back by hand; gives the execution's id."""
    properties: dict[str, Any] = {
        "pushed": 1,
        "unchanged": int(done.unchanged),
        "pushed_destination": f"{places.absolute(base)}/{done.directory.name}",
        "pushed_version": str(done.version),
        "digest": done.digest,
        "reason": reason,
        "summary": summary,
        "checked": done.checked,
        "label": done.label,
    }
    if kind == ROLLBACK:
        properties |= {"rollback_of": str(done.rollback_of or ""), "restores": str(done.restores)}
    return _put(store, kind, properties)


def record_refusal(
    store: metadata_store.MetadataStore, kind: str, base: places.Path, digest: str, reason: str, refused: str
) -> int:
    """Writes that a model was not pushed, and why; gives the execution's id."""
    said = {"pushed": 0, "digest": digest, "reason": reason, "refused": refused, "summary": f"not pushed: {reason}"}
    return _put(store, kind, {**said, "base": places.absolute(base)})


def _put(store: metadata_store.MetadataStore, kind: str, properties: Mapping[str, Any]) -> int:
    execution = mlmd.Execution(
        type_id=store.put_execution_type(mlmd.ExecutionType(name=kind)), last_known_state=mlmd.Execution.COMPLETE
    )
    uri = str(properties.get("pushed_destination") or properties.get("base"))
    pushed = mlmd.Artifact(type_id=_artifact_type(store, "PushedModel"), uri=uri, state=mlmd.Artifact.LIVE)
    for name, value in properties.items():
        for holder in (execution, pushed):
            if isinstance(value, int):
                holder.custom_properties[name].int_value = value
            elif value:
                holder.custom_properties[name].string_value = value
    events = [(pushed, _event(mlmd.Event.OUTPUT, "pushed_model"))]
    models = [each for each in _models(store, str(properties["digest"])) if "live" not in each.custom_properties]
    if models:
        events.insert(0, (models[-1], _event(mlmd.Event.INPUT, "model")))
    execution_id, _, _ = store.put_execution(execution, events, _contexts(store, models))
    return int(execution_id)


def _models(store: metadata_store.MetadataStore, digest: str) -> list[Any]:
    """The Model artifacts of these bytes, oldest first."""
    found = [each for each in store.get_artifacts_by_type("Model") if digest and _text(each, "digest") == digest]
    return sorted(found, key=lambda each: each.id)


def _contexts(store: metadata_store.MetadataStore, models: Sequence[Any]) -> list[Any]:
    """The pipeline whose model it is."""
    try:
        of_model = store.get_contexts_by_artifact(models[-1].id) if models else []
    except errors.NotFoundError:  # it is in none: no pipeline made it
        of_model = []
    return [each for each in of_model if each.type == "pipeline"]


def _artifact_type(store: metadata_store.MetadataStore, name: str) -> int:
    try:
        return int(store.get_artifact_type(name).id)  # as TFX has written it, with what it knows of the type
    except errors.NotFoundError:
        return int(store.put_artifact_type(mlmd.ArtifactType(name=name)))


def _event(kind: int, name: str) -> Any:
    steps = [mlmd.Event.Path.Step(key=name), mlmd.Event.Path.Step(index=0)]
    return mlmd.Event(type=kind, path=mlmd.Event.Path(steps=steps))


def _text(proto: Any, name: str) -> str:
    value = proto.custom_properties[name] if name in proto.custom_properties else mlmd.Value()
    kind = value.WhichOneof("value")
    return str(getattr(value, kind)) if kind else ""
