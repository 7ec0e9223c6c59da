"""RankingDataCheck: checks whether new data are good to train on, and how they differ from the live model's data.

Input: statistics of the new lists, the live model's statistics and schema, and the config.  Output: an
ExampleAnomalies artifact; its properties hold every distance, the reasons to retrain and the reasons to refuse the
data.  TFDV measures; the thresholds come from the config, so that one comparison answers both questions.
"""

import json
from collections.abc import Mapping
from typing import Any, Dict

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2, statistics_pb2
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import ExampleAnomalies, ExampleStatistics
from tfx.utils import io_utils

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.push_sections import Drift
from tfx_ranking.components.lists.list_examples import columns

READS = ("retrain", "data.label", "data.on_anomaly", "context.*.dtype", "items.*.dtype")
SPLIT = "train"
MEASURES = {"string": "L-infinity distance", "float": "Jensen-Shannon divergence", "int": "Jensen-Shannon divergence"}


@component
def RankingDataCheck(
    statistics: InputArtifact[ExampleStatistics],
    config: Parameter[str],
    live: Parameter[str],
    anomalies: OutputArtifact[ExampleAnomalies],
):
    """Compares new data with the data of the live model's run.

    statistics: of the new lists, in the split train.  live: JSON with `statistics` and `schema`, the uris of the
    artifacts of the run that made the live model.  anomalies: TFDV's in `SchemaDiff.pb`; properties `lists`, `drift`
    (JSON, name to distance), `refused` (why no model may be trained on these data, "" if one may), `moved` (what moved
    beyond its threshold for retraining, JSON list) and `summary`.
    """
    ranking = ranking_config.from_selection(config)
    baseline = json.loads(live)
    new = stats_artifact_utils.load_statistics(statistics, SPLIT).proto()
    old = tfdv.load_stats_binary(f"{baseline['statistics']}/Split-{SPLIT}/FeatureStats.pb")
    schema = io_utils.parse_pbtxt_file(f"{baseline['schema']}/schema.pbtxt", schema_pb2.Schema())
    checked = validate(new, schema, ranking)
    distances = drift(new, old, ranking)
    retrain = ranking.retrain
    bad = [f"{name}: {info.description}" for name, info in sorted(checked.anomaly_info.items())]
    bad = [] if ranking.data.on_anomaly == "warn" else bad
    bad += beyond(distances, retrain.refuse, ranking)
    moved = beyond(distances, retrain.drift, ranking)
    lists = int(new.datasets[0].num_examples)
    fileio.makedirs(f"{anomalies.uri}/Split-{SPLIT}")
    io_utils.write_bytes_file(f"{anomalies.uri}/Split-{SPLIT}/SchemaDiff.pb", checked.SerializeToString())
    anomalies.split_names = json.dumps([SPLIT])
    anomalies.set_int_custom_property("lists", lists)
    anomalies.set_string_custom_property("drift", json.dumps(distances, ensure_ascii=False))
    anomalies.set_string_custom_property("refused", "; ".join(bad))
    anomalies.set_string_custom_property("moved", json.dumps(moved, ensure_ascii=False))
    anomalies.set_string_custom_property("summary", f"refused: {'; '.join(bad)}" if bad else f"{lists:,} lists, good")


def validate(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, schema: schema_pb2.Schema, config: RankingConfig
) -> anomalies_pb2.Anomalies:
    """TFDV's anomalies in the columns that the schema and the config both know: a feature that came or went since is a
    change of the config, not of the data."""
    known = {feature.name for feature in schema.feature} & set(columns(config))
    environment = "TRAINING" if "TRAINING" in schema.default_environment else None
    checked = tfdv.validate_statistics(statistics, schema, environment=environment)
    for name in set(checked.anomaly_info) - known:
        del checked.anomaly_info[name]
    return checked


def drift(
    new: statistics_pb2.DatasetFeatureStatisticsList,
    old: statistics_pb2.DatasetFeatureStatisticsList,
    config: RankingConfig,
) -> dict[str, float]:
    """How far each feature and the label moved, in [0, 1], as TFDV's drift comparators measure it: the L-infinity
    distance of a string's values, the Jensen-Shannon divergence of a number's."""
    schema = schema_pb2.Schema()
    for name, dtype in _dtypes(config).items():
        if name not in _names(new) or name not in _names(old):
            continue  # the config changed, not the data
        comparator = schema.feature.add(name=name, type=_TYPES[dtype]).drift_comparator
        # A threshold of 0: TFDV then reports every distance.
        (comparator.infinity_norm if dtype == "string" else comparator.jensen_shannon_divergence).threshold = 0.0
    measurements = tfdv.validate_statistics(new, schema, previous_statistics=old).drift_skew_info
    measured = {info.path.step[0]: info.drift_measurements[0].value for info in measurements if info.drift_measurements}
    return {feature.name: round(float(measured.get(feature.name, 0.0)), 6) for feature in schema.feature}


def beyond(distances: Mapping[str, float], allowed: Drift | None, config: RankingConfig) -> list[str]:
    """What moved farther than is allowed, one sentence each, the farthest first.

    >>> from tfx_ranking.components.config import parse
    >>> small = parse({"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f1": {}, "f2": {}}})
    >>> beyond({"label": 0.5, "f1": 0.3, "f2": 0.3}, Drift(label=0.1, features={"f2": 0.4, "*": 0.2}), small)
    ['label moved by 0.5 (Jensen-Shannon divergence, threshold 0.1)', 'f1 moved by 0.3 (Jensen-Shannon divergence, \
threshold 0.2)']
    """
    if allowed is None:
        return []
    sentences = []
    for name, distance in sorted(distances.items(), key=lambda each: (-each[1], each[0])):
        threshold = allowed.label if name == config.data.label else allowed.threshold(name)
        if threshold is not None and distance > threshold:
            measure = MEASURES[_dtypes(config)[name]]
            sentences.append(f"{name} moved by {distance:.3g} ({measure}, threshold {threshold:g})")
    return sentences


def _dtypes(config: RankingConfig) -> dict[str, str]:
    return {config.data.label: "float", **{name: feature.dtype for name, feature in config.features.items()}}


def _names(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> set[str]:
    return {each.path.step[0] if each.path.step else each.name for each in statistics.datasets[0].features}


_TYPES: Dict[str, Any] = {"float": schema_pb2.FLOAT, "int": schema_pb2.INT, "string": schema_pb2.BYTES}
