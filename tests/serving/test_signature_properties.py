"""Whatever the lists: every signature scores them as training does, and no list's scores depend on the others."""

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
    """A few list examples of SHOP, with missing values and words that no vocabulary has."""
    count = draw(st.integers(0, 4))
    lengths = [draw(st.integers(0, 12)) for _ in range(count)]
    seed = st.integers(0, 2**32 - 1)
    rng = np.random.default_rng(draw(seed))  # most values; Hypothesis draws what they are drawn from
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
    given = {key: tf.constant(value.tolist(), specs[key].dtype, value.shape) for key, value in feed.items()}
    return {key: value.numpy() for key, value in function(**given).items()}


def _assert_scores(row: Signature, came, scores):
    for expected, served in answers.ANSWERS[row.answer].read(came, scores):
        assert parity.compare(expected, served).agrees, (expected, served)


SCORING = [name for name, row in TABLE.items() if answers.ANSWERS[row.answer].read]


@pytest.mark.parametrize("signature", SCORING)
@FEW
@given(lists=lists())
def test_it_scores_as_training_does(signature, lists, model, shop):
    row = TABLE[signature]
    _, scores = shop.trained(lists)
    _assert_scores(row, _ask(model, signature, client_requests.feed(row, lists, SHOP)), scores)


@FEW
@given(lists=lists())
def test_transform_gives_what_training_saw(lists, model, shop):
    came = _ask(model, "transform", client_requests.feed(TABLE["transform"], lists, SHOP))
    expected, scores = shop.trained(lists)
    assert came["sizes"].tolist() == [len(each) for each in scores]
    for name, value in expected.items():
        blank = tf.constant(0 if value.dtype.is_floating else -1, value.dtype)
        dense = value.to_tensor(blank) if isinstance(value, tf.RaggedTensor) else value
        np.testing.assert_allclose(came[name], dense, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("signature", SCORING)
@FEW
@given(lists=lists(), others=lists(), seed=st.integers(0, 2**32 - 1))
def test_a_list_scores_alike_alone_among_others_and_in_another_order(signature, lists, others, seed, model, shop):
    row, rng = TABLE[signature], np.random.default_rng(seed)
    _, scores = shop.trained(lists)
    orders = [rng.permutation(len(each)) for each in scores]
    moved = [client_requests.reordered(one, order, SHOP) for one, order in zip(lists, orders, strict=True)]
    mixed = [*others, *moved]
    came = _ask(model, signature, client_requests.feed(row, mixed, SHOP))
    expected = [*shop.trained(others)[1], *(each[order] for each, order in zip(scores, orders, strict=True))]
    _assert_scores(row, came, expected)
    if lists:
        alone = _ask(model, signature, client_requests.feed(row, lists[:1], SHOP))
        _assert_scores(row, alone, scores[:1])


@FEW
@given(lists=lists(), more=st.integers(0, 5), noise=st.floats(-100, 100, width=32))
def test_what_stands_behind_a_lists_end_changes_nothing(lists, more, noise, model, shop):
    feed = client_requests.feed(TABLE["features"], lists, SHOP)
    for name in SHOP.items:
        key = tensor_name(SHOP.serving.rename.get(name, name))
        value = feed[key]
        behind = np.arange(value.shape[1] + more) >= feed["sizes"][:, None]
        wider = np.pad(value, [(0, 0), (0, more), *[(0, 0)] * (value.ndim - 2)], mode="empty")
        wider[behind] = b"noise" if value.dtype == object else noise
        feed[key] = wider
    came = _ask(model, "features", feed)
    _, scores = shop.trained(lists)
    longest = max(map(len, scores), default=0)
    assert np.all(came["scores"][:, longest:] == np.float32(answers.PADDING))
    _assert_scores(TABLE["features"], {**came, "scores": came["scores"][:, :longest]}, scores)
