"""Lays out a lineage for a wide window: each run is a band, with its generations of steps from left to right.

Input: a `Lineage`.  Output: a `Drawing`, in pixels.  Between two generations is a gap, above them are lanes, and left
of all bands is the trunk.  A line goes through gap, lane, trunk, lane and gap, as far as it needs them; each of these
is as wide as its lines need.
"""

import math
from collections.abc import Mapping, Sequence

from tfx_ranking.pipelines.lineage.values import Lineage
from tfx_ranking.pipelines.lineage.views.graph import (
    TRACK,
    Band,
    Box,
    Drawing,
    Group,
    Line,
    arrivals,
    groups,
    lines_between,
    output_lines,
    rounded,
    run_title,
    tracks,
)

CARD = 130  # width of a group
LANE = -1.0  # the position of the lanes: above every group of a run
TRUNK = -1  # the position of the trunk: left of every gap of a run

_Run = tuple[str, str]


def wide(lineage: Lineage) -> Drawing:
    """Draws each run as a band, one below the other, with the lines between runs at the left."""
    placed = groups(lineage)
    ends = lines_between(lineage, placed)
    _set_layers(placed, ends)
    _stack(placed, ends)
    routes = _Routes(placed, ends)
    bands = routes.place_groups()
    boxes = {box.key: box for group in placed for box in group.boxes()}
    lines = output_lines(placed, boxes)
    arrival = arrivals(ends, boxes)
    lines += [
        Line(start, end, kind, routes.path(boxes[start], boxes[end], arrival[start, end]))
        for start, kinds in ends.items()
        for end, kind in kinds.items()
    ]
    return Drawing(routes.width, routes.height, tuple(bands), tuple(boxes.values()), tuple(lines))


class _Routes:
    """The routes of all lines: the track of each line in the gaps, the lanes and the trunk."""

    def __init__(self, placed: Sequence[Group], ends: Mapping[str, Mapping[str, str]]) -> None:
        self.groups = placed
        self.group_of = {key: group for group in placed for key in group.keys}
        self.runs = list(dict.fromkeys(group.run for group in placed))
        self.layers = 1 + max((group.layer for group in placed), default=0)
        gaps: dict[tuple[_Run, int], dict[str, list[float]]] = {}
        lanes: dict[_Run, dict[str, list[float]]] = {}
        trunk: dict[str, list[float]] = {}
        boxes = {box.key: box for group in placed for box in group.boxes()}
        arrival = arrivals(ends, boxes)
        for start, end in ((start, end) for start, kinds in ends.items() for end in kinds):
            here, there = self.group_of[start], self.group_of[end]
            out = gaps.setdefault((here.run, here.layer + 1), {}).setdefault(start, [])
            into = gaps.setdefault((there.run, there.layer), {}).setdefault(start, [])
            out.append(boxes[start].middle)
            into.append(arrival[start, end])
            if self._adjacent(here, there):
                continue
            out.append(LANE)
            into.append(LANE)
            turns = {here.run: [here.layer + 1, there.layer]}
            if here.run != there.run:
                turns = {here.run: [here.layer + 1, TRUNK], there.run: [there.layer, TRUNK]}
                trunk.setdefault(start, []).extend((self.runs.index(here.run), self.runs.index(there.run)))
            for run, reached in turns.items():
                lanes.setdefault(run, {}).setdefault(start, []).extend(reached)
        self.gaps = {gap: tracks(reach) for gap, reach in gaps.items()}
        self.lanes = {run: tracks(reach) for run, reach in lanes.items()}
        self.trunk = tracks(trunk)

    def place_groups(self) -> list[Band]:
        """Sets the position of each group, and returns the bands."""
        self.left = 4.0 + TRACK * _count(self.trunk)
        room = [
            max((_count(taken) for (_, before), taken in self.gaps.items() if before == layer), default=0)
            for layer in range(self.layers + 1)
        ]
        self.columns: list[float] = []
        x = self.left + 2
        for layer in range(self.layers):
            x += 8 + TRACK * room[layer]
            self.columns.append(x)
            x += CARD
        self.width = x + 10 + TRACK * room[self.layers]
        self.top: dict[_Run, float] = {}
        bands: list[Band] = []
        y = 0.0
        for run in self.runs:
            own = [group for group in self.groups if group.run == run]
            self.top[run] = y + 36 + TRACK * _count(self.lanes.get(run, {}))
            for group in own:
                group.x, group.y = self.columns[group.layer], self.top[run] + group.y
            high = max(group.y + group.height for group in own) + 12 - y
            bands.append(Band(self.left + 0.5, y + 0.5, self.width - self.left - 1, high, run_title(run)))
            y += high + 12
        self.height = max(y - 11, 1)
        return bands

    def path(self, start: Box, end: Box, arrival: float) -> str:
        """The SVG path from the right side of a box to the left side of another one, at the height `arrival`."""
        here, there = self.group_of[start.key], self.group_of[end.key]
        x, x_in = (
            self._gap_x(group.run, layer, start.key) for group, layer in ((here, here.layer + 1), (there, there.layer))
        )
        points = [(start.x + start.width, start.middle), (x, start.middle)]
        if not self._adjacent(here, there):
            lane, lane_in = (
                self.top[group.run] - 8 - TRACK * self.lanes[group.run][start.key] for group in (here, there)
            )
            points.append((x, lane))
            if here.run != there.run:
                trunk = self.left - 4 - TRACK * self.trunk[start.key]
                points += [(trunk, lane), (trunk, lane_in)]
            points.append((x_in, lane_in))
        return rounded([*points, (x_in, arrival), (end.x - 1, arrival)])

    def _gap_x(self, run: _Run, layer: int, key: str) -> float:
        left = self.columns[layer - 1] + CARD if layer else self.left + 2
        return left + 4 + TRACK * self.gaps[run, layer][key]

    @staticmethod
    def _adjacent(here: Group, there: Group) -> bool:
        return here.run == there.run and there.layer == here.layer + 1


