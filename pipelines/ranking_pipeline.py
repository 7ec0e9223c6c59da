"""The ranking pipeline: the whole DAG on one screen, as an ordinary TFX `Pipeline`.

Input: a ranking config and a folder for the artifacts.  Output: a pipeline for any TFX runner.

Each component gets only the parts of the config that it reads, and the external state that it depends on: the digests
of the input files and of the user's own functions, the version that the destination serves.  So TFX's cache answers
exactly when nothing has changed.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

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
    trainer,
)
from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.live_model import LiveModel
from tfx_ranking.pipelines.external_state import DEFAULT_PREPROCESSING_FN, ExternalState, current_state
from tfx_ranking.pipelines.metadata.connection import artifacts_root, config_connection


def ranking_pipeline(
    config: RankingConfig,
    root: pathlib.Path,
    beam_args: Sequence[str] = (),
    source: Mapping[str, Any] | None = None,
) -> pipeline.Pipeline:
    """The pipeline from logs to a pushed ranker, with its artifacts under `root`.

    source: the files to read, in the form of `sources.resolve`; by default the files that `config.data` names now.
    """
    return pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(artifacts_root(config, root)),
        components=ranking_components(config, current_state(config, root, source)),
        enable_cache=True,
        metadata_connection_config=config_connection(config, root),
        beam_pipeline_args=list(beam_args),
    )


def ranking_components(config: RankingConfig, state: ExternalState) -> list[Any]:
    """The components, connected.  state: their parameters beside the config."""
    examples = example_gen.RankingExampleGen(**state.examples)
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    schema: Any
    if config.data.schema:
        schema = ImportSchemaGen(schema_file=config.data.schema)
        schema.exec_properties["digest"] = state.schema  # the component sees only the path, not an edit of the file
    else:
        schema = schema_gen.RankingSchemaGen(
            statistics=statistics.outputs["statistics"], config=config.select(*schema_gen.READS)
        )
    anomalies = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=config.transform.preprocessing_fn or DEFAULT_PREPROCESSING_FN,
        custom_config={
            "config": json.loads(config.select(*preprocessing.READS)),  # a mapping: Transform makes JSON of all of it
            "code": own_code.digest("transform.preprocessing_fn", config.transform.preprocessing_fn),
        },
        disable_statistics=True,
    )
    live = LiveModel(**state.live) if state.live else None
    ranker = trainer.RankingTrainer(
        transformed_examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        anomalies=anomalies.outputs["anomalies"],
        base_model=live.outputs["model"] if live and config.training.warm_start else None,
        config=config.select(*trainer.READS),
        code_digest=own_code.digest("model.scorer", config.model.own_scorer),
        **state.trainer,
    )
    exported = signature_exporter.SignatureExporter(
        trained_model=ranker.outputs["model"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        examples=examples.outputs["examples"],
        transformed_examples=transform.outputs["transformed_examples"],
        config=config.select(*signature_exporter.READS),
        code_digest=own_code.digest("serving.postprocessing", config.serving.postprocessing),
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
    if state.push:
        steps.append(
            pusher.RankingPusher(
                model=exported.outputs["model"],
                model_blessing=evaluation.outputs["blessing"],
                config=config.select(*pusher.READS),
                **state.push,
            )
        )
    return steps
