"""An ML Metadata store as lineage reads it: found, opened for reading, asked in batches, never written to.

Enters: what the user named, or the current folder.  Leaves: a `Store` that gives ML Metadata's protos.  The one idea:
every question costs a call a generation and not a call a node; no filter and no subgraph query, which TFX 1.21's
ML Metadata no longer has.
"""

import datetime
import fcntl
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.runs import DIED, LOCK, STATES

MODELS = ("Model", "PushedModel")  # the types of artifacts that carry a digest
_BATCH = 5000  # ids a call; MySQL and gRPC limit what one statement or message may hold


def connect(metadata: str | None = None, folder: pathlib.Path = pathlib.Path()) -> "Store":
    """Opens the store that `metadata` names (a sqlite file, or a ConnectionConfig in JSON); without it the one of
    ranking.yaml in `folder`, else metadata.sqlite there.  Raises RankingError when there is none."""
    if metadata is not None and metadata.lstrip().startswith("{"):
        return Store(_parsed(metadata))
    if metadata is not None:
        return Store(_sqlite(pathlib.Path(metadata)))
    file = folder / "ranking.yaml"
    if file.is_file():
        from tfx_ranking.components import config as ranking_config

        said = ranking_config.load(file).metadata
        if said.connection is not None:
            return Store(_parsed(json.dumps(said.connection)))
        return Store(_sqlite(pathlib.Path(said.sqlite or folder / "metadata.sqlite")))
    if (folder / "metadata.sqlite").is_file():
        return Store(_sqlite(folder / "metadata.sqlite"))
    raise RankingError(
        "no ML Metadata store: expected --metadata FILE (or a ConnectionConfig in JSON), ranking.yaml in the current "
        f"folder, or ./metadata.sqlite; {folder.absolute()} has neither file."
    )


def _parsed(connection: str) -> Any:
    try:
        return json_format.Parse(connection, mlmd.ConnectionConfig())
    except json_format.ParseError as error:
        raise RankingError(f"--metadata: not ML Metadata's ConnectionConfig in JSON: {error}") from error


def _sqlite(file: pathlib.Path) -> Any:
    if not file.is_file():
        raise RankingError(f"{file}: no such ML Metadata store; a pipeline's first run makes it.")
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(file)
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
    return connection


