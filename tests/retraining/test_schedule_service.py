"""The schedule as a service: real processes, a job store on disk, a real HTTP server behind the webhook.

Only `tfx-ranking retrain` itself is replaced, by `scheduled_job.py`.
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
from tfx_ranking.pipelines.retraining.exit_codes import Exit
from tfx_ranking.pipelines.retraining.schedule_history import Attempt, Status
from tfx_ranking.pipelines.running import process_lock

HERE = pathlib.Path(__file__).parent.parent / "support"
PATIENCE = 30.0  # seconds; a test that waits longer has failed
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def until(condition: Callable[[], Any], what: str, details: Callable[[], str] | None = None) -> Any:
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        assert time.monotonic() < end, f"never: {what}\n{details() if details else ''}"
        time.sleep(0.05)
    return result


@dataclasses.dataclass
class Service:
    """A schedule in a folder, whose service is started and stopped."""

    folder: pathlib.Path
    process: subprocess.Popen[str] | None = None

    def steps(self, *steps: dict[str, Any]) -> None:
        (self.folder / "steps.json").write_text(json.dumps(steps))

    def start(self, **plan: Any) -> subprocess.Popen[str]:
        command = [sys.executable, str(HERE / "scheduled_job.py"), str(self.folder)]
        defaults = {"name": "shop", "folder": str(self.folder / "schedule"), "run_lock": str(self.folder / "run.lock")}
        settings = json.dumps(
            {**defaults, "command": command, "timezone": "Europe/Berlin", "retry_after": "1s", **plan}
        )
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "schedule_service.py"), settings],
            stdout=(self.folder / "output.txt").open("a"), stderr=subprocess.STDOUT, text=True,
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
    def output(self) -> str:
        return (self.folder / "output.txt").read_text()

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
        until(lambda: self.output.count("run ended") >= count, f"{count} runs", lambda: self.output)
        assert self.last is not None
        return self.last


@pytest.fixture
def service(tmp_path) -> Iterator[Service]:
    made = Service(tmp_path)
    made.steps({"exit": 0, "prints": "pushed: version 12 serves"})
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


@contextlib.contextmanager
def webhook(answer: int = 200) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An HTTP server's address, and what it was sent."""
    payloads: list[dict[str, Any]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            payloads.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answer)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/secret", payloads
    server.shutdown()
    server.server_close()


def test_runs_when_due_and_has_a_status_while_running_and_stopped(service):
    service.start(every="1h")
    last = service.ended(1)
    assert (last.outcome, last.exit_code, last.message, last.attempt) == ("pushed", 0, "version 12 serves", 1)
    status = service.status
    assert status.service == str(service.process.pid)
    begun = datetime.datetime.fromisoformat(last.began)
    upcoming = datetime.datetime.fromisoformat(status.next_run)
    assert abs((upcoming - begun).total_seconds() - 3600) <= 2
    assert upcoming.utcoffset() == upcoming.astimezone(BERLIN).utcoffset()
    assert not status.missed
    service.stop()
    status = service.status
    assert (status.service, status.running, status.last) == ("", "", last)
    lines = schedule_history.text(status).splitlines()
    assert lines[:2] == [
        "schedule:  shop, every 1h (Europe/Berlin)",
        "service:   not running; start it again to continue",
    ]
    assert "if the service runs then" in lines[2]


def test_several_missed_runs_are_made_up_for_by_one(service):
    service.start(every="1h")
    service.ended(1)
    service.stop()
    now = datetime.datetime.now(BERLIN)
    service.move_next_run(now - datetime.timedelta(hours=3, minutes=30))
    assert service.status.missed
    assert "will run when the service starts" in schedule_history.text(service.status)
    service.start(every="1h")
    service.ended(2)
    assert "a run was missed: running now" in service.output
    upcoming = datetime.datetime.fromisoformat(service.status.next_run)
    assert datetime.timedelta() < upcoming - now <= datetime.timedelta(hours=1, minutes=1)
    service.stop()
    assert service.ran == 2


