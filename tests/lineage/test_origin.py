"""The origin of models, on small stores as TFX writes them, with each step written by the test."""

import fcntl
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

import object_server
import pytest
from lineage_stores import CACHED, FAILED, RUNNING, StoreMaker, grpc_server, saved_model

from tfx_ranking.components import places
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported.model_files import LINEAGE_IN_MODEL, digest
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import contexts, diff, impact, origin, origin_views, served, values
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.metadata import heartbeat, run_records

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


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    return Shop(tmp_path_factory.mktemp("shop"))


def _steps(lineage):
    return [(step.run, step.node) for step in lineage.executions]


ONE = [
    ("one", "RankingPusher"),
    ("one", "RankingEvaluator"),
    ("one", "SignatureExporter"),
    ("one", "RankingTrainer"),
    ("one", "RankingExampleGen"),
]


def test_a_copy_of_a_pushed_directory(shop, tmp_path):
    copied = shutil.copytree(shop.served, tmp_path / "elsewhere")
    lineage = origin.upstream(shop.store, str(copied))
    assert [each.id for each in lineage.subject] == [shop.exported.id, shop.pushed.id, shop.copy.id]
    assert _steps(lineage) == ONE
    assert lineage.executions[-1].files == (values.File("/logs/1.csv", 7, "abc", "all"),)
    assert lineage.executions[3].properties["config"] == {"model": {"hidden": [64]}, "name": "shop"}


@pytest.mark.parametrize("how", ["100", "version:100", "digest", "folder", "id", "artifact", "uri"])
def test_the_same_model_by_every_name(shop, how):
    names = {
        "digest": digest(shop.served)[:12],
        "folder": str(shop.served.parent),
        "id": str(shop.pushed.id),
        "artifact": f"artifact:{shop.pushed.id}",
        "uri": shop.pushed.uri,
    }
    assert _steps(origin.upstream(shop.store, names.get(how, how))) == ONE


def test_a_cached_step_leads_to_the_run_that_made_it(shop):
    lineage = origin.upstream(shop.store, str(shop.worse.id))
    made = [("two", "SignatureExporter"), ("two", "RankingTrainer"), ("one", "RankingExampleGen")]
    assert _steps(lineage) == made
    assert lineage.executions[-1].id == shop.generated


def test_the_baseline_of_a_model_is_not_its_origin(shop):
    lineage = origin.upstream(shop.store, str(shop.not_pushed.id))
    assert ("two", "RankingEvaluator") in _steps(lineage)
    assert not {("one", "RankingTrainer"), ("two", "LiveModel")} & set(_steps(lineage))
    assert shop.copy.id in lineage.artifacts  # it is shown as an input all the same


def test_upstream_of_a_blessing_has_no_push(shop):
    assert _steps(origin.upstream(shop.store, str(shop.judged["blessing"].id))) == ONE[1:]


def test_upstream_of_a_run(shop):
    lineage = origin.upstream(shop.store, "two")
    made = [("two", node) for _, node in ONE[:4]]  # without the baseline of its model
    assert _steps(lineage) == [*made, ("two", "LiveModel"), ("one", "RankingExampleGen")]
    assert {each.id for each in lineage.subject} > {shop.copy.id, shop.worse.id, shop.examples.id}


def test_upstream_of_a_run_that_failed(shop):
    lineage = origin.upstream(shop.store, "three")
    assert _steps(lineage) == [("three", "RankingTrainer"), ("one", "RankingExampleGen")]
    assert (lineage.executions[0].state, lineage.executions[0].reason) == ("failed", "no memory")
    assert "no memory" in origin_views.lineage_text(lineage)


