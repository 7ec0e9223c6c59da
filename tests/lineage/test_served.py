"""Serving periods, impact and the metric over versions, on stores that are written step by step."""

import dataclasses
import datetime
import json
import pathlib
import re

import pytest
from lineage_stores import CACHED, FAILED, StoreMaker, saved_model

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import impact, served, values
from tfx_ranking.pipelines.lineage import store as lineage_store

MOMENT = datetime.timedelta(milliseconds=1)
TUESDAY = datetime.datetime(2026, 11, 17, 15, 0).astimezone()


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


def _at(days, when, until=None):
    periods = served.served(days.store, str(days.base), when, until or when)
    return [each.push.version for each in periods]


def test_what_served_before_and_after_a_push_and_a_rollback(tmp_path):
    days = Days(tmp_path)
    days.run("one", 1, version=10)
    days.run("two", 2, version=20, value=0.7)
    days.push(30, "digest of one", node="Rollback", rollback_of="20", restores="10", reason="clicks fell")
    first, second, back = served.pushes(days.store, str(days.base))
    assert [each.kind for each in (first, second, back)] == ["push", "push", "rollback"]
    assert (back.rollback_of, back.restores, back.reason) == ("20", "10", "clicks fell")
    assert _at(days, first.at) == _at(days, second.at - MOMENT) == ["10"]
    assert _at(days, second.at) == ["20"]
    assert _at(days, first.at, back.at) == ["10", "20", "30"]  # in a period with all three
    (now,) = served.served(days.store, str(days.base), back.at, back.at)
    assert (now.model.run, now.model.spans, now.model.value) == ("one", (1,), 0.5)  # its bytes are the first version's
    assert [file.path for file in now.files] == ["/logs/1.csv"]
    assert now.until is None
    with pytest.raises(RankingError, match=r"nothing served before .*; the first push was at"):
        _at(days, first.at - MOMENT)
    with pytest.raises(
        RankingError, match=rf"elsewhere: .* has no push to this destination; it has pushes to: {days.base}"
    ):
        served.served(days.store, "elsewhere", first.at, first.at)


def test_a_push_of_bytes_that_served_already_changes_nothing(tmp_path):
    days = Days(tmp_path)
    days.run("one", 1, version=10)
    days.push(10, "digest of one", unchanged=1)
    assert [each.version for each in served.pushes(days.store)] == ["10"]


def test_with_labels_the_stable_version_serves(tmp_path):
    days = Days(tmp_path)
    days.run("one", 1, version=10)
    days.push(10, "digest of one", node="Push", label="stable")
    days.run("two", 2)
    days.push(20, "digest of two", run="two", label="canary")
    days.push(20, "digest of two", node="Push", label="stable")
    days.push(10, "digest of one", node="Rollback", label="stable", rollback_of="20", restores="10")
    pushes = served.pushes(days.store, str(days.base))
    assert [each.kind for each in pushes] == ["push", "label", "push", "label", "rollback"]
    assert [_at(days, each.at)[-1] for each in pushes] == ["10", "10", "10", "20", "10"]


MONDAY = TUESDAY.replace(day=16, hour=0)
DAY = datetime.timedelta(days=1)
LAST = datetime.timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("now", TUESDAY, TUESDAY),
        ("2026-11-16", MONDAY, MONDAY + DAY - LAST),
        ("2026-11-16 14:30", MONDAY.replace(hour=14, minute=30), None),
        ("2026-11-16T14:30:00Z", datetime.datetime(2026, 11, 16, 14, 30, tzinfo=datetime.timezone.utc), None),
        ("today", TUESDAY.replace(hour=0), TUESDAY),  # until now
        ("Yesterday", MONDAY, MONDAY + DAY - LAST),
        ("monday", MONDAY, MONDAY + DAY - LAST),
        ("tuesday", MONDAY - 6 * DAY, MONDAY - 5 * DAY - LAST),  # today is Tuesday: the one before
    ],
)
def test_times_as_people_write_them(text, since, until):
    assert served.moment(text, TUESDAY) == (since, until or since)


@pytest.mark.parametrize(
    ("text", "problem"), [("noon", "not a time; expected a date"), ("2026-11-18", "in the future")]
)
def test_texts_that_are_not_a_time(text, problem):
    with pytest.raises(RankingError, match=problem):
        served.moment(text, TUESDAY)


def _impact(result):
    return [
        (each.model.run, each.how, [push.version for push in each.pushes], bool(each.live)) for each in result.models
    ]


