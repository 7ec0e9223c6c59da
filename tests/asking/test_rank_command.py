"""`tfx-ranking rank`: every file format gives the same scores, and every lost record a message."""

import dataclasses
import gzip
import io
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import rich.console
import small_rankers
import tensorflow as tf
from tensorflow_serving.apis import input_pb2

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists.list_examples import ListBatch, columns, encode
from tfx_ranking.pipelines.asking import score_files, scoring, unlabelled
from tfx_ranking.pipelines.cli import command_tree

CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "q", "item_id": "sku", "position": "shown"},
    "context": {"f4": {}},
    "items": {"f1": {"transform": ["sign_log1p"]}, "f2": {"default": 9.0}, "f3": {"dtype": "int", "default": 7}},
    "model": {"hidden": [8]},
    "serving": {"parity_lists": 12},
})  # fmt: skip
# Three lists of 3, 1 and 2 items; f2 is missing once.
ROWS = [
    {"q": "10", "sku": "a", "f4": 1.0, "f1": 1.5, "f2": 0.5, "f3": 3},
    {"q": "10", "sku": "b", "f4": 1.0, "f1": -4.0, "f2": 2.0, "f3": 1},
    {"q": "10", "sku": "c", "f4": 1.0, "f1": 0.25, "f2": None, "f3": 0},
    {"q": "11", "sku": "a", "f4": 0.5, "f1": 7.0, "f2": 1.0, "f3": 2},
    {"q": "9", "sku": 'd "x", y', "f4": -2.0, "f1": 0.0, "f2": 0.0, "f3": 5},
    {"q": "9", "sku": "e", "f4": -2.0, "f1": 2.0, "f2": 3.0, "f3": 5},
]
SPLITS = np.array([0, 3, 4, 6])


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return small_rankers.export(tmp_path_factory.mktemp("model"), CONFIG)


@pytest.fixture(scope="module")
def expected(model):
    """(group id, item id, score, rank) of ROWS, each list sent by itself."""
    loaded = tf.saved_model.load(str(model / "Format-Serving"))
    rows_read = []
    for rows in (ROWS[:3], ROWS[3:4], ROWS[4:]):
        record = encode(batch_of(rows, [0, len(rows)]), columns(CONFIG))
        scores = loaded.signatures["list_example"](inputs=tf.constant(record))["scores"].numpy()[0]
        for row, score in zip(rows, scores):
            rows_read.append((row["q"], row["sku"], float(score), 1 + int(np.sum(scores > score))))
    return rows_read


def batch_of(rows, splits):
    items = {name: np.float32([NAN if row[name] is None else row[name] for row in rows]) for name in ("f1", "f2")}
    items["f3"] = np.array([row["f3"] for row in rows], np.int64)
    items["sku"] = np.array([row["sku"].encode() for row in rows], object)
    items["label"], items["shown"] = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)
    starts = splits[:-1]
    context = {"q": np.array([rows[at]["q"].encode() for at in starts], object)}
    context["f4"] = np.float32([rows[at]["f4"] for at in starts])
    return ListBatch(context, items, np.array(splits))


NAN = float("nan")


# The same lists in every format, without labels


def feature(value):
    if isinstance(value, str):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
    if isinstance(value, int):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
    return tf.train.Feature(float_list=tf.train.FloatList(value=[] if value is None else [value]))


def example(row, names):
    features = {name: feature(row[name]) for name in names if row[name] is not None}
    return tf.train.Example(features=tf.train.Features(feature=features))


CONTEXT, ITEM = ("q", "f4"), ("sku", "f1", "f2", "f3")


def write_records(path, records):
    with tf.io.TFRecordWriter(str(path), "GZIP" if path.suffix == ".gz" else "") as writer:
        for record in records:
            writer.write(record if isinstance(record, bytes) else record.SerializeToString())


def in_lists():
    return [ROWS[start:end] for start, end in itertools.pairwise(SPLITS)]


def write_csv(path):
    pa.csv.write_csv(pa.Table.from_pylist(ROWS), str(path))


