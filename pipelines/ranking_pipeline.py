"""The ranking pipeline: the whole DAG on one screen, an ordinary TFX `Pipeline`.

Enters: a ranking config and where artifacts go.  Leaves: a pipeline that any TFX runner takes.  The one idea: each
step gets only the parts of the config that it reads, and the state of the world that it depends on (the input's
fingerprint, the digest of the user's own functions, what the destination serves), so TFX's cache is right by itself.
"""

import datetime
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ml_metadata import metadata_store
from tfx.components.example_validator.component import ExampleValidator
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.transform.component import Transform
from tfx.orchestration import pipeline

from tfx_ranking.components import (
    evaluator,
    example_gen,
    preprocessing,
    pusher,
    schema_gen,
    signature_exporter,
    sources,
    trainer,
    weights,
)
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.live_model import LiveModel
from tfx_ranking.components.serving_versions import digest, state
from tfx_ranking.pipelines import push_records
from tfx_ranking.pipelines.runs import artifacts_root, metadata_connection


def ranking_pipeline(
    config: RankingConfig,
    root: pathlib.Path,
    beam_args: Sequence[str] = (),
    source: Mapping[str, Any] | None = None,
) -> pipeline.Pipeline:
    """Logs to a pushed ranker: the components that `config` asks for, artifacts under `root`.

    source: the files to read, as `sources.resolve` describes them; what `config.data` names now when left out.
    """
    found = source or sources.resolve(config.data, config.push.base if config.push else None)
    examples = example_gen.RankingExampleGen(
        config=config.select(*example_gen.READS), source=json.dumps(found, ensure_ascii=False)
    )
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    schema: Any
    if config.data.schema:
        schema = ImportSchemaGen(schema_file=config.data.schema)
        schema.exec_properties["digest"] = _digest(config.data.schema)  # it reads the path alone: edits would go unseen
    else:
        schema = schema_gen.RankingSchemaGen(
            statistics=statistics.outputs["statistics"], config=config.select(*schema_gen.READS)
        )
    anomalies = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=config.transform.preprocessing_fn or f"{preprocessing.__name__}.preprocessing_fn",
        custom_config={
            "config": json.loads(config.select(*preprocessing.READS)),  # unpacked: Transform makes JSON of it all
            "code": _code(config.transform.preprocessing_fn),
        },
        disable_statistics=True,
    )
    live = LiveModel(destination=state(config.push.base)) if config.push else None
    start = config.training.initialize_from
    ranker = trainer.RankingTrainer(
        transformed_examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        anomalies=anomalies.outputs["anomalies"],
        base_model=live.outputs["model"] if live and config.training.warm_start else None,
        config=config.select(*trainer.READS),
        code_digest=_code(config.model.scorer if "." in config.model.scorer else None),
        initial_model=digest(weights.model_directory(start)) if start else "",
    )
    exported = signature_exporter.SignatureExporter(
        trained_model=ranker.outputs["model"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        examples=examples.outputs["examples"],
        transformed_examples=transform.outputs["transformed_examples"],
        config=config.select(*signature_exporter.READS),
        code_digest=_code(config.serving.postprocessing),
    )
    steps = [examples, statistics, schema, anomalies, transform, ranker, exported]
    if live:
        steps.append(live)
    evaluation = evaluator.RankingEvaluator(
        examples=examples.outputs["examples"],
        model=exported.outputs["model"],
        baseline_model=live.outputs["model"] if live else None,
        config=config.select(*evaluator.READS),
    )
    steps.append(evaluation)
    if config.push:
        asked = datetime.datetime.now(datetime.timezone.utc).isoformat()  # what was pushed may be gone: never cached
        steps.append(
            pusher.RankingPusher(
                model=exported.outputs["model"],
                model_blessing=evaluation.outputs["blessing"],
                config=config.select(*pusher.READS),
                destination={**state(config.push.base), "asked": asked, "highest": _highest(config, root)},
            )
        )
    return pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(artifacts_root(config, root)),
        components=steps,
        enable_cache=True,
        metadata_connection_config=metadata_connection(config, root),
        beam_pipeline_args=list(beam_args),
    )


def _highest(config: RankingConfig, root: pathlib.Path) -> str:
    """The highest version that ML Metadata knows of; a destination that was emptied knows none itself."""
    connection = metadata_connection(config, root)
    if config.push is None or (
        connection.HasField("sqlite") and not pathlib.Path(connection.sqlite.filename_uri).exists()
    ):
        return ""
    try:
        return str(push_records.highest_version(metadata_store.MetadataStore(connection), config.push.base) or "")
    except RuntimeError:  # no store can be reached from where the pipeline is put together
        return ""


def _digest(schema: str) -> str:
    try:
        return sources.digest(schema)
    except OSError as error:
        raise ConfigError(f"data.schema: {schema} cannot be read ({error.strerror}); name a schema.pbtxt.") from error


def _code(dotted: str | None) -> str:
    """What changes when the user edits the function behind a dotted path; empty for what is ours."""
    return preprocessing.function_digest(dotted) if dotted else ""