def test_the_impact_of_a_span(tmp_path):
    days = Days(tmp_path)
    saved_model(days.base / "10", "served")
    examples = days.run("one", 17, version=10)
    of_seventeen = days.model
    days.run("again", 17, examples=examples)  # on the cached examples, not blessed
    days.run("two", [16, 17, 18], version=20)
    days.run("begun", 19, begun=of_seventeen)
    days.run("apart", 20)
    days.evaluate("apart", examples, days.model, 0.4, False)  # on the lists of an earlier span
    days.run("ended early", 17, exported=False)
    days.run("other", 21, version=30)
    result = impact.of_span(days.store, 17)
    assert _impact(result) == [
        ("ended early", "trained", [], False),
        ("apart", "evaluated", [], False),
        ("begun", "began", [], False),
        ("two", "trained", ["20"], False),
        ("again", "trained", [], False),
        ("one", "trained", ["10"], True),  # the destination has only version 10, whatever was recorded last
    ]
    assert [(each.version, each.seen) for each in result.live] == [("10", True)]
    assert result.models[0].model.spans == (17,)  # through the transformed examples
    assert _impact(impact.of_file(days.store, "17.csv")) == _impact(impact.of_file(days.store, "d17"))  # by its digest
    assert [run for run, *_ in _impact(impact.of_file(days.store, "/logs/18.csv"))] == ["two"]
    assert _impact(impact.of_run(days.store, "again")) == [
        ("again", "trained", [], False)
    ]  # without its cached examples
    saved_model(days.base / "40", "of somebody else")
    assert {each.live for each in impact.of_span(days.store, 17).models} == {()}
    with pytest.raises(RankingError, match=r"span 5: .* has no examples of this span; it has spans: 16-21\."):
        impact.of_span(days.store, 5)
    with pytest.raises(RankingError, match=r"7\.csv: .* has no examples that were read from this file"):
        impact.of_file(days.store, "7.csv")
    with pytest.raises(RankingError, match=r"nobody: .* has no run with this id"):
        impact.of_run(days.store, "nobody")


def test_a_model_that_was_evaluated_on_earlier_spans(tmp_path):
    days = Days(tmp_path)
    examples = days.run("one", [16, 17], version=10)
    judged = days.maker.artifact(
        "ModelEvaluation", "e/later", previous_examples=examples.uri, previous_spans=json.dumps([17])
    )
    days.run("two", 18)
    copy = days.maker.artifact("Model", "live/1", live=1, digest="digest of one")
    inputs = {"model": days.model, "baseline_model": copy}
    days.maker.step("two", "RankingEvaluator", inputs, {"evaluation": judged})
    trained = ("one", "trained", ["10"], True)
    assert _impact(impact.of_span(days.store, 17)) == [("two", "evaluated", [], False), trained]
    assert _impact(impact.of_span(days.store, 16)) == [trained]  # only lists of the last span were used
    unfiltered = days.store
    unfiltered._filters = False
    assert impact.of_span(unfiltered, 17) == impact.of_span(days.store, 17)


def test_a_model_that_started_from_another_one(tmp_path):
    days = Days(tmp_path)
    days.run("one", 17, version=10)
    copy = days.maker.artifact("Model", "live/1", live=1, digest="digest of one")
    days.maker.step("two", "LiveModel", {}, {"model": copy})
    days.run("two", 18, version=20, begun=copy)
    result = impact.of_span(days.store, 17)
    assert _impact(result) == [("two", "began", ["20"], True), ("one", "trained", ["10"], False)]
    assert not result.live[0].seen  # the folder does not exist: by the last record


def test_anomalies_do_not_pass_a_contribution_on(tmp_path):
    days = Days(tmp_path)
    days.run("one", 17)
    (anomalies,) = days.store.of_type("ExampleAnomalies")
    later = days.maker.artifact("Model", "trained/later")
    checked = days.maker.store.get_artifacts_by_id([anomalies.id])[0]
    days.maker.step("two", "RankingTrainer", {"anomalies": checked}, {"model": later})
    assert [run for run, *_ in _impact(impact.of_span(days.store, 17))] == ["one"]


