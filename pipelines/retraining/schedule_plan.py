"""When a schedule runs, and what it runs: as it was asked for, and as APScheduler takes it.

Enters: the command's options.  Leaves: a plan, its trigger, its time zone; or what is wrong with it.  Cron's words mean
what they mean to cron, which APScheduler 3 sees otherwise in two places: weekdays, and a weekday beside a day.
"""

import dataclasses
import datetime
import pathlib
import re
from typing import Any

import tzlocal
from apscheduler.triggers.combining import OrTrigger
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from tfx_ranking.components.errors import UsageError
from tfx_ranking.pipelines.retraining import schedule_history

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")  # cron's 0 to 6; APScheduler 3 counts from Monday


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


def trigger_of(cron: str, every: str, zone: datetime.tzinfo | None = None) -> Any:
    """APScheduler's trigger of five fields, or of a span.  Raises UsageError.

    A weekday counts as cron counts, and a day of the month beside one means either of both, as in cron.
    """
    if bool(cron) == bool(every):
        raise UsageError('expected either --cron "0 3 * * *" or --every 6h.')
    if every:
        return IntervalTrigger(seconds=int(seconds(every, "--every")), timezone=zone)
    fields = cron.split()
    if len(fields) != 5:
        raise UsageError(
            f"--cron: expected five fields (minute, hour, day of the month, month, weekday); got {cron!r}."
        )
    minute, hour, day, month, weekday = fields
    try:
        weekday = weekdays(weekday)
        days = [(day, weekday)] if "*" in (day[0], weekday[0]) else [(day, "*"), ("*", weekday)]
        triggers = [
            CronTrigger(minute=minute, hour=hour, day=d, month=month, day_of_week=w, timezone=zone) for d, w in days
        ]
    except ValueError as error:
        raise UsageError(f"--cron: {cron!r} cannot be read ({error}).") from None
    if triggers[0].get_next_fire_time(None, datetime.datetime.now(zone)) is None:
        raise UsageError(f"--cron: {cron!r} never comes.")
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
    """A span of time in seconds.  Raises UsageError with the flag's name.

    >>> seconds("6h", "--every")
    21600.0
    """
    found = re.fullmatch(r"([1-9][0-9]*)([smhdw])", text)
    if found is None:
        raise UsageError(f"{flag}: expected a number and s, m, h, d or w, as in 6h; got {text!r}.")
    return datetime.timedelta(**{UNITS[found[2]]: int(found[1])}).total_seconds()


def zone_of(name: str) -> datetime.tzinfo:
    if not name:
        return tzlocal.get_localzone()
    zone = schedule_history.zone_of(name)
    if zone is None:
        raise UsageError(f"--timezone: expected a name such as Europe/Berlin or UTC; got {name!r}.")
    return zone
