"""The records of a split go to two shards in turn, and the same input gives the same bytes."""

import random

import pytest
from ingested import ROWS, by_group, config, run, write_csv

from tfx_ranking.components.ingestion import shards
from tfx_ranking.components.lists.list_examples import columns, decode, read_records, split_files


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


def test_the_same_input_gives_the_same_files(tmp_path):
    cfg = config(write_csv(tmp_path / "t.csv", random.Random(3).sample(ROWS, len(ROWS))))
    for out in ("one", "two"):
        run(cfg, tmp_path / out)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file())
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
