"""What a schedule did and will do, as files tell it: `tfx-ranking schedule status`.

Enters: the folder that the service keeps (`artifacts/<name>/schedule`).  Leaves: immutable values and text.  The one
idea: the service writes, whoever asks reads; no service need be running.
"""

import contextlib
import dataclasses
import datetime
import json
import pathlib
import sqlite3
from typing import Any

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.running import process_lock

JOBS = "jobs.sqlite"  # APScheduler's store
SERVICE_LOCK = "service.lock"
PLAN, HISTORY = "plan.json", "history.jsonl"
PUSHED, NOTHING_TO_DO, FAILED, STOPPED = "pushed", "nothing to do", "failed", "stopped"
OUTCOMES = {0: PUSHED, 10: NOTHING_TO_DO, 11: "not blessed", 12: "data refused", 130: STOPPED}  # by exit code
DIED = "died with the service"


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One run of `tfx-ranking retrain` by the schedule."""

    began: str  # ISO 8601 with the schedule's UTC offset, as all times here
    attempt: int = 1  # from 1; above 1 after failures
    ended: str = ""  # "" while it runs
    exit_code: int | None = None
    outcome: str = "running"  # or one of OUTCOMES, "failed", "died with the service"
    said: str = ""  # the last line that it printed
    log: str = ""  # the file with all that it printed
    failed_hooks: tuple[str, ...] = ()  # each with why


@dataclasses.dataclass(frozen=True)
class Status:
    """A schedule at one moment."""

    name: str
    when: str  # as it was asked for
    timezone: str
    service: str  # the service's process id; "" when it is not running
    next_run: str  # "" when none is planned
    missed: bool  # the next run was due while no service ran
    running: str  # the process that runs the pipeline now, by the schedule or by hand; "" when none does
    last: Attempt | None


def status(name: str, folder: pathlib.Path, run_lock: pathlib.Path) -> Status:
    """Raises RankingError when there never was a schedule in `folder`."""
    try:
        plan = json.loads((folder / PLAN).read_text())
    except FileNotFoundError:
        raise RankingError(
            f'{name}: there is no schedule yet; start one with: tfx-ranking schedule CONFIG --cron "0 3 * * *"'
        ) from None
    service = process_lock.holder(folder / SERVICE_LOCK)
    last = latest(folder)
    if last and last.outcome == "running" and not service:
        last = dataclasses.replace(last, outcome=DIED)
    due = _next_run(folder / JOBS)
    zone = datetime.datetime.fromisoformat(plan["started"]).tzinfo
    local = datetime.datetime.fromtimestamp(due, zone_of(plan["timezone"]) or zone) if due else None
    missed = bool(local and not service and local < now())
    said = local.isoformat(timespec="seconds") if local else ""
    return Status(name, plan["when"], plan["timezone"], service, said, missed, process_lock.holder(run_lock), last)


def text(found: Status) -> str:
    """A few lines for a person."""
    if found.service:
        service = f"running (process {found.service})"
    else:
        service = "not running; start it again to go on"
    upcoming = found.next_run.replace("T", " ") or "none planned"
    if found.missed:
        upcoming = f"missed at {upcoming}, caught up when the service starts"
    elif found.next_run and not found.service:
        upcoming += ", if the service runs by then"
    running = f"process {found.running}" if found.running else "none"
    lines = [
        f"schedule:  {found.name}, {found.when} ({found.timezone})",
        f"service:   {service}",
        f"next run:  {upcoming}",
        f"run now:   {running}",
    ]
    last = found.last
    if last is None:
        return "\n".join([*lines, "last run:  none yet"])
    attempt = f", attempt {last.attempt}" if last.attempt > 1 else ""
    span = last.began.replace("T", " ") + (f" to {last.ended.replace('T', ' ')}" if last.ended else "")
    lines.append(f"last run:  {last.outcome}{attempt}, {span}")
    lines += [f"           {last.said}"] if last.said else []
    lines += [f"           log: {last.log}"] if last.log else []
    lines += [f"           hook failed: {each}" for each in last.failed_hooks]
    return "\n".join(lines)


def as_json(found: Status) -> dict[str, Any]:
    return dataclasses.asdict(found)


def record(folder: pathlib.Path, attempt: Attempt) -> None:
    """Appends what is now known of an attempt; the last line of one `began` and `attempt` counts."""
    with (folder / HISTORY).open("a") as file:
        file.write(json.dumps(dataclasses.asdict(attempt)) + "\n")


def latest(folder: pathlib.Path) -> Attempt | None:
    """The newest attempt; None before the first."""
    try:
        lines = (folder / HISTORY).read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            said = json.loads(line)
        except json.JSONDecodeError:  # a line that was being written when the machine went down
            continue
        return Attempt(**{**said, "failed_hooks": tuple(said["failed_hooks"])})
    return None


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def zone_of(name: str) -> datetime.tzinfo | None:
    """The time zone of this name; None for a name that is none, as tzlocal gives some machines' own."""
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def _next_run(jobs: pathlib.Path) -> float | None:
    """Seconds since 1970, as APScheduler's store has it; read without APScheduler, which would want to run what is
    due."""
    if not jobs.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{jobs.absolute().as_uri()}?mode=ro", uri=True)) as store:
            found = store.execute("select next_run_time from apscheduler_jobs").fetchone()
    except sqlite3.DatabaseError as error:
        raise RankingError(unreadable(jobs, error)) from None
    return found[0] if found else None


def unreadable(jobs: pathlib.Path, error: Exception) -> str:
    """What to do about a job store that is none."""
    reason = str(getattr(error, "orig", error))
    return f"{jobs}: cannot be read ({reason}). Remove it: the service then plans its next run anew."