def write_csv_gz(path):
    plain = io.BytesIO()
    pa.csv.write_csv(pa.Table.from_pylist(ROWS), plain)
    path.write_bytes(gzip.compress(plain.getvalue()))


def write_parquet(path):
    pa.parquet.write_table(pa.Table.from_pylist(ROWS), str(path))


def write_flat(path):
    write_records(path, [example(row, CONTEXT + ITEM) for row in ROWS])


def write_elwc(path):
    write_records(
        path,
        [
            input_pb2.ExampleListWithContext(
                examples=[example(row, ITEM) for row in rows], context=example(rows[0], CONTEXT)
            )
            for rows in in_lists()
        ],
    )


def write_sequences(path):
    made = []
    for rows in in_lists():
        lists = {name: tf.train.FeatureList(feature=[feature(row[name]) for row in rows]) for name in ITEM}
        context = example(rows[0], CONTEXT).features
        made.append(tf.train.SequenceExample(context=context, feature_lists=tf.train.FeatureLists(feature_list=lists)))
    write_records(path, made)


def write_list_examples(path):
    table = {name: column for name, column in columns(CONFIG).items() if name not in ("label", "shown")}
    write_records(path, encode(batch_of(ROWS, SPLITS), table))


WRITERS = {
    "rows.csv": write_csv,
    "rows.csv.gz": write_csv_gz,
    "rows.parquet": write_parquet,
    "rows.tf_example.tfrecord": write_flat,
    "lists_elwc.tfrecord": write_elwc,
    "lists_elwc.tfrecord.gz": write_elwc,
    "sequence_example.tfrecord": write_sequences,
    "list_example.tfrecord.gz": write_list_examples,
}


def read(path):
    return [tuple(row.values()) for row in pa.csv.read_csv(path, convert_options=TEXT).to_pylist()]


TEXT = pa.csv.ConvertOptions(column_types={"group_id": pa.string(), "item_id": pa.string()})


def same(rows_read, expected):
    assert [(group, item, rank) for group, item, _, rank in rows_read] == [(g, i, r) for g, i, _, r in expected]
    np.testing.assert_allclose([row[2] for row in rows_read], [row[2] for row in expected], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_scores(name, model, expected, tmp_path, capsys):
    WRITERS[name](tmp_path / name)
    assert command_tree.main(["rank", str(model), str(tmp_path / name), "--output", str(tmp_path / "out.csv")]) == 0
    same(read(tmp_path / "out.csv"), expected)
    assert "scored 6 items of 3 lists, 0 bad" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, "out.csv"])


def test_letor_has_a_label_that_counts_nothing_and_an_absent_feature_is_0(model, expected, tmp_path):
    lines = [
        f"{at} qid:{row['q']} 1:{row['f1']} 2:{row['f2'] or 0} 3:{row['f3']} 4:{row['f4']} # sku = {row['sku'][0]}"
        for at, row in enumerate(ROWS)
    ]
    (tmp_path / "test.txt").write_text("\n".join(lines))
    assert (
        command_tree.main(["rank", str(model), str(tmp_path / "test.txt"), "--output", str(tmp_path / "out.csv")]) == 0
    )
    rows_read = read(tmp_path / "out.csv")
    assert [row[1] for row in rows_read] == ["a", "b", "c", "a", "d", "e"]
    alike = [0, 1, 3, 4, 5]  # item c has no f2: 0 in LETOR, the default elsewhere
    np.testing.assert_allclose([rows_read[at][2] for at in alike], [expected[at][2] for at in alike], rtol=1e-5)


