"""How an ML Metadata store is found and opened.

Enters: what the user named, or the current folder.  Leaves: a connection, or a store open for reading.
"""

import json
import pathlib
from typing import Any

from google.protobuf import json_format
from ml_metadata.metadata_store import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.pipelines.runs import filled


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
        raise RankingError(f"{said_by}: not ML Metadata's ConnectionConfig in JSON: {error}") from error


def _sqlite(file: pathlib.Path) -> Any:
    if not file.is_file():
        raise RankingError(f"{file}: no such ML Metadata store; a pipeline's first run makes it.")
    connection = mlmd.ConnectionConfig()
    connection.sqlite.filename_uri = str(file)
    connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READONLY
    return connection


def opened(connection: Any) -> Any:
    try:
        return metadata_store.MetadataStore(connection)
    except RuntimeError:
        file = "" if isinstance(connection, mlmd.MetadataStoreClientConfig) else connection.sqlite.filename_uri
        if not file or not pathlib.Path(f"{file}-journal").is_file():
            raise
        # A writer was killed in the middle of a transaction; SQLite undoes it, for which it must write.
        connection.sqlite.connection_mode = mlmd.SqliteMetadataSourceConfig.READWRITE
        return metadata_store.MetadataStore(connection)
