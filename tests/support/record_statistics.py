"""Computes the statistics that StatisticsGen computes, from records in memory."""

from collections.abc import Sequence
from typing import Any

from tensorflow_data_validation.statistics import stats_impl, stats_options
from tfx_bsl.coders import example_coder


def statistics_of(records: Sequence[bytes]) -> Any:
    """The DatasetFeatureStatisticsList of serialized Examples."""
    batch = example_coder.ExamplesToRecordBatchDecoder().DecodeBatch(list(records))
    return stats_impl.generate_statistics_in_memory(batch, stats_options.StatsOptions())
