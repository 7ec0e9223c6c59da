"""Writes lists as the clients of each ranker send them: ELWC for TF-Ranking, SequenceExamples for ml4ir.

Input: `NumericLists`.  Output: one serialized proto per list, with the features f1, f2, … and, if wanted, the label.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from tfx_ranking.pipelines.search_logs import NumericLists


def elwc(lists: NumericLists, labels: bool = False) -> list[bytes]:
    """ELWC, with one Example per item."""
    made = []
    for rows in _tables(lists, labels):
        message = input_pb2.ExampleListWithContext()
        for row in rows.tolist():
            features = message.examples.add().features.feature
            for name, value in zip(names(rows), row):
                features[name].float_list.value.append(value)
        made.append(message.SerializeToString())
    return made


def sequence_examples(lists: NumericLists, labels: bool = False) -> list[bytes]:
    """SequenceExamples with one Feature for all items and the feature `rank`, as ml4ir writes and needs them."""
    made = []
    for number, rows in enumerate(_tables(lists, labels)):
        message = tf.train.SequenceExample()
        message.context.feature["query_id"].bytes_list.value.append(b"%d" % number)
        of_items = message.feature_lists.feature_list
        for name, column in zip(names(rows), rows.T.tolist()):
            of_items[name].feature.add().float_list.value.extend(column)
        of_items["rank"].feature.add().int64_list.value.extend(range(1, len(rows) + 1))
        made.append(message.SerializeToString())
    return made


def list_examples(lists: NumericLists, labels: bool = False) -> list[bytes]:
    """List examples, our own format: one Example per list."""
    made = []
    for number, rows in enumerate(_tables(lists, labels)):
        message = tf.train.Example()
        if labels:
            message.features.feature["group_id"].bytes_list.value.append(b"%d" % number)
        for name, column in zip(names(rows), rows.T.tolist()):
            message.features.feature[name].float_list.value.extend(column)
        made.append(message.SerializeToString())
    return made


KINDS: dict[str, Callable[..., list[bytes]]] = {
    "elwc": elwc,
    "sequence_example": sequence_examples,
    "list_example": list_examples,
}


def write(records: Iterable[bytes], file: Any) -> None:
    with tf.io.TFRecordWriter(str(file)) as writer:
        for record in records:
            writer.write(record)


def names(rows: np.ndarray) -> Sequence[str]:
    """The names of the columns: 46 features, then the label."""
    return [f"f{i + 1}" if i < FEATURES else "label" for i in range(rows.shape[1])]


FEATURES = 46


def _tables(lists: NumericLists, labels: bool) -> Iterator[np.ndarray]:
    """float32 [item, feature (+ label)] of each list."""
    table = np.column_stack([lists.features, lists.labels]) if labels else lists.features
    return iter(np.split(table, lists.row_splits[1:-1]))
