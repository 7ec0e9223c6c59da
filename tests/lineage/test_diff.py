"""The diff of two runs or models: each kind of difference, and files that are gone."""

import json
import pathlib
import shutil

import pytest
from lineage_runs import DiffRun
from lineage_stores import FAILED, StoreMaker
from tensorflow_metadata.proto.v0 import anomalies_pb2

from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.lineage import diff
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.lineage.views import diff_views

BEFORE = {"numbers": [0, 1, 2, 3], "brands": ["acorn", "lumen"], "words": ["acorn", "lumen"]}


def _diff(root, before=(), after=()):
    maker = StoreMaker(root)
    sides = [DiffRun(maker, "one", **{**BEFORE, **dict(before)}), DiffRun(maker, "two", **{**BEFORE, **dict(after)})]
    return diff.diff(lineage_store.connect(str(maker.file)), *(each.run for each in sides))


def test_the_deciding_metric_comes_first(tmp_path):
    differences = _diff(tmp_path, {"value": 0.5}, {"value": 0.6})
    assert differences.metrics == (("mrr", 0.5, 0.6), ("ndcg@5", 0.25, 0.3))
    assert "what could explain the change of mrr (+0.1000)" in diff_views.diff_text(differences)


def test_both_models_on_the_lists_of_the_second(tmp_path):
    maker = StoreMaker(tmp_path)
    first = DiffRun(maker, "one", value=0.5, **BEFORE)
    live = maker.artifact("Model", "live/2", live=1, digest=digest(first.directory))
    judged = {"live": live, "baselines": {"baseline mrr": 0.3, "baseline ndcg@5": 0.25}}
    DiffRun(maker, "two", value=0.4, **judged, **BEFORE)
    differences = diff.diff(lineage_store.connect(str(maker.file)), "one", "two")
    assert differences.metrics[0] == ("mrr", 0.5, 0.4)
    assert differences.same_lists == (("mrr", 0.3, 0.4), ("ndcg@5", 0.25, 0.2))
    assert differences.causes[0].endswith("on the latter mrr is 0.3000 → 0.4000")


def test_config_by_key_path(tmp_path):
    differences = _diff(tmp_path, {}, {"config": {"model": {"hidden": [64]}, "training": {"epochs": 3}}})
    assert differences.config == (("training.epochs", None, 3),)
    assert differences.causes[-1] == "config training.epochs: not set → 3"


def test_data_spans_files_and_counts(tmp_path):
    differences = _diff(
        tmp_path, {"quarantined": 0, "items_out": 10}, {"span": 2, "quarantined": 1200, "items_out": 10}
    )
    assert differences.data == (
        ("spans", "1", "2"),
        ("quarantined", 0, 1200),
        ("file /logs/1.csv", "d1", None),
        ("file /logs/2.csv", None, "d2"),
    )
    assert differences.causes[1:3] == ("quarantined: 0 → 1,200", "trained on spans 2, before on 1")
    text = diff_views.diff_text(differences)
    assert "file /logs/1.csv  gone" in text
    assert "file /logs/2.csv  new" in text


def test_features_that_shifted(tmp_path):
    differences = _diff(tmp_path, {}, {"numbers": [0, 2, 4, 3], "brands": ["acorn", "acorn", "acorn", "lumen"]})
    label, *others = differences.features
    # Odd prices are clicked: half of them before, a quarter now.
    assert (label.name, label.role, label.moved, label.distance) == ("clicked", "label", True, pytest.approx(0.25))
    assert (label.before, label.after) == (0.5, 0.25)
    by_name = {each.name: each for each in others}
    # Up to 1: two of four before, one of four now; up to 0 and up to 3 the shares are the same or a quarter apart.
    assert by_name["price"].distance == pytest.approx(0.25)
    brand = by_name["brand"]  # 1/2 before, 3/4 now
    assert (brand.distance, brand.value, brand.before, brand.after) == (pytest.approx(0.25), "acorn", 0.5, 0.75)
    assert differences.causes[1].startswith("the label clicked shifted by 0.250")
    assert "share of 'acorn'" in diff_views.diff_text(differences)


def test_a_distance_by_chance_is_no_shift(tmp_path):
    differences = _diff(tmp_path, {}, {"brands": ["acorn"] * 51 + ["lumen"] * 49})  # 0.01 apart, less than LEAST
    assert [each.moved for each in differences.features] == [False] * 3
    assert not [cause for cause in differences.causes if "shifted" in cause]


