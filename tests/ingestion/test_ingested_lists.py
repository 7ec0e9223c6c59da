"""RankingExampleGen: lists stay whole, splits stay apart, long lists are cut as the config says."""

import logging
import pathlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingested import ROWS, by_group, config, equation, quarantine, read, run, write_csv

from tfx_ranking.components.config.data_section import Splits
from tfx_ranking.components.errors import DataError, GroupOrderError
from tfx_ranking.components.ingestion import plan, shards, splits
from tfx_ranking.components.lists.list_examples import columns, decode, read_records, split_files

# Splits


def test_hashed_splits_have_their_shares_and_keep_lists_whole(tmp_path):
    rows = [(f"q{i // 2}", i, 1) for i in range(8000)]
    cfg = config(write_csv(tmp_path / "t.csv", rows), splits={"validation": 0.1, "test": 0.2})
    properties = run(cfg, tmp_path / "out")
    groups = by_group(cfg, tmp_path / "out")
    assert len(groups) == 4000
    assert all(values == [2 * int(group[1:]), 2 * int(group[1:]) + 1] for group, (_, values) in groups.items())
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        deviation = 4 * (4000 * share * (1 - share)) ** 0.5  # four standard deviations of a binomial
        assert abs(properties[f"lists_{split}"] - 4000 * share) < deviation


def test_a_list_keeps_its_split_whatever_else_there_is(tmp_path):
    alone = config(write_csv(tmp_path / "a.csv", ROWS))
    run(alone, tmp_path / "alone")
    more = config(write_csv(tmp_path / "b.csv", [*ROWS, *((f"r{i}", i, 0) for i in range(50))]))
    run(more, tmp_path / "more")
    groups = by_group(more, tmp_path / "more")
    assert all(groups[group] == each for group, each in by_group(alone, tmp_path / "alone").items())


def test_a_split_without_files_is_hashed_out_of_train(tmp_path, caplog):
    inputs = {"train": write_csv(tmp_path / "a.csv", ROWS), "test": write_csv(tmp_path / "b.csv", ROWS[:30])}
    cfg = config(inputs, splits={"validation": 0.25, "test": 0.5})
    with caplog.at_level(logging.WARNING):
        properties = run(cfg, tmp_path / "out")
    assert properties["lists_test"] == 10  # all of its file, and nothing of train's
    assert properties["lists_train"] + properties["lists_validation"] == 100
    drawn = splits.unit_hash([f"q{i}".encode() for i in range(100)])
    assert properties["lists_validation"] == int((drawn < 0.25).sum())
    assert properties["shared_group_ids"] == 10
    assert "10 group ids are in the files of both train and test" in caplog.text


def test_splits_by_time(tmp_path):
    rows = [(f"q{i // 2}", i, 1, f"2024-01-{i // 2 % 20 + 1:02d}") for i in range(80)]
    path = write_csv(tmp_path / "t.csv", random.Random(1).sample(rows, 80), ("group_id", "x", "label", "day"))
    cfg = config(path, splits={"by": "day", "validation": 0.1, "test": 0.2})
    run(cfg, tmp_path / "out")
    for group, (split, _) in by_group(cfg, tmp_path / "out").items():
        day = int(group[1:]) % 20 + 1  # two lists a day; 0.2 of 40 lists are the last four days
        assert split == ("test" if day > 16 else "validation" if day > 14 else "train")


def test_a_list_without_a_time_is_quarantined(tmp_path):
    rows = [(f"q{i // 2}", i, i % 2, i // 2) for i in range(20)]
    path = write_csv(tmp_path / "t.csv", [*rows, ("q99", 1, 1, "soon")], ("group_id", "x", "label", "t"))
    properties = run(config(path, splits={"by": "t"}), tmp_path / "out")
    (bad,) = quarantine(tmp_path / "out")
    assert bad["reason"] == "t: expected a number or an ISO 8601 time to split by; got 'soon'"
    assert properties["items_out"] == 20


def test_an_empty_split_is_an_error(tmp_path):
    cfg = config(write_csv(tmp_path / "t.csv", ROWS[:3]))
    with pytest.raises(
        DataError, match=r"split \w+ has no list \(lists: train \d, validation \d, test \d\)\. Give it a larger share"
    ):
        run(cfg, tmp_path / "out")


def test_shares():
    assert splits.shares(Splits(validation=0.1, test=0.0), {"all"}) == {"validation": 0.1}
    assert splits.names(Splits(validation=0.1, test=0.0), {"all"}) == ["train", "validation"]
    assert splits.names(Splits(), {"train", "validation", "test"}) == ["train", "validation", "test"]


# Grouping


@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=15).filter(lambda sizes: max(sizes) > 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=25)
def test_rows_in_any_order_give_the_lists_of_sorted_rows(tmp_path_factory, sizes, seed):
    """Shuffled lists with their rows in order, over two files = the same lists grouped in one file."""
    folder = tmp_path_factory.mktemp("order")
    lists = [[(f"q{i}", 10 * i + j, 1) for j in range(size)] for i, size in enumerate(sizes)]
    rest, mixed = [list(each) for each in lists], []
    rng = random.Random(seed)
    while any(rest):
        mixed.append(rng.choice([each for each in rest if each]).pop(0))
    half = len(mixed) // 2
    write_csv(folder / "m1.csv", mixed[:half])
    write_csv(folder / "m2.csv", mixed[half:])
    write_csv(folder / "g.csv", [row for each in lists for row in each])
    none = {"validation": 0.0, "test": 0.0}
    mixed_config = config(folder / "m*.csv", splits=none)
    grouped_config = config(folder / "g.csv", order="grouped", splits=none)
    run(mixed_config, folder / "mixed")
    run(grouped_config, folder / "grouped")
    groups = by_group(mixed_config, folder / "mixed", ["train"])
    assert groups == by_group(grouped_config, folder / "grouped", ["train"])
    assert groups == {each[0][0]: ("train", [row[1] for row in each]) for each in lists}


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


def test_many_buckets_are_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "BYTES_PER_BUCKET", 500)
    cfg = config(write_csv(tmp_path / "t.csv", random.Random(2).sample(ROWS, len(ROWS))))
    run(cfg, tmp_path / "out")
    assert len(by_group(cfg, tmp_path / "out")) == 100
    files = split_files(str(tmp_path / "out"), "train")
    assert len(files) > 1
    assert [pathlib.Path(file).name for file in files] == [
        f"data_tfrecord-{i:05d}-of-{len(files):05d}.gz" for i in range(len(files))
    ]


