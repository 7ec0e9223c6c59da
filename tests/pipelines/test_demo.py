"""Tests the demo: what it prepares, how it reads the true relevance, and (slow) the whole demo."""

import csv
import dataclasses
import itertools
import math
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import sklearn.metrics

from tfx_ranking.components import config
from tfx_ranking.components.config.training_sections import PowerPropensity
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.metrics.convention import Convention
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.pipelines import demo, search_logs

CONVENTION = Convention()  # the config's: exponential gain, lists without a relevant item dropped
SMALL = search_logs.Simulation(queries=40, days=2, products=100)


def test_prepare_writes_the_config_and_the_logs(tmp_path):
    path = demo.prepare(tmp_path, SMALL)
    assert path == tmp_path / "ranking.yaml"
    assert sorted(file.name for file in (tmp_path / "logs").iterdir()) == ["2026-11-01.csv", "2026-11-02.csv"]
    read = config.load(path)
    assert read.name == "shop-search"
    assert read.push is not None
    assert read.push.base == str(tmp_path / "serving" / "shop-search")


def test_the_truth_and_the_position_are_no_inputs(tmp_path):
    read = config.load(demo.prepare(tmp_path, SMALL))
    shown = set(search_logs.simulate(SMALL).column_names)
    assert set(read.features) <= shown
    assert not set(read.features) & {"relevance", "clicked", "position", "query_id", "sku", "time"}
    assert read.data.label == "clicked"
    assert read.training.propensity == PowerPropensity(power=demo.SIMULATION.power)


def test_prepare_leaves_what_is_there(tmp_path):
    path = demo.prepare(tmp_path, SMALL)
    path.write_text(path.read_text().replace("epochs: 6", "epochs: 2"))
    log, other = tmp_path / "logs" / "2026-11-01.csv", tmp_path / "logs" / "2026-11-02.csv"
    before, whole = log.stat().st_mtime_ns, other.read_bytes()
    demo.prepare(tmp_path, SMALL)
    assert log.stat().st_mtime_ns == before
    other.unlink()  # as a run killed while it wrote them
    demo.prepare(tmp_path, SMALL)
    assert other.read_bytes() == whole
    assert config.load(path).training.epochs == 2


def test_true_relevance_is_read_by_query_and_sku(tmp_path):
    demo.prepare(tmp_path, SMALL)
    with (tmp_path / "logs" / "2026-11-02.csv").open() as file:
        rows = list(csv.DictReader(file))[:5]
    queries, skus = (np.array([row[name].encode() for row in rows], object) for name in ("query_id", "sku"))
    grades = demo.true_relevance(tmp_path / "logs", queries, skus)
    assert grades.tolist() == [float(row["relevance"]) for row in rows]
    with pytest.raises(RankingError, match="no row shows nothing for query q"):
        demo.true_relevance(tmp_path / "logs", queries[:1], np.array([b"nothing"], object))


def test_comparing_before_a_run_names_the_command_to_run(tmp_path):
    demo.prepare(tmp_path, SMALL)
    with pytest.raises(RankingError, match="no run has exported a model yet; run `tfx-ranking demo"):
        demo.compare(tmp_path)


