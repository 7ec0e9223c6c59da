"""Reads an ML Metadata store in batches, and never writes to it.

Input: a connection.  Output: a `Store` that returns values.  A question costs a few calls per generation of steps, not
a few per step.  Properties are searched with a filter; ML Metadata of TFX 1.21 has no filters, so there all artifacts
of the type are read.  Imports neither TFX nor TensorFlow.
"""

import fcntl
import functools
import os
import pathlib
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

from ml_metadata import errors
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.lineage import values
from tfx_ranking.pipelines.lineage.contexts import RunContext, RunContexts, type_name
from tfx_ranking.pipelines.lineage.values import MODELS, Artifact, Execution, Link
from tfx_ranking.pipelines.metadata import heartbeat
from tfx_ranking.pipelines.metadata.connection import find_connection, open_to_read, store_name
from tfx_ranking.pipelines.metadata.run_records import DIED, LOCK, STATES

_INPUTS = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT, mlmd.Event.INTERNAL_INPUT)
_BATCH = 5000  # ids per call; MySQL and gRPC limit what one statement or message may hold
_FILTER_VALUES = 200  # the most values in a filter; for more, the whole type is read


def connect(metadata: str | None = None, folder: pathlib.Path = pathlib.Path()) -> "Store":
    """Opens the store that `find_connection` finds, for reading."""
    return Store(find_connection(metadata, folder))


