"""What an earlier release left on a user's disk still works; `tests/museum/make.py` makes `tests/museum/<version>`."""

import contextlib
import importlib.util
import json
import pathlib
import sqlite3
import subprocess
import sys
import tarfile
from typing import Any, NamedTuple

import pytest
import yaml

from tfx_ranking.pipelines.cli.command_tree import main

MUSEUM = pathlib.Path(__file__).parent.parent / "museum"
RELEASES = sorted(path.name for path in MUSEUM.iterdir() if (path / "shop.tar.gz").is_file())


def unpack(release: str, folder: pathlib.Path) -> pathlib.Path:
    """Lays the release's folder out under `folder`, as if its commands had run there."""
    with tarfile.open(MUSEUM / release / "shop.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    for file in (folder / "ranking.yaml", *folder.rglob("*.jsonl")):
        file.write_text(file.read_text().replace("@ROOT@", str(folder)))
    script = (MUSEUM / release / "metadata.sql").read_text().replace("@ROOT@", str(folder))
    with contextlib.closing(sqlite3.connect(folder / "metadata.sqlite")) as store:
        store.executescript(script)
    return folder


class Shop(NamedTuple):
    """A release's folder as its commands left it."""

    release: str
    folder: pathlib.Path


@pytest.fixture(scope="module", params=RELEASES)
def shop(request, tmp_path_factory):
    return Shop(request.param, unpack(request.param, tmp_path_factory.mktemp("museum") / "shop"))


@pytest.fixture
def command(shop, capsys, monkeypatch):
    """Runs a command in the shop's folder; gives what it printed."""
    monkeypatch.chdir(shop.folder)

    def run(line: str, exit_code: int = 0) -> str:
        assert main(line.split()) == exit_code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_each_document_keeps_its_keys_and_values(shop, command):
    """A program that reads `--json` finds every key that it found before; texts for people may change."""
    answers = json.loads((MUSEUM / shop.release / "answers.json").read_text())
    for question, before in answers.items():
        code = 10 if question.startswith("retrain") else 0  # 10: nothing to do
        after = json.loads(command(f"{question} --json", code).replace(str(shop.folder), "@ROOT@"))
        assert lost(before, after) == [], question


def lost(before: Any, after: Any, path: str = "") -> list[str]:
    """The paths of a JSON document whose key or value is gone from a later one."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = [f"{path}.{key}" for key in before if key not in after]
        return gone + [
            each for key in before if key in after for each in lost(before[key], after[key], f"{path}.{key}")
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [each for i, pair in enumerate(zip(before, after)) for each in lost(*pair, f"{path}[{i}]")]
    sentence = isinstance(before, str) and isinstance(after, str) and " " in before
    return [] if before == after or sentence else [f"{path}: {before!r} is now {after!r}"]


def test_a_lost_key_would_be_seen():
    assert lost({"a": [{"b": 1, "c": "x"}], "d": "a sentence"}, {"a": [{"b": 1, "e": 2}], "d": "another one"}) == [
        ".a[0].c"
    ]
    assert lost({"a": 1}, {"a": 2}) == [".a: 1 is now 2"]


def test_the_old_model_is_read_and_scores(command):
    shown = command("inspect serving/shop")
    assert all(f"\n{name}  " in shown for name in ("list_example", "predict", "serving_default"))
    assert "versions  1, 2\n" in shown
    command("rank serving/shop logs/day.csv --output ranked.csv")
    assert len(pathlib.Path("ranked.csv").read_text().splitlines()) == 1 + 600


def test_the_old_schedule_goes_on(shop, command):
    status = json.loads(command("schedule status ranking.yaml --json"))
    assert status["last"]["message"] == "no new data since version 2"
    assert status["last"]["said"] == status["last"]["message"]  # until 0.3: 0.1's name

    from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
    from apscheduler.schedulers.background import BackgroundScheduler

    scheduler = BackgroundScheduler()
    scheduler.add_jobstore(SQLAlchemyJobStore(url=f"sqlite:///{shop.folder}/artifacts/shop/schedule/jobs.sqlite"))
    scheduler.start(paused=True)
    try:
        job = scheduler.get_job("shop")
        assert job is not None, "APScheduler dropped the job: its function cannot be imported by the stored name"
        assert job.func() is None  # without a service there is nothing to run
    finally:
        scheduler.shutdown()


@pytest.mark.parametrize("release", RELEASES)
def test_a_compiled_pipeline_finds_its_entry_point(release):
    spec = yaml.safe_load((MUSEUM / release / "pipeline.yaml").read_text())
    commands = {tuple(each["container"]["command"]) for each in spec["deploymentSpec"]["executors"].values()}
    ((python, option, module),) = commands
    assert (python, option) == ("python", "-m")
    assert importlib.util.find_spec(module) is not None
    done = subprocess.run([sys.executable, option, module, "--node", "x"], capture_output=True, text=True)
    assert done.returncode == 2  # it runs, and misses the options that the file passes
    assert "--executor_class_path" in done.stderr
    for name in {each["container"]["args"][-2] for each in spec["deploymentSpec"]["executors"].values()}:
        assert name.startswith("--")


@pytest.mark.slow
def test_runs_and_rollbacks_go_on_from_the_old_store_and_model(shop, command):
    """Last in this file: it changes the folder."""
    file = shop.folder / "ranking.yaml"
    config = json.loads(file.read_text())
    config["training"]["epochs"] = 1
    file.write_text(json.dumps(config))
    command("run ranking.yaml")
    assert [each["push"]["version"] for each in json.loads(command("models serving/shop --json"))] == ["1", "2", "3"]
    command("rollback serving/shop")
    versions = json.loads(command("versions serving/shop --json"))
    assert [each["version"] for each in versions if each["live"]] == [4]
    assert [each["rollback_of"] for each in versions if each["live"]] == [3]
    steps = json.loads(command("lineage serving/shop/4 --json"))["executions"]
    assert "RankingTrainer" in {each["node"] for each in steps}