class Store:
    """Reads a store; what it has read of models, runs and locks it keeps."""

    def __init__(self, connection: Any) -> None:
        """connection: ML Metadata's ConnectionConfig."""
        self.name = connection.sqlite.filename_uri or connection.WhichOneof("config") or "the store"
        self._folder = pathlib.Path(connection.sqlite.filename_uri).parent if connection.HasField("sqlite") else None
        try:
            self._store = metadata_store.MetadataStore(connection)
        except RuntimeError as error:
            raise RankingError(f"{self.name}: not an ML Metadata store, or it cannot be reached: {error}") from error

    def contexts(self, kind: str) -> list[Any]:
        """All contexts of a type: pipeline, pipeline_run, node."""
        return list(self._store.get_contexts_by_type(kind))

    def executions_of(self, context: Any) -> list[Any]:
        """A context's executions, oldest first."""
        return sorted(self._store.get_executions_by_context(context.id), key=lambda each: each.id)

    def executions(self, ids: Iterable[int]) -> list[Any]:
        """Executions by id."""
        return [each for some in _batches(ids) for each in self._store.get_executions_by_id(some)]

    def artifacts(self, ids: Iterable[int]) -> list[Any]:
        """Artifacts by id; one that is not there is left out."""
        return [each for some in _batches(ids) for each in self._store.get_artifacts_by_id(some)]

    @functools.cache  # noqa: B019
    def models(self) -> dict[str, list[Any]]:
        """The artifacts of each model by its digest, oldest first."""
        found: dict[str, list[Any]] = {}
        for each in sorted((a for kind in MODELS for a in self._store.get_artifacts_by_type(kind)), key=lambda a: a.id):
            if "digest" in each.custom_properties and each.custom_properties["digest"].string_value:
                found.setdefault(each.custom_properties["digest"].string_value, []).append(each)
        return found

    def pushed_as(self, version: str) -> list[str]:
        """The digests of the models that were pushed as a version."""
        return [
            bytes_of
            for bytes_of, same in self.models().items()
            if any("pushed_version" in a.custom_properties and _text(a, "pushed_version") == version for a in same)
        ]

    def artifacts_of_uri(self, uri: str) -> list[Any]:
        """The artifacts that lie at a uri."""
        return list(self._store.get_artifacts_by_uri(uri))

    def events_of_artifacts(self, ids: Iterable[int]) -> list[Any]:
        """Which executions took or gave these artifacts."""
        return [each for some in _batches(ids) for each in self._store.get_events_by_artifact_ids(some)]

    def events_of_executions(self, ids: Iterable[int]) -> list[Any]:
        """What these executions took and gave."""
        return [each for some in _batches(ids) for each in self._store.get_events_by_execution_ids(some)]

    def place(self, execution: Any) -> tuple[str, str, str]:
        """The pipeline, run and node of an execution; where a step is known to no node, its type's name."""
        pipeline = run = ""
        node = str(execution.type).rsplit(".", 1)[-1]
        for context in self._store.get_contexts_by_execution(execution.id):
            if context.type == "pipeline":
                pipeline = context.name
            elif context.type == "pipeline_run":
                run = context.name
            elif context.type == "node":
                node = context.name.split(".", 1)[1]
        return pipeline, run, node

    def pipeline_of(self, execution_id: int) -> str:
        """The pipeline of an execution; "" where it is of none."""
        contexts = self._store.get_contexts_by_execution(execution_id)
        return next((context.name for context in contexts if context.type == "pipeline"), "")

    def state(self, execution: Any) -> str:
        """running, done, cached, failed; dead where the process that ran it is gone."""
        state = STATES.get(execution.last_known_state, "running")
        if state == "failed" and "reason" in execution.custom_properties:
            return "dead" if execution.custom_properties["reason"].string_value == DIED else state
        if state == "running":
            began = self._holder_began(self.pipeline_of(execution.id))
            # Whoever takes the lock first ends what died before: what began earlier has no process.
            return "running" if began is None or began <= execution.create_time_since_epoch else "dead"
        return state

    def begun_here(self, pipeline: str, milliseconds: int) -> bool:
        """Whether a run that began then is the one that holds its pipeline's lock now."""
        began = self._holder_began(pipeline)
        return began is not None and began <= milliseconds

    @staticmethod
    def now() -> datetime.datetime:
        """The time."""
        return datetime.datetime.now(datetime.timezone.utc)

    @functools.cache  # noqa: B019
    def _holder_began(self, pipeline: str) -> float | None:
        """When the process that runs a pipeline began (ms), infinity when none runs; None where nothing is known of it:
        the pipeline does not run on this machine, or not by `tfx-ranking run`."""
        lock = self._lock(pipeline)
        if lock is None:
            return None
        with lock.open() as file:
            try:
                # Given back at once; a run that wants it in this very moment tries again.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return lock.stat().st_mtime * 1000
        return float("inf")

    def _lock(self, pipeline: str) -> pathlib.Path | None:
        context = self._store.get_context_by_type_and_name("pipeline", pipeline) if pipeline else None
        newest = metadata_store.ListOptions(limit=1, order_by=metadata_store.OrderByField.ID, is_asc=False)
        recent = self._store.get_artifacts_by_context(context.id, newest) if context else []
        folders = [folder for artifact in recent for folder in pathlib.Path(artifact.uri).parents]
        folders += [self._folder / "artifacts" / pipeline] if self._folder else []
        return next((folder / LOCK for folder in folders if (folder / LOCK).is_file()), None)


def _text(artifact: Any, name: str) -> str:
    return str(artifact.custom_properties[name].string_value)


def _batches(ids: Iterable[int]) -> Iterator[list[int]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _BATCH):
        yield ordered[start : start + _BATCH]
