"""Every metric by hand arithmetic, against scikit-learn and against TensorFlow Ranking's golden values."""

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from tfx_ranking.components.choices.metrics import METRICS
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention

EVERY_NAME = ["ndcg", "ndcg@1", "ndcg@3", "mrr", "mrr@2", "map", "map@3", "precision@1", "precision@4", "recall@2"]


def one(name, scores, labels, **convention):
    """The metric of a single list."""
    (value,) = ranking_metrics.per_list([name], scores, labels, [0, len(scores)], Convention(**convention))[name]
    return value


def test_ndcg_by_hand():
    # Order by score: labels 2, 0, 1.  Ideal: 2, 1, 0.
    dcg = 3 / math.log2(2) + 0 / math.log2(3) + 1 / math.log2(4)
    ideal = 3 / math.log2(2) + 1 / math.log2(3)
    assert one("ndcg", [0.1, 0.9, 0.5], [1, 2, 0]) == pytest.approx(dcg / ideal)
    linear = (2 / math.log2(2) + 1 / math.log2(4)) / (2 / math.log2(2) + 1 / math.log2(3))
    assert one("ndcg", [0.1, 0.9, 0.5], [1, 2, 0], gain="linear") == pytest.approx(linear)
    assert one("ndcg@2", [0.1, 0.9, 0.5], [1, 2, 0]) == pytest.approx(3 / math.log2(2) / ideal)


def test_the_others_by_hand():
    scores, labels = [5, 4, 3, 2, 1], [0, 1, 0, 1, 1]  # relevant at ranks 2, 4 and 5
    assert one("mrr", scores, labels) == 1 / 2
    assert one("mrr@1", scores, labels) == 0
    assert one("map", scores, labels) == pytest.approx((1 / 2 + 2 / 4 + 3 / 5) / 3)
    assert one("map@4", scores, labels) == pytest.approx((1 / 2 + 2 / 4) / 3)  # still over all 3 relevant items
    assert one("precision@4", scores, labels) == 2 / 4
    assert one("precision@10", scores, labels) == pytest.approx(3 / 10)
    assert one("precision@10", scores, labels, short_lists="items") == 3 / 5
    assert one("recall@4", scores, labels) == pytest.approx(2 / 3)


def test_relevant_from_draws_the_line():
    assert one("mrr", [3, 2, 1], [1, 2, 3], relevant_from=2.0) == 1 / 2
    assert one("recall@1", [3, 2, 1], [1, 2, 3], relevant_from=1.0) == 1 / 3


@pytest.mark.parametrize("name", EVERY_NAME)
def test_lists_without_a_relevant_item(name):
    for no_relevant, expected in {"drop": np.nan, "zero": 0.0, "one": 1.0}.items():
        convention = Convention(no_relevant=no_relevant)
        values = ranking_metrics.per_list([name], [2.0, 1.0, 1.0], [0, 0, 1], [0, 2, 2, 3], convention)[name]
        np.testing.assert_array_equal(values[:2], [expected, expected])  # the second list is empty
        assert values[2] > 0


def test_ties_in_input_order_or_averaged():
    scores, labels = [1.0, 1.0], [0, 1]
    assert one("mrr", scores, labels, ties="stable") == 1 / 2
    assert one("mrr", scores, labels, ties="averaged") == pytest.approx((1 / 1 + 1 / 2) / 2)
    assert one("ndcg", scores, labels, ties="averaged") == pytest.approx((1 + 1 / math.log2(3)) / 2)


tied_lists = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=5)


@settings(deadline=None, max_examples=40)
@given(items=tied_lists)
@pytest.mark.parametrize("name", EVERY_NAME)
def test_averaged_ties_are_the_mean_over_all_orders(name, items):
    scores, labels = (np.array(column, float) for column in zip(*items))
    orders = [list(order) for order in itertools.permutations(range(len(items)))]
    stable = [one(name, scores[order], labels[order], ties="stable") for order in orders]
    np.testing.assert_allclose(one(name, scores, labels, ties="averaged"), np.mean(stable), rtol=1e-9)


def random_lists(seed=7, lists=200):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(2, 40, lists)
    splits = np.append(0, np.cumsum(sizes))
    scores = np.round(rng.normal(size=splits[-1]), 1)  # with ties
    return scores, rng.integers(0, 5, splits[-1]) * (rng.random(splits[-1]) < 0.3), splits


@pytest.mark.parametrize("k", [1, 5, 10, None])
@pytest.mark.parametrize("gain", ["exponential", "linear"])
def test_ndcg_is_scikit_learns(k, gain):
    scores, labels, splits = random_lists()
    name = "ndcg" if k is None else f"ndcg@{k}"
    ours = ranking_metrics.per_list([name], scores, labels, splits, Convention(gain=gain, no_relevant="zero"))[name]
    gains = 2.0**labels - 1 if gain == "exponential" else labels
    theirs = [ndcg_score([gains[a:b]], [scores[a:b]], k=k) for a, b in itertools.pairwise(splits)]
    np.testing.assert_allclose(ours, theirs, atol=1e-12)


def test_map_is_scikit_learns_without_ties():
    _, labels, splits = random_lists()
    scores = np.random.default_rng(3).permutation(len(labels)).astype(float)
    ours = ranking_metrics.per_list(["map"], scores, labels, splits)["map"]
    for value, a, b in zip(ours, splits[:-1], splits[1:]):
        if (labels[a:b] >= 1).any():
            assert value == pytest.approx(average_precision_score(labels[a:b] >= 1, scores[a:b]))
        else:
            assert np.isnan(value)


def test_tensorflow_rankings_values(reference_dir):
    """Their convention: lists without a relevant item are 0, precision is over the items there are, ties shuffled."""
    convention = Convention(no_relevant="zero", short_lists="items")
    golden = json.loads((reference_dir / "tf_ranking_golden.json").read_text())
    compared = 0
    for case in golden["cases"]:
        if case["weights"] is not None or "random" in case["metrics"].values():  # weighted gains are not ours; tied
            continue
        mask = np.array(case["mask"])
        splits = np.append(0, np.cumsum(mask.sum(axis=1)))
        for name, expected in case["metrics"].items():
            if name.partition("@")[0] not in METRICS or name in ("precision", "recall"):
                continue
            values = ranking_metrics.per_list(
                [name], np.array(case["scores"])[mask], np.array(case["labels"])[mask], splits, convention
            )
            assert ranking_metrics.mean(values[name]) == pytest.approx(expected, abs=1e-6), (name, case["scores"])
            compared += 1
    assert compared > 60


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_items_does_not_matter_when_ties_are_averaged(seed):
    scores, labels, splits = random_lists(seed, lists=5)
    shuffled = np.concatenate(
        [np.random.default_rng(seed).permutation(np.arange(a, b)) for a, b in itertools.pairwise(splits)]
    )
    before = ranking_metrics.per_list(EVERY_NAME, scores, labels, splits)
    after = ranking_metrics.per_list(EVERY_NAME, scores[shuffled], labels[shuffled], splits)
    for name in EVERY_NAME:
        np.testing.assert_allclose(before[name], after[name], rtol=1e-12)
