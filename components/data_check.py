"""RankingDataCheck: checks whether new data are good to train on, and how they differ from the live model's data.

Input: statistics of the new lists, the live model's statistics and schema, and the config.  Output: an
ExampleAnomalies artifact; its properties have every distance, the reasons to retrain and the reasons to refuse the
data.  TFDV measures the distances; the config has the thresholds of both decisions, so one comparison is enough.
"""

import json
from collections.abc import Mapping
from typing import Any, Dict, NamedTuple

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
    """Compares new data with the data of the run that made the live model.

    statistics: of the new lists, in the split train.  live: JSON with `statistics` and `schema`, the URIs of these
    artifacts of the live model's run.  anomalies: TFDV's anomalies in `SchemaDiff.pb`; properties `lists`, `drift`
    (JSON: column → distance), `refused` (why you must not train on these data; "" if you may), `moved` (JSON list:
    what moved farther than its threshold for retraining) and `summary`.
    """
    baseline = json.loads(live)
    result = compare(
        stats_artifact_utils.load_statistics(statistics, SPLIT).proto(),
        tfdv.load_stats_binary(f"{baseline['statistics']}/Split-{SPLIT}/FeatureStats.pb"),
        io_utils.parse_pbtxt_file(f"{baseline['schema']}/schema.pbtxt", schema_pb2.Schema()),
        ranking_config.from_selection(config),
    )
    fileio.makedirs(f"{anomalies.uri}/Split-{SPLIT}")
    io_utils.write_bytes_file(f"{anomalies.uri}/Split-{SPLIT}/SchemaDiff.pb", result.anomalies.SerializeToString())
    anomalies.split_names = json.dumps([SPLIT])
    anomalies.set_int_custom_property("lists", result.lists)
    anomalies.set_string_custom_property("drift", json.dumps(result.drift, ensure_ascii=False))
    anomalies.set_string_custom_property("refused", "; ".join(result.refused))
    anomalies.set_string_custom_property("moved", json.dumps(result.moved, ensure_ascii=False))
    anomalies.set_string_custom_property("summary", result.summary)


class Comparison(NamedTuple):
    """New data, compared with the live model's data."""

    anomalies: anomalies_pb2.Anomalies
    lists: int
    drift: dict[str, float]  # column → distance in [0, 1]
    refused: list[str]  # reasons not to train on the new data
    moved: list[str]  # reasons to retrain

    @property
    def summary(self) -> str:
        return f"refused: {'; '.join(self.refused)}" if self.refused else f"{self.lists:,} lists, good"


def compare(
    new: statistics_pb2.DatasetFeatureStatisticsList,
    live: statistics_pb2.DatasetFeatureStatisticsList,
    schema: schema_pb2.Schema,
    config: RankingConfig,
) -> Comparison:
    """Compares the statistics of new data with the statistics and the schema of the live model's data."""
    anomalies = validate(new, schema, config)
    distances = drift(new, live, config)
    refused = [f"{name}: {info.description}" for name, info in sorted(anomalies.anomaly_info.items())]
    if config.data.on_anomaly == "warn":
        refused = []
    return Comparison(
        anomalies=anomalies,
        lists=int(new.datasets[0].num_examples),
        drift=distances,
        refused=refused + beyond(distances, config.retrain.refuse, config),
        moved=beyond(distances, config.retrain.drift, config),
    )


def validate(
    statistics: statistics_pb2.DatasetFeatureStatisticsList, schema: schema_pb2.Schema, config: RankingConfig
) -> anomalies_pb2.Anomalies:
    """TFDV's anomalies in the columns that both the schema and the config have.

    A feature that only one of them has shows a change of the config, not of the data.
    """
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
    """How far each feature and the label moved: column → distance in [0, 1], measured by TFDV's drift comparators.

    Strings: the L-infinity distance.  Numbers: the Jensen-Shannon divergence.
    """
    schema = schema_pb2.Schema()
    for name, dtype in _dtypes(config).items():
        if name not in _names(new) or name not in _names(old):
            continue  # only one of the configs has the column
        comparator = schema.feature.add(name=name, type=_TYPES[dtype]).drift_comparator
        # With a threshold of 0, TFDV reports every distance.
        (comparator.infinity_norm if dtype == "string" else comparator.jensen_shannon_divergence).threshold = 0.0
    measurements = tfdv.validate_statistics(new, schema, previous_statistics=old).drift_skew_info
    measured = {info.path.step[0]: info.drift_measurements[0].value for info in measurements if info.drift_measurements}
    return {feature.name: round(float(measured.get(feature.name, 0.0)), 6) for feature in schema.feature}


def beyond(distances: Mapping[str, float], allowed: Drift | None, config: RankingConfig) -> list[str]:
    """One sentence for each column that moved farther than allowed, the farthest first.

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