class Store:
    """Reads a store.

    It caches models, runs and locks: to see later changes, open the store again.
    """

    def __init__(self, connection: Any) -> None:
        """connection: ML Metadata's ConnectionConfig, or MetadataStoreClientConfig for its gRPC server."""
        server = isinstance(connection, mlmd.MetadataStoreClientConfig)
        file = "" if server else connection.sqlite.filename_uri
        self.name = store_name(connection)
        self._folder = pathlib.Path(file).parent if file else None
        self._lock_holders: dict[str, float | None] = {}  # by pipeline
        self._models: dict[str, tuple[Artifact, ...]] = {}  # by digest
        self._filters = True  # whether ML Metadata supports them
        self._store = _StoreWithNamedErrors(open_to_read(connection), self.name)

    def runs(self) -> list[Any]:
        """The contexts of the runs, newest first."""
        contexts = self._store.get_contexts_by_type("pipeline_run")
        return sorted(contexts, key=lambda each: (each.create_time_since_epoch, each.id), reverse=True)

    def run(self, run_id: str) -> Any:
        """The context of one run; None if the store has no run of this id."""
        return self._store.get_context_by_type_and_name("pipeline_run", run_id)

    def steps(self, runs: Sequence[Any]) -> list[tuple[Execution, ...]]:
        """The steps of each run, oldest first, without their properties, which are most of a store."""
        protos = [sorted(self._store.get_executions_by_context(run.id), key=lambda each: each.id) for run in runs]
        pipelines = self._contexts.pipelines([of_run[0].id for of_run in protos if of_run])
        links = self._links(each.id for of_run in protos for each in of_run)

        def steps_of(run: Any, of_run: Sequence[Any]) -> Iterator[Execution]:
            for each in of_run:
                pipeline = pipelines[of_run[0].id]
                context = RunContext(pipeline, run.name, self._contexts.node(each, pipeline))
                yield self._execution(each, context, {}, links[each.id])

        return [tuple(steps_of(*each)) for each in zip(runs, protos)]

    def steps_of_node(self, pipeline: str, node: str) -> tuple[Execution, ...]:
        """The executions of a pipeline's node in all runs, oldest first, without their properties or their run."""
        context = self._store.get_context_by_type_and_name("node", f"{pipeline}.{node}")
        protos = self._store.get_executions_by_context(context.id) if context else []
        links = self._links(each.id for each in protos)
        return tuple(
            self._execution(each, RunContext(pipeline, "", node), {}, links[each.id])
            for each in sorted(protos, key=lambda each: each.id)
        )

    def producers(self, artifacts: Iterable[int]) -> set[int]:
        """The ids of the executions with these artifacts as outputs, including those that took them from the cache."""
        return {event.execution_id for event in self._events_of(artifacts) if event.type not in _INPUTS}

    def consumers(self, artifacts: Iterable[int], except_as: Sequence[str] = ()) -> set[int]:
        """The ids of the executions with these artifacts as inputs, except the inputs named `except_as`."""
        events = (event for event in self._events_of(artifacts) if event.type in _INPUTS)
        return {event.execution_id for event in events if _link_name(event) not in except_as}

    def executions(self, ids: Iterable[int]) -> dict[int, Execution]:
        """Executions by id, without those that took their outputs from the cache."""
        protos = [each for some in _batches(ids) for each in self._store.get_executions_by_id(some)]
        protos = [each for each in protos if each.last_known_state != mlmd.Execution.CACHED]
        links, contexts = self._links(each.id for each in protos), self._contexts.of(protos)
        return {
            each.id: self._execution(each, contexts[each.id], values.properties(each), links[each.id])
            for each in protos
        }

    def artifacts(self, ids: Iterable[int]) -> dict[int, Artifact]:
        """Artifacts by id; an id that the store does not have is left out."""
        protos = (each for some in _batches(ids) for each in self._store.get_artifacts_by_id(some))
        return {each.id: values.artifact(each) for each in protos}

    def artifacts_of_types(self, ids: Collection[int], types: Sequence[str]) -> dict[int, Artifact]:
        """Artifacts by id, only those of certain types."""
        if len(ids) <= _BATCH:
            return {i: each for i, each in self.artifacts(ids).items() if each.type in types}
        # For so many ids, reading these types whole is less than reading every artifact by its id.
        return {each.id: each for kind in types for each in self.of_type(kind) if each.id in ids}

    def of_type(self, kind: str) -> tuple[Artifact, ...]:
        """The artifacts of a type, oldest first."""
        return tuple(values.artifact(each) for each in self._of_type(kind))

    def readers_of(self, file: str) -> tuple[Execution, ...]:
        """The steps that read a file.  file: its path, the end of its path, or its digest."""
        name = file.rpartition("/")[2]
        types = [t.name for t in self._store.get_execution_types() if t.name.endswith(".RankingExampleGen")]
        protos = [each for kind in types for each in self._store.get_executions_by_type(kind)]
        # A name that is not ASCII is escaped (JSON in JSON) and cannot be searched as text: then all are read.
        candidates = [each.id for each in protos if not name.isascii() or name in _text(each, "source")]
        absolute = os.path.abspath(file)
        return tuple(
            each
            for each in self.executions(candidates).values()
            for read in each.files
            if file == read.digest or absolute == read.path or f"/{read.path}".endswith(f"/{file}")
        )

    def at_uri(self, uri: str) -> tuple[Artifact, ...]:
        """The artifacts at a uri."""
        protos = self._store.get_artifacts_by_uri(uri)
        # Kubeflow's launcher, if it writes to this store, records everything a second time with types of its own.
        return tuple(values.artifact(each) for each in protos if not each.type.startswith(("tfx.", "system.")))

    def with_digest(self, digest: str) -> tuple[Artifact, ...]:
        """Every artifact of the model with this digest, oldest first; () if there is none."""
        return self.with_digests([digest])[digest]

    def with_digests(self, digests: Iterable[str]) -> dict[str, tuple[Artifact, ...]]:
        """`with_digest` for several digests at once."""
        wanted = set(digests)
        new = wanted - self._models.keys()
        protos: dict[str, list[Any]] = {digest: [] for digest in new}
        for each in self._with_property(MODELS, "digest", new) if new - {""} else ():
            protos[_text(each, "digest")].append(each)
        self._models |= {digest: tuple(map(values.artifact, same)) for digest, same in protos.items()}
        return {digest: self._models[digest] for digest in wanted}

    def digests_starting_with(self, prefix: str) -> list[str]:
        """The digests of models that start with `prefix`."""
        matches = self._filtered("artifacts", "digest", f"LIKE '{prefix}%'" * prefix.isalnum())
        models = self._of_types(MODELS) if matches is None else matches
        return sorted({digest for each in models if (digest := _text(each, "digest")).startswith(prefix)})

    def digests_pushed_as(self, version: str) -> list[str]:
        """The digests of the models that were pushed as a version, in the order of the pushes."""
        pushed = self._with_property(MODELS, "pushed_version", {version})
        return list(dict.fromkeys(digest for each in pushed if (digest := _text(each, "digest"))))

    def pushed_to(self, directory: str) -> tuple[Artifact, ...]:
        """Every artifact of the model that was last pushed to a version's directory."""
        pushed = self._with_property(MODELS, "pushed_destination", {directory.rstrip("/")})
        return self.with_digest(_text(pushed[-1], "digest")) if pushed else ()

    def evaluations_on(self, uris: Collection[str]) -> tuple[Artifact, ...]:
        """The evaluations that used examples of earlier runs at these uris."""
        evaluations = self._with_property(("ModelEvaluation",), "previous_examples", uris)
        return tuple(values.artifact(each) for each in evaluations)

    def trainings_from(self, digests: Collection[str]) -> set[int]:
        """The ids of the trainings that started from one of some models and recorded only its digest."""
        wanted = {each for each in digests if each}
        trainings = self._filtered("executions", "initial_model", _in_list(wanted))
        if trainings is None:
            trainings = self._trainings() if wanted else []
        return {each.id for each in trainings if _text(each, "initial_model") in wanted}

    def in_progress(self, run: Any, pipeline: str, uri: str = "") -> bool:
        """Whether the lock of the run's pipeline is held by a process that started before the run.

        uri: of any artifact of the pipeline, which lies beside the lock; without it the lock is searched for.
        """
        started = self._lock_holder_started(pipeline, uri)
        return started is not None and started <= run.create_time_since_epoch

    @functools.cache  # noqa: B019
    def _of_type(self, kind: str) -> list[Any]:
        return sorted(self._store.get_artifacts_by_type(kind), key=lambda each: each.id)

    @functools.cache  # noqa: B019
    def _trainings(self) -> list[Any]:
        trainers = [t.name for t in self._store.get_execution_types() if t.name.endswith(".RankingTrainer")]
        return [each for name in trainers for each in self._store.get_executions_by_type(name)]

    def _of_types(self, types: Sequence[str]) -> list[Any]:
        return sorted((each for kind in types for each in self._of_type(kind)), key=lambda each: each.id)

    def _with_property(self, types: Sequence[str], name: str, wanted: Collection[str]) -> list[Any]:
        """The artifacts of some types whose property `name` has one of the wanted values, oldest first."""
        matches = self._filtered("artifacts", name, _in_list(wanted))
        candidates = self._of_types(types) if matches is None else sorted(matches, key=lambda each: each.id)
        return [each for each in candidates if each.type in types and _text(each, name) in wanted]

    def _filtered(self, kind: str, name: str, condition: str) -> list[Any] | None:
        """Artifacts or executions by a text property; None without a condition, or if filters are not supported."""
        options = metadata_store.ListOptions(filter_query=f"custom_properties.{name}.string_value {condition}")
        if not (self._filters and condition):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # ML Metadata 1.21 warns before it refuses
                return list(getattr(self._store, f"get_{kind}")(options))
        except errors.UnimplementedError:
            self._filters = False
            return None

    @functools.cached_property
    def _contexts(self) -> RunContexts:
        return RunContexts(self._store)

    def _events_of(self, artifacts: Iterable[int]) -> Iterator[Any]:
        for some in _batches(artifacts):
            yield from self._store.get_events_by_artifact_ids(some)

    def _links(self, executions: Iterable[int]) -> dict[int, tuple[list[Link], list[Link]]]:
        links: dict[int, tuple[list[Link], list[Link]]] = {each: ([], []) for each in executions}
        for some in _batches(links):
            for event in self._store.get_events_by_execution_ids(some):
                links[event.execution_id][event.type not in _INPUTS].append(Link(_link_name(event), event.artifact_id))
        return links

    def _execution(
        self, proto: Any, context: RunContext, properties: Any, links: tuple[list[Link], list[Link]]
    ) -> Execution:
        state = self._state(proto, context.pipeline)
        # A step that was declared dead and finished later still has the reason from then.
        reason = _text(proto, "reason") if state in ("failed", "dead") else ""
        return Execution(
            id=proto.id,
            node=context.node or type_name(proto),
            pipeline=context.pipeline,
            run=context.run,
            state=state,
            reason=reason or (DIED if state == "dead" else ""),
            started=values.time(proto.create_time_since_epoch),
            ended=values.time(proto.last_update_time_since_epoch),
            properties=properties,
            inputs=tuple(links[0]),
            outputs=tuple(links[1]),
        )

    def _state(self, execution: Any, pipeline: str) -> str:
        state = STATES.get(execution.last_known_state, "running")
        if state == "running" and (alive := heartbeat.is_alive(execution)) is not None:
            return "running" if alive else "dead"
        if state == "running":
            started = self._lock_holder_started(pipeline)
            # Whoever takes the lock first ends the steps of dead processes: an earlier step has no process.
            return "running" if started is None or started <= execution.create_time_since_epoch else "dead"
        return "dead" if state == "failed" and _text(execution, "reason") == DIED else state

    def _lock_holder_started(self, pipeline: str, uri: str = "") -> float | None:
        """When the process that runs a pipeline started (ms); infinity if no process holds the lock.

        None if there is no lock: the pipeline runs on another machine, or not by `tfx-ranking run`.
        """
        if pipeline not in self._lock_holders:
            lock = self._lock(pipeline, uri)
            self._lock_holders[pipeline] = None if lock is None else _holder_started(lock)
        return self._lock_holders[pipeline]

    def _lock(self, pipeline: str, uri: str) -> pathlib.Path | None:
        near = [uri] if uri else self._recent_uri(pipeline)
        folders = [folder for each in near for folder in pathlib.Path(each).parents]
        folders += [self._folder / "artifacts" / pipeline] if self._folder else []
        return next((folder / LOCK for folder in folders if os.access(folder / LOCK, os.R_OK)), None)

    def _recent_uri(self, pipeline: str) -> list[str]:
        context = self._store.get_context_by_type_and_name("pipeline", pipeline) if pipeline else None
        newest = metadata_store.ListOptions(limit=1, order_by=metadata_store.OrderByField.ID, is_asc=False)
        return [each.uri for each in self._store.get_artifacts_by_context(context.id, newest)] if context else []