def test_the_metric_over_versions(tmp_path, capsys):
    days = Days(tmp_path)
    days.run("one", 1, version=10)
    days.run("two", [1, 2], version=20, value=0.7)
    days.push(30, "of another store")
    versions = served.models(days.store, str(days.base))
    assert [(push.version, model and model.value) for push, model in versions] == [
        ("10", 0.5),
        ("20", 0.7),
        ("30", None),
    ]
    at = ["--metadata", str(days.maker.file)]
    assert command_tree.main(["models", *at]) == 0
    heading, last, middle, _ = capsys.readouterr().out.splitlines()
    assert heading.split() == ["version", "pushed", "run", "spans", "metric", "now"]
    assert last.split()[3] == TUESDAY.tzname()
    assert (last.split()[0], last.split()[-1]) == ("30", "live")
    assert middle.split()[-4:] == ["two", "1-2", "mrr", "0.7000"]
    assert command_tree.main(["models", "elsewhere", *at]) == 1
    assert f"elsewhere: {days.maker.file} has no push to this destination" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(days.base)
    assert command_tree.main(["models", str(tmp_path / "link"), "--limit", "1", *at]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["version", "30"]
    assert command_tree.main(["models", "--json", *at]) == 0
    assert [each["live"] for each in json.loads(capsys.readouterr().out)] == [False, False, True]


def test_the_commands_print_text_and_json(tmp_path, capsys):
    days = Days(tmp_path)
    days.run("failed", 1, exported=False)
    days.maker.step("failed", "SignatureExporter", {}, {}, FAILED)
    saved_model(days.base / "10", "served")
    days.run("one", 2, version=10)
    days.push(10, digest(days.base / "10"), unchanged=1)
    at = ["--metadata", str(days.maker.file)]
    assert command_tree.main(["served", str(days.base), "--at", "today", *at]) == 0
    output = capsys.readouterr().out
    assert "version 10, from" in output
    assert "until now" in output
    assert "data  span 2, 1 file:\n    d2  20 B  all  /logs/2.csv" in output
    assert command_tree.main(["served", str(days.base), "--json", *at]) == 0
    (each,) = json.loads(capsys.readouterr().out)
    assert (each["push"]["version"], each["model"]["run"], each["until"]) == ("10", "one", None)
    assert command_tree.main(["impact", "--span", "2", *at]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[:2] == [
        "span 2: 1 model (1 trained on it), 1 pushed",
        f"live at {days.base}: version 10, trained on it",
    ]
    assert command_tree.main(["impact", "--span", "1", "--json", *at]) == 0
    assert [each["pushes"] for each in json.loads(capsys.readouterr().out)["models"]] == [[]]
    assert command_tree.main(["served", str(days.base), "--at", "never", *at]) == 2
    assert capsys.readouterr().err.startswith("tfx-ranking: 'never': not a time; expected a date")
    with pytest.raises(SystemExit) as left:
        command_tree.main(["impact", *at])
    assert left.value.code == 2


def test_an_empty_store(tmp_path, capsys):
    at = ["--metadata", str(StoreMaker(tmp_path).file)]
    assert command_tree.main(["models", *at]) == 0
    assert capsys.readouterr().out == "no model was pushed yet\n"
    for question in (["served", "here"], ["impact", "--span", "1"], ["impact", "--run", "x"], ["diff", "a", "b"]):
        assert command_tree.main([*question, *at]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_python_example_of_the_documentation(tmp_path, monkeypatch, capsys):
    days = Days(tmp_path)
    days.run("one", 1, version=10)
    monkeypatch.chdir(tmp_path)
    page = pathlib.Path(__file__).parent.parent.parent / "docs" / "lineage.md"
    (example,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    exec(example, {})  # one model is enough
    assert "one trained" in capsys.readouterr().out
    days.run("two", 2, version=20)
    exec(example, {})
    output = capsys.readouterr().out
    assert "two done 2 mrr 0.5 20" in output
    assert "two RankingExampleGen ['/logs/2.csv']" in output
    assert f"two trained ('{days.base}',)" in output
    assert "trained on spans 2, before on 1" in output


def test_the_commands_of_the_documentation_exist(capsys):
    page = pathlib.Path(__file__).parent.parent.parent / "docs" / "lineage.md"
    commands = re.findall(r"`tfx-ranking (\w+)", page.read_text())
    assert len(commands) == 7
    for command in commands:
        with pytest.raises(SystemExit) as left:
            command_tree.main([command, "--help"])
        assert left.value.code == 0
        output = capsys.readouterr().out
        assert all(option in output for option in ("--json", "--html", "--metadata", "example: "))


@pytest.mark.parametrize("kind", [each for each in vars(values).values() if dataclasses.is_dataclass(each)])
def test_values_cannot_be_changed(kind):
    assert kind.__dataclass_params__.frozen
    for field in dataclasses.fields(kind):
        assert not str(field.type).startswith(("list", "dict", "set"))
