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
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import sqlalchemy.exc
import tzlocal
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.pipelines import process_lock, schedule_history, schedule_hooks
from tfx_ranking.pipelines.schedule_history import DIED, FAILED, NOTHING_TO_DO, OUTCOMES, STOPPED, Attempt
from tfx_ranking.pipelines.stop_signals import StopSignals

if TYPE_CHECKING:
    from tfx_ranking.components.config import RankingConfig

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # cron's 0 to 6; APScheduler 3 counts from Monday
_LOCK_LOOK = 1.0  # seconds between two looks whether a run by hand has ended


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to run, when, and what to do about failures."""

    name: str  # the pipeline's
    folder: pathlib.Path  # the schedule's own files
    run_lock: pathlib.Path  # held by whoever runs the pipeline
    command: tuple[str, ...]  # `retrain`, whose exit codes are OUTCOMES
    cron: str = ""  # five fields; this or `every`
    every: str = ""  # as in 90s, 30m, 6h, 1d, 2w
    timezone: str = ""  # IANA's name; the machine's own when empty
    retries: int = 2  # after a failure
    retry_after: str = "5m"  # before the first one, then twice as long each time
    notify: tuple[str, ...] = ()  # addresses and commands

    @property
    def when(self) -> str:
        return f'cron "{self.cron}"' if self.cron else f"every {self.every}"


def serve(plan: Plan, say: Callable[[str], None] = print) -> int:
    """Runs until SIGTERM or SIGINT: then the component that is running ends, and no other begins; a second signal ends
    the run at once.  Gives the exit code.

    Raises RankingError for a plan that makes no sense, and when another service has this schedule.
    """
    zone = _zone(plan.timezone)
    trigger = trigger_of(plan, zone)
    seconds(plan.retry_after, "--retry-after")
    if plan.retries < 0:
        raise RankingError(f"--retries: expected 0 or more; got {plan.retries}.")
    refused = f"{plan.name}: its schedule is being served already (process {{holder}}); stop that service first."
    with process_lock.hold(plan.folder / schedule_history.SERVICE_LOCK, refused):
        return _Service(plan, zone, say).run(trigger)


def trigger_of(plan: Plan, zone: datetime.tzinfo) -> Any:
    """APScheduler's trigger of a plan.  Raises RankingError.

    A weekday counts as cron counts, and a day of the month beside one means either of both, as in cron.
    """
    if bool(plan.cron) == bool(plan.every):
        raise RankingError('expected either --cron "0 3 * * *" or --every 6h.')
    if plan.every:
        return IntervalTrigger(seconds=int(seconds(plan.every, "--every")), timezone=zone)
    fields = plan.cron.split()
    if len(fields) != 5:
        raise RankingError(
            f"--cron: expected five fields (minute, hour, day of the month, month, weekday); got {plan.cron!r}."
        )
    minute, hour, day, month, weekday = fields
    try:
        weekday = weekdays(weekday)
        days = [(day, weekday)] if "*" in (day[0], weekday[0]) else [(day, "*"), ("*", weekday)]
        triggers = [
            CronTrigger(minute=minute, hour=hour, day=d, month=month, day_of_week=w, timezone=zone) for d, w in days
        ]
    except ValueError as error:
        raise RankingError(f"--cron: {plan.cron!r} cannot be read ({error}).") from None
    if triggers[0].get_next_fire_time(None, datetime.datetime.now(zone)) is None:
        raise RankingError(f"--cron: {plan.cron!r} never comes.")
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)


def weekdays(field: str) -> str:
    """Cron's weekday field with its numbers as names.

    >>> weekdays("1-5"), weekdays("0,6"), weekdays("5-7"), weekdays("mon-fri"), weekdays("*")
    ('mon,tue,wed,thu,fri', 'sun,sat', 'fri,sat,sun', 'mon-fri', '*')
    """
    parts = []
    for part in field.split(","):
        numbers = re.fullmatch(r"([0-7])(?:-([0-7]))?(?:/([1-9]))?", part)
        if numbers is None:
            parts.append(part)
            continue
        first, last, step = (int(each) if each else None for each in numbers.groups())
        assert first is not None  # the pattern begins with it
        end = last if last is not None else (6 if step else first)
        if end < first:
            raise ValueError(f"weekdays {part} run backwards")
        parts += [WEEKDAYS[each % 7] for each in range(first, end + 1, step or 1)]
    return ",".join(dict.fromkeys(parts))


def seconds(text: str, flag: str) -> float:
    """A span of time in seconds.  Raises RankingError with the flag's name.

    >>> seconds("6h", "--every")
    21600.0
    """
    found = re.fullmatch(r"([1-9][0-9]*)([smhdw])", text)
    if found is None:
        raise RankingError(f"{flag}: expected a number and s, m, h, d or w, as in 6h; got {text!r}.")
    return datetime.timedelta(**{UNITS[found[2]]: int(found[1])}).total_seconds()


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
        before = {number: signal.signal(number, self.on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
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
            self.stop.wait()
        finally:
            scheduler.shutdown(wait=True)
            for number, handler in before.items():
                signal.signal(number, handler)
            _serving = None
        self.say("stopped")
        return 0

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

    def on_signal(self, number: int, frame: Any) -> None:
        first, again = not self.signals.asked, self.signals.again()
        self.stop.set()
        if (first or again) and self.process is not None and self.process.poll() is None:
            self.say("stopping at once" if again else "stopping after the running component; once more: at once")
            self.process.send_signal(signal.SIGINT if again else signal.SIGTERM)

    def say(self, text: str) -> None:
        self.print(f"{datetime.datetime.now(self.zone):%Y-%m-%d %H:%M:%S} {text}")


def retrain(config: "RankingConfig", config_file: pathlib.Path, root: pathlib.Path) -> tuple[str, ...]:
    """The command that a schedule runs.  Raises ConfigError for a config that no run of it could succeed with."""
    if config.push is None:
        raise ConfigError("push.base: retraining goes by the model that serves; say where that is.")
    return (sys.executable, "-m", "tfx_ranking.pipelines.cli", "retrain", str(config_file), "--root", str(root))


def last_line(log: pathlib.Path, outcome: str) -> str:
    """The last line that says something, without the outcome before it; where a log lies says nothing."""
    lines = log.read_text(errors="replace").splitlines()
    said = next((line for line in reversed(lines) if line.strip() and not line.startswith("log:")), "")
    return said.removeprefix(f"{outcome}: ")


def _zone(name: str) -> datetime.tzinfo:
    if not name:
        return tzlocal.get_localzone()
    zone = schedule_history.zone_of(name)
    if zone is None:
        raise RankingError(f"--timezone: expected a name such as Europe/Berlin or UTC; got {name!r}.")
    return zone
