"""A week of retraining in simulated time; `make soak` lives through sixty days."""

import pytest
import soak_retraining
from soak_retraining import FORTNIGHT, INVERTED, KILLED, LATE, MALFORMED, MISSING, SHUFFLED, TWICE, WEEK, training_spans


def test_sixty_days_have_everything_in_them():
    kinds = soak_retraining.calendar(60)
    assert len(kinds) == 60
    assert {MISSING, LATE, TWICE, MALFORMED, INVERTED, SHUFFLED, KILLED} <= {*kinds}
    assert {*WEEK, *FORTNIGHT} == {*kinds}


def test_the_calendar_knows_what_a_window_holds():
    assert [training_spans(WEEK, day) for day in range(1, 8)] == [
        [1],
        [1, 2],
        [1, 2],  # the third day's log is not there yet: 2 is the newest
        [2],  # 4 is the newest, and inverted
        [3],  # 5 is malformed; 3 is there at last
        [6],
        [6, 7],
    ]


@pytest.mark.slow
def test_a_week(tmp_path):
    days = soak_retraining.soak(tmp_path / "soak", 7)
    soak_retraining.check(tmp_path / "soak", days)
    assert {day.exit for day in days} >= {"PUSHED", "NOT_BLESSED"}
    assert {span for day in days for span in day.refused} == {4, 5}  # inverted, malformed
    assert soak_retraining.read_days(tmp_path / "soak") == days
    assert soak_retraining.plot(days).count("<circle") == sum(bool(day.run) for day in days)
