"""Each list is in one split, and each split has its share of the lists."""

import logging
import random

import pytest
from ingested import ROWS, by_group, config, quarantine, run, write_csv

from tfx_ranking.components.config.data_section import Splits
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.ingestion import splits


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
