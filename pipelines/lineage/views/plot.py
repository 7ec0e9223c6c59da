"""Lays out a plot of a metric over versions.

Input: points, oldest first.  Output: a `Chart`: the position of each mark, line and label, in pixels.  Versions have
equal distances, whatever the time between them, so that each can be compared with the one before.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

TOP, BOTTOM, LEFT, RIGHT = 34, 30, 58, 26  # margins, in pixels, for the labels and the legend


class Point(NamedTuple):
    """One version."""

    value: float
    kind: str  # live, pushed, rolled back, not blessed
    label: str  # below the axis: the time
    title: str  # the tooltip
    key: str  # the id of its row on the page


class Mark(NamedTuple):
    """A point with its position."""

    x: float
    y: float
    kind: str
    title: str
    key: str


class Label(NamedTuple):
    """A text with its position."""

    x: float
    y: float
    text: str


@dataclasses.dataclass(frozen=True)
class Chart:
    """All of a plot, in pixels."""

    width: float
    height: float
    radius: float  # of the marks; smaller if there are many
    marks: tuple[Mark, ...]
    course: str  # the SVG path through the marks
    across: tuple[Label, ...]  # the values of the y axis; the page draws a line at each
    below: tuple[Label, ...]
    legend: tuple[Mark, ...]  # one mark of each kind


def chart(points: Sequence[Point], width: int, height: int) -> Chart:
    """Lays out the plot in width x height pixels.  points: at least one."""
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
    """Three to seven round numbers around the values, and the number of digits that they need.

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
