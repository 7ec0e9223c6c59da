"""Tests when a schedule runs: cron expressions, and plans that are refused."""

import datetime
import pathlib
import zoneinfo

import pytest

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.retraining import schedule_plan, schedule_service

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")


def fires(cron: str, count: int) -> list[str]:
    """The first times after Friday 2026-03-27 noon in Berlin, two days before its clocks are put forward."""
    plan = schedule_plan.SchedulePlan("shop", pathlib.Path(), pathlib.Path(), (), cron=cron)
    trigger, last = schedule_plan.trigger_of(plan.cron, plan.every, BERLIN), None
    now = datetime.datetime(2026, 3, 27, 12, tzinfo=BERLIN)
    times = []
    for _ in range(count):
        last = trigger.get_next_fire_time(last, now)
        now = last
        times.append(f"{last:%a %d %H:%M %Z}")
    return times


def test_expressions_have_the_meaning_that_cron_gives_them():
    assert fires("0 3 * * *", 3) == ["Sat 28 03:00 CET", "Sun 29 03:00 CEST", "Mon 30 03:00 CEST"]
    assert fires("0 3 * * 0", 1) == fires("0 3 * * 7", 1) == fires("0 3 * * sun", 1) == ["Sun 29 03:00 CEST"]
    assert fires("0 3 * * 1-5", 2) == ["Mon 30 03:00 CEST", "Tue 31 03:00 CEST"]
    assert fires("0 3 28 * 1", 2) == ["Sat 28 03:00 CET", "Mon 30 03:00 CEST"]  # the 28th and Mondays


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ({}, "either --cron"),
        ({"cron": "0 3 * * *", "every": "6h"}, "either --cron"),
        ({"cron": "0 3 * *"}, r"expected five fields .* got '0 3 \* \*'"),
        ({"cron": "61 3 * * *"}, "'61 3 .* is not a valid cron expression"),
        ({"cron": "0 0 31 2 *"}, "never fires"),
        ({"every": "6 hours"}, "--every: expected a number and s, m, h, d or w"),
        ({"every": "6h", "retry_after": "soon"}, "--retry-after: expected a number"),
        ({"every": "6h", "retries": -1}, "--retries: expected 0 or more"),
        ({"every": "6h", "timezone": "Middle/Earth"}, "--timezone: expected a name such as Europe/Berlin"),
    ],
)
def test_invalid_plans_are_refused(plan, message, tmp_path):
    with pytest.raises(RankingError, match=message):
        schedule_service.serve(schedule_plan.SchedulePlan("shop", tmp_path, tmp_path / "run.lock", ("true",), **plan))
