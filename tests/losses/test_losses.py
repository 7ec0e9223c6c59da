"""Every loss of the table: its values equal TensorFlow Ranking's, and padding and order change nothing."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx_ranking.components.choices.losses import LOSSES as TABLE

LOSSES = {name: row.load() for name, row in TABLE.items()}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=list(LOSSES))


def value(loss, scores, labels, mask=None, weights=None):
    mask = np.ones(np.shape(scores), bool) if mask is None else mask
    scores = np.asarray(scores, np.float32)
    return float(loss(scores, labels, mask=mask, weights=weights))


@every_loss
def test_equals_tensorflow_ranking(loss, request, reference_dir):
    golden = json.loads((reference_dir / "tf_ranking_golden.json").read_text())
    name = request.node.callspec.id
    for number, case in enumerate(golden["cases"]):
        got = value(loss, case["scores"], case["labels"], case["mask"], case["weights"])
        assert got == pytest.approx(case["losses"][name], rel=2e-6, abs=1e-6), f"case {number}"


@every_loss
def test_no_relevant_item_or_no_item(loss, request):
    pointwise = request.node.callspec.id in ("sigmoid_cross_entropy", "mean_squared")
    assert (value(loss, [[1.0, 2.0]], [[0, 0]]) != 0) == pointwise
    assert value(loss, [[1.0, 2.0]], [[1, 0]], mask=[[False, False]]) == 0
    assert value(loss, np.zeros((0, 3)), np.zeros((0, 3))) == 0
    assert value(loss, np.zeros((2, 0)), np.zeros((2, 0))) == 0


@st.composite
def list_batches(draw):
    """Padded batches: scores, labels, mask, weights [list, item]; lists may be empty, scores tied or large."""
    lists, longest = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1.0, 100.0, 1e4]))
    scores = (rng.normal(size=(lists, longest)) * scale).astype(np.float32)
    if draw(st.booleans()):
        scores = np.round(scores)
    labels = rng.integers(0, draw(st.sampled_from([1, 2, 5, 200])), scores.shape).astype(np.float32)
    mask = np.arange(longest) < rng.integers(0, longest + 1, (lists, 1))
    weights = rng.random(scores.shape).astype(np.float32) if draw(st.booleans()) else None
    return scores, labels, mask, weights


def with_gradient(loss, scores, labels, mask, weights):
    scores = tf.constant(scores)
    with tf.GradientTape() as tape:
        tape.watch(scores)
        result = loss(scores, labels, mask=mask, weights=weights)
    return result.numpy(), tape.gradient(result, scores).numpy()


@settings(deadline=None, max_examples=40)
@given(batch=list_batches(), extra=st.integers(0, 3), junk=st.sampled_from([0.0, 1e9, math.nan, math.inf, -math.inf]))
@every_loss
def test_padding_never_changes_a_loss(loss, batch, extra, junk):
    scores, labels, mask, weights = batch

    def pad(values):  # more padded places, more padded lists, junk in all of them
        if values is None:
            return None
        wide = np.pad(np.where(mask, values, junk), ((0, extra), (0, extra)), constant_values=junk)
        return wide.astype(np.float32)

    expected, gradient = with_gradient(loss, *batch)
    padded_mask = np.pad(mask, ((0, extra), (0, extra)))
    got, got_gradient = with_gradient(loss, pad(scores), pad(labels), padded_mask, pad(weights))
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-7)
    np.testing.assert_array_equal(got_gradient[~padded_mask], 0.0)
    rows, columns = mask.shape
    np.testing.assert_allclose(
        got_gradient[:rows, :columns], gradient, rtol=1e-4, atol=1e-5 * (1 + np.abs(gradient).max())
    )


@settings(deadline=None, max_examples=40)
@given(batch=list_batches())
@every_loss
def test_loss_and_gradient_are_finite(loss, batch):
    result, gradient = with_gradient(loss, *batch)
    assert np.isfinite(result)
    assert np.isfinite(gradient).all()


@settings(deadline=None, max_examples=40)
@given(batch=list_batches(), seed=st.integers(0, 1000))
@every_loss
def test_the_order_of_items_and_lists_does_not_matter(loss, batch, seed):
    rng = np.random.default_rng(seed)
    lists = rng.permutation(len(batch[0]))[:, None]
    items = rng.permuted(np.broadcast_to(np.arange(batch[0].shape[1]), batch[0].shape), axis=1)
    shuffled = [None if each is None else each[lists, items] for each in batch]
    expected, gradient = with_gradient(loss, *batch)
    got, got_gradient = with_gradient(loss, *shuffled)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(
        got_gradient, gradient[lists, items], rtol=1e-3, atol=1e-5 * (1 + np.abs(gradient).max())
    )


@every_loss
def test_a_step_down_the_gradient_lowers_it(loss):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(8, 10)).astype(np.float32), rng.integers(0, 2, (8, 10))
    mask = np.ones_like(labels, bool)
    before, gradient = with_gradient(loss, scores, labels, mask, None)
    assert value(loss, scores - 0.1 * gradient, labels) < before


@every_loss
def test_works_in_a_graph_of_unknown_sizes(loss):
    spec = tf.TensorSpec([None, None], tf.float32)
    graph = tf.function(
        lambda scores, labels, mask: loss(scores, labels, mask=mask),
        input_signature=[spec, spec, tf.TensorSpec([None, None], tf.bool)],
    )
    scores, labels = np.float32([[1, 2, 3]]), np.float32([[0, 1, 0]])
    mask = np.ones_like(labels, bool)
    np.testing.assert_allclose(graph(scores, labels, mask), loss(scores, labels, mask=mask), rtol=1e-6)
