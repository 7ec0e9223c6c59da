"""What a run finds outside of its config: the input's files, what the destination serves, the user's own code.

Enters: a config.  Leaves: the components' parameters that say it.  The one idea: a component whose surroundings are
among its parameters runs again when they change, and lineage can tell what they were.  A pipeline that runs here sees
them when it is put together; a compiled one when each of its containers starts, by the same functions.
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
OURS = f"{preprocessing.__name__}.preprocessing_fn"  # where the config names none


@dataclasses.dataclass(frozen=True)
class World:
    """Parameters beside the config's sections, by component; {} where there is nothing to say."""

    examples: Parameters
    schema: str  # the digest of `data.schema`; ""
    trainer: Parameters
    live: Parameters
    push: Parameters


def here(config: RankingConfig, root: pathlib.Path, source: Mapping[str, Any] | None = None) -> World:
    """As this machine sees it now.

    source: the files to read, as `sources.resolve` describes them; what `config.data` names now when left out.
    """
    base = config.push.base if config.push else None
    found = source or sources.resolve(config.data, ServingBase(base).live_spans if base else None)
    return World(
        examples={"config": config.select(*example_gen.READS), "source": json.dumps(found, ensure_ascii=False)},
        schema=_schema_digest(config.data.schema) if config.data.schema else "",
        trainer={"initial_model": _initial_model(config)},
        live={"destination": ServingBase(base).state()} if base else {},
        push={"destination": _destination(base, _store(config, root))} if base else {},
    )


def elsewhere(config: RankingConfig) -> World:
    """As a compiled pipeline has it: `found` says in each container what `here` says of this machine.

    `span` ("" for the newest) and `learning_rate` are parameters of each of its runs.
    """
    base = config.push.base if config.push else None
    span = "" if config.data.span is None else str(config.data.span)
    rate = config.training.learning_rate
    return World(
        # With the destination: a window since the live model's is looked up in the container.
        examples={
            "config": config.select(*example_gen.READS, "push.base"),
            "span": RuntimeParameter(name="span", ptype=str, default=span),
        },
        schema="",
        trainer={"learning_rate": RuntimeParameter(name="learning_rate", ptype=float, default=rate)},
        live={"destination": {"base": base}} if base else {},
        push={"destination": {"base": base}} if base else {},
    )


def found(component: str, parameters: Mapping[str, Any], store: metadata_store.MetadataStore) -> Parameters:
    """A compiled component's parameters with what is there now: as a run that was put together now would have them."""
    look = _LOOK.get(component)
    return {**parameters, **look(parameters, store)} if look else dict(parameters)


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
    told = json.loads(parameters["custom_config"])
    code = "" if function == OURS else own_code.digest("transform.preprocessing_fn", function)
    return {"custom_config": json.dumps({**told, "code": code}, sort_keys=True)}


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


_LOOK: dict[str, Callable[[Mapping[str, Any], Any], Parameters]] = {
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
    """RankingPusher's: what was pushed may be gone, so the time of asking keeps the cache from answering; a destination
    that was emptied knows no highest version itself."""
    asked = datetime.datetime.now(datetime.timezone.utc).isoformat()
    highest = push_records.highest_version(store, base) if store else None
    return {**ServingBase(base).state(), "asked": asked, "highest": str(highest or "")}


def _store(config: RankingConfig, root: pathlib.Path) -> metadata_store.MetadataStore | None:
    """None where there is none yet, or none can be reached from here."""
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
