"""The commands push, rollback and versions: what they do, record in ML Metadata and print."""

import json
import subprocess
import sys

import pytest
import servable_models
from lineage_stores import StoreMaker

from tfx_ranking.components.errors import PushError, PushRefused, RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import versions
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import store
from tfx_ranking.pipelines.metadata import push_records
from tfx_ranking.pipelines.pushing import by_hand, version_table


def untried(model):
    return "loaded"


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Two models of two runs, the first blessed, the second not; nothing pushed.  The current folder has the store."""
    maker = StoreMaker(tmp_path)
    for i, (blessed, reason) in enumerate([(1, "no baseline: first model"), (0, "ndcg@10 is lower than 0.6021")]):
        place = tmp_path / "artifacts" / "shop" / f"exported{i}"
        served = servable_models.save(place / "Format-Serving", 0.5 + i, pipeline="shop", run=f"run{i}")
        model = maker.artifact("Model", f"exported{i}", digest=model_files.digest(served))
        maker.step(f"run{i}", "SignatureExporter", {}, {"model": model})
        summary = f"ndcg@10 0.60{i}1 (first model): blessed"
        blessing = maker.artifact(
            "ModelBlessing", f"b{i}", blessed=blessed, reason=reason, summary=summary, current_model_id=model.id
        )
        maker.step(f"run{i}", "RankingEvaluator", {"model": model}, {"blessing": blessing})
    monkeypatch.chdir(tmp_path)
    return maker


def pushes(shop, kind):
    """The properties of what executions of a type gave, oldest first."""
    recorded = []
    for execution in shop.store.get_executions_by_type(kind):
        events = shop.store.get_events_by_execution_ids([execution.id])
        (output_id,) = [each.artifact_id for each in events if each.type == each.OUTPUT]
        (artifact,) = shop.store.get_artifacts_by_id([output_id])
        properties = artifact.custom_properties
        recorded.append({name: getattr(properties[name], properties[name].WhichOneof("value")) for name in properties})
    return recorded


def test_a_push_is_recorded_as_the_components_own(shop):
    done = by_hand.push("artifacts/shop/exported0", "serving", check=untried)
    assert done.summary == f"pushed version {done.pushed.version}"
    (recorded,) = pushes(shop, push_records.PUSH)
    assert recorded == {
        "pushed": 1,
        "unchanged": 0,
        "pushed_destination": f"{shop.file.parent}/serving/{done.pushed.version}",
        "pushed_version": str(done.pushed.version),
        "digest": model_files.digest("artifacts/shop/exported0/Format-Serving"),
        "reason": "blessed",
        "summary": done.summary,
        "checked": "loaded",
    }
    (execution,) = shop.store.get_executions_by_type(push_records.PUSH)
    assert execution.id == done.execution
    assert [each.name for each in shop.store.get_contexts_by_execution(execution.id)] == ["shop"]
    again = by_hand.push("artifacts/shop/exported0", "serving", check=untried)
    assert again.pushed.unchanged
    assert again.execution is None  # nothing happened
    assert store.connect(None).digests_pushed_as(str(done.pushed.version)) == [recorded["digest"]]


def test_what_was_not_blessed_is_pushed_by_force_alone(shop):
    with pytest.raises(PushRefused, match=r"not pushed: it was evaluated and not blessed: ndcg@10 is lower.*--force"):
        by_hand.push("artifacts/shop/exported1", "serving", check=untried)
    assert versions.ServingBase("serving").directories() == {}
    (recorded,) = pushes(shop, push_records.PUSH)
    assert (recorded["pushed"], recorded["refused"]) == (0, "not blessed")
    assert recorded["summary"].startswith("not pushed: it was evaluated and not blessed: ndcg@10 is lower than 0.6021")
    done = by_hand.push("artifacts/shop/exported1", "serving", force=True, check=untried)
    assert done.reason == "not blessed (forced)"
    (row,) = version_table.versions("serving")
    assert (row.blessing, row.metric, row.run) == ("not blessed", "ndcg@10 0.6011", "run1")


def test_wrong_answers_are_refused_even_by_force(shop):
    def wrong(model):
        raise PushRefused("signature predict answers otherwise")

    with pytest.raises(PushRefused, match="exported0/Format-Serving: not pushed: signature predict answers otherwise"):
        by_hand.push("artifacts/shop/exported0", "serving", force=True, check=wrong)
    assert pushes(shop, push_records.PUSH)[0]["refused"] == "samples"


def test_a_push_that_fails_is_recorded_as_well(shop, tmp_path):
    (tmp_path / "serving").touch()
    with pytest.raises(PushError, match=r"serving.*Nothing was pushed"):
        by_hand.push("artifacts/shop/exported0", "serving", check=untried)
    (recorded,) = pushes(shop, push_records.PUSH)
    assert (recorded["pushed"], recorded["refused"]) == (0, "failed")


def test_a_rollback_is_recorded_with_what_it_restores(shop):
    by_hand.push("artifacts/shop/exported0", "serving", check=untried)
    by_hand.push("artifacts/shop/exported1", "serving", force=True, check=untried)
    first, second = versions.ServingBase("serving").directories()
    done = by_hand.roll_back("serving", check=untried)
    third = done.pushed.version
    assert done.summary == f"rolled back: version {third} has the bytes of {first}, {second} no longer serves"
    (recorded,) = pushes(shop, push_records.ROLLBACK)
    assert (recorded["rollback_of"], recorded["restores"], recorded["pushed_version"]) == (
        str(second),
        str(first),
        str(third),
    )
    assert recorded["digest"] == model_files.digest("artifacts/shop/exported0/Format-Serving")
    newest, rolled_back, oldest = version_table.versions("serving")
    assert (newest.live, newest.rollback_of, newest.restores, newest.blessing) == (True, second, first, "blessed")
    assert rolled_back.rolled_back_at
    assert (oldest.live, oldest.version) == (False, first)


def test_a_rollback_of_labels_is_recorded_with_the_label(shop, tmp_path):
    (tmp_path / "ranking.yaml").write_text(
        json.dumps(
            {
                "name": "shop",
                "data": {"input": "x", "format": "csv"},
                "items": {"f": {}},
                "push": {"base": "serving", "version": "next", "models_config": "serving/models.config", "keep": 9},
            }
        )
    )
    by_hand.push("artifacts/shop/exported0", "serving", check=untried)
    done = by_hand.push("artifacts/shop/exported1", "serving", force=True, check=untried)
    assert done.summary == "pushed version 2, now stable"
    done = by_hand.roll_back("serving", check=untried)
    assert done.summary == "rolled back: version 1 is stable again, 2 was"
    (recorded,) = pushes(shop, push_records.ROLLBACK)
    assert (recorded["label"], recorded["pushed_version"], recorded["rollback_of"]) == ("stable", "1", "2")
    assert recorded["pushed_destination"] == f"{tmp_path}/serving/1"
    assert [(each.version, each.labels, each.live) for each in version_table.versions("serving")] == [
        (2, (), False),
        (1, ("stable",), True),
    ]


def test_a_canary_becomes_stable_by_its_directory(shop, tmp_path):
    section = {"base": "serving", "version": "next", "models_config": "models.config", "keep": 9, "label": "canary"}
    raw = {"name": "shop", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}, "push": section}
    (tmp_path / "ranking.yaml").write_text(json.dumps(raw))
    done = by_hand.push("artifacts/shop/exported0", "serving", check=untried)
    assert (done.pushed.label, versions.ServingBase("serving").labels()) == ("canary", {"canary": 1})
    done = by_hand.push("serving/1", "serving", check=untried)
    assert (done.pushed.version, done.pushed.label, done.pushed.unchanged) == (1, "stable", False)
    assert versions.ServingBase("serving").labels() == {"canary": 1, "stable": 1}
    assert pushes(shop, push_records.PUSH)[-1]["label"] == "stable"


def test_numbers_go_on_above_what_ml_metadata_knows(shop):
    before = by_hand.push("artifacts/shop/exported0", "serving", check=untried).pushed.version
    other = shop.artifact(
        "PushedModel",
        "p",
        pushed=1,
        pushed_version=str(before + 1000),
        pushed_destination=f"{shop.file.parent}/serving/{before + 1000}",
    )
    shop.step("run0", "RankingPusher", {}, {"pushed_model": other})
    done = by_hand.push("artifacts/shop/exported1", "serving", force=True, check=untried)
    assert done.pushed.version == before + 1001
    assert push_records.highest_version(shop.store, "serving") == before + 1001
    assert push_records.highest_version(shop.store, "elsewhere") is None


def test_without_a_store_the_push_is_done_and_reports_that_it_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    servable_models.save(tmp_path / "model", 0.5)
    done = by_hand.push("model", "serving", check=untried)
    assert done.reason == "pushed by hand, without a blessing"
    assert done.not_recorded.startswith("no ML Metadata store: expected --metadata FILE")
    with pytest.raises(RankingError, match=r"nowhere\.sqlite: no such ML Metadata store"):
        by_hand.push("model", "serving", metadata="nowhere.sqlite", check=untried)


def test_what_is_no_model_is_no_push(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").mkdir()
    with pytest.raises(PushRefused, match="notes: expected a SavedModel"):
        by_hand.push("notes", "serving", check=untried)


def test_the_commands_load_no_tensorflow_themselves(shop):
    script = """