def _holder_started(lock: pathlib.Path) -> float:
    with lock.open() as file:
        try:
            # Released at once; a run that wants the lock at this very moment tries again.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.stat().st_mtime * 1000
    return float("inf")


class _StoreWithNamedErrors:
    """ML Metadata's store; its errors become RankingErrors that name the store."""

    def __init__(self, store: Any, name: str) -> None:
        self._store = store
        self._name = name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            try:
                return getattr(self._store, method)(*arguments)
            except errors.UnimplementedError:
                raise
            except errors.NotFoundError:
                return []  # ML Metadata raises it for an execution without contexts, such as a push by hand
            except errors.StatusError as error:
                raise RankingError(f"{self._name}: ML Metadata could not answer {method}: {error}") from error

        return call


def _text(proto: Any, name: str) -> str:
    return str(proto.custom_properties[name].string_value) if name in proto.custom_properties else ""


def _link_name(event: Any) -> str:
    return next((step.key for step in event.path.steps if step.key), "")


def _in_list(texts: Collection[str]) -> str:
    """A filter's condition; "" for no texts, for too many, or if one cannot be quoted."""
    quotable = 0 < len(texts) <= _FILTER_VALUES and all(re.fullmatch(r"[\w./:=@ -]+", each) for each in texts)
    return f"IN ({', '.join(map(repr, sorted(texts)))})" if quotable else ""


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]
