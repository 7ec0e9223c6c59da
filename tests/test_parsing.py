"""Each parser reads the same list out of its own proto, and treats the odd cases alike."""

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import parity, parsing
from tfx_ranking.components.list_examples import ListBatch, Tokens, columns, encode, read_records

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "query_id"},
    "context": {
        "age": {"dtype": "float"},
        "country": {"dtype": "string", "vocabulary": {}},
        "words": {"dtype": "string", "tokens": {}},
        "place": {"shape": [2]},
    },
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
    {
        "query_id": np.array([b"q0", b"q1", b"q2"], object),
        "age": np.float32([30, np.nan, 50]),
        "country": np.array([b"at", b"", b"ch"], object),
        "words": Tokens(np.array([b"red", b"shoe", b"hat"], object), np.array([0, 2, 2, 3])),
        "place": np.float32([[1, 2], [np.nan, np.nan], [3, 4]]),
    },
    {
        "price": np.float32([1, np.nan, 3]),
        "stock": np.array([5, 7, 6]),
        "brand": np.array([b"x", b"", b"z"], object),
        "title": Tokens(np.array([b"a", b"b", b"c"], object), np.array([0, 1, 1, 3])),
        "image": np.float32([[1, 2, 3], [np.nan] * 3, [7, 8, 9]]),
        "label": np.float32([0, 1, 2]),
    },
    np.array([0, 2, 2, 3]),  # the second list has no items
)
SERIALIZED = encode(BATCH, columns(CONFIG))
AS_PROTO = {"list_example": lambda one: one, "elwc": lambda one: parity.to_elwc(one, CONFIG)}


def _parse(parser, serialized):
    # In a graph, as it will be served: eager execution raises other errors than a graph does.
    function = tf.function(
        lambda protos: parsing.PARSERS[parser](protos, TABLE), input_signature=[tf.TensorSpec([None], tf.string)]
    )
    return function(tf.constant(serialized, tf.string, shape=[len(serialized)]))


def _assert_equal(came, expected):
    for level in ("context", "items"):
        for name, value in getattr(came, level).items():
            other = getattr(expected, level)[name]
            if isinstance(value, Tokens):
                np.testing.assert_array_equal(value.row_splits, other.row_splits, err_msg=name)
                value, other = value.values, other.values
            np.testing.assert_array_equal(value, other, err_msg=name)
    np.testing.assert_array_equal(came.row_splits, expected.row_splits)


@pytest.mark.parametrize("parser", parsing.PARSERS)
def test_every_value_is_read(parser):
    came = _parse(parser, [AS_PROTO[parser](one) for one in SERIALIZED])
    assert set(came.context) | set(came.items) == set(CONFIG.features)  # and no label
    _assert_equal(came, BATCH)


@pytest.mark.parametrize("parser", parsing.PARSERS)
def test_an_empty_batch_and_lists_of_nothing(parser):
    assert _parse(parser, []).row_splits.numpy().tolist() == [0]
    came = _parse(parser, [b"", AS_PROTO[parser](SERIALIZED[2]), b""])
    assert came.row_splits.numpy().tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(came.context["age"], np.float32([np.nan, 50, np.nan]))
    assert came.context["country"].numpy().tolist() == [b"", b"ch", b""]
    assert came.context["words"].row_splits.numpy().tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(came.items["image"], np.float32([[7, 8, 9]]))
    assert _parse(parser, [b""]).row_splits.numpy().tolist() == [0, 0]


