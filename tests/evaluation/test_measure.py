"""Measuring lists: the values by which they are sliced."""

import numpy as np

from tfx_ranking.components.evaluation import measure
from tfx_ranking.components.lists import list_examples


def test_a_slice_by_text_has_the_text_of_the_source():
    tokens = list_examples.Tokens(np.array([b"red", b"shoe", b"tea"], object), np.array([0, 2, 2, 3]))
    assert measure._slice_values(tokens, 3) == ["red shoe", "", "tea"]