def test_a_failed_run_is_retried_and_the_hooks_are_notified_once(service):
    service.steps(
        {"exit": 1, "prints": "no such file"}, {"exit": 1, "prints": "still none"}, {"exit": 0, "prints": "pushed"}
    )
    with webhook() as (address, payloads):
        service.start(every="1h", notify=[address])
        last = service.ended(3)
        until(lambda: payloads, "the webhook")
        assert (last.outcome, last.attempt) == ("pushed", 3)
        service.stop()
    output = service.output
    assert "trying again in 1 s" in output
    assert "trying again in 2 s" in output
    (payload,) = payloads  # of the run, not of its attempts
    assert payload == {
        "event": "pushed", "pipeline": "shop", "host": payload["host"], "began": last.began, "ended": last.ended,
        "attempt": 3, "exit_code": 0, "message": "pushed", "said": "pushed", "log": last.log,  # until 0.3: 0.1's name
    }  # fmt: skip
    assert "pushed" in pathlib.Path(last.log).read_text()


@pytest.mark.parametrize(
    ("code", "event"), [(0, "pushed"), (1, "failed"), (10, None), (11, "not blessed"), (12, "data refused")]
)
def test_which_outcomes_notify_the_hooks(service, code, event):
    service.steps({"exit": code, "prints": "so"})
    written = service.folder / "written"
    service.start(every="1h", retries=0, notify=[f"{sys.executable} -c \"open('{written}', 'w').write(input())\""])
    last = service.ended(1)
    service.stop()
    assert last.outcome == (event or "nothing to do")
    assert (json.loads(written.read_text())["event"] if written.exists() else None) == event
    assert service.ran == 1


def test_the_outcomes_are_those_of_retrain():
    assert dict(schedule_history.OUTCOMES) == {
        **{code: code.outcome for code in Exit},
        Exit.INTERRUPTED: "stopped",
        Exit.WRONG_USAGE: "failed",
    }


def test_a_failed_hook_is_reported_and_changes_nothing(service):
    with webhook(500) as (address, _):
        hooks = [address, "no-such-command --now", f"{sys.executable} -c \"raise SystemExit('no mail server')\""]
        service.start(every="1h", notify=hooks)
        service.ended(1)
        until(lambda: service.output.count("hook failed") == 3, "three failed hooks")
        service.stop()
    last = service.last
    assert (last.outcome, last.exit_code) == ("pushed", 0)
    assert "the server answered 500" in last.failed_hooks[0]
    assert "secret" not in service.output
    assert "No such file" in last.failed_hooks[1]
    assert "no mail server" in last.failed_hooks[2]
    assert schedule_history.text(service.status).count("hook failed") == 3


def test_after_sigterm_the_component_ends_and_the_next_start_continues(service):
    service.steps({"exit": 0, "waits": True}, {"exit": 0, "prints": "went on"})
    service.start(every="1h")
    until(lambda: service.ran, "a run")
    assert service.status.last.outcome == "running"
    until(lambda: "run begins" in service.output, "its beginning")
    time.sleep(0.5)  # the job's own handlers
    service.process.send_signal(signal.SIGTERM)
    until(lambda: "stopping after the running component" in service.output, "the signal")
    assert service.process.poll() is None
    (service.folder / "go").touch()  # the component ends
    assert service.process.wait(PATIENCE) == 0
    assert (service.last.outcome, service.last.exit_code) == ("stopped", 130)
    service.start(every="1h")
    last = service.ended(2)
    assert (last.outcome, last.message) == ("pushed", "went on")
    assert "the last run was stopped: continuing" in service.output
    service.stop()


def test_a_second_sigterm_stops_at_once(service):
    service.steps({"exit": 0, "waits": True})
    service.start(every="1h")
    until(lambda: service.ran, "a run")
    time.sleep(0.5)
    service.process.send_signal(signal.SIGTERM)
    service.process.send_signal(signal.SIGTERM)  # a service manager's and the passed-on one count as one
    time.sleep(1.5)  # longer than the second in which signals count as one
    assert service.process.poll() is None
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(PATIENCE) == 0
    assert service.last.outcome == "stopped"