def test_a_push_of_bytes_that_served_already(tmp_path):
    shop = Shop(tmp_path)
    again = shop.maker.artifact(
        "PushedModel", "RankingPusher/pushed_model/20", digest=digest(shop.served), pushed=1, pushed_version="100",
        unchanged=1, pushed_destination=str(shop.served),
    )  # fmt: skip
    shop.maker.step("four", "RankingPusher", shop._to_push(shop.exported, shop.judged), {"pushed_model": again})
    store = lineage_store.connect(str(shop.maker.file))
    assert _steps(origin.upstream(store, "100")) == ONE  # it is not part of the model's origin
    assert _steps(origin.upstream(store, str(again.id)))[0] == ("four", "RankingPusher")
    newest = origin.runs(store)[0]
    assert (newest.id, newest.pushed, newest.unchanged) == ("four", "100", True)
    assert origin_views.runs_text([newest]).splitlines()[1].endswith("  (100)")


def test_downstream_of_the_examples(shop):
    lineage = origin.downstream(shop.store, str(shop.examples.id))
    assert set(_steps(lineage)) == {*ONE[:4], *((("two", node)) for _, node in ONE[:4]), ("three", "RankingTrainer")}
    assert lineage.executions[0].state == "failed"
    assert lineage.executions[0].reason == "no memory"


def test_downstream_of_a_run_and_of_a_model(shop):
    assert _steps(origin.downstream(shop.store, "two"))[-1] == ("one", "RankingTrainer")  # of the cached examples
    pushing = origin.downstream(shop.store, str(shop.served))
    assert _steps(pushing) == ONE[:2]  # run two was compared with it, but not made from it


def test_runs(shop):
    three, two, one = origin.runs(shop.store)
    assert [(each.id, each.state, each.span, each.pushed) for each in (one, two, three)] == [
        ("one", "done", 3, "100"),
        ("two", "done", 3, ""),
        ("three", "failed", 3, ""),
    ]
    assert (one.pipeline, one.metric, one.value, one.blessed) == ("shop", "ndcg@10", 0.5, True)
    assert (two.metric, two.value, two.blessed) == ("ndcg@10", 0.4, False)
    assert (three.metric, three.value, three.blessed) == ("", None, None)
    assert (two.steps, two.cached) == (6, 1)
    assert three.reason == "RankingTrainer: no memory"
    assert [each.id for each in origin.runs(shop.store, 1)] == ["three"]


def test_two_pipelines_in_one_store(tmp_path):
    for pipeline in ("shop", "shop.eu"):
        maker = StoreMaker(tmp_path, pipeline)
        examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
        maker.step(f"of {pipeline}", "RankingExampleGen", {}, {"examples": examples})
    store = lineage_store.connect(str(maker.file))
    runs = origin.runs(store)
    assert [(each.id, each.pipeline) for each in runs] == [("of shop.eu", "shop.eu"), ("of shop", "shop")]
    assert origin_views.runs_text(runs).splitlines()[0].split()[:3] == ["run", "pipeline", "state"]
    (step,) = origin.upstream(store, str(examples.id)).executions
    assert (step.pipeline, step.run, step.node) == ("shop.eu", "of shop.eu", "RankingExampleGen")


