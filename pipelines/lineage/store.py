"""An ML Metadata store as lineage reads it: opened for reading, asked in batches, never written to.

Enters: a connection.  Leaves: a `Store` that gives values.  The one idea: a question costs a few calls a generation of
steps, not a few a step; properties are searched by a filter, and where ML Metadata has none (TFX 1.21) by reading all
artifacts of the type.  Imports neither TFX nor TensorFlow.
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
from tfx_ranking.pipelines.lineage.contexts import Place, Places, type_name
from tfx_ranking.pipelines.lineage.values import MODELS, Artifact, Execution, Link
from tfx_ranking.pipelines.metadata import heartbeat
from tfx_ranking.pipelines.metadata.connection import find_connection, open_to_read, store_name
from tfx_ranking.pipelines.metadata.run_records import DIED, LOCK, STATES

_INPUTS = (mlmd.Event.INPUT, mlmd.Event.DECLARED_INPUT, mlmd.Event.INTERNAL_INPUT)
_BATCH = 5000  # ids a call; MySQL and gRPC limit what one statement or message may hold
_NAMED = 200  # values that a filter may name; for more, the whole type is read


def connect(metadata: str | None = None, folder: pathlib.Path = pathlib.Path()) -> "Store":
    """Opens the store that `find_connection` finds, for reading."""
    return Store(find_connection(metadata, folder))


class Store:
    """Reads a store; what it has read of models, runs and locks it keeps: to see what came since, open it again."""

    def __init__(self, connection: Any) -> None:
        """connection: ML Metadata's ConnectionConfig, or MetadataStoreClientConfig of its gRPC server."""
        server = isinstance(connection, mlmd.MetadataStoreClientConfig)
        file = "" if server else connection.sqlite.filename_uri
        self.name = store_name(connection)
        self._folder = pathlib.Path(file).parent if file else None
        self._holders: dict[str, float | None] = {}  # by pipeline
        self._models: dict[str, tuple[Artifact, ...]] = {}  # by digest
        self._filters = True  # whether ML Metadata takes them
        self._store = _Asked(open_to_read(connection), self.name)

    def runs(self) -> list[Any]:
        """The runs' contexts, newest first."""
        contexts = self._store.get_contexts_by_type("pipeline_run")
        return sorted(contexts, key=lambda each: (each.create_time_since_epoch, each.id), reverse=True)

    def run(self, run_id: str) -> Any:
        """One run's context; None where there is no such."""
        return self._store.get_context_by_type_and_name("pipeline_run", run_id)

    def steps(self, runs: Sequence[Any]) -> list[tuple[Execution, ...]]:
        """What each of some runs did, oldest first; without the steps' properties, which are most of a store."""
        protos = [sorted(self._store.get_executions_by_context(run.id), key=lambda each: each.id) for run in runs]
        pipelines = self._places.pipelines([of_run[0].id for of_run in protos if of_run])
        links = self._links(each.id for of_run in protos for each in of_run)

        def steps_of(run: Any, of_run: Sequence[Any]) -> Iterator[Execution]:
            for each in of_run:
                pipeline = pipelines[of_run[0].id]
                at = Place(pipeline, run.name, self._places.node(each, pipeline))
                yield self._execution(each, at, {}, links[each.id])

        return [tuple(steps_of(*each)) for each in zip(runs, protos)]

    def makers(self, artifacts: Iterable[int]) -> set[int]:
        """The executions that gave some artifacts, those that took them from the cache among them."""
        return {event.execution_id for event in self._events_of(artifacts) if event.type not in _INPUTS}

    def users(self, artifacts: Iterable[int], but_as: Sequence[str] = ()) -> set[int]:
        """The executions that took some artifacts, under other names than `but_as`."""
        events = (event for event in self._events_of(artifacts) if event.type in _INPUTS)
        return {event.execution_id for event in events if _name(event) not in but_as}

    def made(self, ids: Iterable[int]) -> dict[int, Execution]:
        """Of some executions those that made something themselves, not those that took it from the cache."""
        protos = [each for some in _batches(ids) for each in self._store.get_executions_by_id(some)]
        protos = [each for each in protos if each.last_known_state != mlmd.Execution.CACHED]
        links, places = self._links(each.id for each in protos), self._places.of(protos)
        return {
            each.id: self._execution(each, places[each.id], values.properties(each), links[each.id]) for each in protos
        }

    def artifacts(self, ids: Iterable[int]) -> dict[int, Artifact]:
        """Artifacts by id; one that is not there is left out."""
        protos = (each for some in _batches(ids) for each in self._store.get_artifacts_by_id(some))
        return {each.id: values.artifact(each) for each in protos}

    def among(self, ids: Collection[int], kinds: Sequence[str]) -> dict[int, Artifact]:
        """Those of some artifacts that are of certain types."""
        if len(ids) <= _BATCH:
            return {i: each for i, each in self.artifacts(ids).items() if each.type in kinds}
        # Of that many, whole types are fewer than what is left out.
        return {each.id: each for kind in kinds for each in self.of_type(kind) if each.id in ids}

    def of_type(self, kind: str) -> tuple[Artifact, ...]:
        """The artifacts of a type, oldest first."""
        return tuple(values.artifact(each) for each in self._of_type(kind))

    def read_from(self, file: str) -> tuple[Execution, ...]:
        """The steps that read a file: by its path, the end of it, or its digest."""
        name = file.rpartition("/")[2]
        readers = [t.name for t in self._store.get_execution_types() if t.name.endswith(".RankingExampleGen")]
        protos = [each for kind in readers for each in self._store.get_executions_by_type(kind)]
        # What is not ASCII stands escaped in JSON in JSON: then every reader is looked at.
        named = [each.id for each in protos if not name.isascii() or name in _text(each, "source")]
        absolute = os.path.abspath(file)
        return tuple(
            each
            for each in self.made(named).values()
            for read in each.files
            if file == read.digest or absolute == read.path or f"/{read.path}".endswith(f"/{file}")
        )

    def at_uri(self, uri: str) -> tuple[Artifact, ...]:
        """The artifacts that lie at a uri."""
        found = self._store.get_artifacts_by_uri(uri)
        # Kubeflow's launcher, where it writes to this store, records everything once more, by types of its own.
        return tuple(values.artifact(each) for each in found if not each.type.startswith(("tfx.", "system.")))

    def model(self, digest: str) -> tuple[Artifact, ...]:
        """Every artifact that is these bytes, oldest first; () for none."""
        return self.models([digest])[digest]

    def models(self, digests: Iterable[str]) -> dict[str, tuple[Artifact, ...]]:
        """The same of several, by digest."""
        wanted = set(digests)
        new = wanted - self._models.keys()
        found: dict[str, list[Any]] = {digest: [] for digest in new}
        for each in self._with(MODELS, "digest", new) if new - {""} else ():
            found[_text(each, "digest")].append(each)
        self._models |= {digest: tuple(map(values.artifact, same)) for digest, same in found.items()}
        return {digest: self._models[digest] for digest in wanted}

    def digests(self, beginning: str) -> list[str]:
        """The digests of models that begin so."""
        found = self._filtered("artifacts", "digest", f"LIKE '{beginning}%'" * beginning.isalnum())
        held = self._of_types(MODELS) if found is None else found
        return sorted({digest for each in held if (digest := _text(each, "digest")).startswith(beginning)})

    def pushed_as(self, version: str) -> list[str]:
        """The digests of the models that were pushed as a version, in the order of the pushes."""
        pushed = self._with(MODELS, "pushed_version", {version})
        return list(dict.fromkeys(digest for each in pushed if (digest := _text(each, "digest"))))

    def pushed_to(self, directory: str) -> tuple[Artifact, ...]:
        """The model that was pushed as a version's directory: every artifact that is these bytes."""
        pushed = self._with(MODELS, "pushed_destination", {directory.rstrip("/")})
        return self.model(_text(pushed[-1], "digest")) if pushed else ()

    def judged_on(self, uris: Collection[str]) -> tuple[Artifact, ...]:
        """The evaluations that went back to examples of earlier runs, which lie at these uris."""
        return tuple(values.artifact(each) for each in self._with(("ModelEvaluation",), "previous_examples", uris))

    def begun_from(self, digests: Collection[str]) -> set[int]:
        """The trainings that began from some models by their digests alone."""
        wanted = {each for each in digests if each}
        found = self._filtered("executions", "initial_model", _among(wanted))
        if found is None:
            found = self._trainings() if wanted else []
        return {each.id for each in found if _text(each, "initial_model") in wanted}

    def runs_now(self, run: Any, pipeline: str, uri: str = "") -> bool:
        """Whether a process holds the lock of the run's pipeline that began before the run did.

        uri: of any artifact of the pipeline, which lies beside its lock; without one it is searched for.
        """
        began = self._holder_began(pipeline, uri)
        return began is not None and began <= run.create_time_since_epoch

    @functools.cache  # noqa: B019
    def _of_type(self, kind: str) -> list[Any]:
        return sorted(self._store.get_artifacts_by_type(kind), key=lambda each: each.id)

    @functools.cache  # noqa: B019
    def _trainings(self) -> list[Any]:
        trainers = [t.name for t in self._store.get_execution_types() if t.name.endswith(".RankingTrainer")]
        return [each for name in trainers for each in self._store.get_executions_by_type(name)]

    def _of_types(self, kinds: Sequence[str]) -> list[Any]:
        return sorted((each for kind in kinds for each in self._of_type(kind)), key=lambda each: each.id)

    def _with(self, kinds: Sequence[str], name: str, wanted: Collection[str]) -> list[Any]:
        """The artifacts of some types that have one of some values as a property, oldest first."""
        found = self._filtered("artifacts", name, _among(wanted))
        held = self._of_types(kinds) if found is None else sorted(found, key=lambda each: each.id)
        return [each for each in held if each.type in kinds and _text(each, name) in wanted]

    def _filtered(self, of: str, name: str, condition: str) -> list[Any] | None:
        """Artifacts or executions by a text property; None without a condition, or where no filter is taken."""
        options = metadata_store.ListOptions(filter_query=f"custom_properties.{name}.string_value {condition}")
        if not (self._filters and condition):
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # which ML Metadata 1.21 gives before it refuses
                return list(getattr(self._store, f"get_{of}")(options))
        except errors.UnimplementedError:
            self._filters = False
            return None

    @functools.cached_property
    def _places(self) -> Places:
        return Places(self._store)

    def _events_of(self, artifacts: Iterable[int]) -> Iterator[Any]:
        for some in _batches(artifacts):
            yield from self._store.get_events_by_artifact_ids(some)

    def _links(self, executions: Iterable[int]) -> dict[int, tuple[list[Link], list[Link]]]:
        links: dict[int, tuple[list[Link], list[Link]]] = {each: ([], []) for each in executions}
        for some in _batches(links):
            for event in self._store.get_events_by_execution_ids(some):
                links[event.execution_id][event.type not in _INPUTS].append(Link(_name(event), event.artifact_id))
        return links

    def _execution(self, proto: Any, at: Place, properties: Any, links: tuple[list[Link], list[Link]]) -> Execution:
        state = self._state(proto, at.pipeline)
        # One that was taken for dead, and ended well all the same, has it still.
        reason = _text(proto, "reason") if state in ("failed", "dead") else ""
        began, ended = values.time(proto.create_time_since_epoch), values.time(proto.last_update_time_since_epoch)
        reason = reason or (DIED if state == "dead" else "")
        node = at.node or type_name(proto)
        inputs, outputs = map(tuple, links)
        return Execution(proto.id, node, at.pipeline, at.run, state, reason, began, ended, properties, inputs, outputs)

    def _state(self, execution: Any, pipeline: str) -> str:
        state = STATES.get(execution.last_known_state, "running")
        if state == "running" and (alive := heartbeat.beats(execution)) is not None:
            return "running" if alive else "dead"
        if state == "running":
            began = self._holder_began(pipeline)
            # Whoever takes the lock first ends what died before: what began earlier has no process.
            return "running" if began is None or began <= execution.create_time_since_epoch else "dead"
        return "dead" if state == "failed" and _text(execution, "reason") == DIED else state

    def _holder_began(self, pipeline: str, uri: str = "") -> float | None:
        """When the process that runs a pipeline began (ms), infinity when none runs; None where nothing is known of it:
        the pipeline does not run on this machine, or not by `tfx-ranking run`."""
        if pipeline not in self._holders:
            lock = self._lock(pipeline, uri)
            self._holders[pipeline] = None if lock is None else _holder_began(lock)
        return self._holders[pipeline]

    def _lock(self, pipeline: str, uri: str) -> pathlib.Path | None:
        near = [uri] if uri else self._recent_uri(pipeline)
        folders = [folder for each in near for folder in pathlib.Path(each).parents]
        folders += [self._folder / "artifacts" / pipeline] if self._folder else []
        return next((folder / LOCK for folder in folders if os.access(folder / LOCK, os.R_OK)), None)

    def _recent_uri(self, pipeline: str) -> list[str]:
        context = self._store.get_context_by_type_and_name("pipeline", pipeline) if pipeline else None
        newest = metadata_store.ListOptions(limit=1, order_by=metadata_store.OrderByField.ID, is_asc=False)
        return [each.uri for each in self._store.get_artifacts_by_context(context.id, newest)] if context else []


