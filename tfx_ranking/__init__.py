"""Learning to rank on TFX: from query logs to a SavedModel that TensorFlow Serving runs on raw protos.

What is listed here is public and keeps its meaning between releases; everything else is private and may change.
Importing this package loads neither TFX nor TensorFlow: a name is loaded when you first use it.

>>> from tfx_ranking import load_config, RankingTrainer  # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

from tfx_ranking import _moved

if TYPE_CHECKING:
    from tfx_ranking import lineage
    from tfx_ranking.components.choices.formats import FORMATS
    from tfx_ranking.components.choices.losses import LOSSES
    from tfx_ranking.components.choices.metrics import METRICS
    from tfx_ranking.components.choices.scorers import SCORERS
    from tfx_ranking.components.choices.signatures import SIGNATURES
    from tfx_ranking.components.choices.transform_steps import TRANSFORM_STEPS
    from tfx_ranking.components.config import RankingConfig
    from tfx_ranking.components.config import load as load_config
    from tfx_ranking.components.data_check import RankingDataCheck
    from tfx_ranking.components.errors import ConfigError, DataError, PushError, RankingError
    from tfx_ranking.components.evaluator import RankingEvaluator
    from tfx_ranking.components.example_gen import RankingExampleGen
    from tfx_ranking.components.live_model import LiveModel
    from tfx_ranking.components.pusher import RankingPusher
    from tfx_ranking.components.schema_gen import RankingSchemaGen
    from tfx_ranking.components.signature_exporter import SignatureExporter
    from tfx_ranking.components.trainer import RankingTrainer
    from tfx_ranking.pipelines.data_check_pipeline import data_check_pipeline
    from tfx_ranking.pipelines.ranking_pipeline import ranking_pipeline

_PUBLIC = {  # name: where it is defined, as `module:name`
    # The config.
    "load_config": "tfx_ranking.components.config:load",
    "RankingConfig": "tfx_ranking.components.config:RankingConfig",
    # The components, in the order of the pipeline.
    "RankingExampleGen": "tfx_ranking.components.example_gen:RankingExampleGen",
    "RankingSchemaGen": "tfx_ranking.components.schema_gen:RankingSchemaGen",
    "RankingDataCheck": "tfx_ranking.components.data_check:RankingDataCheck",
    "RankingTrainer": "tfx_ranking.components.trainer:RankingTrainer",
    "SignatureExporter": "tfx_ranking.components.signature_exporter:SignatureExporter",
    "LiveModel": "tfx_ranking.components.live_model:LiveModel",
    "RankingEvaluator": "tfx_ranking.components.evaluator:RankingEvaluator",
    "RankingPusher": "tfx_ranking.components.pusher:RankingPusher",
    # The pipelines.
    "ranking_pipeline": "tfx_ranking.pipelines.ranking_pipeline:ranking_pipeline",
    "data_check_pipeline": "tfx_ranking.pipelines.data_check_pipeline:data_check_pipeline",
    # The tables that `ranking.yaml` chooses from.
    "FORMATS": "tfx_ranking.components.choices.formats:FORMATS",
    "LOSSES": "tfx_ranking.components.choices.losses:LOSSES",
    "METRICS": "tfx_ranking.components.choices.metrics:METRICS",
    "SCORERS": "tfx_ranking.components.choices.scorers:SCORERS",
    "TRANSFORM_STEPS": "tfx_ranking.components.choices.transform_steps:TRANSFORM_STEPS",
    "SIGNATURES": "tfx_ranking.components.choices.signatures:SIGNATURES",
    # What is raised.
    "RankingError": "tfx_ranking.components.errors:RankingError",
    "ConfigError": "tfx_ranking.components.errors:ConfigError",
    "DataError": "tfx_ranking.components.errors:DataError",
    "PushError": "tfx_ranking.components.errors:PushError",
}

__all__ = [
    "load_config",
    "RankingConfig",
    "RankingExampleGen",
    "RankingSchemaGen",
    "RankingDataCheck",
    "RankingTrainer",
    "SignatureExporter",
    "LiveModel",
    "RankingEvaluator",
    "RankingPusher",
    "ranking_pipeline",
    "data_check_pipeline",
    "FORMATS",
    "LOSSES",
    "METRICS",
    "SCORERS",
    "TRANSFORM_STEPS",
    "SIGNATURES",
    "RankingError",
    "ConfigError",
    "DataError",
    "PushError",
    "lineage",
]

_moved.install()


def __getattr__(name: str) -> Any:
    if name == "lineage":
        return importlib.import_module("tfx_ranking.lineage")
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value  # the next use finds it at once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
