"""Retraining on a schedule: a service in the foreground, for systemd, a container or a terminal to keep.

Enters: a plan (a config, when, what to do about failures).  Leaves: runs of `tfx-ranking retrain`, one at a time, their
history (`schedule_history`), alerts (`schedule_hooks`).  The one idea: APScheduler knows when, on disk, so that what
was missed while the service was down is caught up, once; the run itself is a process of its own, exactly the command
that a person types.
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
from tfx_ranking.pipelines.retraining.schedule_history import DIED, FAILED, NOTHING_TO_DO, OUTCOMES, STOPPED, Attempt
from tfx_ranking.pipelines.retraining.schedule_plan import Plan, seconds, trigger_of, zone_of
from tfx_ranking.pipelines.running import process_lock
from tfx_ranking.pipelines.running.stop_signals import StopSignals

if TYPE_CHECKING:
    from tfx_ranking.components.config import RankingConfig

_LOCK_LOOK = 1.0  # seconds between two looks whether a run by hand has ended
_SIGNAL_LOOK = 0.1  # seconds between two looks whether a signal came


def serve(plan: Plan, say: Callable[[str], None] = print) -> int:
    """Runs until SIGTERM or SIGINT: then the component that is running ends, and no other begins; a second signal ends
    the run at once.  Gives the exit code.

    Raises RankingError for a plan that makes no sense, and when another service has this schedule.
    """
    zone = zone_of(plan.timezone)
    trigger = trigger_of(plan.cron, plan.every, zone)
    seconds(plan.retry_after, "--retry-after")
    if plan.retries < 0:
        raise UsageError(f"--retries: expected 0 or more; got {plan.retries}.")
    refused = f"{plan.name}: its schedule is being served already (process {{holder}}); stop that service first."
    with process_lock.hold(plan.folder / schedule_history.SERVICE_LOCK, refused):
        return _Service(plan, zone, say).run(trigger)


def due() -> None:
    """What APScheduler calls; it finds this function by its name when it reads its store."""
    if _serving is not None:
        _serving.run_until_done()


_serving: "_Service | None" = None  # of this process: its lock lets there be one


class _Service:
    def __init__(self, plan: Plan, zone: datetime.tzinfo, say: Callable[[str], None]):
        self.plan, self.zone, self.folder = plan, zone, plan.folder
        self.stop = threading.Event()
        self.signals = StopSignals()
        self.process: subprocess.Popen[bytes] | None = None
        self.print = say

    def run(self, trigger: Any) -> int:
        global _serving
        _serving = self
        # The handler only notes it: a lock that it took might be held by the very thread that it runs in.
        noted = (signal.SIGTERM, signal.SIGINT)
        before = {number: signal.signal(number, lambda *_: self.signals.again()) for number in noted}
        # One run at a time; one that comes due meanwhile waits for it, more than one do not.
        scheduler = BackgroundScheduler(executors={"default": ThreadPoolExecutor(1)}, timezone=self.zone)
        scheduler.add_jobstore(SQLAlchemyJobStore(url=f"sqlite:///{self.folder / schedule_history.JOBS}"))
        try:
            scheduler.start(paused=True)
        except sqlalchemy.exc.SQLAlchemyError as error:
            raise RankingError(schedule_history.unreadable(self.folder / schedule_history.JOBS, error)) from None
        try:
            self.prepare(scheduler, trigger)
            scheduler.resume()
            while not self.signals.asked:
                time.sleep(_SIGNAL_LOOK)
        finally:
            self.end(scheduler)
            for number, handler in before.items():
                signal.signal(number, handler)
            _serving = None
        self.say("stopped")
        return 0

    def end(self, scheduler: BackgroundScheduler) -> None:
        """Waits for the run that is under way, and passes on to it what the signals mean."""
        self.stop.set()
        self.pass_on(signal.SIGTERM, "stopping after the running component; once more: at once")
        ending = threading.Thread(target=scheduler.shutdown)
        ending.start()
        passed_on = False
        while ending.is_alive():
            if self.signals.at_once and not passed_on:
                passed_on = True
                self.pass_on(signal.SIGINT, "stopping at once")
            time.sleep(_SIGNAL_LOOK)

    def pass_on(self, number: int, why: str) -> None:
        if self.process is not None and self.process.poll() is None:
            self.say(why)
            self.process.send_signal(number)

    def prepare(self, scheduler: BackgroundScheduler, trigger: Any) -> None:
        """The job as it was left, or anew where the plan is another; says what comes next."""
        plan, job, now = self.plan, scheduler.get_job(self.plan.name), datetime.datetime.now(self.zone)
        file = self.folder / schedule_history.PLAN
        told = {"when": plan.when, "timezone": str(self.zone)}
        kept = json.loads(file.read_text()) if file.exists() else {}
        if job is None or any(kept.get(key) != value for key, value in told.items()):
            job = scheduler.add_job(
                due, trigger, id=plan.name, replace_existing=True, coalesce=True, misfire_grace_time=None,
                max_instances=2, **({"next_run_time": now} if plan.every else {}),
            )  # fmt: skip
        file.write_text(json.dumps({**told, "started": now.isoformat()}))
        last = schedule_history.latest(self.folder)
        missed = job.next_run_time < now and "a run was missed: catching up"
        if last and last.outcome == "running":
            last = dataclasses.replace(last, outcome=DIED)
            schedule_history.record(self.folder, last)
        if last and last.outcome in (STOPPED, DIED):
            missed = f"the last run {last.outcome.replace(STOPPED, 'was stopped')}: going on"
        self.say(f"{plan.name}: {plan.when} ({self.zone})")
        if missed:
            self.say(missed)
            job.modify(next_run_time=now)
        else:
            self.say(f"next run: {job.next_run_time.isoformat(sep=' ', timespec='seconds')}")

    def run_until_done(self) -> None:
        """Runs, again after a failure as often as the plan says, and tells the hooks what came of it."""
        wait = seconds(self.plan.retry_after, "--retry-after")
        for number in range(1, self.plan.retries + 2):
            if not self.wait_for_the_lock():
                self.leave_for_the_next_start(number)
                return
            done = self.attempt(number)
            if done.outcome != FAILED or number > self.plan.retries:
                break
            self.say(f"trying again in {wait:.0f} s")
            if self.stop.wait(wait):
                break
            wait *= 2
        if done.outcome in (STOPPED, NOTHING_TO_DO):
            return
        payload = {"event": done.outcome, "pipeline": self.plan.name, "host": socket.gethostname()}
        for key in ("began", "ended", "attempt", "exit_code", "said", "log"):
            payload[key] = getattr(done, key)
        failed = tuple(filter(None, (schedule_hooks.send(hook, payload) for hook in self.plan.notify)))
        for each in failed:
            self.say(f"hook failed: {each}")
        if failed:
            schedule_history.record(self.folder, dataclasses.replace(done, failed_hooks=failed))

    def attempt(self, number: int) -> Attempt:
        """One run of the command, in the history from its beginning."""
        began = datetime.datetime.now(self.zone)
        log = self.folder / "logs" / f"{began:%Y%m%d-%H%M%S-%f}.log"
        log.parent.mkdir(exist_ok=True)
        attempt = Attempt(began.isoformat(timespec="seconds"), number, log=str(log))
        schedule_history.record(self.folder, attempt)
        self.say(f"run begins{f', attempt {number}' if number > 1 else ''}; log: {log}")
        with log.open("wb") as output:
            # A session of its own: Ctrl-C reaches the service alone, which then passes on what is meant.
            self.process = subprocess.Popen(
                self.plan.command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
            if self.stop.is_set():  # asked for in between
                self.process.send_signal(signal.SIGTERM)
            code = self.process.wait()
        interrupted = self.stop.is_set() and code in (-signal.SIGTERM, -signal.SIGINT)
        outcome = STOPPED if interrupted else OUTCOMES.get(code, FAILED)
        ended = datetime.datetime.now(self.zone).isoformat(timespec="seconds")
        done = dataclasses.replace(attempt, ended=ended, exit_code=code, outcome=outcome, said=last_line(log, outcome))
        schedule_history.record(self.folder, done)
        self.say(f"run ended: {done.said if done.said.startswith(outcome) else f'{outcome}: {done.said}'}")
        return done

    def leave_for_the_next_start(self, number: int) -> None:
        """A run that was due and did not begin before the stop."""
        now = datetime.datetime.now(self.zone).isoformat(timespec="seconds")
        left = Attempt(now, number, now, outcome=STOPPED, said="stopped before it began")
        schedule_history.record(self.folder, left)

    def wait_for_the_lock(self) -> bool:
        """Until nobody runs the pipeline by hand; False when asked to stop first."""
        if holder := process_lock.holder(self.plan.run_lock):
            self.say(f"waiting: process {holder} runs the pipeline")
        while process_lock.holder(self.plan.run_lock) and not self.stop.wait(_LOCK_LOOK):
            pass
        return not self.stop.is_set()

    def say(self, text: str) -> None:
        self.print(f"{datetime.datetime.now(self.zone):%Y-%m-%d %H:%M:%S} {text}")


def retrain(config: "RankingConfig", config_file: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """The command that a schedule runs.  Raises ConfigError for a config that no run of it could succeed with."""
    if config.push is None:
        raise ConfigError("push.base: retraining goes by the model that serves; say where that is.")
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
    """The last line that says something, without the outcome before it; where a log lies says nothing."""
    lines = log.read_text(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.strip() and not line.startswith("log:")), "")
    return said.removeprefix(f"{outcome}: ")
