"""The requests that clients of each kind send for a list: missing values are not sent, all others are."""

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices.signatures import SIGNATURES
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, decode, encode
from tfx_ranking.components.serving import client_requests, parsing
from tfx_ranking.components.serving.client_requests import to_elwc, to_examples, to_sequence_example, to_tensors

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "item_id": "sku"},
    "context": {"country": {"dtype": "string", "vocabulary": {}}, "age": {}},
    "items": {
        "price": {},
        "stock": {"dtype": "int", "default": 7},
        "title": {"dtype": "string", "tokens": {}},
        "image": {"shape": [2]},
    },
    "serving": {"rename": {"price": "price-eur"}},
})  # fmt: skip
BATCH = ListBatch(
    {"group_id": np.array([b"q"], object), "country": np.array([b"at"], object), "age": np.float32([np.nan])},
    {
        "price": np.float32([1.5, np.nan]),
        "stock": np.array([3, 7]),
        "title": Tokens(np.array([b"red", b"hat"], object), np.array([0, 0, 2])),
        "image": np.float32([[np.nan, np.nan], [4, 5]]),
        "label": np.float32([1, 0]),
        "sku": np.array([b"a", b"b"], object),
    },
    np.array([0, 2]),
)
LIST = encode(BATCH, columns(CONFIG))[0]
# Missing values are left out.  The group id, the label and the item's id are not features.  The price is renamed.
ITEMS = [{"price-eur": [1.5], "stock": [3]}, {"title": [b"red", b"hat"], "image": [4, 5]}]


def _values(example):
    features = example.features.feature.items()
    return {name: list(getattr(feature, feature.WhichOneof("kind")).value) for name, feature in features}


def test_elwc_is_the_request_of_a_tensorflow_ranking_client():
    from tensorflow_serving.apis import input_pb2

    proto = input_pb2.ExampleListWithContext.FromString(to_elwc(LIST, CONFIG))
    assert [_values(one) for one in (proto.context, *proto.examples)] == [{"country": [b"at"]}, *ITEMS]
    assert input_pb2.ExampleListWithContext.FromString(to_elwc(b"", CONFIG)) == input_pb2.ExampleListWithContext(
        context=proto.context.__class__()
    )
    with_ids = input_pb2.ExampleListWithContext.FromString(to_elwc(LIST, CONFIG, ("sku",)))
    assert [_values(one)["sku"] for one in with_ids.examples] == [[b"a"], [b"b"]]


def test_the_example_of_each_item_has_the_context_of_its_list():
    examples = [_values(tf.train.Example.FromString(each)) for each in to_examples(LIST, CONFIG)]
    assert examples == [{"country": [b"at"], **item} for item in ITEMS]
    assert to_examples(b"", CONFIG) == []


def test_sequence_examples_in_both_layouts():
    def lists(together):
        proto = tf.train.SequenceExample.FromString(to_sequence_example(LIST, CONFIG, together))
        assert _values(tf.train.Example(features=proto.context)) == {"country": [b"at"]}
        return {
            name: [
                list(getattr(one, one.WhichOneof("kind")).value) if one.WhichOneof("kind") else []
                for one in each.feature
            ]
            for name, each in proto.feature_lists.feature_list.items()
        }

    apart = {"price-eur": [[1.5], []], "stock": [[3], []], "title": [[], [b"red", b"hat"]], "image": [[], [4, 5]]}
    assert lists(together=False) == apart
    together = lists(together=True)
    assert (together["stock"], together["title"]) == ([[3, 7]], apart["title"])
    np.testing.assert_array_equal(together["price-eur"], [[1.5, np.nan]])
    np.testing.assert_array_equal(together["image"], [[np.nan, np.nan, 4, 5]])


def test_each_tensor_has_a_name_and_a_shape():
    feeds = to_tensors([LIST, b""], CONFIG)
    assert set(feeds) == {"sizes", *(spec for spec in parsing.tensor_specs(client_requests.requested(CONFIG)))}
    assert feeds["sizes"].tolist() == [2, 0]
    assert feeds["country"].tolist() == [b"at", b""]
    assert feeds["title"].tolist() == [[b"", b"red hat"], [b"", b""]]  # as the text was before it was split
    assert feeds["stock"].tolist() == [[3, 7], [7, 7]]
    np.testing.assert_array_equal(feeds["price_eur"], np.float32([[1.5, np.nan], [np.nan, np.nan]]))
    np.testing.assert_array_equal(feeds["image"][0], np.float32([[np.nan, np.nan], [4, 5]]))


@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_request_can_have_no_list(signature):
    for name, value in client_requests.feed(SIGNATURES[signature], [], CONFIG).items():
        assert value.shape[0] == 0, name


def test_items_in_another_order_keep_their_values():
    batch = decode([client_requests.reordered(LIST, np.array([1, 0]), CONFIG)], columns(CONFIG))
    np.testing.assert_array_equal(batch.items["price"], np.float32([np.nan, 1.5]))
    np.testing.assert_array_equal(batch.items["image"], np.float32([[4, 5], [np.nan, np.nan]]))
    assert batch.items["sku"].tolist() == [b"b", b"a"]
    assert (batch.items["title"].values.tolist(), batch.items["title"].row_splits.tolist()) == (
        [b"red", b"hat"],
        [0, 2, 2],
    )
    assert batch.context["country"].tolist() == [b"at"]
