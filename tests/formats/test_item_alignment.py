"""SequenceExamples in both layouts have one entry per item."""

import numpy as np
import tensorflow as tf
from format_files import bad, chunks, config, sequence, write_records


def test_item_features_of_different_length_are_quarantined(tmp_path):
    good = sequence({"q": "a"}, [{"x": 1.0, "label": 1}, {"x": 2.0, "label": 0}], whole=True)
    short = tf.train.SequenceExample.FromString(good)
    del short.feature_lists.feature_list["x"].feature[0].float_list.value[1:]
    path = write_records(tmp_path / "r", [good, short.SerializeToString(), good])
    actual = chunks(path, config("sequence_example", items={"x": {}}))
    assert bad(actual) == [(2, "x: expected 2 values, as many as label has; got 1", 2)]
    assert sum(chunk.records for chunk in actual) == 6
    assert np.concatenate([chunk.positions for chunk in actual]).tolist() == [1, 3]


def test_both_layouts_of_a_sequence_example(tmp_path):
    rows = [{"x": 1.0, "v": [1.0, 2.0], "label": 1}, {"x": 2.0, "v": [3.0, 4.0], "label": 0}]
    alone = [{"x": 5.0, "v": [5.0, 6.0], "label": 1}]
    records = [
        sequence({"q": group}, items, whole)
        for group, items, whole in [
            ("each", rows, False),
            ("whole", rows, True),
            ("alone", alone, True),
            ("alone", alone, False),
        ]
    ]
    cfg = config("sequence_example", items={"x": {}, "v": {"shape": [2]}})
    (chunk,) = chunks(write_records(tmp_path / "r", records), cfg)
    assert chunk.row_splits.tolist() == [0, 2, 4, 5, 6]
    assert chunk.columns["x"].to_pylist() == [[1.0], [2.0], [1.0], [2.0], [5.0], [5.0]]
    assert chunk.columns["v"].to_pylist() == [[1, 2], [3, 4], [1, 2], [3, 4], [5, 6], [5, 6]]
