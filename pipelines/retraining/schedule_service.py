"""Retrains on a schedule: a service in the foreground, to run under systemd, in a container or in a terminal.

Input: a `SchedulePlan`.  Output: runs of `tfx-ranking retrain`, one at a time, their history (`schedule_history`) and
notifications (`schedule_hooks`).

APScheduler keeps the time of the next run on disk.  So a run that was missed while the service was down is made when
the service starts, once.  Each run is a process of its own: the command that a person would type.
"""

import dataclasses
import datetime
import json
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy.exc
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler

from tfx_ranking.components.errors import ConfigError, RankingError, UsageError
from tfx_ranking.pipelines.retraining import schedule_history, schedule_hooks
from tfx_ranking.pipelines.retraining.decision import NO_PUSH
from tfx_ranking.pipelines.retraining.exit_codes import Exit
from tfx_ranking.pipelines.retraining.schedule_history import DIED, OUTCOMES, STOPPED, Attempt
from tfx_ranking.pipelines.retraining.schedule_plan import SchedulePlan, seconds, trigger_of, zone_of
from tfx_ranking.pipelines.running import process_lock
from tfx_ranking.pipelines.running.stop_signals import StopSignals

if TYPE_CHECKING:
    from tfx_ranking.components.config import RankingConfig

_LOCK_POLL = 1.0  # seconds between two checks whether a run by hand has ended
_SIGNAL_POLL = 0.1  # seconds between two checks whether a signal was received


def serve(plan: SchedulePlan, print_line: Callable[[str], None] = print) -> int:
    """Runs the schedule until SIGTERM or SIGINT, and returns the exit code.

    After the first signal the running component ends and no other begins; a second signal stops the run at once.
    Raises RankingError for an invalid plan, and when another service runs this schedule.
    """
    zone = zone_of(plan.timezone)
    trigger = trigger_of(plan.cron, plan.every, zone)
    seconds(plan.retry_after, "--retry-after")
    if plan.retries < 0:
        raise UsageError(f"--retries: expected 0 or more; got {plan.retries}.")
    refused = f"{plan.name}: another service runs this schedule (process {{holder}}); stop that service first."
    with process_lock.hold(plan.folder / schedule_history.SERVICE_LOCK, refused):
        return _Service(plan, zone, print_line).run(trigger)


def due() -> None:
    """Runs what is due.  APScheduler calls this function, whose name is in its job store."""
    if _serving is not None:
        _serving.run_until_done()


_serving: "_Service | None" = None  # this process's service; the lock allows only one


