"""The schedule as a service: real processes, a job store on disk, a real HTTP server behind the webhook.

Only `tfx-ranking retrain` itself is stood in for, by `scheduled_job.py`.
"""

import contextlib
import dataclasses
import datetime
import http.server
import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import zoneinfo
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.retraining import schedule_history
from tfx_ranking.pipelines.retraining.decision import Exit
from tfx_ranking.pipelines.retraining.schedule_history import Attempt, Status
from tfx_ranking.pipelines.running import process_lock

HERE = pathlib.Path(__file__).parent.parent / "support"
PATIENCE = 30.0  # seconds; a test that waits longer has failed
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def until(condition: Callable[[], Any], what: str, tell: Callable[[], str] | None = None) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"never: {what}\n{tell() if tell else ''}"
        time.sleep(0.05)
    return found


@dataclasses.dataclass
class Service:
    """A schedule in a folder, whose service is started and stopped."""

    folder: pathlib.Path
    process: subprocess.Popen[str] | None = None

    def steps(self, *steps: dict[str, Any]) -> None:
        (self.folder / "steps.json").write_text(json.dumps(steps))

    def start(self, **plan: Any) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "scheduled_job.py"), str(self.folder)]
        given = {"name": "shop", "folder": str(self.folder / "schedule"), "run_lock": str(self.folder / "run.lock")}
        settings = json.dumps({**given, "command": command, "timezone": "Europe/Berlin", "retry_after": "1s", **plan})
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "schedule_service.py"), settings],
            stdout=(self.folder / "said").open("a"), stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return self.process

    def stop(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0

    def move_next_run(self, to: datetime.datetime) -> None:
        """As if the service had been down since before then."""
        store = SQLAlchemyJobStore(f"sqlite:///{self.folder / 'schedule' / schedule_history.JOBS}")
        store.start(BackgroundScheduler(), "default")
        job = store.lookup_job("shop")
        job._modify(next_run_time=to)
        store.update_job(job)
        store.shutdown()

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @property
    def ran(self) -> int:
        file = self.folder / "ran"
        return len(file.read_text().splitlines()) if file.exists() else 0

    @property
    def last(self) -> Attempt | None:
        return schedule_history.latest(self.folder / "schedule")

    @property
    def status(self) -> Status:
        return schedule_history.status("shop", self.folder / "schedule", self.folder / "run.lock")

    def ended(self, count: int) -> Attempt:
        """The last attempt, once `count` have ended."""
        until(lambda: self.said.count("run ended") >= count, f"{count} runs", lambda: self.said)
        assert self.last is not None
        return self.last


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    made = Service(tmp_path)
    made.steps({"exit": 0, "says": "pushed: version 12 serves"})
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


@contextlib.contextmanager
def webhook(answer: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server's address, and what it was sent."""
    got: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret", got
    server.shutdown()
    server.server_close()


def test_runs_when_due_and_tells_of_it_while_it_runs_and_when_it_does_not(service):
    service.start(every="1h")
    last = service.ended(1)
    assert (last.outcome, last.exit_code, last.said, last.attempt) == ("pushed", 0, "version 12 serves", 1)
    found = service.status
    assert found.service == str(service.process.pid)
    begun = datetime.datetime.fromisoformat(last.began)
    upcoming = datetime.datetime.fromisoformat(found.next_run)
    assert abs((upcoming - begun).total_seconds() - 3600) <= 2
    assert upcoming.utcoffset() == upcoming.astimezone(BERLIN).utcoffset()
    assert not found.missed
    service.stop()
    found = service.status
    assert (found.service, found.running, found.last) == ("", "", last)
    lines = schedule_history.text(found).splitlines()
    assert lines[:2] == [
        "schedule:  shop, every 1h (Europe/Berlin)",
        "service:   not running; start it again to go on",
    ]
    assert "if the service runs by then" in lines[2]


def test_many_missed_runs_are_caught_up_by_one(service):
    service.start(every="1h")
    service.ended(1)
    service.stop()
    now = datetime.datetime.now(BERLIN)
    service.move_next_run(now - datetime.timedelta(hours=3, minutes=30))
    assert service.status.missed
    assert "caught up when the service starts" in schedule_history.text(service.status)
    service.start(every="1h")
    service.ended(2)
    assert "a run was missed: catching up" in service.said
    upcoming = datetime.datetime.fromisoformat(service.status.next_run)
    assert datetime.timedelta() < upcoming - now <= datetime.timedelta(hours=1, minutes=1)
    service.stop()
    assert service.ran == 2


def test_a_failure_is_tried_again_later_and_told_when_nothing_helps(service):
    service.steps({"exit": 1, "says": "no such file"}, {"exit": 1, "says": "still none"}, {"exit": 0, "says": "pushed"})
    with webhook() as (address, got):
        service.start(every="1h", notify=[address])
        last = service.ended(3)
        until(lambda: got, "the webhook")
        assert (last.outcome, last.attempt) == ("pushed", 3)
        service.stop()
    said = service.said
    assert "trying again in 1 s" in said
    assert "trying again in 2 s" in said
    (payload,) = got  # of the run, not of its attempts
    assert payload == {
        "event": "pushed", "pipeline": "shop", "host": payload["host"], "began": last.began, "ended": last.ended,
        "attempt": 3, "exit_code": 0, "said": "pushed", "log": last.log,
    }  # fmt: skip
    assert "pushed" in pathlib.Path(last.log).read_text()


@pytest.mark.parametrize(
    ("code", "event"), [(0, "pushed"), (1, "failed"), (10, None), (11, "not blessed"), (12, "data refused")]
)
def test_what_is_told(service, code, event):
    service.steps({"exit": code, "says": "so"})
    told = service.folder / "told"
    service.start(every="1h", retries=0, notify=[f"{sys.executable} -c \"open('{told}', 'w').write(input())\""])
    last = service.ended(1)
    service.stop()
    assert last.outcome == (event or "nothing to do")
    assert (json.loads(told.read_text())["event"] if told.exists() else None) == event
    assert service.ran == 1


def test_the_outcomes_are_those_of_retrain():
    meant = {code: schedule_history.OUTCOMES.get(code, schedule_history.FAILED) for code in Exit}
    assert meant == {**{code: code.said for code in Exit}, Exit.INTERRUPTED: "stopped", Exit.WRONG_USAGE: "failed"}


def test_a_hook_that_fails_is_said_and_changes_nothing(service):
    with webhook(500) as (address, _):
        hooks = [address, "no-such-command --now", f"{sys.executable} -c \"raise SystemExit('no mail server')\""]
        service.start(every="1h", notify=hooks)
        service.ended(1)
        until(lambda: service.said.count("hook failed") == 3, "three failed hooks")
        service.stop()
    last = service.last
    assert (last.outcome, last.exit_code) == ("pushed", 0)
    assert "the server answered 500" in last.failed_hooks[0]
    assert "secret" not in service.said
    assert "No such file" in last.failed_hooks[1]
    assert "no mail server" in last.failed_hooks[2]
    assert schedule_history.text(service.status).count("hook failed") == 3


def test_sigterm_lets_the_component_end_and_the_next_start_goes_on(service):
    service.steps({"exit": 0, "waits": True}, {"exit": 0, "says": "went on"})
    service.start(every="1h")
    until(lambda: service.ran, "a run")
    assert service.status.last.outcome == "running"
    until(lambda: "run begins" in service.said, "its beginning")
    time.sleep(0.5)  # the job's own handlers
    service.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping after the running component" in service.said, "the signal")
    assert service.process.poll() is None
    (service.folder / "go").touch()  # the component ends
    assert service.process.wait(PATIENCE) == 0
    assert (service.last.outcome, service.last.exit_code) == ("stopped", 130)
    service.start(every="1h")
    last = service.ended(2)
    assert (last.outcome, last.said) == ("pushed", "went on")
    assert "the last run was stopped: going on" in service.said
    service.stop()


def test_a_second_sigterm_stops_at_once(service):
    service.steps({"exit": 0, "waits": True})
    service.start(every="1h")
    until(lambda: service.ran, "a run")
    time.sleep(0.5)
    service.process.send_signal(signal.SIGTERM)
    service.process.send_signal(signal.SIGTERM)  # one that everybody gets and that is passed on: the same
    time.sleep(1.5)  # longer than what comes together
    assert service.process.poll() is None
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 0
    assert service.last.outcome == "stopped"


def test_a_service_that_was_killed_goes_on(service):
    service.steps({"exit": 0, "waits": True}, {"exit": 0})
    service.start(every="1h")
    until(lambda: service.ran, "a run")
    service.process.kill()
    service.process.wait()
    assert service.status.last.outcome == "died with the service"
    service.start(every="1h")
    service.ended(1)
    assert service.last.outcome == "pushed"
    service.stop()
    (service.folder / "go").touch()


def test_one_service_a_schedule(service):
    service.start(cron="0 3 * * *")
    until(lambda: "next run" in service.said, "the service")
    first = service.process
    assert service.start(cron="0 4 * * *").wait(PATIENCE) == 1
    assert f"shop: its schedule is being served already (process {first.pid})" in service.said
    service.process = first
    service.stop()
    assert service.ran == 0


def test_a_run_by_hand_is_waited_for(service):
    with process_lock.hold(service.folder / "run.lock", "{holder}"):
        service.start(every="1h")
        until(lambda: "waiting: process" in service.said, "the waiting")
        assert service.status.running
        assert service.ran == 0
    service.ended(1)
    service.stop()


def test_a_run_that_could_not_begin_is_left_for_the_next_start(service):
    with process_lock.hold(service.folder / "run.lock", "{holder}"):
        service.start(every="1h")
        until(lambda: "waiting: process" in service.said, "the waiting")
        service.stop()
    assert (service.ran, service.last.outcome, service.last.said) == (0, "stopped", "stopped before it began")
    service.start(every="1h")
    assert service.ended(1).outcome == "pushed"
    service.stop()


def test_another_plan_replaces_the_old_one(service):
    service.start(cron="0 3 * * *")
    until(lambda: "next run" in service.said, "the service")
    service.stop()
    service.start(cron="30 4 * * 7")
    until(lambda: service.said.count("next run") == 2, "the service")
    upcoming = datetime.datetime.fromisoformat(service.status.next_run)
    assert (upcoming.hour, upcoming.minute, upcoming.isoweekday()) == (4, 30, 7)
    service.stop()


def test_a_config_that_pushes_nowhere_is_refused_at_once(tmp_path, capsys):
    file = tmp_path / "ranking.yaml"
    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}}
    file.write_text(json.dumps(raw))
    assert command_tree.main(["schedule", str(file), "--every", "6h"]) == 1
    assert "push.base: retraining goes by the model that serves" in capsys.readouterr().err
    assert command_tree.main(["schedule", str(file), str(file), "--every", "6h"]) == 2
    assert "expected one config, or status and a config" in capsys.readouterr().err


def test_a_store_of_jobs_that_is_none(service):
    service.start(every="1h")
    service.ended(1)
    service.stop()
    jobs = service.folder / "schedule" / schedule_history.JOBS
    jobs.write_bytes(b"no store" * 1000)
    message = "jobs.sqlite: cannot be read (file is not a database). Remove it"
    with pytest.raises(RankingError, match=re.escape(message)):
        _ = service.status
    assert service.start(every="1h").wait(PATIENCE) == 1
    assert message in service.said
    jobs.unlink()
    service.start(every="1h")
    service.ended(2)
    service.stop()


def test_no_schedule_yet(tmp_path):
    with pytest.raises(RankingError, match="shop: there is no schedule yet; start one with: tfx-ranking schedule"):
        schedule_history.status("shop", tmp_path, tmp_path / "run.lock")
