"""RankingExampleGen: lists stay whole, splits stay apart, and every record that came in is accounted for."""

import functools
import gzip
import json
import logging
import pathlib
import random
import re
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.types import artifact_utils, standard_artifacts

from tfx_ranking.components import example_gen, formats, ingestion, shuffle, sources, splits
from tfx_ranking.components.config import Splits, from_selection, parse
from tfx_ranking.components.errors import DataError, GroupOrderError
from tfx_ranking.components.list_examples import columns, decode, read_records, split_files


def config(pattern, format="csv", items=None, context=None, **data):
    data = {"input": pattern, "format": format, "max_bad_fraction": 0.5, **data}
    if isinstance(pattern, dict):
        data["input"] = {split: str(each) for split, each in pattern.items()}
    elif isinstance(pattern, pathlib.Path):
        data["input"] = str(pattern)
    return parse({"name": "t", "data": data, "items": items or {"x": {}}, "context": context or {}})


def run(cfg, folder):
    """What `example_gen.ingest` does, without Beam, whose start takes a second."""
    source = sources.resolve(cfg.data)
    task = ingestion.plan(cfg, source, str(folder))
    if task.streamed:
        for unit in task.units:
            ingestion.ingest_file(task, unit)
    else:
        buckets = {}
        for unit in task.units:
            for bucket, part in shuffle.scatter(task, unit):
                buckets.setdefault(bucket, []).append(part)
        ordered = [
            (bucket, parts[::-1]) for bucket, parts in sorted(buckets.items(), reverse=True)
        ]  # Beam promises none
        if task.time is None:
            for bucket, parts in ordered:
                shuffle.write_bucket(task, bucket, parts)
        else:
            gathered = [shuffle.gather(task, bucket, parts) for bucket, parts in ordered]
            for each in gathered:
                shuffle.settle(task, each, [shuffle.times_of(each) for each in gathered])
    return example_gen.finish(task, source)


def read(cfg, folder, split):
    return decode(list(read_records(split_files(str(folder), split))), columns(cfg))


def by_group(cfg, folder, names=("train", "validation", "test")):
    """Group id → (split, values of x) of every list."""
    found = {}
    for split in names:
        batch = read(cfg, folder, split)
        for i, group in enumerate(batch.context[cfg.data.group_id]):
            assert group not in found
            found[group.decode()] = (split, batch.items["x"][batch.row_splits[i] : batch.row_splits[i + 1]].tolist())
    return found


def write_csv(path, rows, names=("group_id", "x", "label")):
    path.write_text("".join(",".join(str(cell) for cell in row) + "\n" for row in [names, *rows]))
    return path


def quarantine(folder):
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text().splitlines()]


def equation(cfg, properties):
    """Records in = items out + quarantined + capped + dropped."""
    out = sum(properties[f"items_{split}"] for split in properties["split_names"])
    assert out == properties["items_out"]
    lost = properties["quarantined"] + properties["capped"] + properties["dropped"]
    assert properties["records_in"] == out + lost
    return out


ROWS = [(f"q{i // 3}", i, i % 3) for i in range(300)]


# The real files


def real_sets(data):
    clue, light, ml4ir, tfr = (
        data / name for name in ("clueweb09-webis", "lightgbm-lambdarank", "ml4ir", "tfr-examples")
    )
    folds = {"train": [str(clue / f"Fold{i}.test.txt.gz") for i in (1, 2, 3)]}
    folds |= {"validation": str(clue / "Fold4.test.txt.gz"), "test": str(clue / "Fold5.test.txt.gz")}
    texts = {name: {} for name in ("text_match_score", "page_views_score", "quality_score", "name_match")}
    context = {
        "query_text": {"dtype": "string", "tokens": {}},
        "domain_id": {"dtype": "int", "vocabulary": {}},
        "domain_name": {"dtype": "string", "vocabulary": {}},
    }
    logs = {"group_id": "query_id", "label": "clicked", "position": "rank", "label_range": [0, 1]}
    elwc = {"train": tfr / "train_numerical_elwc.tfrecord", "test": tfr / "test_numerical_elwc.tfrecord"}
    letor = functools.partial(config, format="letor", label_range=[0, 4])

    def of(form, suffix):
        each = {split: str(ml4ir / form / f"{split}.{suffix}") for split in ("train", "validation", "test")}
        return config(each, format=form, items=texts, context=context, **logs)

    shares = {"validation": 0.2, "test": 0.2}
    words = {"dtype": "string", "tokens": {}}
    return {
        "lightgbm": (
            letor({s: light / f"rank.{s}" for s in ("train", "test")}, items={"f[1-300]": {}}, group_sizes=".query"),
            251, 3773,
        ),
        "clueweb": (config(None, items={"f[1-42]": {}}, format="letor", input=folds, item_id="docid"), 61, 26646),
        "ml4ir csv": (of("csv", "csv"), 4500, 17045),
        "ml4ir sequence": (of("sequence_example", "tfrecord"), 4500, 17045),
        "tfr letor": (
            letor({s: tfr / f"{s}.txt" for s in ("train", "test")}, items={"f[1-136]": {}}, splits=shares),
            36, 155,
        ),
        "tfr elwc": (
            config(elwc, format="elwc", items={"custom_features_[1-136]": {}}, label="utility", group_from="record",
                   splits=shares),
            36, 155,
        ),
        "tfr tokens": (
            config(tfr / "train_elwc.tfrecord", format="elwc", items={"document_tokens": words},
                   context={"query_tokens": words}, label="relevance", group_from="record",
                   splits={"validation": 0.2, "test": 0.3}),
            10, 20,
        ),
    }  # fmt: skip


