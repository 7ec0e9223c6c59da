"""Serving periods and the metric over versions, on stores that are written step by step."""

import datetime
import json
import pathlib
import re

import pytest
from lineage_runs import Days

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage import served

MOMENT = datetime.timedelta(milliseconds=1)


TUESDAY = datetime.datetime(2026, 11, 17, 15, 0).astimezone()


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
