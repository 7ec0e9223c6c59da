"""Reads and writes the records of pushes in ML Metadata.

Input: a store, and a push or a rollback by hand.  Output: an execution `tfx_ranking.Push` or `tfx_ranking.Rollback`.
Its PushedModel has the same properties as RankingPusher's.  So a query for what was served reads one type of artifact,
whether a pipeline or a person pushed.  Imports neither TFX nor TensorFlow.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components import storage
from tfx_ranking.components.push import versions
from tfx_ranking.components.push.pushing import Pushed

PUSH, ROLLBACK = "tfx_ranking.Push", "tfx_ranking.Rollback"


class LastEvaluation(NamedTuple):
    """How a model was last evaluated; "" for what the store does not have."""

    blessing: str = ""  # "blessed", "not blessed"
    reason: str = ""
    metric: str = ""  # e.g. "ndcg@10 0.6021"


def highest_version(store: metadata_store.MetadataStore, base: storage.PathLike) -> int | None:
    """The highest version that was ever pushed to a base; None when none was."""
    absolute = storage.absolute(base)
    pushed = []
    for each in store.get_artifacts_by_type("PushedModel"):
        if _text(each, "pushed_destination").rpartition("/")[0] == absolute:
            pushed.append(versions.parse_version(_text(each, "pushed_version")))
    return max((version for version in pushed if version is not None), default=None)


def last_evaluation(store: metadata_store.MetadataStore, digest: str) -> LastEvaluation:
    """The last evaluation of the model with this digest; a blessing names its model by id."""
    ids = {str(each.id) for each in _models(store, digest)}
    blessings = [
        each for each in store.get_artifacts_by_type("ModelBlessing") if _text(each, "current_model_id") in ids
    ]
    if not blessings:
        return LastEvaluation()
    last = max(blessings, key=lambda each: each.id)
    blessed = "blessed" if _text(last, "blessed") == "1" else "not blessed"
    name, _, rest = _text(last, "summary").partition(" ")
    value = rest.partition(" ")[0]
    is_metric = value.replace(".", "", 1).replace("-", "", 1).isdigit()
    return LastEvaluation(blessed, _text(last, "reason"), f"{name} {value}" if is_metric else "")


def record(
    store: metadata_store.MetadataStore, kind: str, base: storage.PathLike, done: Pushed, reason: str, summary: str
) -> int:
    """Records a push or a rollback by hand; returns the execution's id."""
    properties: dict[str, Any] = {
        "pushed": 1,
        "unchanged": int(done.unchanged),
        "pushed_destination": f"{storage.absolute(base)}/{done.directory.name}",
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
    store: metadata_store.MetadataStore, kind: str, base: storage.PathLike, digest: str, reason: str, refused: str
) -> int:
    """Records that a model was not pushed, and why; returns the execution's id."""
    properties = {
        "pushed": 0,
        "digest": digest,
        "reason": reason,
        "refused": refused,
        "summary": f"not pushed: {reason}",
        "base": storage.absolute(base),
    }
    return _put(store, kind, properties)


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
    """The Model artifacts with this digest, oldest first."""
    models = [each for each in store.get_artifacts_by_type("Model") if digest and _text(each, "digest") == digest]
    return sorted(models, key=lambda each: each.id)


def _contexts(store: metadata_store.MetadataStore, models: Sequence[Any]) -> list[Any]:
    """The context of the pipeline that made the newest of the models; [] when no pipeline did."""
    try:
        contexts = store.get_contexts_by_artifact(models[-1].id) if models else []
    except errors.NotFoundError:  # the model is in no context: no pipeline made it
        contexts = []
    return [each for each in contexts if each.type == "pipeline"]


def _artifact_type(store: metadata_store.MetadataStore, name: str) -> int:
    try:
        return int(store.get_artifact_type(name).id)  # TFX's own, with the type's properties
    except errors.NotFoundError:
        return int(store.put_artifact_type(mlmd.ArtifactType(name=name)))


def _event(kind: int, name: str) -> Any:
    steps = [mlmd.Event.Path.Step(key=name), mlmd.Event.Path.Step(index=0)]
    return mlmd.Event(type=kind, path=mlmd.Event.Path(steps=steps))


def _text(proto: Any, name: str) -> str:
    value = proto.custom_properties[name] if name in proto.custom_properties else mlmd.Value()
    kind = value.WhichOneof("value")
    return str(getattr(value, kind)) if kind else ""