@pytest.mark.parametrize("order", ["any", "grouped"])
def test_two_shards_take_turns_by_bytes(tmp_path, monkeypatch, order):
    monkeypatch.setattr(shards, "BYTES_IN_TURN", 200)
    cfg = config(write_csv(tmp_path / "t.csv", sorted(ROWS)), order=order)
    run(cfg, tmp_path / "out")
    files = split_files(str(tmp_path / "out"), "train")
    records = [list(read_records([file])) for file in files]
    assert len(files) == 2
    assert len(by_group(cfg, tmp_path / "out")) == 100
    written, turns = 0, [records[0][::-1], records[1][::-1]]
    groups = []
    while any(turns):
        record = turns[written // 200 % 2].pop()
        written += len(record)
        groups.append(decode([record], columns(cfg)).context["group_id"][0])
    assert groups == sorted(groups)


def test_a_group_that_comes_back_names_both_rows(tmp_path):
    rows = [("a", 1, 1), ("a", 2, 1), ("b", 3, 1), ("a", 4, 1)]
    cfg = config(write_csv(tmp_path / "t.csv", rows), order="grouped")
    message = (
        r"t\.csv: group 'a' appears at rows 3 and 5, with other groups between\. Sort the input by group, or set data"
    )
    with pytest.raises(GroupOrderError, match=message):
        run(cfg, tmp_path / "out")


def test_a_group_that_comes_back_in_another_file(tmp_path):
    write_csv(tmp_path / "1.csv", [("a", 1, 1), ("b", 2, 1)])
    write_csv(tmp_path / "2.csv", [("c", 1, 1), ("a", 2, 1)])
    with pytest.raises(GroupOrderError, match=r"1\.csv: group 'a' appears at row 2 and again in .*2\.csv at row 3"):
        run(config(tmp_path / "*.csv", order="grouped"), tmp_path / "out")


def test_the_same_input_gives_the_same_files(tmp_path):
    cfg = config(write_csv(tmp_path / "t.csv", random.Random(3).sample(ROWS, len(ROWS))))
    for out in ("one", "two"):
        run(cfg, tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_rows_that_disagree_about_their_query_are_counted(tmp_path):
    rows = [("a", 1, 1, "NL"), ("a", 2, 1, "DE"), ("b", 3, 1, "NL"), ("b", 3, 1, "NL")]
    path = write_csv(tmp_path / "t.csv", rows, ("group_id", "x", "label", "country"))
    for order in ("any", "grouped"):
        cfg = config(path, order=order, context={"country": {"dtype": "string", "vocabulary": {}}},
                     splits={"validation": 0.0, "test": 0.0})  # fmt: skip
        properties = run(cfg, tmp_path / order)
        assert properties["context_differs"] == 1
        assert read(cfg, tmp_path / order, "train").context["country"].tolist() == [b"NL", b"NL"]


# Capping and dropping


def test_capped_by_position(tmp_path):
    rows = [(f"q{i // 5}", i, 1, 5 - i % 5) for i in range(200)]
    path = write_csv(tmp_path / "t.csv", rows, ("group_id", "x", "label", "rank"))
    cfg = config(path, position="rank", max_items=2)
    properties = run(cfg, tmp_path / "out")
    assert (properties["capped_lists"], properties["capped"]) == (40, 120)
    assert equation(cfg, properties) == 80
    for group, (_, values) in by_group(cfg, tmp_path / "out").items():
        first = 5 * int(group[1:])
        assert values == [first + 3, first + 4]  # ranks 2 and 1, in the order in which they stood


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
