"""A pipeline's runs as ML Metadata knows them: what ran, in which state, for how long, with which figure.

Enters: a config, or an ML Metadata store.  Leaves: paths, connections and immutable values.  Imports neither TFX nor
TensorFlow, so that looking costs a fraction of a second.
"""

import dataclasses
import time
from collections.abc import Collection, Sequence
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from tfx_ranking.pipelines.metadata import heartbeat

STATES = {
    metadata_store_pb2.Execution.RUNNING: "running",
    metadata_store_pb2.Execution.COMPLETE: "done",
    metadata_store_pb2.Execution.CACHED: "cached",
    metadata_store_pb2.Execution.FAILED: "failed",
    metadata_store_pb2.Execution.CANCELED: "failed",
}
DIED = "its process died"  # why an execution failed that nobody could say it of any more
NODES = "nodes"  # of a run's context: the components that it is to have, as they come
LOCK = "run.lock"  # in `artifacts_root`: held by the process that runs the pipeline


@dataclasses.dataclass(frozen=True)
class Step:
    """One component of a run."""

    node: str
    state: str  # waiting, running, done, cached, failed
    seconds: float = 0.0
    figure: str = ""  # the one figure that matters, as the component wrote it
    uri: str = ""  # of the artifact that the figure is of


def say_what_is_to_run(store: metadata_store.MetadataStore, run_id: str, nodes: Sequence[str]) -> None:
    """Writes into a run's context, which is there, what components it has, so that one that never began is missed."""
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    context.custom_properties[NODES].string_value = ", ".join(nodes)
    store.put_contexts([context])


def steps(store: metadata_store.MetadataStore, run_id: str, nodes: Sequence[str]) -> list[Step]:
    """The components of one run in the order of `nodes`, as far as they have come."""
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    executions = store.get_executions_by_context(context.id) if context else []
    by_node: dict[str, Step] = {}
    for execution in sorted(executions, key=lambda e: e.id):
        node = _node(store, execution)
        state = STATES.get(execution.last_known_state, "waiting")
        end = time.time() * 1000 if state == "running" else execution.last_update_time_since_epoch
        milliseconds = end - execution.create_time_since_epoch
        figure, uri = _figure(store, execution) if state in ("done", "cached") else ("", "")
        by_node[node] = Step(node, state, milliseconds / 1000, figure, uri)
    return [by_node.get(node, Step(node, "waiting")) for node in nodes]


def end_dead_executions(
    store: metadata_store.MetadataStore, pipeline_name: str, locked: bool = True, again: Collection[int] = ()
) -> list[int]:
    """Marks the executions that died running as failed, their half-made artifacts as abandoned; gives their ids.

    Dead is what had a heartbeat and has none any more.  locked: the caller holds the pipeline's lock, so whatever runs
    without a heartbeat has no process any more.  again: earlier tries of what begins now.
    """
    context = store.get_context_by_type_and_name("pipeline", pipeline_name)
    running = [
        execution
        for execution in (store.get_executions_by_context(context.id) if context else [])
        if execution.last_known_state in (metadata_store_pb2.Execution.RUNNING, metadata_store_pb2.Execution.NEW)
        and (execution.id in again or {None: locked, False: True, True: False}[heartbeat.beats(execution)])
    ]
    for execution in running:
        execution.last_known_state = metadata_store_pb2.Execution.FAILED
        execution.custom_properties["reason"].string_value = DIED
    if running:
        store.put_executions(running)
        ids = {event.artifact_id for event in store.get_events_by_execution_ids([e.id for e in running])}
        pending = [a for a in store.get_artifacts_by_id(list(ids)) if a.state == metadata_store_pb2.Artifact.PENDING]
        for artifact in pending:
            artifact.state = metadata_store_pb2.Artifact.ABANDONED
        if pending:
            store.put_artifacts(pending)
    return [execution.id for execution in running]


def say_why_it_failed(store: metadata_store.MetadataStore, run_id: str, reason: str, only: int | None = None) -> None:
    """Writes into a run's failed executions why they did, where nothing is written yet; TFX leaves it to the log.

    only: the execution that it is the reason of, where others of the run may fail at the same time.
    """
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    failed = [
        execution
        for execution in (store.get_executions_by_context(context.id) if context else [])
        if execution.last_known_state == metadata_store_pb2.Execution.FAILED
        and "reason" not in execution.custom_properties
        and only in (None, execution.id)
    ]
    for execution in failed:
        execution.custom_properties["reason"].string_value = reason
    if failed:
        store.put_executions(failed)


def _node(store: metadata_store.MetadataStore, execution: Any) -> str:
    for context in store.get_contexts_by_execution(execution.id):
        if context.type == "node":
            return str(context.name).split(".", 1)[1]
    return str(execution.type).rsplit(".", 1)[-1]


def _figure(store: metadata_store.MetadataStore, execution: Any) -> tuple[str, str]:
    """(figure, uri of the artifact that has it)"""
    events = store.get_events_by_execution_ids([execution.id])
    outputs = [
        e.artifact_id
        for e in events
        if e.type in (metadata_store_pb2.Event.OUTPUT, metadata_store_pb2.Event.DECLARED_OUTPUT)
    ]
    for artifact in store.get_artifacts_by_id(outputs):
        if "summary" in artifact.custom_properties:
            return str(artifact.custom_properties["summary"].string_value), str(artifact.uri)
    return "", ""
