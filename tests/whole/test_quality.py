"""The DNN on LightGBM's own ranking example: three seeds through the whole pipeline, each figure again by scikit-learn.

The labels come from the data's own files and the scores from the exported signature, so that a figure is recomputed
from nothing that the code under test has added up.
"""

import importlib.util
import itertools
import json
import pathlib
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from pipeline_runs import PipelineRun
from sklearn.metrics import ndcg_score

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.lists.list_examples import Column, decode

SEEDS = (1, 2, 3)
GROUP = {"group_id": Column("context", "string")}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def quality():
    """The benchmark, whose config this is."""
    file = pathlib.Path(__file__).resolve().parent.parent.parent / "benchmarks" / "quality.py"
    spec = importlib.util.spec_from_file_location("quality", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def source(data_dir):
    return data_dir / "lightgbm-lambdarank"


@pytest.fixture(scope="module")
def trained(quality, source, tmp_path_factory) -> dict[int, PipelineRun]:
    """The run of each seed; all in one root, so that what comes before the trainer is done once."""
    root = tmp_path_factory.mktemp("quality")
    runs = {}
    for seed in SEEDS:
        [(_, run_id)] = quality.run_pipeline(source, root, [seed]).values()
        run = PipelineRun(root, ranking_config.load(root / "ranking.yaml"), run_id)
        for node in ("RankingTrainer", "SignatureExporter", "RankingEvaluator"):
            assert _step(run, node).state == "done"
        runs[seed] = _Artifacts(run)
    for node in ("RankingExampleGen", "Transform"):
        assert _step(run, node).state == "cached"
    return runs


def test_the_trainer_never_opened_the_test_file(trained):
    for run in trained.values():
        for channel in ("model", "model_run"):
            opened = json.loads(run.of["RankingTrainer", channel]["opened"])
            assert set(opened) == {"train", "validation"}
            for split, files in opened.items():
                assert files
                assert {pathlib.Path(file).parent.name for file in files} == {f"Split-{split}"}
        groups = {split: set(run.groups(split)) for split in ("train", "validation", "test")}
        assert len(groups["train"]) + len(groups["validation"]) == 201
        assert groups["test"] == {b"rank.test:%d" % i for i in range(1, 51)}
        assert all(group.startswith(b"rank.train:") for group in groups["train"] | groups["validation"])


def test_as_good_as_lightgbm(trained, quality, source, capsys):
    train, test = quality.read(source / "rank.train"), quality.read(source / "rank.test")
    by_seed = [_values(run.scores("test"), _labels(quality, source), 10) for run in trained.values()]
    trees = [test.measure(quality.lightgbm_scores(train, test, {"seed": seed})) for seed in SEEDS]
    ours, theirs = np.mean(by_seed, axis=0), np.mean(trees, axis=0)
    with capsys.disabled():
        print(f"\nndcg@10 {np.mean(ours):.4f} ({', '.join(f'{values.mean():.4f}' for values in by_seed)})")
        print(f"LightGBM {np.mean(theirs):.4f} (as many seeds), difference {quality.describe_difference(ours, theirs)}")
    assert np.mean(theirs) == pytest.approx(0.737, abs=0.02)  # the yardstick is the one that it is meant to be
    assert np.mean(ours) >= 0.73


@pytest.mark.parametrize("seed", SEEDS)
def test_each_figure_of_the_evaluation_is_scikit_learns(trained, quality, source, seed):
    run = trained[seed]
    labels, scores = _labels(quality, source), run.scores("test")
    expected = {"ndcg@5": _values(scores, labels, 5), "ndcg@10": _values(scores, labels, 10)}
    expected["mrr"] = np.array([1 / _first_relevant(scores[group], labels[group]) for group in _in_file(scores)])
    folder = run.uris["RankingEvaluator", "evaluation"]
    report = json.loads((folder / "metrics.json").read_text())
    table = pq.read_table(folder / "per_list.parquet").to_pydict()
    rows = {group.encode(): row for row, group in enumerate(table["group_id"])}
    order = [rows[group] for group in _in_file(scores)]
    assert (report["lists"], report["items"]) == (50, 768) == (len(order), sum(table["items"]))
    assert set(report["metrics"]) == set(expected)
    for name, values in expected.items():
        figures = report["metrics"][name]
        np.testing.assert_allclose(np.array(table[f"model.{name}"])[order], values, atol=1e-9)
        assert figures["value"] == pytest.approx(values.mean(), abs=1e-9)
        # TFX rounds a property to six digits.
        assert run.of["RankingEvaluator", "evaluation"][name] == pytest.approx(values.mean(), abs=1e-6)
        assert (figures["lists"], figures["dropped"]) == (50, 0)  # each list has a relevant item
    for printed in (
        report["bless"]["summary"],
        run.of["RankingEvaluator", "blessing"]["summary"],
        _figure(run, "RankingEvaluator"),
    ):
        assert printed == f"ndcg@10 {expected['ndcg@10'].mean():.4f} (first model): blessed"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_validation_figure_is_scikit_learns(trained, quality, source, seed):
    run = trained[seed]
    scores = run.scores("validation")
    expected = _values(scores, _labels(quality, source), 10).mean()
    history = json.loads((run.uris["RankingTrainer", "model_run"] / "history.json").read_text())
    assert history["metric"] == "ndcg@10(gain=exponential, no_relevant=drop, ties=averaged)"
    assert history["validation"] == {"lists": len(scores), "items": sum(map(len, scores.values()))}
    assert history["best_value"] == pytest.approx(expected, abs=1e-9)
    assert history["epochs"][history["best_epoch"] - 1]["ndcg@10"] == history["best_value"]
    assert run.of["RankingTrainer", "model_run"]["best_value"] == pytest.approx(expected, abs=1e-6)
    for printed in (history["summary"], _figure(run, "RankingTrainer")):
        assert re.match(r"ndcg@10 (\S+) \(epoch 20 of 20\)", printed)[1] == f"{expected:.4f}"


class _Artifacts:
    """What one run has written, held fast: a later run in the same root has newer artifacts."""

    NODES = (
        ("RankingTrainer", "model"),
        ("RankingTrainer", "model_run"),
        ("SignatureExporter", "model"),
        ("RankingEvaluator", "evaluation"),
        ("RankingEvaluator", "blessing"),
    )

    def __init__(self, run: PipelineRun):
        self.run = run
        self.uris = {each: run.uri(*each) for each in self.NODES}
        self.of = {each: run.properties(*each) for each in self.NODES}

    def groups(self, split):
        return decode(self.run.records("RankingExampleGen", "examples", split), GROUP).context["group_id"].tolist()

    def scores(self, split) -> dict[bytes, np.ndarray]:
        """Group id to scores, by the exported signature."""
        exported = tf.saved_model.load(str(self.uris["SignatureExporter", "model"] / "Format-Serving"))
        records = self.run.records("RankingExampleGen", "examples", split)
        answer = exported.signatures["list_example"](inputs=tf.constant(records))
        rows = zip(answer["scores"].numpy(), answer["sizes"].numpy())
        return {group: scores[:size] for group, (scores, size) in zip(self.groups(split), rows)}


def _labels(quality, source) -> dict[bytes, np.ndarray]:
    """Group id to labels, from the files as scikit-learn reads them."""
    labels_of = {}
    for name in ("rank.train", "rank.test"):
        lists = quality.read(source / name)
        for i, (begin, end) in enumerate(itertools.pairwise(lists.row_splits), start=1):
            labels_of[f"{name}:{i}".encode()] = lists.labels[begin:end]
    return labels_of


def _values(scores, labels, k) -> np.ndarray:
    """scikit-learn's NDCG@k of each list in the file's order; its gain is what it is given, here 2**label - 1."""
    values = []
    for group in _in_file(scores):
        gains = 2.0 ** labels[group] - 1
        assert len(gains) == len(scores[group])
        if gains.any():  # it refuses a list of one item, whose NDCG is 1
            values.append(ndcg_score([gains], [scores[group]], k=k) if len(gains) > 1 else 1.0)
    return np.array(values)


def _first_relevant(scores, labels) -> int:
    ranks = np.flatnonzero(labels[np.argsort(-scores, kind="stable")] >= 1) + 1
    return int(ranks[0])


def _in_file(scores):
    return sorted(scores, key=lambda group: int(group.rpartition(b":")[2]))


def _step(run, node):
    return next(step for step in run.steps() if step.node == node)


def _figure(artifacts, node):
    """What the live table shows."""
    return _step(artifacts.run, node).figure
