"""The report on a model: its columns, and the thresholds of its verdict."""

import math

import pytest

from tfx_ranking.components.config.evaluation_section import Bless, Evaluation
from tfx_ranking.components.evaluation import report
from tfx_ranking.components.evaluation.report import judge


def test_the_columns_follow_the_config():
    evaluation = Evaluation(
        metrics=("ndcg@5", "mrr", "map@5"), slices=("country", "page"), bless=Bless(metric="ndcg@10")
    )
    assert list(report.columns(evaluation, ["model", "baseline"])) == [
        *("group_id", "items", "slice.country", "slice.page"),
        *("model.finite", "model.ndcg@5", "model.mrr", "model.map@5", "model.ndcg@10"),
        *("baseline.finite", "baseline.ndcg@5", "baseline.mrr", "baseline.map@5", "baseline.ndcg@10"),
    ]


@pytest.mark.parametrize(
    ("value", "baseline", "bless", "blessed"),
    [
        (0.75, 0.70, Bless(min_improvement=0.05), True),  # 0.75 - 0.70 is 0.050000000000000044
        (0.3, 0.1, Bless(min_improvement=0.2), True),  # 0.3 - 0.1 is 0.19999999999999998
        (0.7499, 0.70, Bless(min_improvement=0.05), False),
        (0.7, 0.7, Bless(), True),
        (0.7 - 1e-6, 0.7, Bless(), False),
        (0.69, 0.7, Bless(min_improvement=-0.01), True),
        (0.8, None, Bless(min_improvement=0.5), True),  # nothing to improve on
        (0.8, None, Bless(min_value=0.8), True),
        (0.79, None, Bless(min_value=0.8), False),
        (0.79, 0.5, Bless(min_value=0.8), False),  # better, and still not good enough
        (None, 0.5, Bless(), False),
        (0.5, None, Bless(min_value=math.inf), False),
    ],
)
def test_thresholds(value, baseline, bless, blessed):
    verdict = judge(value, baseline, bless)
    assert verdict.blessed is blessed
    assert verdict.summary.endswith(": blessed" if blessed else ": not blessed")
    assert verdict.reason
