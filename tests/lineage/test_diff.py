"""The diff of two runs or models: each kind of difference, and files that are gone."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from lineage_stores import FAILED, StoreMaker, saved_model
from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported.model_files import CONTRACT_IN_MODEL, digest
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import diff, diff_views
from tfx_ranking.pipelines.lineage import files as lineage_files
from tfx_ranking.pipelines.lineage import store as lineage_store

CONFIG = {"data": {"label": "clicked", "group_id": "query"}, "model": {"hidden": [64]}}


class Side:
    """One run of nine steps, with files below the store's folder."""

    def __init__(
        self,
        maker,
        run,
        value=0.5,
        span=1,
        config=(),
        code="",
        packages=(),
        outputs=(),
        live=None,
        baselines=(),
        **of_data,
    ):
        made, self.run = maker.artifact, run
        numbers, brands, words = (of_data.pop(name) for name in ("numbers", "brands", "words"))
        config = json.dumps({**CONFIG, **dict(config)})
        folder = maker.file.parent / "exported" / run / "Format-Serving"
        exported = saved_model(folder, run, run=run, packages=dict(packages))
        tensors = {name: {"dtype": "float", "shape": [-1]} for name in ("scores", *outputs)}
        contract = {"signatures": {"predict": {"method": "p", "inputs": {}, "outputs": tensors}}, "features": {}}
        (exported / CONTRACT_IN_MODEL).write_text(json.dumps(contract))
        files = json.dumps({"all": [{"path": f"/logs/{span}.csv", "size": 1, "digest": f"d{span}"}]})
        self.examples = made("Examples", f"examples/{run}", span=span, **of_data)
        statistics = made("ExampleStatistics", f"statistics/{run}")
        schema, graph = made("Schema", f"schema/{run}"), made("TransformGraph", f"graph/{run}")
        transformed, trained = made("Examples", f"transformed/{run}"), made("Model", f"trained/{run}")
        model = made("Model", "", digest=digest(exported))
        model.uri = str(folder.parent)
        evaluation = {"metric": "mrr", "mrr": value, "ndcg@5": value / 2, "convention mrr": "mrr(a)", **dict(baselines)}
        judged = made("ModelEvaluation", f"evaluation/{run}", **evaluation, **{"convention ndcg@5": "ndcg(b)"})
        _write_statistics(statistics.uri, numbers, brands)
        _write_words(graph.uri, words)
        source = json.dumps({"files": files, "span": str(span)})
        maker.step(run, "RankingExampleGen", {}, {"examples": self.examples}, config=config, source=source)
        maker.step(run, "StatisticsGen", {"examples": self.examples}, {"statistics": statistics})
        maker.step(run, "RankingSchemaGen", {"statistics": statistics}, {"schema": schema})
        taken = {"examples": self.examples, "schema": schema}
        maker.step(run, "Transform", taken, {"graph": graph, "transformed_examples": transformed})
        taken = {"transformed_examples": transformed, "graph": graph}
        maker.step(run, "RankingTrainer", taken, {"model": trained}, config=config, code_digest=code)
        taken = {"trained_model": trained, "examples": self.examples, "schema": schema}
        maker.step(run, "SignatureExporter", taken, {"model": model}, config=config)
        taken = {"examples": self.examples, "model": model} | ({"baseline_model": live} if live else {})
        maker.step(run, "RankingEvaluator", taken, {"evaluation": judged})
        self.directory = exported


def _write_statistics(uri, numbers, brands):
    """Statistics of 10,000 lists per number: a feature `price`, the label as its parity, a feature `brand`."""
    dataset = statistics_pb2.DatasetFeatureStatistics(num_examples=10_000 * len(numbers))
    for name, values in (("price", numbers), ("clicked", [each % 2 for each in numbers])):
        feature = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
        feature.path.step.append(name)
        stats = feature.num_stats
        stats.common_stats.num_non_missing = stats.common_stats.tot_num_values = 10_000 * len(values)
        stats.mean = sum(values) / max(len(values), 1)
        stats.num_zeros = 10_000 * sum(each == 0 for each in values)
        histogram = stats.histograms.add(type=statistics_pb2.Histogram.QUANTILES)
        for each in sorted(values):
            histogram.buckets.add(low_value=each, high_value=each, sample_count=10_000)
    brand = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.STRING)
    brand.path.step.append("brand")
    common = brand.string_stats.common_stats
    common.num_non_missing = common.tot_num_values = dataset.num_examples
    for each in sorted(set(brands)):
        share = brands.count(each) / len(brands)
        brand.string_stats.rank_histogram.buckets.add(label=each, sample_count=dataset.num_examples * share)
    file = pathlib.Path(uri, "Split-train", "FeatureStats.pb")
    file.parent.mkdir(parents=True)
    file.write_bytes(statistics_pb2.DatasetFeatureStatisticsList(datasets=[dataset]).SerializeToString())


