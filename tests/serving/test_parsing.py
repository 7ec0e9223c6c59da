"""All parsers read the same list, each from its own proto, and treat special cases alike."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices.signatures import REQUESTS
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode, read_records
from tfx_ranking.components.serving import parsing
from tfx_ranking.components.serving.client_requests import to_elwc, to_examples, to_sequence_example, to_tensors

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
AS_PROTO = {  # writes a list; ml4ir's SequenceExamples have one Feature for all items
    "list_example": lambda one: one,
    "elwc": lambda one: to_elwc(one, CONFIG),
    "sequence_example": lambda one: to_sequence_example(one, CONFIG),
    "sequence_example of ml4ir": lambda one: to_sequence_example(one, CONFIG, together=True),
}


@functools.cache
def _graph(parser):
    # In a graph, as in serving: eager execution raises other errors than a graph does.
    return tf.function(
        lambda protos: REQUESTS[parser].load_parse()(protos, TABLE), input_signature=[tf.TensorSpec([None], tf.string)]
    )


def _parse(layout, serialized):
    return _graph(layout.split()[0])(tf.constant(serialized, tf.string, shape=[len(serialized)]))


def _assert_equal(parsed, expected):
    for level in ("context", "items"):
        for name, value in getattr(parsed, level).items():
            other = getattr(expected, level)[name]
            if isinstance(value, Tokens):
                np.testing.assert_array_equal(value.row_splits, other.row_splits, err_msg=name)
                value, other = value.values, other.values
            np.testing.assert_array_equal(value, other, err_msg=name)
    np.testing.assert_array_equal(parsed.row_splits, expected.row_splits)


@pytest.mark.parametrize("parser", AS_PROTO)
def test_every_value_is_read(parser):
    parsed = _parse(parser, [AS_PROTO[parser](one) for one in SERIALIZED])
    assert set(parsed.context) | set(parsed.items) == set(CONFIG.features)  # and no label
    _assert_equal(parsed, BATCH)


@pytest.mark.parametrize("parser", AS_PROTO)
def test_an_empty_batch_and_empty_lists(parser):
    assert _parse(parser, []).row_splits.numpy().tolist() == [0]
    parsed = _parse(parser, [b"", AS_PROTO[parser](SERIALIZED[2]), b""])
    assert parsed.row_splits.numpy().tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(parsed.context["age"], np.float32([np.nan, 50, np.nan]))
    assert parsed.context["country"].numpy().tolist() == [b"", b"ch", b""]
    assert parsed.context["words"].row_splits.numpy().tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(parsed.items["image"], np.float32([[7, 8, 9]]))
    assert _parse(parser, [b""]).row_splits.numpy().tolist() == [0, 0]


@pytest.mark.parametrize("parser", AS_PROTO)
@pytest.mark.parametrize("name", list(CONFIG.items) + list(CONFIG.context))
def test_a_missing_feature_gets_its_missing_value(parser, name):
    def without(serialized):
        example = tf.train.Example.FromString(serialized)
        for key in (name, f"{name}/row_lengths"):
            example.features.feature.pop(key, None)
        return example.SerializeToString()

    parsed = _parse(parser, [AS_PROTO[parser](without(SERIALIZED[0])), AS_PROTO[parser](SERIALIZED[2])])
    expected = _parse(parser, [AS_PROTO[parser](SERIALIZED[0]), AS_PROTO[parser](SERIALIZED[2])])
    level = "items" if name in CONFIG.items else "context"
    value, whole, column = getattr(parsed, level)[name], getattr(expected, level)[name], TABLE[name]
    rows = 2 if level == "items" else 1  # of the first list
    if column.tokens:
        assert value.row_splits[: rows + 1].numpy().tolist() == [0] * (rows + 1)
        np.testing.assert_array_equal(value.values, whole.values[whole.row_splits[rows] :])
    else:
        np.testing.assert_array_equal(value[:rows], np.full_like(value[:rows], column.missing))
        np.testing.assert_array_equal(value[rows:], whole[rows:])
    np.testing.assert_array_equal(parsed.row_splits, expected.row_splits)


@pytest.mark.parametrize("parser", AS_PROTO)
def test_other_features_are_ignored(parser):
    one = AS_PROTO[parser](SERIALIZED[0])
    _assert_equal(_parse(parser, [_with_surprises(parser, one)]), _parse(parser, [one]))


def _with_surprises(layout, serialized):
    """The same proto with two features that are not in the config, of different lengths."""
    from tensorflow_serving.apis import input_pb2

    if layout == "elwc":
        proto = input_pb2.ExampleListWithContext.FromString(serialized)
        maps = [one.features.feature for one in (proto.context, *proto.examples)]
    elif layout == "list_example":
        proto = tf.train.Example.FromString(serialized)
        maps = [proto.features.feature]
    else:
        proto = tf.train.SequenceExample.FromString(serialized)
        proto.feature_lists.feature_list["surprise"].feature.add().float_list.value.extend([1, 2])
        maps = [proto.context.feature]
    for features in maps:
        features["surprise"].float_list.value.extend([1, 2])
        features["another"].bytes_list.value.append(b"x")
    return proto.SerializeToString()


@pytest.mark.parametrize("parser", AS_PROTO)
def test_corrupt_bytes_are_an_error(parser):
    with pytest.raises((tf.errors.InvalidArgumentError, tf.errors.DataLossError)):
        _parse(parser, [AS_PROTO[parser](SERIALIZED[0]), b"not a proto"])


@pytest.mark.parametrize("parser", AS_PROTO)
@pytest.mark.parametrize("name", ["price", "age"])
def test_another_type_is_an_error_that_names_the_feature(parser, name):
    example = tf.train.Example.FromString(SERIALIZED[0])
    count = len(example.features.feature[name].float_list.value)
    example.features.feature[name].bytes_list.value.extend([b"x"] * count)
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        _parse(parser, [AS_PROTO[parser](example.SerializeToString())])


@pytest.mark.parametrize("values", [[], [1.0, 2.0]])
@pytest.mark.parametrize("name", ["price", "age"])
def test_an_elwc_with_another_number_of_values_is_an_error_that_names_the_feature(name, values):
    from tensorflow_serving.apis import input_pb2

    proto = input_pb2.ExampleListWithContext.FromString(AS_PROTO["elwc"](SERIALIZED[0]))
    example = proto.context if name == "age" else proto.examples[0]
    example.features.feature[name].float_list.value[:] = values
    with pytest.raises(tf.errors.InvalidArgumentError, match=name):
        _parse("elwc", [proto.SerializeToString()])


def test_examples_become_lists_of_one_item_with_their_context():
    parsed = _parse("example", [one for serialized in SERIALIZED for one in to_examples(serialized, CONFIG)])
    assert parsed.row_splits.numpy().tolist() == [0, 1, 2, 3]
    of_items = np.array([0, 0, 2])  # the list of each item
    for name, value in BATCH.items.items():
        if isinstance(value, Tokens):
            np.testing.assert_array_equal(parsed.items[name].row_splits, value.row_splits)
            np.testing.assert_array_equal(parsed.items[name].values, value.values)
        elif name in CONFIG.items:
            np.testing.assert_array_equal(parsed.items[name], value, err_msg=name)
    for name in ("age", "country", "place"):
        np.testing.assert_array_equal(parsed.context[name], BATCH.context[name][of_items], err_msg=name)
    assert tf.RaggedTensor.from_row_splits(*parsed.context["words"]).to_list() == [[b"red", b"shoe"]] * 2 + [[b"hat"]]
    blank = _parse("example", [b""])  # an item without values
    assert (blank.row_splits.numpy().tolist(), blank.items["stock"].numpy().tolist()) == ([0, 1], [7])


@functools.cache
def _tensor_graph():
    specs = parsing.tensor_specs(TABLE)
    return tf.function(lambda tensors: parsing.parse_tensors(tensors, TABLE), input_signature=[specs])


def _parse_tensors(feeds):
    specs = parsing.tensor_specs(TABLE)
    tensors = {name: tf.constant(value.tolist(), specs[name].dtype, value.shape) for name, value in feeds.items()}
    return _tensor_graph()(tensors)


def test_tensors_hold_the_same_values_except_that_text_is_not_split():
    parsed = _parse_tensors(to_tensors(SERIALIZED, CONFIG))
    words, titles = (b"red shoe", b"", b"hat"), (b"a", b"", b"b c")
    whole = ListBatch(
        {**BATCH.context, "words": Tokens(np.array(words, object), np.arange(4))},
        {**BATCH.items, "title": Tokens(np.array(titles, object), np.arange(4))},
        BATCH.row_splits,
    )
    _assert_equal(parsed, whole)


def test_values_after_the_size_of_a_list_are_ignored():
    feeds = to_tensors(SERIALIZED, CONFIG)
    wider = {
        name: np.concatenate([value, value[:, :1]], axis=1) if name in CONFIG.items else value
        for name, value in feeds.items()
    }
    _assert_equal(_parse_tensors(wider), _parse_tensors(feeds))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stock", lambda value: value[:, :1], "feature stock has the shape 3 x 1, expected 3 x 2"),
        ("stock", lambda value: value[:2], "feature stock has the shape 2 x 2, expected 3 x 2"),
        ("age", lambda value: value[:2], "feature age has the shape 2 x 0, expected 3 x 0"),
        ("sizes", lambda value: value + 1, "sizes: expected 0 to the number of items"),
        ("sizes", lambda value: value - 1, "sizes: expected 0 to the number of items"),
    ],
)
def test_tensors_of_another_shape_are_an_error_that_names_the_feature(name, change, message):
    feeds = to_tensors(SERIALIZED, CONFIG)
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        _parse_tensors({**feeds, name: change(feeds[name])})


def test_two_features_with_the_same_tensor_name_are_refused():
    table = {"a-b": TABLE["price"], "a_b": TABLE["price"]}
    with pytest.raises(ConfigError, match=r"needs a tensor of its own for 'a_b'.*serving.rename"):
        parsing.tensor_specs(table)


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