def _set_layers(placed: Sequence[Group], ends: Mapping[str, Mapping[str, str]]) -> None:
    """Sets each group's layer: one after the last of its inputs, or, without inputs, directly before its first use."""
    at = {key: i for i, group in enumerate(placed) for key in group.keys}
    followers = [sorted({at[end] for key in group.keys for end in ends.get(key, ())}) for group in placed]
    without_inputs = set(range(len(placed)))
    for i, group in enumerate(placed):
        for j in (j for j in followers[i] if j > i and placed[j].run == group.run):
            placed[j].layer = max(placed[j].layer, group.layer + 1)
            without_inputs.discard(j)
    for i in without_inputs:
        uses = [placed[j].layer - 1 for j in followers[i] if j > i and placed[j].run == placed[i].run]
        placed[i].layer = min(uses, default=placed[i].layer)


def _stack(placed: Sequence[Group], ends: Mapping[str, Mapping[str, str]]) -> None:
    """Stacks the groups of each generation from y = 0 down, in the order of their inputs."""
    at = {key: group for group in placed for key in group.keys}
    inputs_of: dict[int, list[Group]] = {}
    for start, kinds in ends.items():
        for end in kinds:
            inputs_of.setdefault(id(at[end]), []).append(at[start])

    def rank(group: Group) -> float:
        above = [each.y for each in inputs_of.get(id(group), []) if each.run == group.run and each.layer < group.layer]
        return sum(above) / len(above) if above else math.inf

    for group in placed:
        group.width = CARD
    for run, layer in sorted({(group.run, group.layer) for group in placed}, key=lambda each: each[1]):
        y = 0.0
        for group in sorted((each for each in placed if (each.run, each.layer) == (run, layer)), key=rank):
            group.y = y
            y += group.height + 14


def _count(taken: Mapping[str, int]) -> int:
    return 1 + max(taken.values(), default=-1)
