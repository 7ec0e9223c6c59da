"""Ingestion of real files in every format: each record is in a list or counted as lost.

Of: components/ingestion/workers.py, components/ingestion/plan.py.
"""

import functools
import json
import shutil

import numpy as np
import pytest
from ingested import config, equation, quarantine, read, run

from tfx_ranking.components import example_gen
from tfx_ranking.components.ingestion import sources
from tfx_ranking.components.lists.list_examples import columns, read_records, split_files


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
            absent = sum(int((np.diff(each.row_splits) == 0).sum()) for each in values)
        elif column.dtype == "float":
            absent = sum(int(np.isnan(each).sum()) for each in values)
        else:
            absent = sum(int((each == b"").sum()) for each in values) if column.dtype == "string" else 0
        assert missing.get(feature, 0) == absent
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
    """TF-Ranking converted the LETOR text to ELWC.  An absent feature is NaN in ELWC and 0 in LETOR."""
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
