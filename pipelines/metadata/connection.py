"""Finds, fills in and opens an ML Metadata store.

Input: a config, or the `--metadata` option of a command.  Output: a connection, or an open store.
Imports neither TFX nor TensorFlow, so that a command that only reads a store starts in a fraction of a second.
"""

import json
import os
import pathlib
import random
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import ConfigError, RankingError, UsageError
from tfx_ranking.pipelines.quiet import discard_stderr

if TYPE_CHECKING:  # takes a third of a second, which a command that names its store need not wait
    from tfx_ranking.components.config import RankingConfig

VARIABLE = re.compile(r"\$\{(\w+)\}")
_MAKING_TABLES = re.compile("Please retry|violates unique constraint|already exists")
_REQUIRED = {  # ML Metadata ends the process when one of these is absent
    "mysql": ("host or socket", "database"),
    "postgresql": ("host or hostaddr", "port", "dbname", "user"),
}


def artifacts_root(config: "RankingConfig", root: pathlib.Path) -> pathlib.Path:
    """The folder of this pipeline's artifacts."""
    return root / "artifacts" / config.name


def config_connection(config: "RankingConfig", root: pathlib.Path, fill: bool = True) -> Any:
    """The ConnectionConfig that the config names; `metadata.sqlite` in `root` when it names none.

    fill: replaces each `${NAME}` by the environment variable, as `fill_variables` does.
    Raises ConfigError when `metadata.connection` is not a valid ConnectionConfig.
    """
    if config.metadata.connection is not None:
        settings = fill_variables(config.metadata.connection) if fill else config.metadata.connection
        try:
            return json_format.ParseDict(settings, mlmd.ConnectionConfig())
        except json_format.ParseError as error:
            raise ConfigError(f"metadata.connection: not ML Metadata's ConnectionConfig in JSON: {error}") from error
    file = pathlib.Path(config.metadata.sqlite or root / "metadata.sqlite")
    return _sqlite(file, mlmd.SqliteMetadataSourceConfig.READWRITE_OPENCREATE)


def find_connection(metadata: str | None = None, folder: pathlib.Path = pathlib.Path()) -> Any:
    """The connection to an existing store, for reading.

    metadata: a SQLite file, or a ConnectionConfig in JSON (`{"host": ..., "port": ...}` for ML Metadata's gRPC
    server).  When it is None, the store that `ranking.yaml` in `folder` names, else `metadata.sqlite` in `folder`.
    Raises RankingError when there is no store.
    """
    if metadata is not None and metadata.lstrip().startswith("{"):
        return _parse(metadata, "--metadata")
    if metadata is not None:
        return _existing_sqlite(pathlib.Path(metadata))
    file = folder / "ranking.yaml"
    if file.is_file():
        from tfx_ranking.components import config as ranking_config

        section = ranking_config.load(file).metadata
        if section.connection is not None:
            return _parse(json.dumps(section.connection), f"{file}: metadata.connection")
        return _existing_sqlite(pathlib.Path(section.sqlite or folder / "metadata.sqlite"))
    if (folder / "metadata.sqlite").is_file():
        return _existing_sqlite(folder / "metadata.sqlite")
    raise RankingError(
        "no ML Metadata store: expected --metadata FILE (or a ConnectionConfig in JSON), ranking.yaml in the current "
        f"folder, or ./metadata.sqlite; {folder.absolute()} has neither file."
    )


