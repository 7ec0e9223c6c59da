"""Rows become lists; long lists are capped and lists without a relevant item are dropped, as the config says."""

import random

import pytest
from ingested import by_group, config, equation, read, run, write_csv

from tfx_ranking.components.errors import GroupOrderError


@pytest.mark.parametrize("order", ["any", "grouped"])
def test_lists_longer_than_a_chunk(tmp_path, monkeypatch, order):
    from tfx_ranking.components.formats import tables

    monkeypatch.setattr(tables, "BLOCK_BYTES", 50)
    cfg = config(write_csv(tmp_path / "t.csv", [(f"q{i // 60}", i, 1) for i in range(1200)]), order=order)
    run(cfg, tmp_path / "out")
    groups = by_group(cfg, tmp_path / "out")
    assert {group: values for group, (_, values) in groups.items()} == {
        f"q{i}": list(range(60 * i, 60 * i + 60)) for i in range(20)
    }


def test_a_group_that_comes_back_names_both_rows(tmp_path):
    rows = [("a", 1, 1), ("a", 2, 1), ("b", 3, 1), ("a", 4, 1)]
    cfg = config(write_csv(tmp_path / "t.csv", rows), order="grouped")
    message = r"t\.csv: group 'a' appears at rows 3 and 5, with other groups between them\. Sort the input by group"
    with pytest.raises(GroupOrderError, match=message):
        run(cfg, tmp_path / "out")


def test_a_group_that_comes_back_in_another_file(tmp_path):
    write_csv(tmp_path / "1.csv", [("a", 1, 1), ("b", 2, 1)])
    write_csv(tmp_path / "2.csv", [("c", 1, 1), ("a", 2, 1)])
    with pytest.raises(GroupOrderError, match=r"1\.csv: group 'a' appears at row 2 and again in .*2\.csv at row 3"):
        run(config(tmp_path / "*.csv", order="grouped"), tmp_path / "out")


def test_rows_that_disagree_about_their_query_are_counted(tmp_path):
    rows = [("a", 1, 1, "NL"), ("a", 2, 1, "DE"), ("b", 3, 1, "NL"), ("b", 3, 1, "NL")]
    path = write_csv(tmp_path / "t.csv", rows, ("group_id", "x", "label", "country"))
    for order in ("any", "grouped"):
        cfg = config(path, order=order, context={"country": {"dtype": "string", "vocabulary": {}}},
                     splits={"validation": 0.0, "test": 0.0})  # fmt: skip
        properties = run(cfg, tmp_path / order)
        assert properties["context_differs"] == 1
        assert read(cfg, tmp_path / order, "train").context["country"].tolist() == [b"NL", b"NL"]


def test_capped_by_position(tmp_path):
    rows = [(f"q{i // 5}", i, 1, 5 - i % 5) for i in range(200)]
    path = write_csv(tmp_path / "t.csv", rows, ("group_id", "x", "label", "rank"))
    cfg = config(path, position="rank", max_items=2)
    properties = run(cfg, tmp_path / "out")
    assert (properties["capped_lists"], properties["capped"]) == (40, 120)
    assert equation(cfg, properties) == 80
    for group, (_, values) in by_group(cfg, tmp_path / "out").items():
        first = 5 * int(group[1:])
        assert values == [first + 3, first + 4]  # ranks 2 and 1, in the order of the file


def test_capped_by_label_keeps_the_relevant_and_samples_the_rest(tmp_path):
    rows = [(f"q{i // 10}", i % 10, 2 if i % 10 in (4, 7) else 0) for i in range(1000)]
    cfg = config(write_csv(tmp_path / "t.csv", rows), max_items=4, keep="label")
    properties = run(cfg, tmp_path / "one")
    assert properties["capped"] == 600
    groups = by_group(cfg, tmp_path / "one")
    assert all({4, 7} <= set(values) and len(values) == 4 and values == sorted(values) for _, values in groups.values())
    sampled = {value for _, values in groups.values() for value in values}
    assert sampled == set(range(10))
    random.Random(4).shuffle(rows := list(rows))
    run(cfg, tmp_path / "two")
    assert by_group(cfg, tmp_path / "two") == groups


def test_lists_without_a_relevant_item(tmp_path):
    rows = [(f"q{i // 2}", i, int(i // 2 % 4 == 0)) for i in range(400)]
    path = write_csv(tmp_path / "t.csv", rows)
    kept = run(config(path), tmp_path / "keep")
    assert (kept["lists_out"], kept["dropped_lists"]) == (200, 0)
    dropped = run(config(path, no_relevant="drop"), tmp_path / "drop")
    assert (dropped["lists_out"], dropped["dropped_lists"], dropped["dropped"]) == (50, 150, 300)
    assert equation(None, dropped) == 100
    assert "150 lists dropped" in dropped["summary"]
