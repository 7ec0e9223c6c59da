"""Stores with whole runs: three runs of a shop, one run per span, two runs to compare."""

import json
import pathlib

from lineage_stores import CACHED, FAILED, StoreMaker, saved_model
from tensorflow_metadata.proto.v0 import statistics_pb2

from tfx_ranking.components.exported.model_files import CONTRACT_IN_MODEL, digest
from tfx_ranking.pipelines.lineage import store as lineage_store

SOURCE = json.dumps(  # a dict in a dict is JSON in JSON, as TFX writes it
    {"files": json.dumps({"all": [{"path": "/logs/1.csv", "size": 7, "digest": "abc", "name": "1.csv"}]}), "span": "3"}
)


class Shop:
    """Three runs: the first pushes version 100; the second, on cached examples, is not blessed; the third fails."""

    def __init__(self, root):
        self.maker = maker = StoreMaker(root)
        self.served = saved_model(root / "serving" / "100", "first", run="one", packages={"tfx": "1.16.0"})
        first, second = digest(self.served), digest(saved_model(root / "other", "second"))
        made = maker.artifact

        self.none = made("Model", "LiveModel/model/1", live=0, digest="")
        self.examples = made("Examples", "RankingExampleGen/examples/2", span=3, summary="5 lists")
        self.trained = made("Model", "RankingTrainer/model/3")
        self.exported = made("Model", "SignatureExporter/model/4", digest=first, summary="1 signature")
        self.judged = self._judged("first model", 0.5, 1)
        self.pushed = made(
            "PushedModel", "RankingPusher/pushed_model/6", digest=first, pushed=1, pushed_version="100",
            unchanged=0, pushed_destination=str(self.served),
        )  # fmt: skip
        maker.step("one", "LiveModel", {}, {"model": self.none})
        self.generated = maker.step("one", "RankingExampleGen", {}, {"examples": self.examples}, source=SOURCE)
        config = json.dumps({"model": json.dumps({"hidden": [64]}), "name": "shop"})
        maker.step("one", "RankingTrainer", {"examples": self.examples}, {"model": self.trained}, config=config)
        export_config = json.dumps({"model": "{}", "serving": json.dumps({"default": "predict"}), "name": "shop"})
        inputs = {"trained_model": self.trained}
        maker.step("one", "SignatureExporter", inputs, {"model": self.exported}, config=export_config)
        self._evaluate("one", self.exported, self.none, self.judged)
        self.push = maker.step("one", "RankingPusher", self._to_push(self.exported, self.judged), {"p": self.pushed})

        self.copy = made("Model", "LiveModel/model/7", live=1, digest=first, version="100")
        self.trained_again = made("Model", "RankingTrainer/model/9")
        self.worse = made("Model", "SignatureExporter/model/10", digest=second)
        self.refused = self._judged("live 0.5000, -0.1000", 0.4, 0)
        self.not_pushed = made("PushedModel", "RankingPusher/pushed_model/12", pushed=0)
        maker.step("two", "LiveModel", {}, {"model": self.copy})
        maker.step("two", "RankingExampleGen", {}, {"examples": self.examples}, CACHED, source=SOURCE)
        maker.step("two", "RankingTrainer", {"examples": self.examples}, {"model": self.trained_again})
        maker.step("two", "SignatureExporter", {"trained_model": self.trained_again}, {"model": self.worse})
        self._evaluate("two", self.worse, self.copy, self.refused)
        maker.step("two", "RankingPusher", self._to_push(self.worse, self.refused), {"p": self.not_pushed})

        maker.step("three", "RankingExampleGen", {}, {"examples": self.examples}, CACHED, source=SOURCE)
        maker.step("three", "RankingTrainer", {"examples": self.examples}, {}, FAILED, reason="no memory")
        self.store = lineage_store.connect(str(maker.file))

    def _judged(self, against, value, blessed):
        evaluation = {"summary": f"ndcg@10 {value:.4f} ({against})", "mrr": 0.9, "ndcg@10": value}
        return {
            "blessing": self.maker.artifact("ModelBlessing", f"e/blessing/{value}", blessed=blessed),
            "evaluation": self.maker.artifact("ModelEvaluation", f"e/evaluation/{value}", **evaluation),
        }

    def _evaluate(self, run, model, baseline, judged):
        inputs = {"examples": self.examples, "model": model, "baseline_model": baseline}
        self.maker.step(run, "RankingEvaluator", inputs, judged)

    def _to_push(self, model, judged):
        return {"model": model, "model_blessing": judged["blessing"]}