NAMES = ("lightgbm", "clueweb", "ml4ir csv", "ml4ir sequence", "tfr letor", "tfr elwc", "tfr tokens")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_of_a_real_file(data_dir, tmp_path, name):
    cfg, lists, items = real_sets(data_dir)[name]
    properties = run(cfg, tmp_path)
    assert properties["records_in"] == items
    assert equation(cfg, properties) == items
    assert properties["lists_out"] == lists
    assert quarantine(tmp_path) == []
    batches = [read(cfg, tmp_path, split) for split in properties["split_names"]]
    assert sum(len(batch.row_splits) - 1 for batch in batches) == lists
    assert sum(int(batch.row_splits[-1]) for batch in batches) == items
    missing = json.loads(properties["missing"])
    for feature, column in columns(cfg).items():
        values = [(b.items if column.level == "items" else b.context)[feature] for b in batches]
        if column.tokens:
            found = sum(int((np.diff(each.row_splits) == 0).sum()) for each in values)
        elif column.dtype == "float":
            found = sum(int(np.isnan(each).sum()) for each in values)
        else:
            found = sum(int((each == b"").sum()) for each in values) if column.dtype == "string" else 0
        assert missing.get(feature, 0) == found
    assert bool(missing) == (name == "tfr elwc")  # the only one with absent values; LETOR's are 0


def test_csv_and_sequence_examples_give_the_same_bytes(data_dir, tmp_path):
    sets = real_sets(data_dir)
    csv, _, _ = sets["ml4ir csv"]
    sequence, _, _ = sets["ml4ir sequence"]
    run(csv, tmp_path / "csv")
    run(sequence, tmp_path / "sequence")
    for split in ("train", "validation", "test"):
        records = [list(read_records(split_files(str(tmp_path / form), split))) for form in ("csv", "sequence")]
        assert records[0] == records[1]
        assert len(records[0]) == 1500


def test_elwc_and_letor_hold_the_same_numbers(data_dir, tmp_path):
    """TF-Ranking made its ELWC files from the LETOR text; absent is NaN there and 0 here, duplicates fall alike."""
    sets = real_sets(data_dir)
    letor, _, _ = sets["tfr letor"]
    elwc, _, _ = sets["tfr elwc"]
    run(letor, tmp_path / "letor")
    run(elwc, tmp_path / "elwc")
    a, b = read(letor, tmp_path / "letor", "test"), read(elwc, tmp_path / "elwc", "test")
    first = {tuple(_row(b, "custom_features_", i)): b.items["utility"][i] for i in range(int(b.row_splits[-1]))}
    second = {tuple(_row(a, "f", i)): a.items["label"][i] for i in range(int(a.row_splits[-1]))}
    assert first == second


def _row(batch, prefix, i):
    return [float(np.nan_to_num(batch.items[f"{prefix}{n}"][i])) for n in range(1, 137)]


