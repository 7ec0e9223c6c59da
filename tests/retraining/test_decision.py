"""Tests whether `retrain` trains, on which files, why, and how it ends, with a real ML Metadata store.

A fake runner replaces the pipeline: it writes into the store what the pipeline's steps would write, as each test says.
`soak_retraining.py` uses the real pipeline.
"""

import datetime
import json
import pathlib
import shutil
import subprocess
import sys

import pytest
from lineage_stores import CACHED, COMPLETE, StoreMaker, saved_model

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.ingestion import sources
from tfx_ranking.components.push import ledger, versions
from tfx_ranking.components.push.ledger import Entry, Ledger
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.retraining import decision, views
from tfx_ranking.pipelines.retraining.decision import Job, RunResult
from tfx_ranking.pipelines.retraining.exit_codes import Exit

DAY = datetime.timedelta(days=1)


class Shop:
    """A shop with a log file a day, and a runner that gives each span the check that the test says."""

    def __init__(self, folder: pathlib.Path, **config) -> None:
        self.folder, self.file = folder, folder / "ranking.yaml"
        self.maker = StoreMaker(folder)
        self.checks: dict[int | None, dict] = {}  # by span: the properties of its check, or its failure
        self.outcome: dict = {"pushed": 1, "summary": "pushed version 2"}
        self.evaluated = COMPLETE
        self.jobs: list[Job] = []
        self.write(**config)

    def write(self, window=3, **config) -> None:
        data = {"input": "logs/day-{SPAN}.csv", "format": "csv", "window": {"spans": window}}
        raw = {"name": "shop", "data": data, "items": {"price": {}}, "push": {"base": "serving"}, **config}
        self.file.write_text(json.dumps(raw))

    def deliver(self, *spans, content="price,label,group_id\n1,1,q") -> None:
        (self.folder / "logs").mkdir(exist_ok=True)
        for span in spans:
            (self.folder / "logs" / f"day-{span}.csv").write_text(f"{content}{span}\n")

    def serve(self, version=1) -> None:
        """Trains on the files that are there now, and lets the model serve."""
        config = ranking_config.load(self.file)
        source = sources.resolve(config.data, lambda: versions.ServingBase(config.push.base).live_spans())
        model = saved_model(self.folder / "serving" / str(version), f"model {version}")
        run, make = f"run-{version}", self.maker.artifact
        examples = make("Examples", f"examples/{version}", spans=json.dumps(source.get("spans", [])))
        self.maker.step(run, "RankingExampleGen", {}, {"examples": examples}, source=json.dumps(source))
        statistics = make("ExampleStatistics", f"statistics/{version}")
        self.maker.step(run, "StatisticsGen", {"examples": examples}, {"statistics": statistics})
        schema = make("Schema", f"schema/{version}")
        self.maker.step(run, "RankingSchemaGen", {"statistics": statistics}, {"schema": schema})
        exported = make("Model", f"model/{version}", digest=model_files.digest(model))
        self.maker.step(run, "SignatureExporter", {"examples": examples, "schema": schema}, {"model": exported})

    def run(self, job: Job) -> list[RunResult]:
        return [self.run_one(Job((source,), job.check)) for source in job.sources]

    def run_one(self, job: Job) -> RunResult:
        self.jobs.append(job)
        run = f"job-{len(self.jobs)}"
        if job.check is not None:
            (span,) = job.sources[0].get("spans") or [None]
            check = {"lists": 100, "refused": "", "moved": [], **self.checks.get(span, {})}
            if "failure" in check:
                return RunResult(run, check["failure"], check["data_error"])
            properties = {**check, "moved": json.dumps(check["moved"]), "drift": json.dumps({"price": 0.1})}
            self.maker.step(
                run, "RankingDataCheck", {}, {"anomalies": self.maker.artifact("ExampleAnomalies", run, **properties)}
            )
            return RunResult(run)
        if "failure" in self.outcome:
            return RunResult(run, self.outcome["failure"], self.outcome["data_error"])
        blessing = self.maker.artifact("ModelBlessing", run)
        self.maker.step(run, "RankingEvaluator", {}, {"blessing": blessing}, state=self.evaluated)
        pushed = self.maker.artifact("PushedModel", run, **self.outcome)
        self.maker.step(run, "RankingPusher", {}, {"pushed_model": pushed})
        return RunResult(run)

    def retrain(self, **more) -> decision.Outcome:
        self.jobs.clear()
        return decision.retrain(self.file, self.folder, self.run, **more)

    def trained_on(self) -> list[int]:
        (job,) = (each for each in self.jobs if each.check is None)
        return job.sources[0]["spans"]