def _write_words(uri, words):
    assets = pathlib.Path(uri, "transform_fn", "assets")
    assets.mkdir(parents=True)
    (assets / "items_brand").write_text("\n".join(words))


BEFORE = {"numbers": [0, 1, 2, 3], "brands": ["acorn", "lumen"], "words": ["acorn", "lumen"]}


def _diff(root, before=(), after=()):
    maker = StoreMaker(root)
    sides = [Side(maker, "one", **{**BEFORE, **dict(before)}), Side(maker, "two", **{**BEFORE, **dict(after)})]
    return diff.diff(lineage_store.connect(str(maker.file)), *(each.run for each in sides))


def test_the_deciding_metric_comes_first(tmp_path):
    differences = _diff(tmp_path, {"value": 0.5}, {"value": 0.6})
    assert differences.metrics == (("mrr", 0.5, 0.6), ("ndcg@5", 0.25, 0.3))
    assert "what could explain the change of mrr (+0.1000)" in diff_views.diff_text(differences)


def test_both_models_on_the_lists_of_the_second(tmp_path):
    maker = StoreMaker(tmp_path)
    first = Side(maker, "one", value=0.5, **BEFORE)
    live = maker.artifact("Model", "live/2", live=1, digest=digest(first.directory))
    judged = {"live": live, "baselines": {"baseline mrr": 0.3, "baseline ndcg@5": 0.25}}
    Side(maker, "two", value=0.4, **judged, **BEFORE)
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
    sides = [Side(maker, run, **BEFORE) for run in ("one", "two")]
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


def test_the_same_model_under_two_names(tmp_path):
    maker = StoreMaker(tmp_path)
    side = Side(maker, "one", **BEFORE)
    same = digest(side.directory)
    pushed = maker.artifact("PushedModel", "pushed/1", digest=same, pushed=1, pushed_version="1", refused="")
    maker.step("one", "RankingPusher", {}, {"pushed_model": pushed})
    store = lineage_store.connect(str(maker.file))
    differences = diff.diff(store, str(side.directory), same)
    assert diff.diff(store, same, f"artifact:{pushed.id}").causes == differences.causes
    assert differences.causes == ("it is the same model, byte by byte",)
    assert (differences.data, differences.features, differences.vocabularies, differences.config) == ((), (), (), ())
    assert differences.before.run == "one"


def test_files_that_are_gone_are_listed(tmp_path):
    maker = StoreMaker(tmp_path)
    sides = [Side(maker, "one", **BEFORE), Side(maker, "two", span=2, **BEFORE)]
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


def test_a_run_that_ended_early(tmp_path):
    maker = StoreMaker(tmp_path)
    first = Side(maker, "one", **BEFORE)
    live = maker.artifact("Model", "live/early", live=1, digest=digest(first.directory))
    maker.step("early", "LiveModel", {}, {"model": live})  # not a model of this run
    examples = maker.artifact("Examples", "examples/early", span=2)
    maker.step("early", "RankingExampleGen", {}, {"examples": examples})
    maker.step("early", "StatisticsGen", {"examples": examples}, {}, FAILED)
    differences = diff.diff(lineage_store.connect(str(maker.file)), "one", "early")
    assert differences.after.model is None
    assert differences.metrics == (("mrr", 0.5, None), ("ndcg@5", 0.25, None))
    assert differences.config[0].name == "data.label"  # the example generator of the second has no config
    assert ("spans", "1", "2") in differences.data


def test_neither_run_nor_model(tmp_path):
    maker = StoreMaker(tmp_path)
    side = Side(maker, "one", **BEFORE)
    store = lineage_store.connect(str(maker.file))
    with pytest.raises(RankingError, match=r"a diff compares two runs or two models; this is of type Examples"):
        diff.diff(store, "one", f"artifact:{side.examples.id}")
    with pytest.raises(RankingError, match=r"nobody: not in "):
        diff.diff(store, "nobody", "one")


def test_the_command_prints_text_and_json(tmp_path, capsys):
    maker = StoreMaker(tmp_path)
    Side(maker, "one", **BEFORE)
    Side(maker, "two", value=0.4, span=2, **BEFORE)
    at = ["--metadata", str(maker.file)]
    assert command_tree.main(["diff", "one", "two", *at]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].startswith("before  run one  model ")
    assert "mrr     0.5000  →  0.4000  -0.1000" in text
    assert command_tree.main(["diff", "one", "two", "--json", *at]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["metrics"][0] == {"name": "mrr", "before": 0.5, "after": 0.4}
    assert answer["contract"]["verdict"] == "same"
    assert [each["name"] for each in answer["features"]] == ["clicked", "price", "brand"]


def test_shares_are_interpolated_within_a_bucket():
    histogram = lineage_files.Histogram((0.0, 2.0), (2.0, 2.0), (3.0, 1.0))  # three numbers in 0 to 2, one is 2
    below = histogram.below(np.array([-1.0, 1.0, 2.0]))
    assert below.tolist() == [0.0, 1.5 / 4, 1.0]
