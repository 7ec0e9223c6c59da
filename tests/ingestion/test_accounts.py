"""Bad input is reported, counted and quarantined."""

import json
import logging
import pathlib

import pytest
from ingested import ROWS, config, equation, quarantine, run, write_csv

from tfx_ranking.components.errors import DataError

BAD_ROWS = {
    "no group": (("", 1, 1), "group_id: the group id is missing"),
    "no label": (("q1", 1, ""), "label: the label is missing"),
    "label out of range": (("q1", 1, 7), "label: 7 is outside data.label_range [0, 4]"),
    "infinite": (("q1", "inf", 1), "x: inf is not a finite number"),
    "too large for a float32": (("q1", "1e39", 1), "x: inf is not a finite number"),
    "no number": (("q1", "cheap", 1), "x: expected a number; got 'cheap'"),
    "malformed": (("q1", 1), "malformed row: expected 3 cells; got 2"),
}


@pytest.mark.parametrize("order", ["any", "grouped"])
@pytest.mark.parametrize("case", BAD_ROWS)
def test_a_bad_row_is_quarantined(tmp_path, case, order):
    row, reason = BAD_ROWS[case]
    path = write_csv(tmp_path / "t.csv", [*ROWS[:6], row, *ROWS[6:]])
    properties = run(config(path, label_range=[0, 4], order=order), tmp_path / "out")
    assert quarantine(tmp_path / "out") == [{"file": str(path), "position": 8, "reason": reason, "items": 1}]
    assert properties["records_in"] == 301
    assert properties["quarantined"] == 1
    assert equation(None, properties) == 300
    assert "1 quarantined" in properties["summary"]


def test_a_bad_item_costs_the_list_where_a_record_is_a_list(tmp_path):
    import tensorflow as tf

    def record(group, values, labels):
        made = tf.train.Example()
        if group:
            made.features.feature["group_id"].bytes_list.value.append(group)
        made.features.feature["x"].float_list.value.extend(values)
        made.features.feature["label"].float_list.value.extend(labels)
        return made.SerializeToString()

    good = [record(b"g%d" % i, [1.0, 2.0], [0.0, 1.0]) for i in range(40)]
    bad = [
        (record(b"a", [1.0, float("inf")], [0.0, 1.0]), "x: inf is not a finite number", 2),
        (record(b"b", [1.0, 2.0, 3.0], [0.0, 1.0]), "x: expected 2 values, as many as label has; got 3", 2),
        (record(None, [1.0], [0.0]), "group_id: the group id is missing", 1),
        (record(b"c", [1.0, 2.0], [0.0, 9.0]), "label: 9 is outside data.label_range [0, 4]", 2),
        (record(b"d", [], []), "a list without items", 1),
        (b"\xff\xff", "malformed record: DATA_LOSS: Unable to parse example.", 1),
    ]
    with tf.io.TFRecordWriter(str(tmp_path / "t")) as writer:
        for each in [*good, *(each for each, _, _ in bad)]:
            writer.write(each)
    properties = run(config(tmp_path / "t", format="list_example", label_range=[0, 4]), tmp_path / "out")
    bad_records = quarantine(tmp_path / "out")
    assert [(each["position"], each["reason"], each["items"]) for each in bad_records] == [
        (41 + i, reason, items) for i, (_, reason, items) in enumerate(bad)
    ]
    assert equation(None, properties) == 80
    assert properties["quarantined"] == sum(items for _, _, items in bad)


def test_too_much_bad_input_fails_and_shows_three(tmp_path):
    path = write_csv(tmp_path / "t.csv", [*ROWS[:96], *[("q1", "?", 1)] * 4])
    with pytest.raises(DataError) as error:
        run(config(path, max_bad_fraction=0.03), tmp_path / "out")
    kept = f"{tmp_path}/out-quarantine.jsonl"
    shown = "; ".join(f"{path}:{row}: x: expected a number; got '?'" for row in (98, 99, 100))
    assert str(error.value) == (
        "4 of 100 records are bad, more than data.max_bad_fraction 0.03 allows. The first 3: "
        f"{shown}. All of them: {kept}. Correct the input, or raise data.max_bad_fraction."
    )
    assert len(pathlib.Path(kept).read_text().splitlines()) == 4
    assert run(config(path, max_bad_fraction=0.04), tmp_path / "more")["quarantined"] == 4


def test_a_bad_weight_is_quarantined(tmp_path):
    rows = [(group, x, label, 1.0) for group, x, label in ROWS]
    path = write_csv(tmp_path / "t.csv", [*rows, ("q1", 1, 1, -1), ("q1", 1, 1, "")], ("group_id", "x", "label", "w"))
    run(config(path, weight="w"), tmp_path / "out")
    assert [each["reason"] for each in quarantine(tmp_path / "out")] == [
        "w: expected a weight of at least 0; got -1",
        "w: expected a weight of at least 0; got nan",
    ]


def test_duplicate_ids_are_counted(tmp_path):
    lines = [f"{i % 2} qid:{i // 2} 1:1 1:{i}\n" for i in range(60)]
    (tmp_path / "t").write_text("".join(lines))
    cfg = config(tmp_path / "t", format="letor", items={"f1": {}})
    properties = run(cfg, tmp_path / "out")
    assert properties["duplicates"] == 60
    assert properties["summary"].endswith("60 duplicate ids")
    cfg = config(tmp_path / "t", format="letor", items={"f1": {}}, duplicates="refuse")
    with pytest.raises(DataError, match=r"60 of 60 records are bad.*feature id 1 appears twice"):
        run(cfg, tmp_path / "refused")


def test_lists_of_one_item_only_are_refused(tmp_path):
    """For example when the column of item ids is configured as the group id."""
    path = write_csv(tmp_path / "t.csv", [(f"q{i}", i, i % 2) for i in range(60)])
    with pytest.raises(
        DataError, match=r"data.group_id: 'group_id' gives only lists of one item in split train \(\d+ lists\)"
    ):
        run(config(path), tmp_path / "out")


def test_lists_of_one_item_and_lists_with_equal_labels_are_counted(tmp_path):
    few = [(f"q{i // 2 if i < 20 else i}", i, 1) for i in range(60)]  # 10 lists of two items, 40 of one
    properties = run(config(write_csv(tmp_path / "t.csv", few)), tmp_path / "out")
    counted = "50 lists, 60 items, 0 quarantined, 40 lists of one item, no list has two different values of 'label'"
    assert properties["summary"] == counted


def test_a_feature_that_no_record_has_is_named(tmp_path, caplog):
    path = write_csv(tmp_path / "t.csv", [(*row, "") for row in ROWS], ("group_id", "x", "label", "prize"))
    with caplog.at_level(logging.WARNING):
        properties = run(config(path, items={"x": {}, "prize": {}}), tmp_path / "out")
    assert "items: no record has a value of prize; is the name right?" in caplog.text
    assert json.loads(properties["missing"]) == {"prize": 300}
