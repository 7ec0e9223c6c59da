"""Lineage's questions: what ran, where a model came from, what served when, what some data had a part in.

A question is a function of a store and gives immutable values.  Nothing here loads TensorFlow or TFX.

>>> from tfx_ranking import lineage
>>> store = lineage.connect("metadata.sqlite")  # doctest: +SKIP
>>> [run.state for run in lineage.runs(store, limit=3)]  # doctest: +SKIP
['done', 'done', 'failed']
"""

from tfx_ranking.pipelines.lineage.diff import diff
from tfx_ranking.pipelines.lineage.impact import of_file as impact_of_file
from tfx_ranking.pipelines.lineage.impact import of_run as impact_of_run
from tfx_ranking.pipelines.lineage.impact import of_span as impact_of_span
from tfx_ranking.pipelines.lineage.origin import config_of, downstream, runs, upstream
from tfx_ranking.pipelines.lineage.served import live, models, moment, pushes, served
from tfx_ranking.pipelines.lineage.store import connect

__all__ = [
    "connect",
    "runs",
    "upstream",
    "downstream",
    "config_of",
    "served",
    "moment",
    "live",
    "models",
    "pushes",
    "impact_of_file",
    "impact_of_span",
    "impact_of_run",
    "diff",
]
