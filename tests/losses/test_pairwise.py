"""The pairwise loss by hand arithmetic.  `test_losses` has what every loss promises."""

import math

import pytest

from tfx_ranking.components.losses import pairwise


def test_pairwise_logistic_by_hand():
    # Pairs (0 above 1) and (0 above 2) of one list of three, weight 2 at the better item; lists x longest = 3.
    expected = 2 * (math.log1p(math.exp(-(3 - 1))) + math.log1p(math.exp(-(3 - 4)))) / 3
    mask, weights = [[True, True, True]], [[2.0, 7.0, 7.0]]
    loss = pairwise.pairwise_logistic([[3.0, 1.0, 4.0]], [[1, 0, 0]], mask=mask, weights=weights)
    assert float(loss) == pytest.approx(expected)