@pytest.fixture
def shop(tmp_path) -> Shop:
    made = Shop(tmp_path)
    made.deliver(1, 2)
    made.serve()
    return made


def test_the_first_training_needs_no_other_reason(tmp_path):
    shop = Shop(tmp_path, retrain={"min_lists": 1000})
    shop.deliver(1)
    outcome = shop.retrain()
    assert (outcome.exit, shop.trained_on()) == (Exit.PUSHED, [1])
    assert outcome.decision.reasons == ("nothing serves yet: the first training",)


def test_without_new_data_nothing_runs(shop):
    outcome = shop.retrain()
    assert (outcome.exit, outcome.message) == (Exit.NOTHING_TO_DO, "no new data since version 1 (spans 1-2)")
    assert shop.jobs == []


def test_a_new_span_is_checked_alone_and_trained_on_with_the_window(shop):
    shop.deliver(3)
    outcome = shop.retrain()
    check, training = shop.jobs
    assert [each["span"] for each in check.sources[0]["files"]["all"]] == [3]
    artifacts = shop.folder / "artifacts" / "shop"
    assert check.check == {"statistics": str(artifacts / "statistics/1"), "schema": str(artifacts / "schema/1")}
    assert training.sources[0]["spans"] == [1, 2, 3]
    assert (outcome.exit, outcome.message) == (Exit.PUSHED, "pushed version 2")
    assert outcome.decision.reasons == ("100 new lists in span 3",)


def test_a_late_span_is_new_and_so_is_one_that_was_delivered_again(tmp_path):
    shop = Shop(tmp_path)
    shop.deliver(1, 3)
    shop.serve()
    shop.deliver(2)
    shop.deliver(3, content="price,label,group_id\n2,1,q")
    assert shop.retrain().decision.reasons == ("200 new lists in spans 2-3",)
    assert shop.trained_on() == [1, 2, 3]


def test_a_span_that_repeats_another_is_not_new(shop):
    (shop.folder / "logs" / "day-3.csv").write_bytes((shop.folder / "logs" / "day-2.csv").read_bytes())
    outcome = shop.retrain()
    assert outcome.exit == Exit.NOTHING_TO_DO
    assert "twice:   " in views.decision_text(outcome.decision)


def test_refused_data_are_not_trained_on(shop):
    shop.deliver(3)
    shop.checks[3] = {"refused": "label moved by 0.4"}
    outcome = shop.retrain()
    assert (outcome.exit, outcome.message) == (Exit.DATA_REFUSED, "span 3 refused: label moved by 0.4")
    assert [job.check is None for job in shop.jobs] == [False]


def test_a_refused_span_does_not_hold_up_a_good_one(shop):
    shop.deliver(9, 10)
    shop.checks[9] = {"failure": "900 of 900 records are bad", "data_error": True}
    outcome = shop.retrain()
    assert [each.span for each in outcome.decision.checks] == [9, 10]
    assert (outcome.exit, shop.trained_on()) == (Exit.PUSHED, [10])
    assert [(each.span, each.refused) for each in outcome.decision.refused] == [(9, "900 of 900 records are bad")]
    document = views.outcome_json(outcome)
    assert (document["exit"], document["outcome"], document["message"]) == (0, "pushed", "pushed version 2")
    assert document["said"] == document["message"]  # until 0.3: 0.1's name
    assert (document["window"], document["missing_spans"]) == ([10], [8])
    assert json.loads(json.dumps(document))["checks"][0]["refused"] == "900 of 900 records are bad"