def test_lightgbm_against_a_slow_reader(data_dir, tmp_path):
    cfg, _, _ = real_sets(data_dir)["lightgbm"]
    run(cfg, tmp_path)
    batch = read(cfg, tmp_path, "test")
    lines = (data_dir / "lightgbm-lambdarank" / "rank.test").read_text().splitlines()
    sizes = [int(size) for size in (data_dir / "lightgbm-lambdarank" / "rank.test.query").read_text().split()]
    assert np.diff(batch.row_splits).tolist() == sizes
    assert batch.context["group_id"].tolist() == [f"rank.test:{i + 1}".encode() for i in range(len(sizes))]
    for i, line in enumerate(lines):
        label, *pairs = line.split()
        row = {f"f{pair.split(':')[0]}": np.float32(float(pair.split(":")[1])) for pair in pairs}
        assert batch.items["label"][i] == float(label)
        for name in columns(cfg):
            if name.startswith("f"):
                assert batch.items[name][i] == row.get(name, 0.0)


# Splits


def test_hashed_splits_have_their_shares_and_keep_lists_whole(tmp_path):
    rows = [(f"q{i // 2}", i, 1) for i in range(8000)]
    cfg = config(write_csv(tmp_path / "t.csv", rows), splits={"validation": 0.1, "test": 0.2})
    properties = run(cfg, tmp_path / "out")
    found = by_group(cfg, tmp_path / "out")
    assert len(found) == 4000
    assert all(values == [2 * int(group[1:]), 2 * int(group[1:]) + 1] for group, (_, values) in found.items())
    for split, share in (("train", 0.7), ("validation", 0.1), ("test", 0.2)):
        deviation = 4 * (4000 * share * (1 - share)) ** 0.5  # four standard deviations of a binomial
        assert abs(properties[f"lists_{split}"] - 4000 * share) < deviation


def test_a_list_keeps_its_split_whatever_else_there_is(tmp_path):
    alone = config(write_csv(tmp_path / "a.csv", ROWS))
    run(alone, tmp_path / "alone")
    more = config(write_csv(tmp_path / "b.csv", [*ROWS, *((f"r{i}", i, 0) for i in range(50))]))
    run(more, tmp_path / "more")
    found = by_group(more, tmp_path / "more")
    assert all(found[group] == each for group, each in by_group(alone, tmp_path / "alone").items())


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
    assert "10 group ids stand in the files of both train and test" in caplog.text


def test_splits_by_time(tmp_path):
    rows = [(f"q{i // 2}", i, 1, f"2024-01-{i // 2 % 20 + 1:02d}") for i in range(80)]
    path = write_csv(tmp_path / "t.csv", random.Random(1).sample(rows, 80), ("group_id", "x", "label", "day"))
    cfg = config(path, splits={"by": "day", "validation": 0.1, "test": 0.2})
    run(cfg, tmp_path / "out")
    for group, (split, _) in by_group(cfg, tmp_path / "out").items():
        day = int(group[1:]) % 20 + 1  # two lists a day; 0.2 of 40 lists are the last four days
        assert split == ("test" if day > 16 else "validation" if day > 14 else "train")


def test_a_list_without_a_time_is_quarantined(tmp_path):
    rows = [(f"q{i}", i, 1, i) for i in range(20)]
    path = write_csv(tmp_path / "t.csv", [*rows, ("q99", 1, 1, "soon")], ("group_id", "x", "label", "t"))
    properties = run(config(path, splits={"by": "t"}), tmp_path / "out")
    (bad,) = quarantine(tmp_path / "out")
    assert bad["reason"] == "t: expected a number or an ISO 8601 time to split by; got 'soon'"
    assert properties["items_out"] == 20


def test_an_empty_split_is_an_error(tmp_path):
    cfg = config(write_csv(tmp_path / "t.csv", ROWS[:3]))
    with pytest.raises(
        DataError, match=r"split \w+ has no list \(lists: train \d, validation \d, test \d\)\. Give it more"
    ):
        run(cfg, tmp_path / "out")


def test_shares():
    assert splits.shares(Splits(validation=0.1, test=0.0), {"all"}) == {"validation": 0.1}
    assert splits.names(Splits(validation=0.1, test=0.0), {"all"}) == ["train", "validation"]
    assert splits.names(Splits(), {"train", "validation", "test"}) == ["train", "validation", "test"]


# Grouping


@given(sizes=st.lists(st.integers(1, 5), min_size=1, max_size=15), seed=st.integers(0, 99))
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
    found = by_group(mixed_config, folder / "mixed", ["train"])
    assert found == by_group(grouped_config, folder / "grouped", ["train"])
    assert found == {each[0][0]: ("train", [row[1] for row in each]) for each in lists}


