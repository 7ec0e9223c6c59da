"""Reads and writes the records of a pipeline's runs in ML Metadata: its components, their states, their failures.

Input: an ML Metadata store.  Output: immutable values.  Imports neither TFX nor TensorFlow.
"""

import dataclasses
import time
from collections.abc import Collection, Sequence
from typing import Any

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.metadata import heartbeat

STATES = {
    metadata_store_pb2.Execution.RUNNING: "running",
    metadata_store_pb2.Execution.COMPLETE: "done",
    metadata_store_pb2.Execution.CACHED: "cached",
    metadata_store_pb2.Execution.FAILED: "failed",
    metadata_store_pb2.Execution.CANCELED: "failed",
}
DIED = "its process died"  # the recorded reason of a step whose process died before it could record its failure
NODES = "nodes"  # property of a run's context: the components that the run has, in their order
LOCK = "run.lock"  # file in `artifacts_root`, locked by the process that runs the pipeline


@dataclasses.dataclass(frozen=True)
class Step:
    """One component of a run."""

    node: str
    state: str  # waiting, running, done, cached, failed
    seconds: float = 0.0
    figure: str = ""  # the component's most important figure, as it wrote it
    uri: str = ""  # of the artifact that has the figure


def record_nodes(store: metadata_store.MetadataStore, run_id: str, nodes: Sequence[str]) -> None:
    """Records in a run's existing context which components the run has, so that lineage can name those never begun."""
    context = store.get_context_by_type_and_name("pipeline_run", run_id)
    context.custom_properties[NODES].string_value = ", ".join(nodes)
    store.put_contexts([context])


def read_steps(store: metadata_store.MetadataStore, run_id: str, nodes: Sequence[str]) -> list[Step]:
    """The components of one run in the order of `nodes`, with their current states."""
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
    """Marks executions whose process died as failed and their unfinished artifacts as abandoned; returns their ids.

    An execution is dead when its heartbeat stopped.  locked: the caller holds the pipeline's lock, so a running
    execution without heartbeat is dead, too.  again: ids of earlier attempts at the step that begins now: dead, too.
    """
    context = store.get_context_by_type_and_name("pipeline", pipeline_name)
    running = [
        execution
        for execution in (store.get_executions_by_context(context.id) if context else [])
        if execution.last_known_state in (metadata_store_pb2.Execution.RUNNING, metadata_store_pb2.Execution.NEW)
        and (execution.id in again or {None: locked, False: True, True: False}[heartbeat.is_alive(execution)])
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


def record_failure(store: metadata_store.MetadataStore, run_id: str, reason: str, only: int | None = None) -> None:
    """Records why a run's executions failed, on those that have no reason yet; TFX itself only logs it.

    only: the id of the execution to record it on; others of the run may fail at the same time for other reasons.
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


def first_cause(error: BaseException) -> BaseException:
    """The error that caused this one, without the errors that Beam and TFX wrap around it.

    A RankingError is returned as it is: its message already names its cause.
    """
    while error.__cause__ is not None and not isinstance(error, RankingError):
        error = error.__cause__
    return error


def failure_text(error: BaseException) -> str:
    """The first cause in one paragraph."""
    error = first_cause(error)
    text = str(error) or type(error).__name__
    text = text.split(" [while running '")[0]
    return text if isinstance(error, RankingError) else f"{type(error).__name__}: {text}"


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
