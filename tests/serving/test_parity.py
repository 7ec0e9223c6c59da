"""Which differences between training and serving are tolerated, and which lists are compared."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfx_ranking.components.serving.parity import TOLERANCE, compare


@pytest.mark.parametrize(
    ("expected", "served", "agrees"),
    [
        ([], [], True),
        ([0.5], [0.5 + 0.9e-5], True),  # 1e-5 · 1: a list of one has no spread
        ([0.5], [0.5 + 1.2e-5], False),
        ([0.0, 50.0], [4e-4, 50.0], True),  # 1e-5 · 50, the list's spread
        ([0.0, 50.0], [6e-4, 50.0], False),
        ([1000.0, 1000.0], [1000.009, 1000.0], True),  # 1e-5 · 1000, the score
        ([1.0, 2.0], [np.nan, 2.0], False),
        ([1.0, 2.0], [1.0, np.inf], False),
    ],
)
def test_tolerance(expected, served, agrees):
    assert compare(np.array(expected, np.float32), np.array(served, np.float32)).agrees is agrees


def test_another_order_is_refused_if_the_items_are_not_tied_in_training():
    # The items are 1.5 tolerances apart; each moves by 0.9 of the tolerance towards the other and past it.
    apart = np.float32([0.0, 1.5 * TOLERANCE])
    crossed = apart + np.float32([0.9, -0.9]) * np.float32(TOLERANCE)
    comparison = compare(apart, crossed)
    assert comparison.share < 1
    assert comparison.reordered
    assert not comparison.agrees
    tied = np.float32([0.0, 0.5 * TOLERANCE])
    assert compare(tied, tied[::-1].copy()).agrees


@given(scores=st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=30))
def test_equal_scores_agree_and_a_changed_item_is_named(scores):
    expected = np.array(scores, np.float32)
    assert compare(expected, expected).difference == 0
    moved = expected.copy()
    moved[-1] += 1
    comparison = compare(expected, moved)
    assert (comparison.item, comparison.agrees) == (len(scores) - 1, False)
