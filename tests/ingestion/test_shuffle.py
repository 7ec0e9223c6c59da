"""Rows in any order give the same lists as sorted rows."""

import pathlib
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from ingested import ROWS, by_group, config, run, write_csv

from tfx_ranking.components.ingestion import plan
from tfx_ranking.components.lists.list_examples import split_files


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
