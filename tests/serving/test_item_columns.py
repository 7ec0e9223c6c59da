"""Tests that item features of different lengths are refused, and how tokens are split into items."""

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices.signatures import REQUESTS
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode
from tfx_ranking.components.serving import parsing
from tfx_ranking.components.serving.client_requests import to_sequence_example

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "query_id"},
    "items": {
        "price": {"dtype": "float"},
        "stock": {"dtype": "int", "default": 7},
        "brand": {"dtype": "string", "vocabulary": {}},
        "title": {"dtype": "string", "tokens": {}},
        "image": {"shape": [3]},
    },
})  # fmt: skip
TABLE = parsing.inputs(CONFIG)
BATCH = ListBatch(
    {"query_id": np.array([b"q0", b"q1"], object)},
    {
        "price": np.float32([1, np.nan, 3]),
        "stock": np.array([5, 7, 6]),
        "brand": np.array([b"x", b"", b"z"], object),
        "title": Tokens(np.array([b"a", b"b", b"c"], object), np.array([0, 1, 1, 3])),
        "image": np.float32([[1, 2, 3], [np.nan] * 3, [7, 8, 9]]),
        "label": np.float32([0, 1, 2]),
    },
    np.array([0, 2, 3]),
)
SERIALIZED = encode(BATCH, columns(CONFIG))


def _parse(parser, serialized):
    # In a graph, as in serving: eager execution raises other errors.
    graph = tf.function(lambda protos: REQUESTS[parser].load_parse()(protos, TABLE))
    return graph(tf.constant(serialized, tf.string))


@pytest.mark.parametrize("name", ["price", "image", "brand", "title/row_lengths"])
def test_item_features_of_different_length_are_an_error_that_names_feature_and_list(name):
    example = tf.train.Example.FromString(SERIALIZED[0])
    feature = example.features.feature[name]
    getattr(feature, feature.WhichOneof("kind")).value.pop()
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"list 1 of the batch: item feature {name} has"):
        _parse("list_example", [SERIALIZED[1], example.SerializeToString()])


def test_row_lengths_that_do_not_add_up_are_an_error():
    example = tf.train.Example.FromString(SERIALIZED[0])
    example.features.feature["title/row_lengths"].int64_list.value[0] = 5
    with pytest.raises(tf.errors.InvalidArgumentError, match="item feature title: "):
        _parse("list_example", [example.SerializeToString()])


def test_feature_lists_of_different_length_are_an_error_that_names_feature_and_list():
    proto = tf.train.SequenceExample.FromString(to_sequence_example(SERIALIZED[0], CONFIG))
    del proto.feature_lists.feature_list["price"].feature[1:]
    proto.feature_lists.feature_list["stock"].feature[1].int64_list.value.append(9)
    with pytest.raises(tf.errors.InvalidArgumentError, match="list 1 of the batch: item feature price has 1 values"):
        _parse("sequence_example", [to_sequence_example(SERIALIZED[1], CONFIG), proto.SerializeToString()])
    del proto.feature_lists.feature_list["price"]
    proto.feature_lists.feature_list["stock"].feature[0].int64_list.value.append(9)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"item feature stock: expected 1 value\(s\) in each item"):
        _parse("sequence_example", [proto.SerializeToString()])


def test_one_feature_of_tokens_belongs_to_the_only_item_or_has_one_token_per_item():
    def titles(tokens, prices):
        proto = tf.train.SequenceExample()
        lists = proto.feature_lists.feature_list
        lists["title"].feature.add().bytes_list.value.extend(tokens)
        lists["price"].feature.add().float_list.value.extend(prices)
        batch = _parse("sequence_example", [b"", proto.SerializeToString()])
        return tf.RaggedTensor.from_row_splits(*batch.items["title"]).to_list()

    assert titles([b"a", b"b"], [1]) == [[b"a", b"b"]]
    assert titles([b"a", b"b"], [1, 2]) == [[b"a"], [b"b"]]
    with pytest.raises(tf.errors.InvalidArgumentError, match="title"):
        titles([b"a", b"b", b"c"], [1, 2])