def test_a_killed_service_continues_at_its_next_start(service):
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


def test_a_schedule_has_one_service(service):
    service.start(cron="0 3 * * *")
    until(lambda: "next run" in service.output, "the service")
    first = service.process
    assert service.start(cron="0 4 * * *").wait(PATIENCE) == 1
    assert f"shop: another service runs this schedule (process {first.pid})" in service.output
    service.process = first
    service.stop()
    assert service.ran == 0


def test_the_service_waits_for_a_run_by_hand(service):
    with process_lock.hold(service.folder / "run.lock", "{holder}"):
        service.start(every="1h")
        until(lambda: "waiting: process" in service.output, "the waiting")
        assert service.status.running
        assert service.ran == 0
    service.ended(1)
    service.stop()


def test_a_run_that_could_not_begin_is_left_for_the_next_start(service):
    with process_lock.hold(service.folder / "run.lock", "{holder}"):
        service.start(every="1h")
        until(lambda: "waiting: process" in service.output, "the waiting")
        service.stop()
    assert (service.ran, service.last.outcome, service.last.message) == (0, "stopped", "stopped before it began")
    service.start(every="1h")
    assert service.ended(1).outcome == "pushed"
    service.stop()


def test_another_plan_replaces_the_old_one(service):
    service.start(cron="0 3 * * *")
    until(lambda: "next run" in service.output, "the service")
    service.stop()
    service.start(cron="30 4 * * 7")
    until(lambda: service.output.count("next run") == 2, "the service")
    upcoming = datetime.datetime.fromisoformat(service.status.next_run)
    assert (upcoming.hour, upcoming.minute, upcoming.isoweekday()) == (4, 30, 7)
    service.stop()


def test_a_config_without_push_is_refused_at_once(tmp_path, capsys):
    file = tmp_path / "ranking.yaml"
    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}}
    file.write_text(json.dumps(raw))
    assert command_tree.main(["schedule", str(file), "--every", "6h"]) == 1
    assert "push.base: retraining compares new data with the model that serves" in capsys.readouterr().err
    assert command_tree.main(["schedule", str(file), str(file), "--every", "6h"]) == 2
    assert "expected one config, or status and a config" in capsys.readouterr().err


def test_a_job_store_that_is_not_a_database(service):
    service.start(every="1h")
    service.ended(1)
    service.stop()
    jobs = service.folder / "schedule" / schedule_history.JOBS
    jobs.write_bytes(b"no store" * 1000)
    message = "jobs.sqlite: cannot be read (file is not a database). Remove it"
    with pytest.raises(RankingError, match=re.escape(message)):
        _ = service.status
    assert service.start(every="1h").wait(PATIENCE) == 1
    assert message in service.output
    jobs.unlink()
    service.start(every="1h")
    service.ended(2)
    service.stop()


def test_a_history_that_release_0_1_wrote_is_read(tmp_path):
    line = {
        "began": "2026-11-01T03:00:00+01:00", "attempt": 1, "ended": "2026-11-01T03:05:00+01:00", "exit_code": 0,
        "said": "version 12 serves",  # until 0.3: 0.1's name
        "outcome": "pushed", "log": "a.log", "failed_hooks": ["mail: no server"],
    }  # fmt: skip
    (tmp_path / schedule_history.HISTORY).write_text(json.dumps(line) + "\n")
    last = schedule_history.latest(tmp_path)
    assert (last.message, last.outcome, last.failed_hooks) == ("version 12 serves", "pushed", ("mail: no server",))
    schedule_history.record(tmp_path, last)
    written = json.loads((tmp_path / schedule_history.HISTORY).read_text().splitlines()[-1])
    assert written == {**line, "message": "version 12 serves"}, "release 0.1 can read it, too"


def test_no_schedule_yet(tmp_path):
    with pytest.raises(RankingError, match="shop: there is no schedule yet; start one with: tfx-ranking schedule"):
        schedule_history.status("shop", tmp_path, tmp_path / "run.lock")