import contextlib, io, sys
import numpy as np
from tfx_ranking.components.serving import samples
from tfx_ranking.pipelines.cli import command_tree as cli
samples.check.__defaults__ = (lambda model, calls: {"predict": [{"scores": np.float32([1.0])}]},)
with contextlib.redirect_stdout(io.StringIO()):
    assert cli.main(["versions", "serving"]) == 0
    assert cli.main(["push", "artifacts/shop/exported0", "serving"]) == 0
print(sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tfx", "apache_beam", "keras", "tfx_bsl"}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_the_commands_as_a_person_uses_them(shop, capsys):
    assert command_tree.main(["push", "artifacts/shop/exported0", "serving"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("pushed version ")
    assert lines[1] == "tried:    loaded, and 1 sample request answered as at export"
    assert lines[2].startswith("recorded: execution ")
    assert command_tree.main(["push", "artifacts/shop/exported1", "serving"]) == 1
    assert "not blessed" in capsys.readouterr().err
    assert command_tree.main(["push", "artifacts/shop/exported1", "serving", "--force", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reason"] == "not blessed (forced)"
    assert command_tree.main(["rollback", "serving"]) == 0
    assert capsys.readouterr().out.startswith("rolled back: version ")
    assert command_tree.main(["push", "artifacts/shop/exported1", "serving", "--metadata", "metadata.sqlite"]) == 1
    assert command_tree.main(["rollback", "serving"]) == 1
    assert "no version to go back to" in capsys.readouterr().err
    wrong = servable_models.save(shop.file.parent / "wrong", 7.0, answer=9.0)
    assert command_tree.main(["push", str(wrong), "serving", "--force"]) == 1
    assert "scores[0] is 14.0, it was 9.0" in capsys.readouterr().err


def test_why_a_step_failed_is_in_ml_metadata(shop):
    """TFX writes that a step failed, not why."""
    from lineage_stores import FAILED

    from tfx_ranking.components.errors import PushError
    from tfx_ranking.pipelines.lineage import origin
    from tfx_ranking.pipelines.metadata import run_records

    shop.step("run2", "RankingPusher", {}, {}, FAILED)
    try:
        try:
            raise PushError("serving/1: No space left on device. Nothing was pushed.") from OSError(28, "No space left")
        except PushError as error:
            raise RuntimeError("Beam's wrapping") from error
    except RuntimeError as error:
        run_records.record_failure(shop.store, "run2", run_records.failure_text(error))
    newest = origin.runs(store.connect(None), 1)[0]
    assert (newest.id, newest.state) == ("run2", "failed")
    assert newest.reason == "RankingPusher: serving/1: No space left on device. Nothing was pushed."


def test_lineage_knows_a_push_of_a_model_from_elsewhere(shop, capsys):
    servable_models.save(shop.file.parent / "elsewhere", 7.0)
    done = by_hand.push("elsewhere", "serving", force=True, check=untried)
    assert command_tree.main(["lineage", f"serving/{done.pushed.version}"]) == 0
    output = capsys.readouterr().out
    assert f"model {done.pushed.digest}" in output
    assert "Push" in output
    assert command_tree.main(["served", "--at", "now", "serving"]) == 0
    assert str(done.pushed.version) in capsys.readouterr().out


def test_a_model_that_no_pipeline_made_can_be_pushed(shop):
    served = servable_models.save(shop.file.parent / "alone" / "Format-Serving", 8.0)
    model = shop.artifact("Model", "alone", digest=model_files.digest(served))
    (model.id,) = shop.store.put_artifacts([model])  # as a notebook leaves it: in no context
    done = by_hand.push(served, "serving", force=True, check=untried)
    (execution,) = shop.store.get_executions_by_type(push_records.PUSH)
    taken = [each.artifact_id for each in shop.store.get_events_by_execution_ids([execution.id])]
    assert model.id in taken
    assert done.summary == f"pushed version {done.pushed.version}"
