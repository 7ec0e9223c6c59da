"""Names of metrics, the text beside a number, and the refused names; `test_measures` has the values."""

import numpy as np
import pytest

from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention


def test_no_lists_at_all():
    assert ranking_metrics.per_list(["ndcg@10"], [], [], [0])["ndcg@10"].shape == (0,)
    assert np.isnan(ranking_metrics.mean([]))


def test_a_number_carries_its_convention():
    assert (
        ranking_metrics.describe("ndcg@10", Convention())
        == "ndcg@10(gain=exponential, no_relevant=drop, ties=averaged)"
    )
    assert ranking_metrics.describe("recall@5", Convention(relevant_from=2.5)) == (
        "recall@5(relevant_from=2.5, no_relevant=drop, ties=averaged)"
    )


def test_refused_names():
    for name, words in {
        "ndgc@10": "did you mean 'ndcg@10'",
        "ndcg@0": "at least 1; got 'ndcg@0'",
        "precision": "precision@10",
        "ndcg@": "with a cutoff as in ndcg@10",
    }.items():
        with pytest.raises(ConfigError, match=words):
            ranking_metrics.parse(name)
