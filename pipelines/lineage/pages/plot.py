"""A metric over versions as a drawing.

Enters: points, oldest first.  Leaves: a `Chart`, in pixels: where each mark, line and label stands.  The one idea:
versions stand at equal distances, since what is read is which was better than the one before.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

TOP, BOTTOM, LEFT, RIGHT = 34, 30, 58, 26  # what the labels and the legend take


class Point(NamedTuple):
    """One version."""

    value: float
    kind: str  # live, pushed, rolled back, not blessed
    label: str  # below it: when
    title: str  # all of it
    key: str  # its place on the page


class Mark(NamedTuple):
    """A point where it stands."""

    x: float
    y: float
    kind: str
    title: str
    key: str


class Label(NamedTuple):
    """A text, and where."""

    x: float
    y: float
    text: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """All of a plot, in pixels."""

    width: float
    height: float
    radius: float  # of the marks: smaller where they are many
    marks: tuple[Mark, ...]
    course: str  # SVG's path through the marks
    across: tuple[Label, ...]  # the values, each with a line across at its height
    below: tuple[Label, ...]
    legend: tuple[Mark, ...]  # one of each kind of mark


def chart(points: Sequence[Point], width: int, height: int) -> Chart:
    """The plot in so many pixels.  points: one or more."""
    ticks, digits = _ticks([each.value for each in points])
    low, high = ticks[0], ticks[-1]
    room = width - LEFT - RIGHT - 24

    def x(i: int) -> float:
        return round(LEFT + 8 + (room * i / (len(points) - 1) if len(points) > 1 else room / 2), 1)

    def y(value: float) -> float:
        return round(TOP + (height - TOP - BOTTOM) * (high - value) / (high - low), 1)

    marks = tuple(Mark(x(i), y(p.value), p.kind, p.title, p.key) for i, p in enumerate(points))
    course = "".join(f"{'L' if i else 'M'}{mark.x},{mark.y}" for i, mark in enumerate(marks))
    across = tuple(Label(LEFT - 8, y(tick), f"{tick:.{digits}f}") for tick in ticks)
    every = math.ceil(len(points) / (room / 84))
    below = tuple(Label(x(i), height - 8, points[i].label) for i in range(0, len(points), every))
    kinds = list(dict.fromkeys(each.kind for each in points))
    starts = [LEFT + 8 + sum(38 + 7.2 * len(each) for each in kinds[:i]) for i in range(len(kinds))]
    legend = tuple(Mark(x, 12, kind, kind, "") for x, kind in zip(starts, kinds))
    radius = round(min(4.5, max(1.5, room / len(points) / 2)), 1)
    return Chart(width, height, radius, marks, course, across, below, legend)


def _ticks(values: Sequence[float]) -> tuple[list[float], int]:
    """Three to seven round numbers around the values, and how many digits they need.

    >>> _ticks([0.61, 0.68])
    ([0.6, 0.62, 0.64, 0.66, 0.68], 2)
    """
    low, high = min(values), max(values)
    spread = high - low or abs(high) / 10 or 1.0
    rough = spread / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * each for each in (1, 2, 5, 10) if size * each >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last += first == last
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return [round(step * i, 12) for i in range(first, last + 1)], digits
