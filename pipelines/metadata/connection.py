"""How an ML Metadata store is found and opened.

Enters: what the user named, or the current folder.  Leaves: a connection, or a store open for reading.
"""

import json
import pathlib
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import ConfigError, RankingError, UsageError
from tfx_ranking.pipelines.metadata.run_records import filled
from tfx_ranking.pipelines.quiet import held_back

_NEEDED = {  # where one of these is absent ML Metadata ends the process
    "mysql": ("host or socket", "database"),
    "postgresql": ("host or hostaddr", "port", "dbname", "user"),
}


def connection(metadata: str | None = None, folder: pathlib.Path = pathlib.Path()) -> Any:
    """How the store is reached that `metadata` names (a sqlite file, or a ConnectionConfig in JSON); without it the one
    of ranking.yaml in `folder`, else metadata.sqlite there.  Raises RankingError when there is none."""
    if metadata is not None and metadata.lstrip().startswith("{"):
        return _parsed(metadata, "--metadata")
    if metadata is not None:
        return _sqlite(pathlib.Path(metadata))
    file = folder / "ranking.yaml"
    if file.is_file():
        from tfx_ranking.components import config as ranking_config

        said = ranking_config.load(file).metadata
        if said.connection is not None:
            return _parsed(json.dumps(said.connection), f"{file}: metadata.connection")
        return _sqlite(pathlib.Path(said.sqlite or folder / "metadata.sqlite"))
    if (folder / "metadata.sqlite").is_file():
        return _sqlite(folder / "metadata.sqlite")
    raise RankingError(
        "no ML Metadata store: expected --metadata FILE (or a ConnectionConfig in JSON), ranking.yaml in the current "
        f"folder, or ./metadata.sqlite; {folder.absolute()} has neither file."
    )


def _parsed(connection: str, said_by: str) -> Any:
    """A ConnectionConfig; `{"host": …, "port": …}` is ML Metadata's gRPC server."""
    try:
        said = filled(json.loads(connection))
        if "host" not in said:
            return json_format.ParseDict(said, mlmd.ConnectionConfig())
        server = mlmd.MetadataStoreClientConfig()
        server.channel_arguments.max_receive_message_length = 1 << 30  # gRPC stops at 4 MB, a batch may be more
        return json_format.ParseDict(said, server)
    except ConfigError:
        raise
    except (ValueError, json_format.ParseError) as error:
        refused = UsageError if said_by.startswith("--") else RankingError
        raise refused(f"{said_by}: not ML Metadata's ConnectionConfig in JSON: {error}") from error


def _sqlite(file: pathlib.Path) -> Any:
    if not file.is_file():
        raise RankingError(f"{file}: no such ML Metadata store; a pipeline's first run makes it.")
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(file)
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
    return connection


def name(connection: Any) -> str:
    """A store as messages call it: its file, or its server."""
    if isinstance(connection, mlmd.MetadataStoreClientConfig):
        return f"{connection.host}:{connection.port}"
    if database := _database(connection):
        kind, server = database
        return f"{kind} at {server.host or 'localhost'}:{server.port or 3306}"
    return connection.sqlite.filename_uri or str(connection.WhichOneof("config"))


def _database(connection: Any) -> tuple[str, Any] | None:
    """Kind and settings of a database's server; None for anything else."""
    fields = {field.name: held for field, held in connection.ListFields()}
    return next(((kind, fields[kind]) for kind in _NEEDED if kind in fields), None)


def opened(connection: Any) -> Any:
    """The store.  Raises RankingError where there is none, or it cannot be reached."""
    database = _database(connection)
    if database:
        kind, server = database
        wrong = [each for each in _NEEDED[kind] if sum(bool(getattr(server, key)) for key in each.split(" or ")) != 1]
        if wrong:
            raise RankingError(f"{name(connection)}: the connection has to say {', '.join(wrong)}.")
    try:
        with held_back(of_a_failure=True):  # ML Metadata logs, and its log says less than it seems to
            return _opened(connection)
    except RuntimeError as error:
        why = str(error).strip().removesuffix(": errno: , error:")
        if database:
            raise RankingError(
                f"{name(connection)}: cannot be reached ({why}). Check that the server runs there and is reached from "
                "this machine, and that user, password and database are right."
            ) from error
        raise RankingError(f"{name(connection)}: not an ML Metadata store, or it cannot be reached: {why}") from error


def _opened(connection: Any) -> Any:
    try:
        return metadata_store.MetadataStore(connection)
    except RuntimeError:
        file = "" if isinstance(connection, mlmd.MetadataStoreClientConfig) else connection.sqlite.filename_uri
        if not file or not pathlib.Path(f"{file}-journal").is_file():
            raise
        # A writer was killed in the middle of a transaction; SQLite undoes it, for which it must write.
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE
        return metadata_store.MetadataStore(connection)