@pytest.mark.parametrize("order", ["any", "grouped"])
def test_lists_longer_than_a_chunk(tmp_path, monkeypatch, order):
    from tfx_ranking.components import tables

    monkeypatch.setattr(tables, "BLOCK_BYTES", 50)
    cfg = config(write_csv(tmp_path / "t.csv", [(f"q{i // 60}", i, 1) for i in range(1200)]), order=order)
    run(cfg, tmp_path / "out")
    found = by_group(cfg, tmp_path / "out")
    assert {group: values for group, (_, values) in found.items()} == {
        f"q{i}": list(range(60 * i, 60 * i + 60)) for i in range(20)
    }


def test_many_buckets_are_many_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(ingestion, "BYTES_A_BUCKET", 500)
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
    monkeypatch.setattr(ingestion, "BYTES_IN_TURN", 200)
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


# Bad input

BAD_ROWS = {
    "no group": (("", 1, 1), "group_id: the group id is missing"),
    "no label": (("q1", 1, ""), "label: the label is missing"),
    "label out of range": (("q1", 1, 7), "label: 7 is outside data.label_range [0, 4]"),
    "infinite": (("q1", "inf", 1), "x: inf is no finite number"),
    "too large for a float32": (("q1", "1e39", 1), "x: inf is no finite number"),
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
        (record(b"a", [1.0, float("inf")], [0.0, 1.0]), "x: inf is no finite number", 2),
        (record(b"b", [1.0, 2.0, 3.0], [0.0, 1.0]), "x: 3 values for 2 items (label says how many there are)", 2),
        (record(None, [1.0], [0.0]), "group_id: the group id is missing", 1),
        (record(b"c", [1.0, 2.0], [0.0, 9.0]), "label: 9 is outside data.label_range [0, 4]", 2),
        (record(b"d", [], []), "a list without items", 1),
        (b"\xff\xff", "malformed record: DATA_LOSS: Unable to parse example.", 1),
    ]
    with tf.io.TFRecordWriter(str(tmp_path / "t")) as writer:
        for each in [*good, *(each for each, _, _ in bad)]:
            writer.write(each)
    properties = run(config(tmp_path / "t", format="list_example", label_range=[0, 4]), tmp_path / "out")
    found = quarantine(tmp_path / "out")
    assert [(each["position"], each["reason"], each["items"]) for each in found] == [
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
        "4 of 100 records are bad, more than data.max_bad_fraction 0.03 allows. The first: "
        f"{shown}. All of them: {kept}. Mend the input, or raise the fraction."
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
    lines = [f"1 qid:{i} 1:1 1:{i}\n" for i in range(60)]
    (tmp_path / "t").write_text("".join(lines))
    cfg = config(tmp_path / "t", format="letor", items={"f1": {}})
    properties = run(cfg, tmp_path / "out")
    assert properties["duplicates"] == 60
    assert properties["summary"].endswith("60 duplicate ids")
    cfg = config(tmp_path / "t", format="letor", items={"f1": {}}, duplicates="refuse")
    with pytest.raises(DataError, match=r"60 of 60 records are bad.*feature id 1 stands twice"):
        run(cfg, tmp_path / "refused")


def test_a_feature_that_no_record_has_is_named(tmp_path, caplog):
    path = write_csv(tmp_path / "t.csv", [(*row, "") for row in ROWS], ("group_id", "x", "label", "prize"))
    with caplog.at_level(logging.WARNING):
        properties = run(config(path, items={"x": {}, "prize": {}}), tmp_path / "out")
    assert "items: no record has a value of prize; is the name right?" in caplog.text
    assert json.loads(properties["missing"]) == {"prize": 300}


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
    found = by_group(cfg, tmp_path / "one")
    assert all({4, 7} <= set(values) and len(values) == 4 and values == sorted(values) for _, values in found.values())
    sampled = {value for _, values in found.values() for value in values}
    assert sampled == set(range(10))
    random.Random(4).shuffle(rows := list(rows))
    run(cfg, tmp_path / "two")
    assert by_group(cfg, tmp_path / "two") == found


def test_lists_without_a_relevant_item(tmp_path):
    rows = [(f"q{i // 2}", i, int(i // 2 % 4 == 0)) for i in range(400)]
    path = write_csv(tmp_path / "t.csv", rows)
    kept = run(config(path), tmp_path / "keep")
    assert (kept["lists_out"], kept["dropped_lists"]) == (200, 0)
    dropped = run(config(path, no_relevant="drop"), tmp_path / "drop")
    assert (dropped["lists_out"], dropped["dropped_lists"], dropped["dropped"]) == (50, 150, 300)
    assert equation(None, dropped) == 100
    assert "150 lists dropped" in dropped["summary"]


# What the input is


def test_one_byte_or_one_file_more_is_another_source(tmp_path):
    path = write_csv(tmp_path / "1.csv", ROWS)
    cfg = config(tmp_path / "*.csv")
    before = sources.resolve(cfg.data)
    assert sources.resolve(cfg.data) == before
    path.write_bytes(path.read_bytes().replace(b"q0,0,", b"q0,1,", 1))
    changed = sources.resolve(cfg.data)
    assert changed != before
    write_csv(tmp_path / "2.csv", ROWS)
    assert sources.resolve(cfg.data) != changed
    assert all(isinstance(value, str) for value in changed.values())


def test_a_pattern_that_matches_nothing_shows_the_folder(tmp_path):
    (tmp_path / "logs.csv").write_text("x")
    message = (
        rf"data\.input\.test: no file matches .*\*\.tsv'\. The folder {re.escape(str(tmp_path))} holds: logs\.csv\."
    )
    with pytest.raises(DataError, match=message):
        sources.resolve(config({"train": tmp_path / "*.csv", "test": tmp_path / "*.tsv"}).data)
    with pytest.raises(DataError, match=r"data\.input: no file matches .* There is no folder .*absent"):
        sources.resolve(config(tmp_path / "absent" / "x.csv").data)


def test_an_empty_input_fails_at_once(tmp_path):
    (tmp_path / "t.csv").write_text("")
    with pytest.raises(DataError, match=r"data\.input: every file that matches is empty .*t\.csv"):
        sources.resolve(config(tmp_path / "t.csv").data)
    (tmp_path / "t.csv").write_text("group_id,x,label\n")
    with pytest.raises(DataError, match="the files hold no record"):
        run(config(tmp_path / "t.csv"), tmp_path / "out")


def test_side_files(tmp_path):
    (tmp_path / "a.txt").write_text("1 1:2\n")
    cfg = config(tmp_path / "a*", format="letor", items={"f1": {}}, group_sizes=".query")
    with pytest.raises(
        DataError, match=r"a\.txt has no file of list sizes beside it; there is neither .*a\.txt\.query"
    ):
        sources.resolve(cfg.data)
    (tmp_path / "a.txt.query").write_text("1\n")
    (entry,) = json.loads(sources.resolve(cfg.data)["files"])["all"]
    assert entry["side"] == str(tmp_path / "a.txt.query")
    before = sources.resolve(cfg.data)
    (tmp_path / "a.txt.query").write_text("2\n")
    assert sources.resolve(cfg.data) != before


def test_spans_and_versions(tmp_path):
    for span, version in ((1, 1), (2, 1), (2, 3), (10, 1)):
        folder = tmp_path / f"span{span}" / f"v{version}"
        folder.mkdir(parents=True)
        write_csv(folder / "a.csv", ROWS[: 3 * span])
    pattern = tmp_path / "span{SPAN}" / "v{VERSION}" / "*.csv"
    newest = sources.resolve(config(pattern).data)
    assert (newest["span"], newest["version"]) == ("10", "1")
    second = sources.resolve(config(pattern, span=2).data)
    assert (second["span"], second["version"]) == ("2", "3")
    assert [entry["path"] for entry in json.loads(second["files"])["all"]] == [str(tmp_path / "span2" / "v3" / "a.csv")]
    with pytest.raises(DataError, match=r"data\.input: no span for"):
        sources.resolve(config(pattern, span=5).data)


def test_names_are_paths_below_the_common_folder(tmp_path):
    for name in ("a/x.csv", "ab/x.csv"):
        (tmp_path / name).parent.mkdir()
        write_csv(tmp_path / name, ROWS)
    found = json.loads(sources.resolve(config(tmp_path / "*" / "x.csv").data)["files"])["all"]
    assert [entry["name"] for entry in found] == ["a/x.csv", "ab/x.csv"]


# The component


def test_the_component_writes_a_stock_artifact(tmp_path):
    write_csv(tmp_path / "t.csv", [*ROWS, ("", 1, 1)])
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress((tmp_path / "t.csv").read_bytes()))
    cfg = config(tmp_path / "t.csv.gz")
    selected = cfg.select(*example_gen.READS)
    connection = metadata.sqlite_metadata_connection_config(str(tmp_path / "m.sqlite"))

    def execute(**source):
        step = example_gen.RankingExampleGen(config=selected, **source)
        LocalDagRunner().run(
            pipeline.Pipeline("t", str(tmp_path / "root"), components=[step], metadata_connection_config=connection,
                              enable_cache=True)
        )  # fmt: skip
        with metadata.Metadata(connection) as store:
            return store.store.get_artifacts_by_type("Examples"), store.store.get_artifact_type("Examples")

    execute(source=example_gen.resolve(cfg.data))
    found, kind = execute(source=example_gen.resolve(cfg.data))
    assert len(found) == 1  # the second run was cached
    found, kind = execute()  # without a source the executor looks for itself
    assert len(found) == 2
    for proto in found:
        artifact = artifact_utils.deserialize_artifact(kind, proto)
        assert isinstance(artifact, standard_artifacts.Examples)
        assert artifact_utils.decode_split_names(artifact.split_names) == ["train", "validation", "test"]
        assert artifact.span == 0
        assert artifact.get_string_custom_property("payload_format") == "FORMAT_TF_EXAMPLE"
        assert artifact.get_string_custom_property("file_format") == "tfrecords_gzip"
        assert artifact.get_int_custom_property("quarantined") == 1
        assert artifact.get_string_custom_property("summary") == "100 lists, 300 items, 1 quarantined"
        assert artifact_utils.get_split_uris([artifact], "train")
        folder = pathlib.Path(artifact.uri)
        assert sorted(path.name for path in folder.iterdir()) == [
            "Split-test", "Split-train", "Split-validation", "quarantine.jsonl",
        ]  # fmt: skip
        assert len(by_group(cfg, folder)) == 100
    first, second = (pathlib.Path(proto.uri) for proto in found)
    for file in first.rglob("*.gz"):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()


@pytest.mark.parametrize("order", ["any", "grouped"])
def test_beam_gives_what_the_plain_functions_give(tmp_path, order):
    """Splits by time go through every Beam step; grouped rows through none but one."""
    rows = [(group, x, label, x // 3) for group, x, label in ROWS]
    path = write_csv(tmp_path / "t.csv", rows, ("group_id", "x", "label", "t"))
    cfg = config(path, order=order, **({"splits": {"by": "t"}} if order == "any" else {}))
    expected = run(cfg, tmp_path / "plain")
    assert example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / "beam")) == expected
    assert by_group(cfg, tmp_path / "beam") == by_group(cfg, tmp_path / "plain")


def test_an_error_of_a_worker_is_told_without_beams_stack(tmp_path):
    path = write_csv(tmp_path / "t.csv", [(1, 2)], ("group_id", "y"))
    cfg = config(path)
    with pytest.raises(DataError) as error:
        example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / "out"))
    assert str(error.value) == f"{path}: column 'x' is not in the file. It has: group_id, y."


def test_the_component_reads_what_it_depends_on_and_no_more():
    cfg = config("x.csv", items={"x": {"default": 1.0, "transform": ["log1p"], "indicator": True}})
    other = parse({
        "name": "t", "data": {"input": "x.csv", "format": "csv", "max_bad_fraction": 0.5, "on_anomaly": "warn"},
        "items": {"x": {"default": 1.0, "transform": ["z_score"]}}, "training": {"learning_rate": 0.5},
    })  # fmt: skip
    assert cfg.select(*example_gen.READS) == other.select(*example_gen.READS)
    capped = config("x.csv", items={"x": {"default": 1.0}}, max_items=3, keep="label")
    assert capped.select(*example_gen.READS) != cfg.select(*example_gen.READS)
    tokens = config("x.csv", items={"x": {"dtype": "string", "tokens": {"top_k": 5}}, "v": {"shape": [3]}})
    again = from_selection(tokens.select(*example_gen.READS))
    assert str(columns(again)) == str(columns(tokens))  # as text, where NaN equals NaN


def test_every_format_of_the_config_has_a_reader():
    for name in formats.FORMATS:
        assert config("x", format=name, items={"f1": {}}).data.format == name


@pytest.mark.slow
def test_full_sets_twice_are_the_same_files(data_dir, tmp_path):
    for name in NAMES:
        cfg, _, _ = real_sets(data_dir)[name]
        for out in ("one", "two"):
            example_gen.ingest(cfg, sources.resolve(cfg.data), str(tmp_path / out))
        for file in sorted((tmp_path / "one").rglob("*.gz")):
            assert file.read_bytes() == (tmp_path / "two" / file.relative_to(tmp_path / "one")).read_bytes()
        for out in ("one", "two"):
            shutil.rmtree(tmp_path / out)
