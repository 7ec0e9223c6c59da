"""ELWC messages are split into the Examples that they were joined from."""

import tensorflow as tf

from tfx_ranking.components.lists import elwc


def example(value: int) -> bytes:
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[value] * 200))  # lengths of two bytes
    return tf.train.Example(features=tf.train.Features(feature={"x": feature})).SerializeToString()


def test_split_returns_what_join_joined():
    lists = [([example(1), example(2)], example(3)), ([], example(4)), ([example(5)], b"")]
    split = elwc.split([elwc.join(items, context) for items, context in lists])
    assert split.context.numpy().tolist() == [example(3), example(4), b""]
    assert split.items.numpy().tolist() == [example(1), example(2), example(5)]
    assert split.lengths.numpy().tolist() == [2, 0, 1]


def test_empty_batch_and_empty_message():
    assert [each.shape.as_list() for each in elwc.split([])] == [[0], [0], [0]]
    assert elwc.split([b""]).context.numpy().tolist() == [b""]
    assert elwc.split([b""]).lengths.numpy().tolist() == [0]