def fill_variables(connection: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces each `${NAME}` in a connection by the environment variable, so that no password need be in a file.

    Raises ConfigError for a variable that is not set.
    """

    def variable(name: re.Match[str]) -> str:
        if name[1] not in os.environ:
            raise ConfigError(f"the connection to ML Metadata names the environment variable {name[1]}: it is not set.")
        return os.environ[name[1]]

    def fill(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: fill(each) for key, each in value.items()}
        return VARIABLE.sub(variable, value) if isinstance(value, str) else value

    return {key: fill(value) for key, value in connection.items()}


def store_name(connection: Any) -> str:
    """The name of a store in messages: its file, or its server."""
    if isinstance(connection, mlmd.MetadataStoreClientConfig):
        return f"{connection.host}:{connection.port}"
    if database := _database(connection):
        kind, server = database
        return f"{kind} at {server.host or 'localhost'}:{server.port or 3306}"
    return connection.sqlite.filename_uri or str(connection.WhichOneof("config"))


def open_to_read(connection: Any) -> metadata_store.MetadataStore:
    """Opens an existing store.  Raises RankingError when there is none, or it cannot be reached."""
    database = _database(connection)
    if database:
        kind, server = database
        missing = [
            each for each in _REQUIRED[kind] if sum(bool(getattr(server, key)) for key in each.split(" or ")) != 1
        ]
        if missing:
            raise RankingError(f"{store_name(connection)}: the connection must name {', '.join(missing)}.")
    try:
        with discard_stderr(also_on_error=True):  # ML Metadata's log adds nothing to the error and confuses
            return _open_recovered(connection)
    except RuntimeError as error:
        cause = str(error).strip().removesuffix(": errno: , error:")
        if database:
            raise RankingError(
                f"{store_name(connection)}: cannot be reached ({cause}). Check that the server runs there and can be "
                "reached from this machine, and that user, password and database are right."
            ) from error
        raise RankingError(
            f"{store_name(connection)}: not an ML Metadata store, or it cannot be reached: {cause}"
        ) from error


def open_or_make(connection: Any) -> metadata_store.MetadataStore:
    """Opens a store; makes its file and its tables when they do not exist.

    When several processes meet an empty database at once, ML Metadata lets one make the tables and fails the others.
    Therefore this tries again, for 20 s at most.  Raises RuntimeError when the store cannot be opened.
    """
    if connection.HasField("sqlite"):
        pathlib.Path(connection.sqlite.filename_uri).parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + 20
    while True:
        try:
            return metadata_store.MetadataStore(connection)
        except RuntimeError as error:
            if not _MAKING_TABLES.search(str(error)) or time.monotonic() > end:
                raise
            time.sleep(random.uniform(0.1, 0.5))


def open_to_write(metadata: str | None, folder: pathlib.Path = pathlib.Path()) -> metadata_store.MetadataStore:
    """Opens the store that `find_connection` finds, for writing.  Raises RankingError when there is none."""
    connection = find_connection(metadata, folder)
    if isinstance(connection, mlmd.ConnectionConfig) and connection.HasField("sqlite"):
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE
    try:
        return metadata_store.MetadataStore(connection)
    except RuntimeError as error:
        raise RankingError(f"the ML Metadata store cannot be written to: {error}") from error


def try_to_write(metadata: str | None) -> tuple[metadata_store.MetadataStore | None, str]:
    """(`open_to_write`'s store, ""), or (None, why there is none).

    Raises RankingError when `metadata` names a store and it does not exist.
    """
    try:
        return open_to_write(metadata), ""
    except RankingError as error:
        if metadata is not None:
            raise
        return None, str(error)


def _parse(connection: str, source: str) -> Any:
    """A ConnectionConfig, or for `{"host": ..., "port": ...}` the client config of ML Metadata's gRPC server."""
    try:
        settings = fill_variables(json.loads(connection))
        if "host" not in settings:
            return json_format.ParseDict(settings, mlmd.ConnectionConfig())
        server = mlmd.MetadataStoreClientConfig()
        server.channel_arguments.max_receive_message_length = 1 << 30  # gRPC's limit of 4 MB is too low for a batch
        return json_format.ParseDict(settings, server)
    except ConfigError:
        raise
    except (ValueError, json_format.ParseError) as error:
        kind = UsageError if source.startswith("--") else RankingError
        raise kind(f"{source}: not ML Metadata's ConnectionConfig in JSON: {error}") from error


def _existing_sqlite(file: pathlib.Path) -> Any:
    if not file.is_file():
        raise RankingError(f"{file}: no such ML Metadata store; a pipeline's first run makes it.")
    return _sqlite(file, mlmd.SqliteMetadataSourceConfig.READONLY)


def _sqlite(file: pathlib.Path, mode: Any) -> Any:
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(file)
    connection.sqlite.connection_mode = mode
    return connection


def _database(connection: Any) -> tuple[str, Any] | None:
    """(kind, settings) of a database server; None for every other store."""
    fields = {field.name: value for field, value in connection.ListFields()}
    return next(((kind, fields[kind]) for kind in _REQUIRED if kind in fields), None)


def _open_recovered(connection: Any) -> metadata_store.MetadataStore:
    try:
        return metadata_store.MetadataStore(connection)
    except RuntimeError:
        file = "" if isinstance(connection, mlmd.MetadataStoreClientConfig) else connection.sqlite.filename_uri
        if not file or not pathlib.Path(f"{file}-journal").is_file():
            raise
        # A writer was killed in the middle of a transaction.  SQLite undoes the transaction, for which it must write.
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE
        return metadata_store.MetadataStore(connection)