def test_a_check_that_fails_for_another_reason_is_a_failure(shop):
    shop.deliver(3)
    shop.checks[3] = {"failure": "no space left", "data_error": False}
    with pytest.raises(RankingError, match="span 3 could not be checked: no space left"):
        shop.retrain()


@pytest.mark.parametrize(
    ("limits", "check", "age", "reasons"),
    [
        ({"min_lists": 100}, {}, 0, ["100 new lists in span 3, retrain.min_lists is 100"]),
        ({"min_lists": 101}, {}, 0, []),
        ({"max_age": 7.0}, {}, 7.5, ["version 1 is 7.5 days old, retrain.max_age is 7"]),
        ({"max_age": 7.0}, {}, 6.5, []),
        ({"drift": {"label": 0.1}}, {"moved": ["label moved by 0.2"]}, 0, ["span 3: label moved by 0.2"]),
        ({"drift": {"label": 0.1}}, {}, 0, []),
        ({"min_lists": 101, "max_age": 7.0}, {}, 8, ["version 1 is 8.0 days old, retrain.max_age is 7"]),
    ],
)
def test_each_configured_reason_is_enough(shop, limits, check, age, reasons):
    shop.write(retrain=limits)
    shop.deliver(3)
    shop.checks[3] = check
    now = datetime.datetime.now(datetime.timezone.utc) + age * DAY
    outcome = shop.retrain(now=now)
    assert list(outcome.decision.reasons) == reasons
    assert outcome.exit == (Exit.PUSHED if reasons else Exit.NOTHING_TO_DO)
    assert bool(outcome.decision.against) == (not reasons)


def test_an_old_model_alone_is_no_reason(shop):
    shop.write(retrain={"max_age": 1.0})
    now = datetime.datetime.now(datetime.timezone.utc) + 30 * DAY
    assert shop.retrain(now=now).exit == Exit.NOTHING_TO_DO
    assert shop.jobs == []


@pytest.mark.parametrize(
    ("outcome", "exit"),
    [
        ({"pushed": 1, "summary": "pushed version 2"}, Exit.PUSHED),
        ({"pushed": 1, "unchanged": 1, "summary": "nothing changed, version 1 serves"}, Exit.NOTHING_TO_DO),
        (
            {"pushed": 0, "refused": "not blessed", "summary": "not pushed, version 1 still serves: worse"},
            Exit.NOT_BLESSED,
        ),
        ({"pushed": 0, "refused": "rolled back", "summary": "not pushed: it was rolled back"}, Exit.NOTHING_TO_DO),
        ({"pushed": 0, "refused": "wrong answers", "summary": "not pushed: wrong answers"}, Exit.FAILED),
        ({"failure": "Transform failed", "data_error": False}, Exit.FAILED),
        ({"failure": "anomalies in split train", "data_error": True}, Exit.DATA_REFUSED),
    ],
)
def test_the_exit_code_of_a_training(shop, outcome, exit):
    shop.deliver(3)
    shop.outcome = outcome
    result = shop.retrain()
    assert (result.exit, result.message) == (exit, outcome.get("summary") or outcome["failure"])


def test_the_last_line_has_the_outcome_once(shop):
    shop.deliver(3)
    assert shop.retrain().line == "pushed version 2"
    shop.outcome = {"failure": "Transform failed", "data_error": False}
    shop.deliver(4)
    assert shop.retrain().line == "failed: Transform failed"


def test_the_same_unblessed_model_again_is_nothing_to_do(shop):
    shop.deliver(3)
    shop.outcome = {"pushed": 0, "refused": "not blessed", "summary": "not pushed: worse"}
    assert shop.retrain().exit == Exit.NOT_BLESSED
    shop.evaluated = CACHED
    outcome = shop.retrain()
    assert outcome.exit == Exit.NOTHING_TO_DO
    assert outcome.message == "the same data, config and live model as before, and the same result: not pushed: worse"


