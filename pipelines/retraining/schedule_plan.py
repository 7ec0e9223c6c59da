"""When a schedule runs, and what it runs.

Input: the command's options.  Output: a plan, its trigger for APScheduler, its time zone.
A cron expression has the meaning that it has in cron.  APScheduler 3 differs in two places: it counts weekdays from
Monday, and it combines a weekday and a day of the month by "and".
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
class SchedulePlan:
    """What to run, when, and how to handle failures."""

    name: str  # the pipeline's
    folder: pathlib.Path  # the schedule's own files
    run_lock: pathlib.Path  # locked by the process that runs the pipeline
    command: tuple[str, ...]  # the `tfx-ranking retrain` command
    cron: str = ""  # five fields; either this or `every` is set
    every: str = ""  # as in 90s, 30m, 6h, 1d, 2w
    timezone: str = ""  # as in Europe/Berlin; the machine's time zone when empty
    retries: int = 2  # after a failure
    retry_after: str = "5m"  # wait before the first retry; doubles for each further one
    notify: tuple[str, ...] = ()  # http(s) addresses and commands

    @property
    def when(self) -> str:
        """The plan's times in messages, as in `every 6h`."""
        return f'cron "{self.cron}"' if self.cron else f"every {self.every}"


def trigger_of(cron: str, every: str, zone: datetime.tzinfo | None = None) -> Any:
    """APScheduler's trigger for a cron expression or an interval.  Raises UsageError.

    As in cron, 0 and 7 are Sunday; and an expression with both a weekday and a day of the month fires on either.
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
        raise UsageError(f"--cron: {cron!r} is not a valid cron expression ({error}).") from None
    if triggers[0].get_next_fire_time(None, datetime.datetime.now(zone)) is None:
        raise UsageError(f"--cron: {cron!r} never fires: no date matches it.")
    return triggers[0] if len(triggers) == 1 else OrTrigger(triggers)


def weekdays(field: str) -> str:
    """Replaces the numbers in cron's weekday field by names.

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
        assert first is not None  # the pattern requires it
        end = last if last is not None else (6 if step else first)
        if end < first:
            raise ValueError(f"weekdays {part}: the first is after the last")
        parts += [WEEKDAYS[each % 7] for each in range(first, end + 1, step or 1)]
    return ",".join(dict.fromkeys(parts))


def seconds(text: str, flag: str) -> float:
    """Converts a duration such as "6h" to seconds.  Raises UsageError, which names the flag.

    >>> seconds("6h", "--every")
    21600.0
    """
    match = re.fullmatch(r"([1-9][0-9]*)([smhdw])", text)
    if match is None:
        raise UsageError(f"{flag}: expected a number and s, m, h, d or w, as in 6h; got {text!r}.")
    return datetime.timedelta(**{UNITS[match[2]]: int(match[1])}).total_seconds()


def zone_of(name: str) -> datetime.tzinfo:
    """The time zone of this name; the machine's when it is empty.  Raises UsageError for an unknown name."""
    if not name:
        return tzlocal.get_localzone()
    zone = schedule_history.zone_of(name)
    if zone is None:
        raise UsageError(f"--timezone: expected a name such as Europe/Berlin or UTC; got {name!r}.")
    return zone
