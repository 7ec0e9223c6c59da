"""The history and the state of a schedule, as `tfx-ranking schedule status` prints them.

Input: the folder that the service keeps (`artifacts/<name>/schedule`).  Output: immutable values and text.
The service writes these files, and you may read them while no service runs.
"""

import contextlib
import dataclasses
import datetime
import json
import pathlib
import sqlite3
from typing import Any

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.retraining.exit_codes import Exit
from tfx_ranking.pipelines.running import process_lock

JOBS = "jobs.sqlite"  # APScheduler's store
SERVICE_LOCK = "service.lock"
PLAN, HISTORY = "plan.json", "history.jsonl"
STOPPED, DIED = "stopped", "died with the service"
OUTCOMES: dict[int, str] = {  # by the exit code of `retrain`; any other code is a failure
    **{code: code.outcome for code in Exit},
    Exit.WRONG_USAGE: Exit.FAILED.outcome,
    Exit.INTERRUPTED: STOPPED,
}


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One run of `tfx-ranking retrain` by the schedule.  Times are ISO 8601 with the schedule's UTC offset."""

    began: str
    attempt: int = 1  # 1 for the first; a retry after a failure counts on
    ended: str = ""  # "" while it runs
    exit_code: int | None = None
    outcome: str = "running"  # or one of OUTCOMES, "failed", "died with the service"
    message: str = ""  # the last line that it printed
    log: str = ""  # the file with its whole output
    failed_hooks: tuple[str, ...] = ()  # each with the reason

    def as_json(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "said": self.message}  # until 0.3: 0.1's name

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> "Attempt":
        """Reads `as_json`'s document, or one that release 0.1 wrote."""
        message = document.get("message", document.get("said", ""))  # until 0.3: 0.1's name
        names = {field.name for field in dataclasses.fields(cls)} & set(document)
        fields = {name: document[name] for name in names}
        return cls(**{**fields, "message": message, "failed_hooks": tuple(document.get("failed_hooks", ()))})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a schedule."""

    name: str
    when: str  # as the user wrote it, as in `every 6h`
    timezone: str
    service: str  # the service's process id; "" when it is not running
    next_run: str  # ISO 8601; "" when none is planned
    missed: bool  # the next run was due while no service ran
    running: str  # the id of the process that runs the pipeline now, from the schedule or by hand; "" when none
    last: Attempt | None


def status(name: str, folder: pathlib.Path, run_lock: pathlib.Path) -> Status:
    """Reads the state of the schedule in `folder`.  Raises RankingError when there never was one."""
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
    return Status(
        name=name,
        when=plan["when"],
        timezone=plan["timezone"],
        service=service,
        next_run=local.isoformat(timespec="seconds") if local else "",
        missed=missed,
        running=process_lock.holder(run_lock),
        last=last,
    )


def text(state: Status) -> str:
    """The state in a few lines of text."""
    if state.service:
        service = f"running (process {state.service})"
    else:
        service = "not running; start it again to continue"
    upcoming = state.next_run.replace("T", " ") or "none planned"
    if state.missed:
        upcoming = f"missed at {upcoming}, will run when the service starts"
    elif state.next_run and not state.service:
        upcoming += ", if the service runs then"
    running = f"process {state.running}" if state.running else "none"
    lines = [
        f"schedule:  {state.name}, {state.when} ({state.timezone})",
        f"service:   {service}",
        f"next run:  {upcoming}",
        f"run now:   {running}",
    ]
    last = state.last
    if last is None:
        return "\n".join([*lines, "last run:  none yet"])
    attempt = f", attempt {last.attempt}" if last.attempt > 1 else ""
    span = last.began.replace("T", " ") + (f" to {last.ended.replace('T', ' ')}" if last.ended else "")
    lines.append(f"last run:  {last.outcome}{attempt}, {span}")
    lines += [f"           {last.message}"] if last.message else []
    lines += [f"           log: {last.log}"] if last.log else []
    lines += [f"           hook failed: {each}" for each in last.failed_hooks]
    return "\n".join(lines)


def as_json(state: Status) -> dict[str, Any]:
    return {**dataclasses.asdict(state), "last": state.last and state.last.as_json()}


def record(folder: pathlib.Path, attempt: Attempt) -> None:
    """Appends an attempt to the history; among lines with the same `began` and `attempt` the last one counts."""
    with (folder / HISTORY).open("a") as file:
        file.write(json.dumps(attempt.as_json()) + "\n")


def latest(folder: pathlib.Path) -> Attempt | None:
    """The newest attempt; None before the first."""
    try:
        lines = (folder / HISTORY).read_text().splitlines()
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        try:
            return Attempt.from_json(json.loads(line))
        except json.JSONDecodeError:  # half a line: the machine went down while it was written
            continue
    return None


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)


def zone_of(name: str) -> datetime.tzinfo | None:
    """The time zone of this name; None for an unknown name, which is what tzlocal gives on some machines."""
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        return None


def _next_run(jobs: pathlib.Path) -> float | None:
    """When the job store's next run is due, in seconds since 1970.

    Read without APScheduler, which would run a job that is due.
    """
    if not jobs.exists():
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{jobs.absolute().as_uri()}?mode=ro", uri=True)) as store:
            row = store.execute("select next_run_time from apscheduler_jobs").fetchone()
    except sqlite3.DatabaseError as error:
        raise RankingError(unreadable(jobs, error)) from None
    return row[0] if row else None


def unreadable(jobs: pathlib.Path, error: Exception) -> str:
    """The error message for a job store that is not a SQLite file: what to do about it."""
    reason = str(getattr(error, "orig", error))
    return f"{jobs}: cannot be read ({reason}). Remove it: the service then plans its next run from the start."