def test_a_dry_run_checks_and_trains_nothing(shop):
    shop.deliver(3)
    outcome = shop.retrain(dry_run=True)
    assert (outcome.exit, outcome.name, outcome.message) == (Exit.PUSHED, "would train", "100 new lists in span 3")
    assert [job.check is None for job in shop.jobs] == [False]
    assert views.decision_text(outcome.decision).splitlines() == [
        "serving: version 1, trained on spans 1-2 (run run-1)",
        "window:  spans 1-3",
        "new:     span 3: 100 lists, good",
        "reason:  100 new lists in span 3",
    ]


def test_a_dry_run_warns_that_the_same_data_gave_a_version_that_was_rolled_back(shop):
    shop.deliver(3)
    shop.serve(2)
    digests = {v: model_files.digest(shop.folder / "serving" / str(v)) for v in (1, 2)}
    back = Entry(2, digests[2], rolled_back_at=ledger.now())
    shutil.copytree(shop.folder / "serving" / "1", shop.folder / "serving" / "3")
    ledger.write(shop.folder / "serving", Ledger((Entry(1, digests[1]), back, Entry(3, digests[1], restores=1)), 3))
    again = "100 new lists in span 3; the same data gave version 2, which was rolled back and is not pushed again"
    assert shop.retrain(dry_run=True).message == again
    shop.deliver(4)
    assert shop.retrain(dry_run=True).message == "200 new lists in spans 3-4"


def test_a_live_model_of_unknown_origin(shop):
    (shop.folder / "serving" / "1" / "saved_model.pb").write_text("other bytes")
    outcome = shop.retrain()
    assert (outcome.exit, len(shop.jobs)) == (Exit.PUSHED, 1)
    assert outcome.decision.reasons == ("ML Metadata has no run that made version 1: all data count as new",)


def test_files_without_spans(tmp_path):
    shop = Shop(tmp_path)
    shop.write()
    raw = json.loads(shop.file.read_text())
    raw["data"] = {"input": "logs/*.csv", "format": "csv"}
    shop.file.write_text(json.dumps(raw))
    shop.deliver(1, 2)
    shop.serve()
    assert shop.retrain().message == "no new data since version 1"
    shop.deliver(3)
    outcome = shop.retrain()
    check, training = shop.jobs
    assert [len(job.sources[0]["files"]["all"]) for job in (check, training)] == [1, 3]
    assert outcome.decision.reasons == ("100 new lists in 1 new file",)
    shop.checks[None] = {"refused": "price: not a number"}
    assert shop.retrain().exit == Exit.DATA_REFUSED


def test_a_config_without_push_is_refused(shop):
    shop.write(push=None)
    with pytest.raises(ConfigError, match=r"push\.base: retraining compares new data with the model that serves"):
        shop.retrain()


def test_the_command_with_nothing_new_ends_with_10_and_loads_no_tensorflow(shop):
    script = f"""
import sys
from tfx_ranking.pipelines.cli import command_tree
code = command_tree.main(["retrain", {str(shop.file)!r}, "--json"])
loaded = {{name.split(".")[0] for name in sys.modules}} & {{"tensorflow", "tfx", "apache_beam", "keras"}}
print(sorted(loaded), file=sys.stderr)
raise SystemExit(code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == Exit.NOTHING_TO_DO, done.stderr
    document = json.loads(done.stdout)
    assert (document["exit"], document["outcome"]) == (10, "nothing to do")
    serving, window, loaded = done.stderr.splitlines()
    assert (serving, window) == ("serving: version 1, trained on spans 1-2 (run run-1)", "window:  spans 1-2")
    assert loaded == "[]"


def test_the_command_without_any_input_fails_in_one_line(tmp_path, capsys):
    shop = Shop(tmp_path)
    assert command_tree.main(["retrain", str(shop.file)]) == Exit.FAILED
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tfx-ranking: data.input: no span for ")
