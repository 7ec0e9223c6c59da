"""The external state that a run depends on: the input's files, what the destination serves, the user's own code.

Input: a config.  Output: parameters of the components.

A component whose external state is among its parameters runs again when that state changes, and lineage has a record
of it.  A pipeline that runs on this machine reads the state when it is built (`current_state`).  A compiled pipeline
reads it when each of its containers starts (`deferred_state`, `refresh_parameters`), by the same functions.
"""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from ml_metadata import metadata_store
from tfx.orchestration.data_types import RuntimeParameter

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import example_gen, preprocessing, trainer
from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.components.ingestion import sources
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.components.training import weights
from tfx_ranking.pipelines.metadata import push_records
from tfx_ranking.pipelines.metadata.connection import config_connection

Parameters = dict[str, Any]
DEFAULT_PREPROCESSING_FN = f"{preprocessing.__name__}.preprocessing_fn"  # when the config names none


@dataclasses.dataclass(frozen=True)
class ExternalState:
    """Each component's parameters beside the config's sections; {} for a component that has none."""

    examples: Parameters
    schema: str  # the digest of `data.schema`; "" without one
    trainer: Parameters
    live: Parameters
    push: Parameters


def current_state(config: RankingConfig, root: pathlib.Path, source: Mapping[str, Any] | None = None) -> ExternalState:
    """The state as this machine sees it now.

    source: the files to read, in the form of `sources.resolve`; by default the files that `config.data` names now.
    """
    base = config.push.base if config.push else None
    files = source or sources.resolve(config.data, ServingBase(base).live_spans if base else None)
    return ExternalState(
        examples={"config": config.select(*example_gen.READS), "source": json.dumps(files, ensure_ascii=False)},
        schema=_schema_digest(config.data.schema) if config.data.schema else "",
        trainer={"initial_model": _initial_model(config)},
        live={"destination": ServingBase(base).state()} if base else {},
        push={"destination": _destination(base, _store(config, root))} if base else {},
    )


def deferred_state(config: RankingConfig) -> ExternalState:
    """The state's placeholders in a compiled pipeline; `refresh_parameters` fills them in when a container starts.

    `span` ("" for the newest) and `learning_rate` are parameters of each run.
    """
    base = config.push.base if config.push else None
    span = "" if config.data.span is None else str(config.data.span)
    rate = config.training.learning_rate
    return ExternalState(
        # With push.base: the container finds the live model there, for a window that begins after the model's.
        examples={
            "config": config.select(*example_gen.READS, "push.base"),
            "span": RuntimeParameter(name="span", ptype=str, default=span),
        },
        schema="",
        trainer={"learning_rate": RuntimeParameter(name="learning_rate", ptype=float, default=rate)},
        live={"destination": {"base": base}} if base else {},
        push={"destination": {"base": base}} if base else {},
    )


def refresh_parameters(
    component: str, parameters: Mapping[str, Any], store: metadata_store.MetadataStore
) -> Parameters:
    """A compiled component's parameters with the external state as it is now, as in a run that is built now."""
    read = _READ.get(component)
    return {**parameters, **read(parameters, store)} if read else dict(parameters)


def _files(parameters: Mapping[str, Any], store: Any) -> Parameters:
    config = ranking_config.from_selection(parameters["config"])
    return {
        "config": config.select(*example_gen.READS),
        "source": example_gen.resolve(
            config.data, config.push.base if config.push else None, parameters.get("span", "")
        ),
    }


def _schema(parameters: Mapping[str, Any], store: Any) -> Parameters:
    return {"digest": _schema_digest(parameters["schema_file"])}


def _transform(parameters: Mapping[str, Any], store: Any) -> Parameters:
    function = parameters["preprocessing_fn"]
    custom_config = json.loads(parameters["custom_config"])
    code = "" if function == DEFAULT_PREPROCESSING_FN else own_code.digest("transform.preprocessing_fn", function)
    return {"custom_config": json.dumps({**custom_config, "code": code}, sort_keys=True)}


def _training(parameters: Mapping[str, Any], store: Any) -> Parameters:
    selected = trainer.with_learning_rate(parameters["config"], parameters.get("learning_rate"))
    config = ranking_config.from_selection(selected)
    return {
        "config": selected,
        "initial_model": _initial_model(config),
        "code_digest": own_code.digest("model.scorer", config.model.own_scorer),
    }


def _export(parameters: Mapping[str, Any], store: Any) -> Parameters:
    config = ranking_config.from_selection(parameters["config"])
    return {"code_digest": own_code.digest("serving.postprocessing", config.serving.postprocessing)}


def _live(parameters: Mapping[str, Any], store: Any) -> Parameters:
    return {"destination": ServingBase(_base(parameters)).state()}


def _pushed_to(parameters: Mapping[str, Any], store: Any) -> Parameters:
    return {"destination": _destination(_base(parameters), store)}


_READ: dict[str, Callable[[Mapping[str, Any], Any], Parameters]] = {
    "RankingExampleGen": _files,
    "ImportSchemaGen": _schema,
    "Transform": _transform,
    "RankingTrainer": _training,
    "SignatureExporter": _export,
    "LiveModel": _live,
    "RankingPusher": _pushed_to,
}


def _initial_model(config: RankingConfig) -> str:
    start = config.training.initialize_from
    return digest(weights.model_directory(start)) if start else ""


def _base(parameters: Mapping[str, Any]) -> str:
    destination = parameters["destination"]
    # Kubeflow has no parameter that is a mapping: TFX makes JSON of one.
    return str((json.loads(destination) if isinstance(destination, str) else destination)["base"])


def _destination(base: str, store: metadata_store.MetadataStore | None) -> Parameters:
    """RankingPusher's `destination`.

    A pushed version may be deleted, so the current time (`asked`) keeps the cache from answering.  `highest` comes from
    ML Metadata, since an emptied destination has no record of its highest version.
    """
    now = datetime.datetime.now(datetime.timezone.utc).isoformat()
    highest = push_records.highest_version(store, base) if store else None
    return {**ServingBase(base).state(), "asked": now, "highest": str(highest or "")}


def _store(config: RankingConfig, root: pathlib.Path) -> metadata_store.MetadataStore | None:
    """The store; None when it does not exist yet or cannot be reached from this machine."""
    connection = config_connection(config, root)
    if connection.HasField("sqlite") and not pathlib.Path(connection.sqlite.filename_uri).exists():
        return None
    try:
        return metadata_store.MetadataStore(connection)
    except RuntimeError:
        return None


def _schema_digest(schema: str) -> str:
    try:
        return sources.digest(schema)
    except OSError as error:
        raise ConfigError(f"data.schema: {schema} cannot be read ({error.strerror}); name a schema.pbtxt.") from error
