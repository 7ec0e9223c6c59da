"""The listwise losses by hand arithmetic.  `test_losses` has what every loss promises."""

import math

import pytest

from tfx_ranking.components.losses import listwise


def test_softmax_by_hand():
    # log-softmax of (0, log 3) is (log 1/4, log 3/4); labels 1 and 2; the second list has no relevant item.
    first = -(1 * math.log(1 / 4) + 2 * math.log(3 / 4))
    loss = listwise.softmax([[0.0, math.log(3)], [1.0, 2.0]], [[1, 2], [0, 0]], mask=[[True, True]] * 2)
    assert float(loss) == pytest.approx(first / 2)


def test_approx_ndcg_of_tied_scores():
    # Both ranks are 1.5.
    expected = -(1 / math.log2(2.5)) / (1 / math.log2(2))
    assert float(listwise.approx_ndcg([[0.5, 0.5]], [[1, 0]], mask=[[True, True]])) == pytest.approx(expected)