@pytest.mark.parametrize("parser", parsing.PARSERS)
@pytest.mark.parametrize("name", list(CONFIG.items) + list(CONFIG.context))
def test_a_missing_feature_is_its_missing_value(parser, name):
    def without(serialized):
        example = tf.train.Example.FromString(serialized)
        for key in (name, f"{name}/row_lengths"):
            example.features.feature.pop(key, None)
        return example.SerializeToString()

    came = _parse(parser, [AS_PROTO[parser](without(SERIALIZED[0])), AS_PROTO[parser](SERIALIZED[2])])
    expected = _parse(parser, [AS_PROTO[parser](SERIALIZED[0]), AS_PROTO[parser](SERIALIZED[2])])
    level = "items" if name in CONFIG.items else "context"
    value, whole, column = getattr(came, level)[name], getattr(expected, level)[name], TABLE[name]
    rows = 2 if level == "items" else 1  # of the first list
    if column.tokens:
        assert value.row_splits[: rows + 1].numpy().tolist() == [0] * (rows + 1)
        np.testing.assert_array_equal(value.values, whole.values[whole.row_splits[rows] :])
    else:
        np.testing.assert_array_equal(value[:rows], np.full_like(value[:rows], column.missing))
        np.testing.assert_array_equal(value[rows:], whole[rows:])
    np.testing.assert_array_equal(came.row_splits, expected.row_splits)


@pytest.mark.parametrize("parser", parsing.PARSERS)
def test_other_features_are_ignored(parser):
    example = tf.train.Example.FromString(SERIALIZED[0])
    example.features.feature["surprise"].float_list.value.extend([1, 2])
    extra = parity.to_elwc(example.SerializeToString(), CONFIG, extra_items=("surprise",))
    _assert_equal(
        _parse(parser, [extra if parser == "elwc" else example.SerializeToString()]),
        _parse(parser, [AS_PROTO[parser](SERIALIZED[0])]),
    )


@pytest.mark.parametrize("parser", parsing.PARSERS)
def test_corrupt_bytes_are_an_error(parser):
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError)):
        _parse(parser, [SERIALIZED[0], b"not a proto"])


@pytest.mark.parametrize("parser", parsing.PARSERS)
@pytest.mark.parametrize("name", ["price", "age"])
def test_another_type_is_an_error_that_names_the_feature(parser, name):
    example = tf.train.Example.FromString(SERIALIZED[0])
    count = len(example.features.feature[name].float_list.value)
    example.features.feature[name].bytes_list.value.extend([b"x"] * count)
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        _parse(parser, [AS_PROTO[parser](example.SerializeToString())])


@pytest.mark.parametrize("name", ["price", "image", "brand", "title/row_lengths"])
def test_item_features_of_different_length_are_an_error_that_names_feature_and_list(name):
    example = tf.train.Example.FromString(SERIALIZED[0])
    feature = example.features.feature[name]
    getattr(feature, feature.WhichOneof("kind")).value.pop()
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"list 1 of the batch: item feature {name} has"):
        _parse("list_example", [SERIALIZED[2], example.SerializeToString()])


def test_row_lengths_that_do_not_add_up_are_an_error():
    example = tf.train.Example.FromString(SERIALIZED[0])
    example.features.feature["title/row_lengths"].int64_list.value[0] = 5
    with pytest.raises(tf.errors.InvalidArgumentError, match="item feature title: "):
        _parse("list_example", [example.SerializeToString()])


def test_other_systems_elwc(data_dir):
    """TensorFlow Ranking's own files: absent features, an empty context, features in any order."""
    config = ranking_config.parse({
        "name": "tfr",
        "data": {"input": "x", "format": "elwc", "label": "utility"},
        "items": {"custom_features_[1-136]": {}},
    })  # fmt: skip
    records = list(read_records([str(data_dir / "tfr-examples" / "train_numerical_elwc.tfrecord")]))
    batch = parsing.parse_elwc(tf.constant(records), parsing.inputs(config))
    from tensorflow_serving.apis import input_pb2

    protos = [input_pb2.ExampleListWithContext.FromString(record) for record in records]
    assert np.diff(batch.row_splits).tolist() == [len(proto.examples) for proto in protos]
    features = [example.features.feature for proto in protos for example in proto.examples]
    assert len(features) == 119
    for name, values in batch.items.items():
        expected = [feature[name].float_list.value[0] if name in feature else np.nan for feature in features]
        np.testing.assert_array_equal(values, np.float32(expected), err_msg=name)
