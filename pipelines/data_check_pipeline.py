"""The pipeline's first steps over new files alone, which check whether they may be trained on.

Input: a config, the new files, and the live model's statistics and schema.  Output: a TFX `Pipeline`.  It has the
ranking pipeline's name, so that its runs are recorded beside the others and use the same lock.  The lists are not
split: all of them are checked.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfx.components.statistics_gen.component import StatisticsGen
from tfx.orchestration import pipeline

from tfx_ranking.components import data_check, example_gen
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.data_section import Splits
from tfx_ranking.components.ingestion.sources import ALL
from tfx_ranking.pipelines.metadata.connection import artifacts_root, config_connection


def data_check_pipeline(
    config: RankingConfig,
    root: pathlib.Path,
    source: Mapping[str, Any],
    live: Mapping[str, str],
    beam_args: Sequence[str] = (),
) -> pipeline.Pipeline:
    """The pipeline that checks new files.

    source: the new files, in the form of `sources.resolve`.  live: the live model's `statistics` and `schema` by uri.
    """
    # Without the window that the files are part of, so that the cache still answers when the window has moved on.
    alone = dataclasses.replace(config.data, splits=Splits(validation=0.0, test=0.0), window=None, span=None)
    config = dataclasses.replace(config, data=alone)
    files = {ALL: [entry for entries in source["files"].values() for entry in entries]}
    new = {"files": files, "span": source["span"], "version": None}
    new |= {"spans": source["spans"]} if "spans" in source else {}
    examples = example_gen.RankingExampleGen(
        config=config.select(*example_gen.READS), source=json.dumps(new, ensure_ascii=False)
    )
    statistics = StatisticsGen(examples=examples.outputs["examples"])
    check = data_check.RankingDataCheck(
        statistics=statistics.outputs["statistics"],
        config=config.select(*data_check.READS),
        live=json.dumps(live, ensure_ascii=False),
    )
    return pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=str(artifacts_root(config, root)),
        components=[examples, statistics, check],
        enable_cache=True,
        metadata_connection_config=config_connection(config, root),
        beam_pipeline_args=list(beam_args),
    )
