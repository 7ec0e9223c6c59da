"""The origin of models, on small stores as TFX writes them, with each step written by the test."""

import pathlib
import shutil

import object_server
import pytest
from lineage_runs import Shop
from lineage_stores import FAILED, StoreMaker, saved_model

from tfx_ranking.components import storage
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported.model_files import LINEAGE_IN_MODEL, digest
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import origin, values
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.lineage.views import origin_views
from tfx_ranking.pipelines.metadata import run_records


def _state(maker):
    (run,) = origin.runs(lineage_store.connect(str(maker.file)))
    return run.state


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
        for name, file in storage.files_in(copied).items():
            storage.to_path(f"{bucket}/elsewhere/3/{name}").write_bytes(file.read_bytes())
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


def test_a_folder_with_a_model_that_is_not_recorded(shop):
    saved_model(pathlib.Path(shop.trained.uri) / "Format-Serving", "not exported")
    assert [each.id for each in origin.find(shop.store, shop.trained.uri)] == [shop.trained.id]


def test_a_damaged_receipt_is_a_plain_error(tmp_path, capsys):
    shop = Shop(tmp_path)
    (shop.served / LINEAGE_IN_MODEL).write_text("{")
    assert command_tree.main(["lineage", "100", "--metadata", str(shop.maker.file)]) == 1
    assert "lineage.json: expected a lineage receipt" in capsys.readouterr().err


def test_an_empty_store(tmp_path):
    store = lineage_store.connect(str(StoreMaker(tmp_path).file))
    assert origin.runs(store) == ()
    assert origin_views.runs_text(()) == "no runs yet"


def test_the_newest_export(shop):
    folders = origin.newest_export(shop.store, "shop")
    assert folders == {"trained_model": shop.trained_again.uri, "model": shop.worse.uri}
    assert origin.newest_export(shop.store, "another pipeline") == {}
