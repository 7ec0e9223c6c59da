"""Reads the files of artifacts: feature statistics, anomalies, vocabularies.

Input: artifacts, or their uris.  Output: immutable values; None if the files are gone or out of reach, which is not an
error, since the store outlives them.  Imports neither TensorFlow nor TFX.
"""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from tfx_ranking.components import storage
from tfx_ranking.components.exported.model_files import FORMAT_SERVING, is_loadable
from tfx_ranking.pipelines.lineage.values import Artifact


class Histogram(NamedTuple):
    """A distribution of numbers in buckets; a bucket of a single number has equal ends."""

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    counts: tuple[float, ...]

    def below(self, points: np.ndarray) -> np.ndarray:
        """The share of the numbers that are at most each point, interpolated within a bucket.

        Returns float [point]; 0 without numbers.

        >>> Histogram((0.0, 2.0), (2.0, 2.0), (3.0, 1.0)).below(np.array([1.0, 1.9, 2.0]))
        array([0.375 , 0.7125, 1.    ])
        """
        lows, highs, counts = (np.array(each)[:, None] for each in self)
        width = np.where(highs > lows, highs - lows, 1)
        within = np.where(highs > lows, np.clip((points - lows) / width, 0, 1), points >= lows)
        return np.asarray((within * counts).sum(0) / max(counts.sum(), 1e-300))


class FeatureStatistics(NamedTuple):
    """The statistics of one feature in one split."""

    name: str
    lists: int  # of the split
    values: int
    empty: float  # share of the lists without a value
    mean: float | None  # of numbers; None for texts
    zeros: float  # share of the numbers
    histogram: Histogram | None  # of numbers
    shares: Mapping[str, float]  # of texts, as far as the statistics list them; {} for numbers


def feature_statistics(uri: str, split: str = "train") -> dict[str, FeatureStatistics] | None:
    """The statistics of an ExampleStatistics artifact, by feature; None if its file is gone."""
    file = storage.existing_path(f"{uri}/Split-{split}/FeatureStats.pb")
    if file is None:
        return None
    datasets = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes()).datasets
    return {each.name: each for dataset in datasets for each in map(_statistics_of(dataset), dataset.features)}


def distance(one: FeatureStatistics, other: FeatureStatistics) -> tuple[float, str]:
    """The distance of two distributions of a feature, 0 to 1, and for texts the value whose share changed the most.

    For numbers it is the largest difference between the shares at most x (Kolmogorov-Smirnov, as exact as the buckets
    are) or between the shares of zeros; for texts the largest difference between a value's shares (as TFDV's skew
    comparator has it).
    """
    largest, value = abs(one.empty - other.empty), ""
    if one.histogram and other.histogram:
        ends = (one.histogram.lows, one.histogram.highs, other.histogram.lows, other.histogram.highs)
        edges = np.unique(np.concatenate(ends))
        points = np.concatenate([edges, np.nextafter(edges, -np.inf)])
        difference = float(np.abs(one.histogram.below(points) - other.histogram.below(points)).max(initial=0))
        largest = max(largest, difference, abs(one.zeros - other.zeros))
    elif one.histogram or other.histogram:
        return 1.0, ""
    else:
        differences = {
            each: abs(one.shares.get(each, 0) - other.shares.get(each, 0)) for each in {**one.shares, **other.shares}
        }
        value = max(differences, key=lambda each: differences[each], default="")
        largest = max(largest, differences.get(value, 0))
    return largest, value


def vocabularies(uri: str) -> dict[str, tuple[bytes, ...]] | None:
    """The vocabularies of a TransformGraph artifact, by feature, in index order; None if its files are gone."""
    if storage.existing_path(f"{uri}/transform_fn") is None:
        return None
    assets = storage.existing_path(f"{uri}/transform_fn/assets")
    files = storage.children(assets) if assets else []
    return {file.name: tuple(file.read_bytes().splitlines()) for file in files if file.is_file()}


def anomalies(uri: str) -> tuple[str, ...]:
    """The anomalies of an ExampleAnomalies artifact, each once for all splits; () if there are none or it is gone."""
    texts: set[str] = set()
    folder = storage.existing_path(uri)
    for file in sorted(folder.glob("Split-*/SchemaDiff.pb")) if folder else []:
        proto = anomalies_pb2.Anomalies.FromString(file.read_bytes())
        texts |= {f"{name}: {each.short_description or each.description}" for name, each in proto.anomaly_info.items()}
    return tuple(sorted(texts))


def model_folder(same: Sequence[Artifact]) -> pathlib.Path | None:
    """A folder that still holds a model's files; None if all are gone.  same: all artifacts of the model."""
    for each in same:
        for path in (each.properties.get("pushed_destination"), f"{each.uri}/{FORMAT_SERVING}"):
            folder = storage.existing_path(str(path)) if path else None
            if folder and is_loadable(folder):
                return folder
    return None


def _statistics_of(dataset: Any) -> Callable[[Any], FeatureStatistics]:
    lists = int(dataset.num_examples)

    def statistics(proto: Any) -> FeatureStatistics:
        numeric = proto.WhichOneof("stats") == "num_stats"
        stats = proto.num_stats if numeric else proto.string_stats
        common = stats.common_stats
        values = int(common.tot_num_values)
        counts = {} if numeric else {each.label: each.sample_count for each in stats.rank_histogram.buckets}
        return FeatureStatistics(
            name=".".join(proto.path.step) or proto.name,
            lists=lists,
            values=values,
            empty=1 - common.num_non_missing / lists if lists else 0.0,
            mean=float(stats.mean) if numeric else None,
            zeros=stats.num_zeros / values if numeric and values else 0.0,
            histogram=_histogram(stats) if numeric else None,
            shares={label: count / values for label, count in counts.items()} if values else {},
        )

    return statistics


def _histogram(stats: Any) -> Histogram:
    quantiles = [each for each in stats.histograms if each.type == statistics_pb2.Histogram.QUANTILES]
    buckets = (quantiles or list(stats.histograms) or [statistics_pb2.Histogram()])[0].buckets
    return Histogram(
        tuple(each.low_value for each in buckets),
        tuple(each.high_value for each in buckets),
        tuple(each.sample_count for each in buckets),
    )
