"""Small ML Metadata stores as TFX writes them: types, contexts, executions and events, without TFX."""

import contextlib
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import grpc
from ml_metadata.metadata_store import metadata_store
from ml_metadata.metadata_store.pywrap.metadata_store_extension import metadata_store as metadata_store_serialized
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.exported.model_files import LINEAGE_IN_MODEL

COMPLETE, CACHED, FAILED, RUNNING = (
    getattr(mlmd.Execution, name) for name in ("COMPLETE", "CACHED", "FAILED", "RUNNING")
)


class StoreMaker:
    """Writes a pipeline's runs into `root`/metadata.sqlite; artifacts have the paths that the pipeline gives them."""

    def __init__(self, root: pathlib.Path, pipeline: str = "shop") -> None:
        """Makes an empty store, or opens the existing one."""
        self.pipeline = pipeline
        root.mkdir(parents=True, exist_ok=True)
        self.file = root / "metadata.sqlite"
        self.folder = root / "artifacts" / pipeline
        self.connection = connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = str(self.file)
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
        self.store = metadata_store.MetadataStore(connection)
        self.contexts: dict[tuple[str, str], Any] = {}

    def artifact(self, kind: str, place: str, **properties: Any) -> Any:
        """A new artifact of a type, below the pipeline's folder; `step` writes it to the store."""
        made = mlmd.ArtifactType(name=kind)
        if kind == "Examples":
            made.properties["span"] = mlmd.INT
        artifact = mlmd.Artifact(type_id=self.store.put_artifact_type(made), uri=str(self.folder / place), type=kind)
        artifact.state = mlmd.Artifact.LIVE
        for name, value in properties.items():
            of_type = kind == "Examples" and name == "span"
            _set((artifact.properties if of_type else artifact.custom_properties)[name], value)
        return artifact

    def step(
        self,
        run: str,
        node: str,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        state: int = COMPLETE,
        called: str = "",
        **properties: Any,
    ) -> int:
        """Writes one execution and returns its id.  The artifacts of `outputs` have an id afterwards.

        called: the node's name, if it is not named after its component.
        """
        made = mlmd.ExecutionType(name=f"tfx_ranking.components.{node}")
        execution = mlmd.Execution(type_id=self.store.put_execution_type(made), last_known_state=state)
        for name, value in properties.items():
            _set(execution.custom_properties[name], value)
        events = [
            (artifact, mlmd.Event(type=kind, path=_path(name)))
            for kind, side in ((mlmd.Event.INPUT, inputs), (mlmd.Event.OUTPUT, outputs))
            for name, artifact in side.items()
        ]
        wanted = [("pipeline", self.pipeline), ("pipeline_run", run), ("node", f"{self.pipeline}.{called or node}")]
        contexts = [self.contexts.get(each) or self._context(*each) for each in wanted]
        execution_id, artifact_ids, context_ids = self.store.put_execution(execution, events, contexts)
        for (artifact, _), artifact_id in zip(events, artifact_ids):
            artifact.id = artifact_id
        for each, context, context_id in zip(wanted, contexts, context_ids):
            context.id = context_id
            self.contexts[each] = context
        return int(execution_id)

    def _context(self, kind: str, name: str) -> Any:
        return mlmd.Context(type_id=self.store.put_context_type(mlmd.ContextType(name=kind)), name=name)


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, store: metadata_store.MetadataStore) -> None:
        self.store = store

    def service(self, handler_call_details: Any) -> Any:
        method = getattr(metadata_store_serialized, handler_call_details.method.rpartition("/")[2])

        def answer(request: bytes, context: Any) -> bytes:
            answered, message, code = method(self.store._metadata_store, request)
            if code:
                status = next(each for each in grpc.StatusCode if each.value[0] == code)
                context.abort(status, message.decode())
            return bytes(answered)

        return grpc.unary_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def grpc_server(store: metadata_store.MetadataStore) -> Iterator[int]:
    """Serves a store by ML Metadata's gRPC service, in place of its server binary; yields the port."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((_Methods(store),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def saved_model(folder: pathlib.Path, content: str, **receipt: Any) -> pathlib.Path:
    """Writes files with the names of a SavedModel, and a receipt beside them; returns the folder."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index")
    if receipt:
        file = folder / LINEAGE_IN_MODEL
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(receipt))
    return folder


def _path(name: str) -> Any:
    return mlmd.Event.Path(steps=[mlmd.Event.Path.Step(key=name), mlmd.Event.Path.Step(index=0)])


def _set(value: Any, plain: str | int | float | Sequence[str]) -> None:
    kind = {str: "string_value", int: "int_value", float: "double_value"}[type(plain)]
    setattr(value, kind, plain)