def _holder_began(lock: pathlib.Path) -> float:
    with lock.open() as file:
        try:
            # Given back at once; a run that wants it in this very moment tries again.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return lock.stat().st_mtime * 1000
    return float("inf")


class _Asked:
    """A store whose failures name it."""

    def __init__(self, store: Any, name: str) -> None:
        self._store = store
        self._name = name

    def __getattr__(self, question: str) -> Callable[..., Any]:
        def ask(*asked: Any) -> Any:
            try:
                return getattr(self._store, question)(*asked)
            except errors.UnimplementedError:
                raise
            except errors.NotFoundError:
                return []  # so says ML Metadata of an execution without contexts, as a push by hand may be
            except errors.StatusError as error:
                raise RankingError(f"{self._name}: ML Metadata could not answer {question}: {error}") from error

        return ask


def _text(proto: Any, name: str) -> str:
    return str(proto.custom_properties[name].string_value) if name in proto.custom_properties else ""


def _name(event: Any) -> str:
    return next((step.key for step in event.path.steps if step.key), "")


def _among(texts: Collection[str]) -> str:
    """A filter's condition; "" where there is nothing to ask for, too much, or what cannot stand in quotes."""
    takes = 0 < len(texts) <= _NAMED and all(re.fullmatch(r"[\w./:=@ -]+", each) for each in texts)
    return f"IN ({', '.join(map(repr, sorted(texts)))})" if takes else ""


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]