class Days:
    """A pipeline with one run per span; its pushes are recorded below `base`."""

    def __init__(self, root):
        self.maker = StoreMaker(root)
        self.base = root / "serving"
        self.live = None  # version and digest
        self.number = 0

    def run(self, name, span, version=None, value=0.5, begun=None, examples=None, exported=True):
        """Writes a run and returns its examples.  version: what it pushes; None for a model that is not blessed."""
        made, self.number = self.maker.artifact, self.number + 1
        spans = json.dumps(list(span)) if isinstance(span, (list, tuple)) else None
        newest = span[-1] if spans else span
        source = json.dumps({"files": json.dumps({"all": [self._file(newest)]}), "span": str(newest)})
        cached = examples is not None
        examples = examples or made("Examples", f"examples/{name}", span=newest, **({"spans": spans} if spans else {}))
        self.maker.step(name, "RankingExampleGen", {}, {"examples": examples}, *[CACHED] * cached, source=source)
        anomalies = made("ExampleAnomalies", f"anomalies/{name}")
        self.maker.step(name, "ExampleValidator", {"examples": examples}, {"anomalies": anomalies})
        transformed, trained = made("Examples", f"transformed/{name}"), made("Model", f"trained/{name}")
        self.maker.step(name, "Transform", {"examples": examples}, {"transformed_examples": transformed})
        inputs = {"transformed_examples": transformed, "anomalies": anomalies} | (
            {"base_model": begun} if begun else {}
        )
        self.maker.step(name, "RankingTrainer", inputs, {"model": trained})
        if not exported:
            return examples
        there = self.base / str(version)
        same = digest(there) if there.is_dir() else f"digest of {name}"
        self.model = made("Model", f"exported/{name}", digest=same)
        self.maker.step(name, "SignatureExporter", {"trained_model": trained, "examples": examples}, {"m": self.model})
        self.evaluate(name, examples, self.model, value, version is not None)
        if version:
            self.push(version, same, run=name, model=self.model)
        return examples

    def evaluate(self, name, examples, model, value, blessed):
        evaluation = self.maker.artifact("ModelEvaluation", f"e/{name}", metric="mrr", mrr=value, summary="no metric")
        blessing = self.maker.artifact("ModelBlessing", f"b/{name}", blessed=int(blessed))
        inputs = {"examples": examples, "model": model}
        self.maker.step(name, "RankingEvaluator", inputs, {"evaluation": evaluation, "blessing": blessing})

    def push(self, version, of_digest, run="by hand", node="RankingPusher", model=None, **properties):
        pushed = self.maker.artifact(
            "PushedModel", f"pushed/{version}/{self.number}", pushed=1, digest=of_digest,
            pushed_version=str(version), pushed_destination=str(self.base / str(version)), **properties,
        )  # fmt: skip
        self.maker.step(run, node, {"model": model} if model else {}, {"pushed_model": pushed})
        self.number += 1

    def _file(self, span):
        return {"path": f"/logs/{span}.csv", "size": 10 * span, "digest": f"d{span}"}

    @property
    def store(self):
        return lineage_store.connect(str(self.maker.file))


CONFIG = {"data": {"label": "clicked", "group_id": "query"}, "model": {"hidden": [64]}}


class DiffRun:
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
