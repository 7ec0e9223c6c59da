"""What artifacts say where they lie: feature statistics, anomalies, vocabularies.

Enters: artifacts, or their uris.  Leaves: immutable values; None where the files are gone or out of reach, which is no
error: the store outlives them.  Imports neither TensorFlow nor TFX.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from tfx_ranking.components import places
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.exported.model_files import is_loadable
from tfx_ranking.pipelines.lineage.values import Artifact


class Histogram(NamedTuple):
    """How numbers are spread; a bucket of one number has the same ends."""

    lows: tuple[float, ...]
    highs: tuple[float, ...]
    counts: tuple[float, ...]

    def below(self, points: np.ndarray) -> np.ndarray:
        """Which share of the numbers is at most each point, even within a bucket; float [point], 0 without numbers.

        >>> Histogram((0.0, 2.0), (2.0, 2.0), (3.0, 1.0)).below(np.array([1.0, 1.9, 2.0]))
        array([0.375 , 0.7125, 1.    ])
        """
        lows, highs, counts = (np.array(each)[:, None] for each in self)
        width = np.where(highs > lows, highs - lows, 1)
        within = np.where(highs > lows, np.clip((points - lows) / width, 0, 1), points >= lows)
        return np.asarray((within * counts).sum(0) / max(counts.sum(), 1e-300))


class Feature(NamedTuple):
    """What one split's statistics say of a feature."""

    name: str
    lists: int  # of the split
    values: int
    empty: float  # share of the lists that have no value of it
    mean: float | None  # of numbers; None for texts
    zeros: float  # share of the numbers
    spread: Histogram | None
    shares: Mapping[str, float]  # of texts, as far as the statistics list them; {} for numbers


def feature_statistics(uri: str, split: str = "train") -> dict[str, Feature] | None:
    """By feature, of an ExampleStatistics artifact; None where its file is gone."""
    file = places.found(f"{uri}/Split-{split}/FeatureStats.pb")
    if file is None:
        return None
    read = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
    return {each.name: each for dataset in read.datasets for each in map(_feature(dataset), dataset.features)}


def distance(one: Feature, other: Feature) -> tuple[float, str]:
    """How far two spreads of a feature lie apart, 0 to 1, and for texts the value that moved the most.

    Of numbers it is the largest difference of the shares at most x (Kolmogorov-Smirnov, as fine as the buckets are) or
    of the zeros, of texts the largest difference of a value's shares (the distance of TFDV's skew comparator).
    """
    apart, value = abs(one.empty - other.empty), ""
    if one.spread and other.spread:
        edges = np.unique([*one.spread.lows, *one.spread.highs, *other.spread.lows, *other.spread.highs])
        points = np.concatenate([edges, np.nextafter(edges, -np.inf)])
        between = float(np.abs(one.spread.below(points) - other.spread.below(points)).max(initial=0))
        apart = max(apart, between, abs(one.zeros - other.zeros))
    elif one.spread or other.spread:
        return 1.0, ""
    else:
        between_shares = {
            each: abs(one.shares.get(each, 0) - other.shares.get(each, 0)) for each in {**one.shares, **other.shares}
        }
        value = max(between_shares, key=lambda each: between_shares[each], default="")
        apart = max(apart, between_shares.get(value, 0))
    return apart, value


def vocabularies(uri: str) -> dict[str, tuple[bytes, ...]] | None:
    """By feature, of a TransformGraph artifact, in the order of their indices; None where its files are gone."""
    if places.found(f"{uri}/transform_fn") is None:
        return None
    assets = places.found(f"{uri}/transform_fn/assets")
    files = places.children(assets) if assets else []
    return {file.name: tuple(file.read_bytes().splitlines()) for file in files if file.is_file()}


def anomalies(uri: str) -> tuple[str, ...]:
    """What an ExampleAnomalies artifact complains of, once for all splits; () for nothing, or where it is gone."""
    found: dict[str, None] = {}
    folder = places.found(uri)
    for file in sorted(folder.glob("Split-*/SchemaDiff.pb")) if folder else []:
        read = anomalies_pb2.Anomalies.FromString(file.read_bytes())
        found |= {
            f"{name}: {each.short_description or each.description}": None for name, each in read.anomaly_info.items()
        }
    return tuple(sorted(found))


def model_folder(same: Sequence[Artifact]) -> pathlib.Path | None:
    """Where a model's bytes still are, of the artifacts that are these bytes; None where they are gone."""
    for each in same:
        for place in (each.properties.get("pushed_destination"), f"{each.uri}/{model_files.FORMAT_SERVING}"):
            folder = places.found(str(place)) if place else None
            if folder and is_loadable(folder):
                return folder
    return None


def _feature(dataset: Any) -> Any:
    lists = int(dataset.num_examples)

    def feature(proto: Any) -> Feature:
        name = ".".join(proto.path.step) or proto.name
        numbers = proto.WhichOneof("stats") == "num_stats"
        stats = proto.num_stats if numbers else proto.string_stats
        common = stats.common_stats
        values = int(common.tot_num_values)
        empty = 1 - common.num_non_missing / lists if lists else 0.0
        if numbers:
            by_quantile = [each for each in stats.histograms if each.type == statistics_pb2.Histogram.QUANTILES]
            buckets = (by_quantile or list(stats.histograms) or [statistics_pb2.Histogram()])[0].buckets
            spread = Histogram(
                tuple(each.low_value for each in buckets),
                tuple(each.high_value for each in buckets),
                tuple(each.sample_count for each in buckets),
            )
            zeros = stats.num_zeros / values if values else 0.0
            return Feature(name, lists, values, empty, float(stats.mean), zeros, spread, {})
        counted = {each.label: each.sample_count for each in stats.rank_histogram.buckets}
        shares = {label: count / values for label, count in counted.items()} if values else {}
        return Feature(name, lists, values, empty, None, 0.0, None, shares)

    return feature