class _Service:
    def __init__(self, plan: SchedulePlan, zone: datetime.tzinfo, print_line: Callable[[str], None]):
        self.plan, self.zone, self.folder = plan, zone, plan.folder
        self.stop = threading.Event()
        self.signals = StopSignals()
        self.process: subprocess.Popen[bytes] | None = None
        self.print_line = print_line

    def run(self, trigger: Any) -> int:
        global _serving
        _serving = self
        # The handler only records the signal: the thread in which it runs may hold the lock that it would need.
        numbers = (signal.SIGTERM, signal.SIGINT)
        previous = {number: signal.signal(number, lambda *_: self.signals.record()) for number in numbers}
        # One run at a time.  When more than one becomes due during a run, only one waits.
        scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(1)}, timezone=self.zone)
        scheduler.add_jobstore(SQLAlchemyJobStore(url=f"sqlite:///{self.folder / schedule_history.JOBS}"))
        try:
            scheduler.start(paused=True)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise RankingError(schedule_history.unreadable(self.folder / schedule_history.JOBS, error)) from None
        try:
            self.prepare(scheduler, trigger)
            scheduler.resume()
            while not self.signals.received:
                time.sleep(_SIGNAL_POLL)
        finally:
            self.end(scheduler)
            for number, handler in previous.items():
                signal.signal(number, handler)
            _serving = None
        self.print_with_time("stopped")
        return 0

    def end(self, scheduler: BackgroundScheduler) -> None:
        """Waits for the current run to end, and passes the signals on to it."""
        self.stop.set()
        self.pass_on(signal.SIGTERM, "stopping after the running component; send the signal again to stop at once")
        ending = threading.Thread(target=scheduler.shutdown)
        ending.start()
        passed_on = False
        while ending.is_alive():
            if self.signals.at_once and not passed_on:
                passed_on = True
                self.pass_on(signal.SIGINT, "stopping at once")
            time.sleep(_SIGNAL_POLL)

    def pass_on(self, number: int, message: str) -> None:
        """Sends a signal to the current run, if there is one."""
        if self.process is not None and self.process.poll() is None:
            self.print_with_time(message)
            self.process.send_signal(number)

    def prepare(self, scheduler: BackgroundScheduler, trigger: Any) -> None:
        """Keeps the job of an earlier service, or adds one when the plan is new; prints when the next run is."""
        plan, job, now = self.plan, scheduler.get_job(self.plan.name), datetime.datetime.now(self.zone)
        file = self.folder / schedule_history.PLAN
        settings = {"when": plan.when, "timezone": str(self.zone)}
        saved = json.loads(file.read_text()) if file.exists() else {}
        if job is None or any(saved.get(key) != value for key, value in settings.items()):
            job = scheduler.add_job(
                due, trigger, id=plan.name, replace_existing=True, coalesce=True, misfire_grace_time=None,
                max_instances=2, **({"next_run_time": now} if plan.every else {}),
            )  # fmt: skip
        file.write_text(json.dumps({**settings, "started": now.isoformat()}))
        last = schedule_history.latest(self.folder)
        reason = "a run was missed: running now" if job.next_run_time < now else ""
        if last and last.outcome == "running":
            last = dataclasses.replace(last, outcome=DIED)
            schedule_history.record(self.folder, last)
        if last and last.outcome in (STOPPED, DIED):
            reason = f"the last run {last.outcome.replace(STOPPED, 'was stopped')}: continuing"
        self.print_with_time(f"{plan.name}: {plan.when} ({self.zone})")
        if reason:
            self.print_with_time(reason)
            job.modify(next_run_time=now)
        else:
            self.print_with_time(f"next run: {job.next_run_time.isoformat(sep=' ', timespec='seconds')}")

    def run_until_done(self) -> None:
        """Runs `retrain`, retries after failures as the plan says, then notifies the hooks of the outcome."""
        wait = seconds(self.plan.retry_after, "--retry-after")
        for number in range(1, self.plan.retries + 2):
            if not self.wait_for_the_lock():
                self.leave_for_the_next_start(number)
                return
            done = self.attempt(number)
            if done.outcome != Exit.FAILED.outcome or number > self.plan.retries:
                break
            self.print_with_time(f"trying again in {wait:.0f} s")
            if self.stop.wait(wait):
                break
            wait *= 2
        if done.outcome in (STOPPED, Exit.NOTHING_TO_DO.outcome):
            return
        payload = {"event": done.outcome, "pipeline": self.plan.name, "host": socket.gethostname()}
        payload |= {key: getattr(done, key) for key in ("began", "ended", "attempt", "exit_code", "message", "log")}
        payload["said"] = done.message  # until 0.3: 0.1's name
        failed = tuple(filter(None, (schedule_hooks.send(hook, payload) for hook in self.plan.notify)))
        for each in failed:
            self.print_with_time(f"hook failed: {each}")
        if failed:
            schedule_history.record(self.folder, dataclasses.replace(done, failed_hooks=failed))

    def attempt(self, number: int) -> Attempt:
        """Runs the command once; the history has the attempt from its beginning."""
        began = datetime.datetime.now(self.zone)
        log = self.folder / "logs" / f"{began:%Y%m%d-%H%M%S-%f}.log"
        log.parent.mkdir(exist_ok=True)
        attempt = Attempt(began.isoformat(timespec="seconds"), number, log=str(log))
        schedule_history.record(self.folder, attempt)
        self.print_with_time(f"run begins{f', attempt {number}' if number > 1 else ''}; log: {log}")
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches only the service, which passes the signal on.
            self.process = subprocess.Popen(
                self.plan.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            if self.stop.is_set():  # a stop was requested in the meantime
                self.process.send_signal(signal.SIGTERM)
            code = self.process.wait()
        interrupted = self.stop.is_set() and code in (-signal.SIGTERM, -signal.SIGINT)
        outcome = STOPPED if interrupted else OUTCOMES.get(code, Exit.FAILED.outcome)
        ended = datetime.datetime.now(self.zone).isoformat(timespec="seconds")
        done = dataclasses.replace(
            attempt, ended=ended, exit_code=code, outcome=outcome, message=last_line(log, outcome)
        )
        schedule_history.record(self.folder, done)
        self.print_with_time(
            f"run ended: {done.message if done.message.startswith(outcome) else f'{outcome}: {done.message}'}"
        )
        return done

    def leave_for_the_next_start(self, number: int) -> None:
        """Records a run that was due and did not begin before the stop, so that the next start makes it."""
        now = datetime.datetime.now(self.zone).isoformat(timespec="seconds")
        left = Attempt(now, number, now, outcome=STOPPED, message="stopped before it began")
        schedule_history.record(self.folder, left)

    def wait_for_the_lock(self) -> bool:
        """Waits until no run by hand holds the lock; False when a stop is requested first."""
        if holder := process_lock.holder(self.plan.run_lock):
            self.print_with_time(f"waiting: process {holder} runs the pipeline")
        while process_lock.holder(self.plan.run_lock) and not self.stop.wait(_LOCK_POLL):
            pass
        return not self.stop.is_set()

    def print_with_time(self, text: str) -> None:
        """Prints a line with the time."""
        self.print_line(f"{datetime.datetime.now(self.zone):%Y-%m-%d %H:%M:%S} {text}")


def retrain_command(config: "RankingConfig", config_file: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """The command line that a schedule runs.  Raises ConfigError for a config without `push`, which always fails."""
    if config.push is None:
        raise ConfigError(NO_PUSH)
    return (
        sys.executable,
        "-m",
        "tfx_ranking.pipelines.cli",
        "retrain",
        str(config_file),
        "--root",
        str(root),
    )


def last_line(log: pathlib.Path, outcome: str) -> str:
    """The log's last line that is neither empty nor the path of a log, without the outcome before it."""
    lines = log.read_text(errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip() and not line.startswith("log:")), "")
    return last.removeprefix(f"{outcome}: ")
