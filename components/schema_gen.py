"""RankingSchemaGen: writes the schema of the list examples, from the config and the train split's statistics.

Input: StatisticsGen's statistics of the train split, and the config.  Output: a `Schema` for TFX's ExampleValidator
and Transform.  The config defines the columns; the statistics add the values of small vocabularies, and show when the
item features of a list differ in length.
"""

import os
from collections.abc import Sequence
from typing import List

import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleStatistics, Schema
from tfx.utils import io_utils

from tfx_ranking.components import config as config_file
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, columns

READS = (
    *("data.group_id", "data.item_id", "data.label", "data.label_range", "data.weight", "data.position"),
    *(
        f"{level}.*.{key}"
        for level in ("context", "items")
        for key in ("dtype", "shape", "tokens.present", "vocabulary.present")
    ),
)
EVALUATED = ["validation", "test", "eval"]  # splits that the schema must not learn from
MAX_DOMAIN = 100  # values; as in TFDV, a larger vocabulary is not a domain


@component
def RankingSchemaGen(
    statistics: InputArtifact[ExampleStatistics],
    schema: OutputArtifact[Schema],
    config: Parameter[str],
    exclude_splits: Parameter[List[str]] = None,  # a component's default cannot be a list
):
    """Writes the schema of the splits that are not excluded; the channels have the names of stock SchemaGen's.

    exclude_splits: `EVALUATED` if you leave it out.
    """
    figures = _read_statistics(statistics, EVALUATED if exclude_splits is None else exclude_splits)
    written = ranking_schema(figures, config_file.from_selection(config))
    io_utils.write_pbtxt_file(os.path.join(schema.uri, "schema.pbtxt"), written)
    schema.set_string_custom_property("summary", _summary(written))


def _read_statistics(
    statistics: ExampleStatistics, excluded: List[str]
) -> list[statistics_pb2.DatasetFeatureStatisticsList]:
    """The statistics of each split that is not excluded.  Raises DataError where no split is left."""
    splits = sorted({*artifact_utils.decode_split_names(statistics.split_names)} - {*excluded})
    if not splits:
        raise DataError(
            f"{statistics.uri}: no split is left: the statistics have {statistics.split_names}, and {excluded} are "
            "excluded."
        )
    return [stats_artifact_utils.load_statistics(statistics, split).proto() for split in splits]


def _summary(schema: schema_pb2.Schema) -> str:
    domains = len(schema.string_domain)
    return f"{len(schema.feature)} columns, {domains} value domain{'s' * (domains != 1)}"


def ranking_schema(
    statistics: Sequence[statistics_pb2.DatasetFeatureStatisticsList], config: RankingConfig
) -> schema_pb2.Schema:
    """The schema of list examples.

    Every list must have every column.  A context scalar has shape [], a context vector [width]; everything else is
    ragged [list, (value)], and an item feature has at least one value.

    A declared vocabulary of at most `MAX_DOMAIN` values is a domain, with "" for a missing value.  New values are
    allowed: if the statistics have ten occurrences of each value on average, at least half of the data must have known
    values; otherwise all values may be new.

    The environment SERVING has no label, weight, position, group id and item id.  A column that is not in the config is
    in the schema, but ExampleValidator and Transform ignore it.

    Raises DataError when the item features of a list differ in length.
    """
    table = columns(config)
    for each in statistics:
        _check_lengths(each, table)
    inferred = tfdv.infer_schema(statistics[0], infer_feature_shape=False, max_string_domain_size=MAX_DOMAIN)
    for each in statistics[1:]:
        inferred = tfdv.update_schema(inferred, each, infer_feature_shape=False, max_string_domain_size=MAX_DOMAIN)
    schema = schema_pb2.Schema(default_environment=["TRAINING", "SERVING"], represent_variable_length_as_ragged=True)
    for name, column in table.items():
        feature = schema.feature.add(name=name, type=_TYPES[column.dtype])
        feature.presence.min_fraction, feature.presence.min_count = 1.0, 1
        _set_shape(feature, column)
        if column.dtype == "float":
            feature.float_domain.disallow_inf = True
        declared = config.features.get(name)
        if declared is not None and declared.dtype == "string" and declared.vocabulary is not None:
            _set_domain(schema, feature, inferred, statistics)
        if declared is None:
            feature.not_in_environment.append("SERVING")
        if name == config.data.label and config.data.label_range is not None:
            feature.float_domain.min, feature.float_domain.max = config.data.label_range
        if column.tokens and column.level == "items":
            lengths = schema.feature.add(name=name + ROW_LENGTHS, type=schema_pb2.INT)
            lengths.presence.min_fraction, lengths.presence.min_count = 1.0, 1
            lengths.value_count.min = 1
            lengths.int_domain.min = 0
    known = {feature.name for feature in schema.feature}
    for feature in inferred.feature:
        if feature.name not in known:
            other = schema.feature.add(name=feature.name, type=feature.type)
            other.lifecycle_stage = schema_pb2.DEBUG_ONLY
    return schema


_TYPES = {"float": schema_pb2.FLOAT, "int": schema_pb2.INT, "string": schema_pb2.BYTES}


def _set_shape(feature: schema_pb2.Feature, column: Column) -> None:
    if column.tokens:
        feature.value_count.min = 0
    elif column.level == "items":
        feature.value_count.min = column.width
    else:
        feature.shape.SetInParent()
        if column.width > 1:
            feature.shape.dim.add(size=column.width)


def _set_domain(
    schema: schema_pb2.Schema,
    feature: schema_pb2.Feature,
    inferred: schema_pb2.Schema,
    statistics: Sequence[statistics_pb2.DatasetFeatureStatisticsList],
) -> None:
    known = next((each for each in inferred.feature if each.name == feature.name), None)
    if known is None or (not known.domain and not known.HasField("string_domain")):
        return
    domain = next((each for each in inferred.string_domain if each.name == known.domain), known.string_domain)
    values = sorted({*domain.value, ""})
    schema.string_domain.add(name=feature.name, value=values)
    feature.domain = feature.name
    seen = sum(_counts(each)[feature.name].tot_num_values for each in statistics)
    feature.distribution_constraints.min_domain_mass = 0.5 if seen >= 10 * len(domain.value) else 0.0


def _counts(statistics: statistics_pb2.DatasetFeatureStatisticsList) -> dict[str, statistics_pb2.CommonStatistics]:
    counts = {}
    for figures in statistics.datasets[0].features:
        kind = figures.WhichOneof("stats")
        counts[figures.path.step[0] if figures.path.step else figures.name] = getattr(figures, kind).common_stats
    return counts


def _check_lengths(statistics: statistics_pb2.DatasetFeatureStatisticsList, table: dict[str, Column]) -> None:
    """Raises DataError where item features differ in their smallest, largest or total number of values.

    Statistics do not have the length of each list, but these three numbers show most errors.
    """
    counts = _counts(statistics)
    first: tuple[str, list[float]] | None = None
    for name, column in table.items():
        key = name + ROW_LENGTHS if column.tokens else name
        if column.level != "items" or key not in counts:
            continue
        common = counts[key]
        lengths = [n / column.width for n in (common.min_num_values, common.max_num_values, common.tot_num_values)]
        first = first or (key, lengths)
        if lengths != first[1]:
            raise DataError(
                f"item features {first[0]!r} and {key!r} differ in length: in the shortest list, the longest list and "
                f"all lists together they have {first[1]} and {lengths} values. Each item needs one value."
            )