def test_list_sizes_in_a_side_file_by_config(model, expected, tmp_path):
    present = [{**row, "f2": 9.0 if row["f2"] is None else row["f2"]} for row in ROWS]  # LETOR has no missing values
    lines = [f"0 1:{row['f1']} 2:{row['f2']} 3:{row['f3']} 4:{row['f4']}" for row in present]
    (tmp_path / "test.letor").write_text("\n".join(lines))
    (tmp_path / "test.letor.query").write_text("3\n1\n2\n")
    reading = tmp_path / "ranking.yaml"
    data = {"input": "elsewhere", "format": "letor", "group_sizes": ".query", "max_items": 1, "keep": "label"}
    reading.write_text(json.dumps({"name": "a", "data": data, "items": {"f1": {}}}))
    arguments = ["rank", str(model), str(tmp_path / "test.letor"), "--config", str(reading)]
    assert command_tree.main([*arguments, "--output", str(tmp_path / "out.csv")]) == 0
    rows_read = read(tmp_path / "out.csv")
    assert [row[:2] for row in rows_read] == [
        ("test.letor:1", "0"), ("test.letor:1", "1"), ("test.letor:1", "2"), ("test.letor:2", "0"),
        ("test.letor:3", "0"), ("test.letor:3", "1"),
    ]  # fmt: skip
    np.testing.assert_allclose([row[2] for row in rows_read], [row[2] for row in expected], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lightgbm", "ml4ir-csv", "tfr-tokens"])  # a text, a table and a proto format
def test_real_files_are_ranked_as_they_were_trained_on(name, real_run, tmp_path):
    """The files as they are on disk, through the pushed model, beside the training path's scores of the test split."""
    run = real_run(name)
    source = run.config.data.input
    source = source["test"] if isinstance(source, dict) else source
    ranked = scoring.rank(run.served.parent, [source], tmp_path / "out.csv", config=run.folder / "ranking.yaml")
    assert ranked.reading.items == ranked.items + ranked.reading.lost
    rows_read: dict[bytes, list[float]] = {}
    for group, _, score, _ in read(tmp_path / "out.csv"):
        rows_read.setdefault(group.encode(), []).append(score)
    expected = run.training_scores()
    assert len(expected) >= 2
    for group, scores in expected.items():
        np.testing.assert_allclose(rows_read[group], scores, rtol=1e-4, atol=1e-5)


# What the data need not have


def test_without_item_ids_the_place_in_the_list(model, expected, tmp_path):
    table = pa.Table.from_pylist(ROWS).drop(["sku"])
    pa.csv.write_csv(table, str(tmp_path / "a.csv"))
    scoring.rank(model, [str(tmp_path / "a.csv")], tmp_path / "out.csv")
    assert [row[1] for row in read(tmp_path / "out.csv")] == ["0", "1", "2", "0", "0", "1"]


def test_what_the_model_does_not_look_for_need_not_be_there(tmp_path):
    config = dataclasses.replace(CONFIG, serving=dataclasses.replace(CONFIG.serving, rename={"f1": "price"}))
    assert unlabelled.features(tmp_path, config) == {"f1", "f2", "f3", "f4"}  # no contract, an older model
    contract = tmp_path / model_files.CONTRACT_IN_MODEL
    contract.parent.mkdir(parents=True)
    contract.write_text(json.dumps({"signatures": {}, "features": {"price": {}, "f4": {}, "sku": {}}}))
    assert unlabelled.features(tmp_path, config) == {"f1", "f4"}
    (tmp_path / "a.csv").touch()
    data = dataclasses.replace(CONFIG.data, input=(str(tmp_path / "a.csv"),))
    (request,) = unlabelled.requests(dataclasses.replace(config, data=data), {"f1", "f4"})
    assert list(request.table) == ["q", "f4", "f1", "sku"]


def test_files_of_two_formats_are_not_read_together(model, capsys):
    assert command_tree.main(["rank", str(model), "a.csv", "b.parquet"]) == 1
    assert "by their names they have: a.csv csv, b.parquet parquet" in capsys.readouterr().err


def test_lists_without_a_group_id_are_called_by_file_and_record(model, tmp_path):
    nameless = [{**row, "q": None} for row in ROWS[:3]]
    lists = input_pb2.ExampleListWithContext(
        examples=[example(row, ITEM) for row in nameless], context=example(nameless[0], CONTEXT)
    )
    write_records(tmp_path / "elwc.tfrecord", [lists, lists])
    scoring.rank(model, [str(tmp_path / "elwc.tfrecord")], tmp_path / "out.csv")
    groups = [row[0] for row in read(tmp_path / "out.csv")]
    assert groups == ["elwc.tfrecord:1"] * 3 + ["elwc.tfrecord:2"] * 3


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_rows_in_any_order_and_over_files_are_grouped_in_memory(ending, model, expected, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(score_files, "_ROWS", 1)  # what was scored before a list came back is written already
    for name, order in (("1.csv", [4, 0, 3]), ("2.csv", [1, 5, 2])):
        pa.csv.write_csv(pa.Table.from_pylist([ROWS[at] for at in order]), str(tmp_path / name))
    out = tmp_path / f"out{ending}"
    assert command_tree.main(["rank", str(model), str(tmp_path / "*.csv"), "--output", str(out)]) == 0
    rows_read = (
        read(out) if ending == ".csv" else [tuple(row.values()) for row in pa.parquet.read_table(out).to_pylist()]
    )
    same(rows_read, [expected[at] for at in (4, 5, 0, 1, 2, 3)])
    assert "beginning again, with all rows in memory" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.csv", "2.csv", out.name]


# Bad records


def test_bad_rows_are_reported_with_position_and_reason(model, expected, tmp_path, capsys):
    write_csv(tmp_path / "a.csv")
    lines = (tmp_path / "a.csv").read_text().splitlines()
    lines.insert(3, '"10","z",1.0,cheap,1.0,1')  # row 4, the header being 1
    lines.append('"9","z"')
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    assert command_tree.main(["rank", str(model), str(tmp_path / "a.csv"), "--output", str(tmp_path / "out.csv")]) == 0
    printed = capsys.readouterr().err
    assert f"bad: {tmp_path}/a.csv: 4: f1: expected a number; got 'cheap'" in printed
    assert f"bad: {tmp_path}/a.csv: 9: malformed row: expected 6 cells; got 2" in printed
    assert "scored 6 items of 3 lists, 2 bad" in printed
    same(read(tmp_path / "out.csv"), expected)


def test_nothing_scored_is_a_failure_and_leaves_no_file(model, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("q,sku,f4,f1,f2,f3\n1,a,1,x,1,1\n")
    assert command_tree.main(["rank", str(model), str(tmp_path / "a.csv"), "--output", str(tmp_path / "out.csv")]) == 1
    printed = capsys.readouterr().err
    assert "f1: expected a number; got 'x'" in printed
    assert "nothing could be scored" in printed
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("rows.dat", "cannot guess the format from the name; set it with --format, one of letor, csv"),
        ("rows.tfrecord", "cannot guess the format from the name"),  # the model was trained on CSV
        ("none.csv", "the input: no file matches"),
        ("price.csv", "column 'f1' is not in the file; did you mean 'f11'?"),
    ],
)
def test_what_cannot_be_read(name, reason, model, tmp_path, capsys):
    if name != "none.csv":
        (tmp_path / name).write_text("q,f4,f11,f2,f3\n1,1,1,1,1\n")
    assert command_tree.main(["rank", str(model), str(tmp_path / name)]) == 1
    shown = capsys.readouterr()
    assert reason in shown.err
    assert not shown.out


def test_a_format_that_there_is_not(model, capsys):
    assert command_tree.main(["rank", str(model), "a.csv", "--format", "svm"]) == 2
    assert "--format svm: expected one of letor, csv," in capsys.readouterr().err


def test_what_is_no_model_of_ours(tmp_path):
    (tmp_path / "a.csv").touch()
    tf.saved_model.save(tf.Module(), str(tmp_path / "other"))
    with pytest.raises(RankingError, match="Only a model exported by tfx-ranking has it"):
        scoring.rank(tmp_path / "other", [str(tmp_path / "a.csv")])


# What is written


def test_csv_on_standard_output(model, expected, tmp_path, capfdbinary):
    write_parquet(tmp_path / "a.parquet")
    assert command_tree.main(["rank", str(model), str(tmp_path / "a.parquet")]) == 0
    same(read(io.BytesIO(capfdbinary.readouterr().out)), expected)


def test_json_lines_and_parquet(model, expected, tmp_path):
    write_csv(tmp_path / "a.csv")
    for ending in (".jsonl", ".parquet"):
        scoring.rank(model, [str(tmp_path / "a.csv")], tmp_path / f"out{ending}")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["group_id", "item_id", "score", "rank"]
    same([tuple(line.values()) for line in lines], expected)
    assert pa.parquet.read_schema(tmp_path / "out.parquet") == score_files.SCHEMA
    same([tuple(row.values()) for row in pa.parquet.read_table(tmp_path / "out.parquet").to_pylist()], expected)


def test_another_ending_is_refused_before_anything_is_loaded(tmp_path, capsys):
    assert command_tree.main(["rank", "nowhere", "a.csv", "--output", str(tmp_path / "out.xls")]) == 2
    assert "expected one of .csv, .jsonl, .parquet" in capsys.readouterr().err


def test_odd_texts_come_back_as_they_were(tmp_path):
    odd = ["plain", 'say "no", twice', "two\nlines", "back\\slash", "tab\t", "é", ""]
    scores = np.float32([1, 2.5, -3e-9, NAN, np.inf, 0, 0.1])
    block = score_files.Scored(pa.array(odd), pa.array(odd), scores, np.arange(1, 8))
    for make, name in ((score_files.Csv, "a.csv"), (score_files.JsonLines, "a.jsonl")):
        with score_files.whole(tmp_path / name) as file:
            writer = make(file)
            writer.write(block)
            writer.close()
    newlines = pa.csv.ParseOptions(newlines_in_values=True)
    rows_read = pa.csv.read_csv(tmp_path / "a.csv", parse_options=newlines, convert_options=TEXT)
    assert rows_read.column("item_id").to_pylist() == odd
    np.testing.assert_array_equal(rows_read.column("score").to_numpy().astype(np.float32), scores)
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [line["group_id"] for line in lines] == odd
    assert [line["score"] for line in lines][3:5] == [None, None]


def test_ranks_follow_the_scores_and_ties_the_input():
    scores, splits = np.float32([0.5, 2.0, 0.5, 7.0, 1.0, 1.0]), np.array([0, 3, 3, 6])
    np.testing.assert_array_equal(scoring.ranks(scores, splits), [2, 1, 3, 1, 2, 3])


# What it costs


def test_it_imports_no_tfx_and_prints_a_line_a_run(model, tmp_path):
    write_csv(tmp_path / "a.csv")
    script = f"""
import sys
from tfx_ranking.pipelines.cli.command_tree import main
code = main(["rank", {str(model)!r}, {str(tmp_path / "a.csv")!r}, "--output", {str(tmp_path / "out.csv")!r}])
print(code, sorted({{name.split(".")[0] for name in sys.modules}} & {{"tfx", "apache_beam", "tensorflow_transform"}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "0 []\n"
    printed = [line.split(" in ")[0] for line in done.stderr.splitlines()]
    assert printed == ["loading TensorFlow, about 10 s ...", "scored 6 items of 3 lists, 0 bad,"]


def test_a_very_long_list_does_not_widen_the_answer_for_all():
    short, limit = [2] * 300, scoring.PADDED
    assert list(scoring._calls(np.array(short))) == [(0, 256), (256, 300)]
    assert list(scoring._calls(np.array([2, limit // 2, 2, limit * 3, 2, 2]))) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert list(scoring._calls(np.zeros(0, np.int64))) == []


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_on_a_terminal_moves_and_elsewhere_are_lines(terminal, monkeypatch):
    monkeypatch.setattr(scoring, "_EVERY", 0.0)
    written = io.StringIO()
    console = rich.console.Console(file=written, force_terminal=terminal, width=80)
    with scoring.progress(console) as show:
        show(1_000)
        show(2_500)
    assert "2,500 items scored" in " ".join(re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue()).split())
    assert ("\x1b" in written.getvalue()) == terminal


def test_guesses():
    assert unlabelled.guess("a/b.CSV.GZ", "elwc") == "csv"
    assert unlabelled.guess("split-test/part-0.tfrecord", "sequence_example") == "sequence_example"
