"""Encoding and decoding list examples keeps every value."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import (
    Column,
    ListBatch,
    Tokens,
    decode,
    encode,
    read_records,
    write_records,
)

TABLE = {
    "q": Column("context", "string"),
    "words": Column("context", "string", tokens=True),
    "place": Column("context", "float", width=2),
    "price": Column("items", "float"),
    "stock": Column("items", "int"),
    "image": Column("items", "float", width=3),
    "title": Column("items", "string", tokens=True),
}


def _batch(sizes, rng):
    items, lists = int(sum(sizes)), len(sizes)
    per_item, per_list = rng.integers(0, 4, items), rng.integers(0, 3, lists)
    words = lambda n: np.array([b"w%d" % i for i in rng.integers(0, 9, n)], object)  # noqa: E731
    tokens = lambda lengths: Tokens(words(int(lengths.sum())), np.concatenate([[0], np.cumsum(lengths)]))  # noqa: E731
    return ListBatch(
        {"q": words(lists), "words": tokens(per_list), "place": rng.random((lists, 2), np.float32)},
        {
            "price": np.where(rng.random(items) < 0.2, np.nan, rng.random(items)).astype(np.float32),
            "stock": rng.integers(0, 99, items),
            "image": rng.random((items, 3), np.float32),
            "title": tokens(per_item),
        },
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def _flat(batch):
    for columns in (batch.context, batch.items):
        for name, value in columns.items():
            yield from (
                [(name, value.values), (name, value.row_splits)] if isinstance(value, Tokens) else [(name, value)]
            )
    yield "row_splits", batch.row_splits


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=6), seed=st.integers(0, 999))
def test_decode_returns_what_encode_encoded(sizes, seed):
    batch = _batch(sizes, np.random.default_rng(seed))
    again = decode(encode(batch, TABLE), TABLE)
    for (name, decoded), (_, expected) in zip(_flat(again), _flat(batch), strict=True):
        np.testing.assert_array_equal(decoded, expected, err_msg=name)


def test_an_empty_batch_and_an_empty_list():
    assert encode(_batch([], np.random.default_rng(0)), TABLE) == []
    assert decode([], TABLE).row_splits.tolist() == [0]
    one = {"q": TABLE["q"], "price": TABLE["price"]}
    batch = ListBatch({"q": np.array([b"a", b"b"], object)}, {"price": np.float32([7])}, np.array([0, 0, 1]))
    assert decode(encode(batch, one), one).row_splits.tolist() == [0, 0, 1]


def test_a_list_whose_columns_differ_in_length_is_refused():
    import tensorflow as tf

    floats = lambda *values: tf.train.Feature(float_list=tf.train.FloatList(value=values))  # noqa: E731
    example = tf.train.Example(features=tf.train.Features(feature={"a": floats(1, 2), "b": floats(1)}))
    table = {"a": Column("items", "float"), "b": Column("items", "float")}
    with pytest.raises(DataError, match="'a' has 2 items, 'b' has 1"):
        decode([example.SerializeToString()], table)


def test_a_column_that_does_not_fit_the_row_splits_is_refused():
    with pytest.raises(DataError, match="'x': expected 3 values, from the row splits; got 2"):
        encode(ListBatch({}, {"x": np.float32([1, 2])}, np.array([0, 3])), {"x": Column("items", "float")})


def test_the_same_records_give_the_same_bytes(tmp_path):
    records = encode(_batch([2, 3], np.random.default_rng(5)), TABLE)
    for name in ("a.gz", "b.gz"):
        write_records(str(tmp_path / name), records)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert list(read_records([str(tmp_path / "a.gz")])) == records
