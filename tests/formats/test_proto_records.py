"""TFRecord files: a malformed record costs only itself."""

import pytest
import tensorflow as tf
from format_files import bad, chunks, column, config, elwc, example, sequence, write_records

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import columns
from tfx_ranking.components.serving import parsing


@pytest.mark.parametrize("format", ["tf_example", "elwc", "sequence_example", "list_example"])
def test_a_malformed_record_costs_itself_only(tmp_path, format):
    sound = {
        "tf_example": example({"q": "a", "x": 1.0, "label": 1.0}),
        "elwc": elwc({"q": "a"}, [{"x": 1.0, "label": 1.0}]),
        "sequence_example": sequence({"q": "a"}, [{"x": 1.0, "label": 1.0}], whole=False),
        "list_example": example({"q": "a", "x": [1.0], "label": [1.0]}),
    }[format]
    path = write_records(tmp_path / "r", [sound, b"\xff\xffgarbage", sound, sound])
    actual = chunks(path, config(format, items={"x": {}}))
    ((position, reason, items),) = bad(actual)
    assert position == 2
    assert items == 1
    assert reason.startswith("malformed record: ")
    assert sum(chunk.records for chunk in actual) == 4
    assert column(actual, "x") == [[1.0]] * 3


def test_a_feature_of_two_types_is_read(tmp_path):
    """One writer writes 1, another 1.0; the batch is decoded in parts."""
    records = [example({"q": "a", "x": value, "label": 1.0}) for value in (1.5, 2, 3.5)]
    actual = chunks(write_records(tmp_path / "r", records), config("tf_example", items={"x": {}}))
    assert column(actual, "x") == [[1.5], [2], [3.5]]
    assert not bad(actual)


def test_a_broken_tfrecord_file_is_an_error(tmp_path):
    path = write_records(tmp_path / "r", [example({"q": "a", "x": 1.0, "label": 1.0})] * 3)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(DataError, match=r"the TFRecord file is broken after record .*Copy the file again"):
        chunks(path, config("tf_example", items={"x": {}}))


def test_elwc_by_hand_is_elwc(tmp_path):
    """The project's own parser reads the ELWC bytes that these tests write by hand."""
    cfg = config("elwc", items={"x": {}})
    batch = parsing.parse_elwc(
        tf.constant([elwc({"q": "a"}, [{"x": 1.0, "label": 1.0}, {"x": 2.0, "label": 0.0}])]), columns(cfg)
    )
    assert batch.items["x"].numpy().tolist() == [1.0, 2.0]