def test_many_runs_of_two_pipelines(tmp_path):
    wanted = {}
    for pipeline in ("shop", "shop.eu"):
        maker = StoreMaker(tmp_path, pipeline)
        for i in range(contexts._FEW // 2 + 1):  # more than are fetched one by one
            run = f"{i} of {pipeline}"
            examples = maker.artifact("Examples", f"RankingExampleGen/examples/{run}", span=i)
            maker.step(run, "RankingExampleGen", {}, {"examples": examples})
            wanted[run] = pipeline
    store = lineage_store.connect(str(maker.file))
    assert {each.id: each.pipeline for each in origin.runs(store)} == wanted
    assert {each.id: each.pipeline for each in origin.runs(store, 3)}.items() <= wanted.items()


def _with_a_running_step(root):
    maker = StoreMaker(root)
    examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": examples})
    maker.step("one", "RankingTrainer", {"examples": examples}, {}, RUNNING)
    return maker


def _running(maker):
    [step] = [each for each in maker.store.get_executions() if each.last_known_state == RUNNING]
    return step


def _state(maker):
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    return run.state


def test_a_step_whose_process_is_gone_is_dead(tmp_path):
    maker = _with_a_running_step(tmp_path)
    assert _state(maker) == "running"  # no lock anywhere: its process may still run
    maker.folder.mkdir(parents=True)
    lock = maker.folder / run_records.LOCK
    lock.touch()
    assert _state(maker) == "dead"
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert run.reason == "RankingTrainer: its process died"
    os.utime(lock, (0, 0))  # the process began before the step did
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _state(maker) == "running"
        os.utime(lock, (4e9, 4e9))  # another process holds it, which began later
        assert _state(maker) == "dead"


def test_a_step_that_the_next_run_ended_stays_dead(tmp_path):
    maker = _with_a_running_step(tmp_path)
    run_records.end_dead_executions(maker.store, "shop")
    assert _state(maker) == "dead"


def test_a_step_on_another_machine_lives_by_its_heartbeat(tmp_path):
    maker = _with_a_running_step(tmp_path)
    step = _running(maker)
    step.custom_properties[heartbeat.HEARTBEAT].double_value = time.time()
    maker.store.put_executions([step])
    maker.folder.mkdir(parents=True)
    (maker.folder / run_records.LOCK).touch()  # nobody holds it here, but the step may run on another machine
    assert _state(maker) == "running"
    assert run_records.end_dead_executions(maker.store, "shop") == [], "a local run of the pipeline leaves it alone"
    step = _running(maker)
    step.custom_properties[heartbeat.HEARTBEAT].double_value -= heartbeat.DEAD_AFTER
    maker.store.put_executions([step])
    assert _state(maker) == "dead"
    assert run_records.end_dead_executions(maker.store, "shop", locked=False) == [step.id]
    assert _state(maker) == "dead"


def test_a_heartbeat_is_renewed_while_the_step_works(tmp_path, monkeypatch):
    maker = _with_a_running_step(tmp_path)
    step = _running(maker)
    monkeypatch.setattr(heartbeat, "EVERY", 0.05)
    with heartbeat.write_heartbeats(maker.connection, step.id):
        seen = set()
        end = time.monotonic() + 20
        while len(seen - {0.0}) < 2 and time.monotonic() < end:
            seen.add(_running(maker).custom_properties[heartbeat.HEARTBEAT].double_value)
    assert len(seen - {0.0}) >= 2


def test_a_container_ends_only_its_own_earlier_try(tmp_path):
    maker = _with_a_running_step(tmp_path)
    step = _running(maker)
    assert run_records.end_dead_executions(maker.store, "shop", locked=False) == []
    assert run_records.end_dead_executions(maker.store, "shop", locked=False, again=[step.id]) == [step.id]


def test_a_run_between_two_steps_is_running(tmp_path):
    maker = StoreMaker(tmp_path)
    maker.step("one", "LiveModel", {}, {"model": maker.artifact("Model", "LiveModel/model/1", live=0)})
    maker.folder.mkdir(parents=True)
    lock = maker.folder / run_records.LOCK
    lock.touch()
    os.utime(lock, (0, 0))
    assert _state(maker) == "done"
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _state(maker) == "running"


def test_a_model_in_an_object_store(tmp_path, monkeypatch):
    shop = Shop(tmp_path)
    again = shop.maker.artifact(
        "PushedModel", "RankingPusher/pushed_model/20", digest=digest(shop.served), pushed=1, pushed_version="7",
        unchanged=1, pushed_destination="s3://serving/shop/7",
    )  # fmt: skip
    shop.maker.step("four", "RankingPusher", shop._to_push(shop.exported, shop.judged), {"pushed_model": again})
    store = lineage_store.connect(str(shop.maker.file))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nothing is there: the record must be enough
    lineage = origin.upstream(store, "s3://serving/shop/7/")
    assert _steps(lineage) == ONE
    shutil.rmtree(shop.served)
    assert origin.receipts(lineage) == [], "receipts out of reach are not an error"
    with object_server.serving("serving") as bucket:
        copied = saved_model(tmp_path / "copied", "first", run="one", packages={"tfx": "1.16.0"})
        for name, file in places.files(copied).items():
            places.place(f"{bucket}/elsewhere/3/{name}").write_bytes(file.read_bytes())
        assert (
            _steps(origin.upstream(store, f"{bucket}/elsewhere")) == ONE
        )  # the version that serves there, by its bytes
        lineage = origin.upstream(store, f"{bucket}/elsewhere/3")
        assert _steps(lineage) == ONE
        assert origin.receipts(lineage) == [{"run": "one", "packages": {"tfx": "1.16.0"}}]


def test_a_run_whose_last_steps_never_started_is_unfinished(tmp_path):
    maker = StoreMaker(tmp_path)
    examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": examples}, called="lists")
    run_records.record_nodes(maker.store, "one", ["lists", "Transform", "RankingTrainer"])
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert (run.state, run.reason, run.steps) == ("unfinished", "not started: Transform, RankingTrainer", 1)
    maker.step("one", "Transform", {"examples": examples}, {})
    maker.step("one", "RankingTrainer", {"examples": examples}, {})
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert (run.state, run.reason, run.steps) == ("done", "", 3)


def test_a_run_that_only_checked_new_data(tmp_path):
    maker = StoreMaker(tmp_path)
    examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": examples})
    assert _state(maker) == "done"
    maker.step("one", "RankingDataCheck", {"examples": examples}, {})
    assert _state(maker) == "checked"


def test_a_run_without_steps(tmp_path):
    """A run that was killed before its first step."""
    maker = StoreMaker(tmp_path)
    maker.store.put_contexts([maker._context("pipeline_run", "one")])
    run_records.record_nodes(maker.store, "one", ["RankingExampleGen"])
    store = lineage_store.connect(str(maker.file))
    (run,) = origin.runs(store)
    assert (run.id, run.state, run.reason, run.steps) == ("one", "unfinished", "not started: RankingExampleGen", 0)
    assert origin.upstream(store, "one").executions == ()


def test_the_last_try_of_a_step_counts(tmp_path):
    maker = StoreMaker(tmp_path)
    examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": examples}, FAILED, called="today's", reason="no network")
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert (run.state, run.reason) == ("failed", "today's: no network")
    maker.step("one", "RankingExampleGen", {}, {"examples": examples}, called="yesterday's")
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert (run.state, run.steps) == ("failed", 2), "another step of the same component is not a second try"
    maker.step("one", "RankingExampleGen", {}, {"examples": examples}, called="today's")
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    assert (run.state, run.reason, run.steps) == ("done", "", 2)


@pytest.mark.parametrize("way", ["by its copy", "by its digest alone"])
def test_a_warm_start_leads_to_the_run_of_the_model_before(tmp_path, way):
    shop = Shop(tmp_path)
    child = shop.maker.artifact("Model", "RankingTrainer/model/20")
    inputs, named = {"base_model": shop.copy}, {}
    if way == "by its digest alone":
        inputs, named = {}, {"initial_model": digest(shop.served)}
    shop.maker.step("four", "RankingTrainer", inputs, {"model": child}, **named)
    store = lineage_store.connect(str(shop.maker.file))
    copying = [("two", "LiveModel")] if way == "by its copy" else []
    assert _steps(origin.upstream(store, str(child.id))) == [("four", "RankingTrainer"), *copying, *ONE]
    assert ("four", "RankingTrainer") in _steps(origin.downstream(store, str(shop.exported.id)))


def test_the_number_of_calls_does_not_grow_with_the_steps(tmp_path):
    def calls(lists):
        maker = StoreMaker(tmp_path / str(lists))
        examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
        maker.step("one", "RankingExampleGen", {}, {"examples": examples})
        for i in range(lists):
            model = maker.artifact("Model", f"RankingTrainer/model/{i}")
            maker.step("one", "RankingTrainer", {"examples": examples}, {"model": model})
        store = lineage_store.connect(str(maker.file))
        counted, inner = [], store._store

        class Counting:
            def __getattr__(self, name):
                counted.append(name)
                return getattr(inner, name)

        store._store = Counting()
        lineage = origin.downstream(store, "1").executions
        assert [(each.pipeline, each.run, each.node) for each in lineage] == [("shop", "one", "RankingTrainer")] * lists
        return sorted(counted)

    assert calls(2) == calls(70)


def test_ml_metadata_without_filters(shop):
    store = lineage_store.connect(str(shop.maker.file))
    store._filters = False  # as in ML Metadata of TFX 1.21
    first = digest(shop.served)
    for query in ("100", first[:9], str(shop.worse.id), str(shop.served)):
        assert origin.upstream(store, query) == origin.upstream(shop.store, query)
        assert origin.downstream(store, query) == origin.downstream(shop.store, query)
    assert store.with_digests([first, "none"]) == shop.store.with_digests([first, "none"])
    assert [each.id for each in store.with_digest(first)] == [shop.exported.id, shop.pushed.id, shop.copy.id]


def test_nodes_that_are_not_named_after_their_components(tmp_path):
    maker = StoreMaker(tmp_path)
    first = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": first}, called="new_lists")
    second = maker.artifact("Examples", "RankingExampleGen/examples/2", span=1)
    maker.step("one", "RankingExampleGen", {}, {"examples": second}, called="previous_lists")
    model = maker.artifact("Model", "RankingTrainer/model/3")
    maker.step("one", "RankingTrainer", {"examples": first, "previous": second}, {"model": model})
    lineage = origin.upstream(lineage_store.connect(str(maker.file)), str(model.id))
    assert [each.node for each in lineage.executions] == ["RankingTrainer", "previous_lists", "new_lists"]


def test_parallel_runs(tmp_path):
    maker = StoreMaker(tmp_path)
    made = {}
    for run in ("one", "two"):
        made[run] = maker.artifact("Examples", f"RankingExampleGen/examples/{run}", span=0)
        maker.step(run, "RankingExampleGen", {}, {"examples": made[run]})
    for run in ("two", "one"):  # the last step belongs to the first run; by its time it would belong to the second
        model = maker.artifact("Model", f"RankingTrainer/model/{run}")
        maker.step(run, "RankingTrainer", {"examples": made[run]}, {"model": model})
    lineage = origin.upstream(lineage_store.connect(str(maker.file)), str(model.id))
    assert [(each.run, each.node) for each in lineage.executions] == [
        ("one", "RankingTrainer"),
        ("one", "RankingExampleGen"),
    ]


def test_queries_that_are_not_in_the_store(shop, tmp_path):
    with pytest.raises(RankingError, match=r"nowhere: not in .*; expected a model's directory, a version"):
        origin.upstream(shop.store, "nowhere")
    with pytest.raises(RankingError, match=r"999: .* has no version and no artifact with this number"):
        origin.upstream(shop.store, "999")
    strange = saved_model(tmp_path / "strange", "strange", pipeline="other", run="seven")
    with pytest.raises(RankingError, match=r"has no model with these bytes .* receipt names pipeline other, run seven"):
        origin.upstream(shop.store, str(strange))


def test_a_number_that_is_a_version_and_an_artifact(tmp_path):
    maker = StoreMaker(tmp_path)
    pushed = maker.artifact("PushedModel", "RankingPusher/p/1", digest="d1", pushed=1, pushed_version="1")
    maker.step("one", "RankingPusher", {}, {"pushed_model": pushed})
    store = lineage_store.connect(str(maker.file))
    with pytest.raises(
        RankingError, match=r"1: both a version and the id of an artifact .*; write version:1 or artifact:1"
    ):
        origin.find(store, "1")
    assert [each.id for each in origin.find(store, "version:1")] == [1]
    assert [each.id for each in origin.find(store, "artifact:1")] == [1]


def test_where_the_store_is_searched(shop, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_tree.main(["runs"]) == 1
    error = capsys.readouterr().err
    assert all(way in error for way in ("--metadata", "ranking.yaml", "./metadata.sqlite"))
    shutil.copy(shop.maker.file, tmp_path / "metadata.sqlite")
    assert command_tree.main(["runs"]) == 0
    (tmp_path / "ranking.yaml").write_text(
        "name: shop\ndata: {input: x.csv, format: csv}\nitems: {f: {}}\nmetadata: {sqlite: kept/there.sqlite}\n"
    )
    assert command_tree.main(["runs"]) == 1
    assert "kept/there.sqlite: no such ML Metadata store" in capsys.readouterr().err
    assert not (tmp_path / "kept").exists()  # reading creates no folder
    connection = {"sqlite": {"filename_uri": str(shop.maker.file), "connection_mode": "READONLY"}}
    assert command_tree.main(["runs", "--metadata", json.dumps(connection)]) == 0
    (tmp_path / "notes").write_text("no database")
    assert command_tree.main(["runs", "--metadata", "notes"]) == 1
    assert "notes: not an ML Metadata store" in capsys.readouterr().err


def test_half_a_connection_is_refused(capsys):
    assert (
        command_tree.main(
            ["runs", "--metadata", json.dumps({"postgresql": {"host": "db", "port": "5432", "user": "tfx"}})]
        )
        == 1
    )
    assert capsys.readouterr().err == "tfx-ranking: postgresql at db:5432: the connection must name dbname.\n"
    assert command_tree.main(["runs", "--metadata", json.dumps({"mysql": {"port": 9}})]) == 1
    lacking = "the connection must name host or socket, database"
    assert capsys.readouterr().err == f"tfx-ranking: mysql at localhost:9: {lacking}.\n"


@pytest.mark.parametrize(
    "connection", [{"mysql": {"port": 9, "database": "a"}}, {"postgresql": {"port": "9", "dbname": "a"}}]
)
def test_a_database_that_does_not_answer(connection, capfd):
    ((kind, server),) = connection.items()
    server |= {"host": "127.0.0.1", "user": "tfx"}
    assert command_tree.main(["runs", "--metadata", json.dumps(connection)]) == 1
    (line,) = capfd.readouterr().err.splitlines()  # and nothing from ML Metadata's own log
    assert line.startswith(f"tfx-ranking: {kind} at 127.0.0.1:9: cannot be reached (")
    assert line.endswith(
        "Check that the server runs there and can be reached from this machine, and that user, password and database "
        "are right."
    )


def test_a_store_behind_grpc_answers_the_same(shop, capsys):
    with grpc_server(shop.maker.store) as port:
        at = json.dumps({"host": "127.0.0.1", "port": port})
        behind = lineage_store.connect(at)
        assert origin.runs(behind) == origin.runs(shop.store)
        assert origin.upstream(behind, "100") == origin.upstream(shop.store, "100")
        assert origin.downstream(behind, "two") == origin.downstream(shop.store, "two")
        assert served.models(behind) == served.models(shop.store)
        assert impact.of_span(behind, 3) == impact.of_span(shop.store, 3)
        assert impact.of_file(behind, "1.csv") == impact.of_file(shop.store, "1.csv")
        assert diff.diff(behind, "one", "two") == diff.diff(shop.store, "one", "two")
        period = str(shop.served.parent), *served.moment("today")
        assert served.served(behind, *period) == served.served(shop.store, *period)
        assert command_tree.main(["runs", "--metadata", at]) == 0
        capsys.readouterr()
    assert command_tree.main(["runs", "--metadata", at]) == 1  # the server is gone
    assert (
        f"tfx-ranking: 127.0.0.1:{port}: ML Metadata could not answer get_contexts_by_type" in capsys.readouterr().err
    )


def test_a_folder_with_a_model_that_is_not_recorded(shop):
    saved_model(pathlib.Path(shop.trained.uri) / "Format-Serving", "not exported")
    assert [each.id for each in origin.find(shop.store, shop.trained.uri)] == [shop.trained.id]


KILLED = """
import os, signal, sqlite3, sys
store = sqlite3.connect(sys.argv[1], isolation_level=None)
store.execute("PRAGMA cache_size = 5")  # in pages: what exceeds it is written to the file before the transaction ends
store.execute("BEGIN IMMEDIATE")
store.execute("CREATE TABLE half (made)")
store.executemany("INSERT INTO half VALUES (randomblob(?))", [[1000]] * 1000)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_store_whose_writer_was_killed(shop, tmp_path):
    file = tmp_path / "metadata.sqlite"
    shutil.copy(shop.maker.file, file)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(file)])
    assert killed.returncode == -9
    assert (tmp_path / "metadata.sqlite-journal").stat().st_size > 0
    assert origin.runs(lineage_store.connect(str(file))) == origin.runs(shop.store)


def test_a_reader_that_closes_the_pipe(shop):
    command = [
        sys.executable,
        "-m",
        "tfx_ranking.pipelines.cli",
        "runs",
        "--metadata",
        str(shop.maker.file),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_the_commands_print_text_and_json(shop, capsys):
    at = ["--metadata", str(shop.maker.file)]
    assert command_tree.main(["runs", *at]) == 0
    heading, three, reason, _, one = capsys.readouterr().out.splitlines()
    assert heading.split() == ["run", "state", "started", "took", "spans", "metric", "blessed", "pushed"]
    assert three.split()[:2] == ["three", "failed"]
    assert reason == "  RankingTrainer: no memory"
    assert one.split()[-4:] == ["ndcg@10", "0.5000", "yes", "100"]
    assert command_tree.main(["runs", "--json", *at]) == 0
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ["three", "two", "one"]
    assert command_tree.main(["lineage", str(shop.served), *at]) == 0
    text = capsys.readouterr().out
    assert f"model {digest(shop.served)}" in text
    assert "abc  7 B  all  /logs/1.csv" in text
    assert 'model      {"hidden": [64]}' in text  # in the trainer's config, not in the exporter's
    assert 'serving    {"default": "predict"}' in text
    assert text.endswith("packages of run one\n  tfx 1.16.0\n")
    assert command_tree.main(["lineage", "100", "--json", *at]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert [each["node"] for each in answer["executions"]] == [node for _, node in ONE]
    assert answer["executions"][-1]["files"] == [{"path": "/logs/1.csv", "size": 7, "digest": "abc", "split": "all"}]
    assert answer["receipts"] == [{"run": "one", "packages": {"tfx": "1.16.0"}}]
    assert answer["executions"][0]["outputs"] == [{"name": "p", "artifact": shop.pushed.id}]


def test_a_damaged_receipt_is_a_plain_error(tmp_path, capsys):
    shop = Shop(tmp_path)
    (shop.served / LINEAGE_IN_MODEL).write_text("{")
    assert command_tree.main(["lineage", "100", "--metadata", str(shop.maker.file)]) == 1
    assert "lineage.json: expected a lineage receipt" in capsys.readouterr().err


def test_an_empty_store(tmp_path):
    store = lineage_store.connect(str(StoreMaker(tmp_path).file))
    assert origin.runs(store) == ()
    assert origin_views.runs_text(()) == "no runs yet"


def test_a_question_loads_neither_tensorflow_nor_tfx(shop):
    script = """
import contextlib, io, sys
from tfx_ranking.pipelines.cli import command_tree as cli
with contextlib.redirect_stdout(io.StringIO()):
    assert cli.main(["runs", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["lineage", "100", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["served", sys.argv[2], "--metadata", sys.argv[1]]) == 0
    assert cli.main(["impact", "--span", "3", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["models", "--metadata", sys.argv[1]]) == 0
    assert cli.main(["diff", "one", "two", "--metadata", sys.argv[1]]) == 0
print(sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tfx", "apache_beam", "keras", "tfx_bsl"}))
"""
    command = [sys.executable, "-c", script, str(shop.maker.file), str(shop.served.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