def run_demo(root: pathlib.Path) -> str:
    command = [shutil.which("tfx-ranking", path=str(pathlib.Path(sys.executable).parent)), "demo", "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"}, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    root = tmp_path / "demo"
    printed = run_demo(root)
    base = root / "serving" / "shop-search"
    versions = list(serving_versions.ServingBase(base).directories().values())
    assert len(versions) == 1
    assert (versions[0] / "saved_model.pb").is_file()
    assert (root / "metadata.sqlite").is_file()

    read = config.load(root / "ranking.yaml")
    lists = demo.score_lists(read, root)
    comparison = demo.measure(lists, CONVENTION)
    assert demo.render(comparison) in printed  # equal trainings give equal figures
    logged, plain, corrected = comparison.orders
    # The effect that the propensities are there for: no figure, but the order of the three and that it is no accident.
    assert corrected.by_relevance > plain.by_relevance > logged.by_relevance
    assert comparison.gain > 2 * comparison.half_width
    # By the clicks it is the other way round, as the summary says.
    assert logged.by_clicks > corrected.by_clicks

    for order in comparison.orders:  # every figure once more, by scikit-learn
        scores = lists.scores[order.name]
        assert order.by_relevance == pytest.approx(by_sklearn(scores, lists.relevance, lists.row_splits), abs=1e-6)
        assert order.by_clicks == pytest.approx(by_sklearn(scores, lists.clicks, lists.row_splits), abs=1e-6)
    served = tf_scores(versions[0], read, root)
    np.testing.assert_allclose(served, lists.scores["trained with propensities"], rtol=1e-5, atol=1e-5)

    again = run_demo(root)
    assert list(serving_versions.ServingBase(base).directories().values()) == versions
    assert demo.render(comparison) in again


def by_sklearn(scores: np.ndarray, labels: np.ndarray, row_splits: np.ndarray) -> float:
    values = []
    for begin, end in itertools.pairwise(row_splits):
        gains = 2.0 ** labels[begin:end] - 1
        if gains.any():  # the convention drops the other lists
            values.append(sklearn.metrics.ndcg_score([gains], [scores[begin:end]], k=10))
    return float(np.mean(values))


def tf_scores(version: pathlib.Path, read: config.RankingConfig, root: pathlib.Path) -> np.ndarray:
    """The pushed version's scores of the test split's lists, list after list."""
    import tensorflow as tf

    from tfx_ranking.components.lists import list_examples

    folder = demo.newest_export(read, root)["examples"]
    records = list(list_examples.read_records(list_examples.split_files(folder, "test")))
    outputs = tf.saved_model.load(str(version)).signatures["list_example"](inputs=tf.constant(records))
    return tf.RaggedTensor.from_tensor(outputs["scores"], lengths=outputs["sizes"]).flat_values.numpy()


def test_a_comparison_shows_its_arithmetic():
    # Two lists of two items, the second one relevant in both: a good order has NDCG 1, the other one 1 / log2(3).
    good, bad = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 1.0, 0.0])
    half = np.array([0.0, 1.0, 1.0, 0.0])  # good in the first list alone
    relevance, clicks = np.array([0.0, 1.0, 0.0, 1.0]), np.array([1.0, 0.0, 0.0, 0.0])
    scores = {"logged": bad, "plain": half, "corrected": good}
    comparison = demo.measure(demo.ScoredLists(scores, relevance, clicks, np.array([0, 2, 4])), CONVENTION)
    second = 1 / math.log2(3)
    assert [order.name for order in comparison.orders] == ["logged", "plain", "corrected"]
    expected = [second, (1 + second) / 2, 1.0]
    np.testing.assert_allclose([order.by_relevance for order in comparison.orders], expected)
    # The second list has no click and does not count; in the first one the bad order is right.
    np.testing.assert_allclose([order.by_clicks for order in comparison.orders], [1.0, second, second])
    assert comparison.lists == 2
    differences = np.array([0.0, 1 - second])
    assert comparison.gain == pytest.approx(differences.mean())
    assert comparison.half_width == pytest.approx(1.96 * differences.std(ddof=1) / math.sqrt(2))


def test_a_comparison_can_be_rendered_from_its_fields():
    orders = tuple(demo.Order(name, 0.5, 0.25) for name in ("a", "b", "c"))
    comparison = demo.OrderComparison(orders, "ndcg@10(…)", lists=1200, gain=-0.01, half_width=0.02)
    text = demo.render(comparison)
    assert "On the 1,200 lists" in text
    assert "-0.0100 ± 0.0200" in text
    assert dataclasses.asdict(comparison)["orders"][0] == {"name": "a", "by_relevance": 0.5, "by_clicks": 0.25}
