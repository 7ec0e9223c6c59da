"""Tests of the choice of lists on which an export is compared with training."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tfx_ranking.components.serving.parity_sample import choose


@given(sizes=st.lists(st.integers(1, 40), min_size=1, max_size=80), lists=st.integers(1, 100))
def test_the_shortest_and_the_longest_list_are_always_chosen(sizes, lists):
    sizes = np.array(sizes)
    chosen = choose(sizes, lists)
    assert len(chosen) == len(set(chosen)) == min(lists, len(sizes))
    assert sizes[chosen].min() == sizes.min()
    if lists > 1:
        assert sizes[chosen].max() == sizes.max()
