"""Every signature scores random lists as training does, and no list's scores depend on the other lists."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_rankers import SHOP

from tfx_ranking.components.choices.signatures import Signature, tensor_name
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode
from tfx_ranking.components.serving import answers, client_requests, parity

TABLE = SHOP.serving.rows
FEW = settings(max_examples=10, deadline=None)
WORDS = st.sampled_from([b"red", b"Blue", b"shoe", b"never seen", "für".encode(), b""])
NUMBERS = st.one_of(st.just(float("nan")), st.floats(-50, 1000, width=32), st.sampled_from([0.0, -0.0, 9.0, 40.0]))


@st.composite
def lists(draw):
    """A few list examples of SHOP, with missing values and out-of-vocabulary words."""
    count = draw(st.integers(0, 4))
    lengths = [draw(st.integers(0, 12)) for _ in range(count)]
    seed = st.integers(0, 2**32 - 1)
    rng = np.random.default_rng(
        draw(seed)
    )  # Hypothesis draws the seed and the pools; the generator draws the values from them
    words = np.array(draw(st.lists(WORDS, min_size=1, max_size=4)), object)
    numbers = np.array(draw(st.lists(NUMBERS, min_size=1, max_size=6)), np.float32)

    def column(rows, one):
        if one.tokens:
            of_row = rng.integers(0, 4, rows)
            tokens = rng.choice(words[words != b""], int(of_row.sum())) if any(words != b"") else []
            of_row = of_row if len(tokens) else of_row * 0
            return Tokens(np.array(tokens, object), np.concatenate([[0], np.cumsum(of_row)]).astype(np.int64))
        if one.dtype == "string":
            return rng.choice(words, rows)
        if one.dtype == "int":
            return rng.integers(-5, 12, rows)
        values = rng.choice(numbers, (rows, one.width)).astype(np.float32)
        values[np.isnan(values).any(axis=1)] = np.nan  # a vector is missing as a whole
        return values if one.width > 1 else values[:, 0]

    table, items = columns(SHOP), sum(lengths)
    batch = ListBatch(
        {name: column(count, one) for name, one in table.items() if one.level == "context"},
        {name: column(items, one) for name, one in table.items() if one.level == "items"},
        np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )
    return encode(batch, table)


@pytest.fixture(scope="module")
def model(shop):
    return tf.saved_model.load(str(shop.served))


def _ask(model, name: str, feed: client_requests.Feed) -> dict[str, np.ndarray]:
    function = model.signatures[name]
    specs = function.structured_input_signature[1]
    inputs = {key: tf.constant(value.tolist(), specs[key].dtype, value.shape) for key, value in feed.items()}
    return {key: value.numpy() for key, value in function(**inputs).items()}


def _assert_scores(row: Signature, outputs, scores):
    for expected, served in row.answer_kind.load_pairs()(outputs, answers.TrainedLists(scores=scores)):
        assert parity.compare(expected, served).agrees, (expected, served)


SCORING = [name for name, row in TABLE.items() if row.answer_kind.ordered]


@pytest.mark.parametrize("signature", SCORING)
@FEW
@given(lists=lists())
def test_it_scores_like_training(signature, lists, model, shop):
    row = TABLE[signature]
    _, scores = shop.trained(lists)
    _assert_scores(row, _ask(model, signature, client_requests.feed(row, lists, SHOP)), scores)


@FEW
@given(lists=lists())
def test_transform_returns_the_features_of_training(lists, model, shop):
    outputs = _ask(model, "transform", client_requests.feed(TABLE["transform"], lists, SHOP))
    expected, scores = shop.trained(lists)
    assert outputs["sizes"].tolist() == [len(each) for each in scores]
    for name, value in expected.items():
        blank = tf.constant(0 if value.dtype.is_floating else -1, value.dtype)
        dense = value.to_tensor(blank) if isinstance(value, tf.RaggedTensor) else value
        np.testing.assert_allclose(outputs[name], dense, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("signature", SCORING)
@FEW
@given(lists=lists(), others=lists(), seed=st.integers(0, 2**32 - 1))
def test_scores_do_not_depend_on_other_lists_or_on_the_items_order(signature, lists, others, seed, model, shop):
    row, rng = TABLE[signature], np.random.default_rng(seed)
    _, scores = shop.trained(lists)
    orders = [rng.permutation(len(each)) for each in scores]
    moved = [client_requests.reordered(one, order, SHOP) for one, order in zip(lists, orders, strict=True)]
    mixed = [*others, *moved]
    outputs = _ask(model, signature, client_requests.feed(row, mixed, SHOP))
    expected = [*shop.trained(others)[1], *(each[order] for each, order in zip(scores, orders, strict=True))]
    _assert_scores(row, outputs, expected)
    if lists:
        alone = _ask(model, signature, client_requests.feed(row, lists[:1], SHOP))
        _assert_scores(row, alone, scores[:1])


@FEW
@given(lists=lists(), more=st.integers(0, 5), noise=st.floats(-100, 100, width=32))
def test_values_after_the_end_of_a_list_change_nothing(lists, more, noise, model, shop):
    feed = client_requests.feed(TABLE["features"], lists, SHOP)
    for name in SHOP.items:
        key = tensor_name(SHOP.serving.rename.get(name, name))
        value = feed[key]
        behind = np.arange(value.shape[1] + more) >= feed["sizes"][:, None]
        wider = np.pad(value, [(0, 0), (0, more), *[(0, 0)] * (value.ndim - 2)], mode="empty")
        wider[behind] = b"noise" if value.dtype == object else noise
        feed[key] = wider
    outputs = _ask(model, "features", feed)
    _, scores = shop.trained(lists)
    longest = max(map(len, scores), default=0)
    assert np.all(outputs["scores"][:, longest:] == np.float32(answers.PADDING))
    _assert_scores(TABLE["features"], {**outputs, "scores": outputs["scores"][:, :longest]}, scores)
