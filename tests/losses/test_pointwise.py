"""The pointwise losses by hand arithmetic.  `test_losses` has what every loss promises."""

import math

import pytest

from tfx_ranking.components.losses import pointwise

MASK = [[True, True], [True, False]]  # 2 lists x 2 items of the longest list
WEIGHTS = [[2.0, 1.0], [3.0, 9.0]]


def test_sigmoid_cross_entropy_by_hand():
    # -log sigmoid(s) for a label of 1, -log(1 - sigmoid(s)) for a label of 0.
    expected = (2 * math.log(2) + 1 * math.log1p(math.exp(1)) + 3 * math.log1p(math.exp(-2))) / 4
    loss = pointwise.sigmoid_cross_entropy([[0.0, 1.0], [2.0, 5.0]], [[1, 0], [1, 0]], mask=MASK, weights=WEIGHTS)
    assert float(loss) == pytest.approx(expected)


def test_mean_squared_by_hand():
    expected = (2 * (1 - 0) ** 2 + 1 * (3 - 1) ** 2 + 3 * (0 - 2) ** 2) / 4
    loss = pointwise.mean_squared([[1.0, 3.0], [0.0, 5.0]], [[0, 1], [2, 0]], mask=MASK, weights=WEIGHTS)
    assert float(loss) == pytest.approx(expected)