def test_items_without_a_value(tmp_path):
    counted = {"items_out": 100, "missing": json.dumps({"price": 5})}
    differences = _diff(tmp_path, {"items_out": 100}, counted)
    (price,) = [each for each in differences.features if each.moved]
    assert (price.name, price.missing_before, price.missing_after) == ("price", 0.0, 0.05)


def test_vocabularies(tmp_path):
    differences = _diff(tmp_path, {}, {"words": ["lumen", "norvik", "pavo"]})
    assert differences.vocabularies == (("items_brand", 2, 3, 1, 2),)
    assert "vocabulary of items_brand: 2 new and 1 gone of 2 values" in differences.causes


def test_contract_code_and_packages(tmp_path):
    before = {"packages": {"tfx": "1.16.0", "numpy": "1"}, "code": "c1"}
    differences = _diff(
        tmp_path, before, {"packages": {"tfx": "1.21.0", "numpy": "1"}, "code": "c2", "outputs": ["why"]}
    )
    assert differences.contract.verdict == "compatible"
    assert differences.contract.differences == ["signature predict: output why (float [?]) is new"]
    assert differences.code == (("RankingTrainer", "c1", "c2"),)
    assert differences.packages == (("tfx", "1.16.0", "1.21.0"),)
    assert differences.causes[-2:] == ("code of RankingTrainer: c1 → c2", "package tfx: 1.16.0 → 1.21.0")


def test_the_likeliest_cause_comes_first(tmp_path):
    after = {"span": 2, "quarantined": 9, "numbers": [0, 2, 4, 6], "brands": ["lumen"], "words": ["lumen"], "code": "c"}
    differences = _diff(tmp_path, {}, {**after, "config": {"model": {"hidden": [1]}}})
    kinds = ("evaluated on different", "quarantined", "spans", "label", "feature", "vocabulary", "config", "code")
    ranks = [next(i for i, kind in enumerate(kinds) if kind in cause) for cause in differences.causes]
    assert ranks == sorted(ranks)
    assert set(ranks) == set(range(len(kinds)))


def test_anomalies_of_the_data(tmp_path):
    maker = StoreMaker(tmp_path)
    sides = [DiffRun(maker, run, **BEFORE) for run in ("one", "two")]
    anomalies = maker.artifact("ExampleAnomalies", "anomalies/two", blessed=json.dumps({"train": 0, "test": 1}))
    complaints = anomalies_pb2.Anomalies()
    complaints.anomaly_info["price"].short_description = "Out-of-range values"
    file = pathlib.Path(anomalies.uri, "Split-train", "SchemaDiff.pb")
    file.parent.mkdir(parents=True)
    file.write_bytes(complaints.SerializeToString())
    maker.step("two", "ExampleValidator", {"examples": sides[1].examples}, {"anomalies": anomalies})
    maker.step("two", "RankingTrainer", {"anomalies": anomalies}, {}, FAILED, reason="refused")
    store = lineage_store.connect(str(maker.file))
    compared = diff.diff(store, "one", "two")
    assert compared.causes[1] == "the data now: price: Out-of-range values"
    assert compared.after.problem == "RankingTrainer: refused"
    assert "RankingTrainer: refused" in diff_views.diff_text(compared).splitlines()[1]
    shutil.rmtree(anomalies.uri)
    assert diff.diff(store, "one", "two").causes[1] == "the data now: anomalies"


def test_files_that_are_gone_are_listed(tmp_path):
    maker = StoreMaker(tmp_path)
    sides = [DiffRun(maker, "one", **BEFORE), DiffRun(maker, "two", span=2, **BEFORE)]
    shutil.rmtree(maker.folder)
    shutil.rmtree(sides[0].directory)
    differences = diff.diff(lineage_store.connect(str(maker.file)), "one", "two")
    assert [each.partition(":")[0] for each in differences.unknown] == [
        "feature statistics of one",
        "feature statistics of two",
        "vocabularies of one",
        "vocabularies of two",
        "packages of one",
        "packages of two",
        "contract of one",
    ]
    assert (differences.features, differences.vocabularies, differences.contract) == ((), (), None)
    assert [change.name for change in differences.data] == ["spans", "file /logs/1.csv", "file /logs/2.csv"]
