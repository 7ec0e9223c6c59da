"""A lineage drawn wide: each run a band, in it the generations from left to right, the first at the left.

Enters: a `Lineage`.  Leaves: a `Drawing`, in pixels.  The one idea: between two generations is a gap, above them are
lanes and left of all bands is a trunk; a line takes gap, lane, trunk, lane, gap, as far as it needs them, and each of
them is as wide as the lines in it ask for.
"""

import math
from collections.abc import Mapping, Sequence

from tfx_ranking.pipelines.lineage.pages.graph import (
    TRACK,
    Band,
    Box,
    Drawing,
    Group,
    Link,
    doors_of,
    given_links,
    groups,
    lines_between,
    rounded,
    run_title,
    tracks,
)
from tfx_ranking.pipelines.lineage.values import Lineage

CARD = 130  # width of a group
LANE = -1.0  # a place above every group of a run
TRUNK = -1  # a place left of every gap of a run

_Run = tuple[str, str]


def wide(lineage: Lineage) -> Drawing:
    """Each run a band, one under the other; lines between runs at the left."""
    held = groups(lineage)
    ends = lines_between(lineage, held)
    _set_layers(held, ends)
    _stack(held, ends)
    ways = _Ways(held, ends)
    bands = ways.place()
    boxes = {box.key: box for group in held for box in group.boxes()}
    links = given_links(held, boxes)
    doors = doors_of(ends, boxes)
    links += [
        Link(start, end, kind, ways.path(boxes[start], boxes[end], doors[start, end]))
        for start, those in ends.items()
        for end, kind in those.items()
    ]
    return Drawing(ways.width, ways.height, tuple(bands), tuple(boxes.values()), tuple(links))


class _Ways:
    """Gaps, lanes and the trunk, and which track in each of them the lines of a step or an artifact take."""

    def __init__(self, held: Sequence[Group], ends: Mapping[str, Mapping[str, str]]) -> None:
        self.held = held
        self.at = {key: group for group in held for key in group.keys}
        self.runs = list(dict.fromkeys(group.run for group in held))
        self.layers = 1 + max((group.layer for group in held), default=0)
        gaps: dict[tuple[_Run, int], dict[str, list[float]]] = {}
        lanes: dict[_Run, dict[str, list[float]]] = {}
        trunk: dict[str, list[float]] = {}
        boxes = {box.key: box for group in held for box in group.boxes()}
        doors = doors_of(ends, boxes)
        for start, end in ((start, end) for start, those in ends.items() for end in those):
            here, there = self.at[start], self.at[end]
            out = gaps.setdefault((here.run, here.layer + 1), {}).setdefault(start, [])
            into = gaps.setdefault((there.run, there.layer), {}).setdefault(start, [])
            out.append(boxes[start].middle)
            into.append(doors[start, end])
            if self._next_to_it(here, there):
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

    def place(self) -> list[Band]:
        """Moves the groups to their places; gives the bands."""
        self.left = 4.0 + TRACK * _count(self.trunk)
        room = [
            max((_count(held) for (_, before), held in self.gaps.items() if before == layer), default=0)
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
            own = [group for group in self.held if group.run == run]
            self.top[run] = y + 36 + TRACK * _count(self.lanes.get(run, {}))
            for group in own:
                group.x, group.y = self.columns[group.layer], self.top[run] + group.y
            high = max(group.y + group.height for group in own) + 12 - y
            bands.append(Band(self.left + 0.5, y + 0.5, self.width - self.left - 1, high, run_title(run)))
            y += high + 12
        self.height = max(y - 11, 1)
        return bands

    def path(self, start: Box, end: Box, door: float) -> str:
        """From the right side of a box to a door at the left side of another one."""
        here, there = self.at[start.key], self.at[end.key]
        x, x_in = (
            self._gap(group.run, layer, start.key) for group, layer in ((here, here.layer + 1), (there, there.layer))
        )
        points = [(start.x + start.width, start.middle), (x, start.middle)]
        if not self._next_to_it(here, there):
            lane, lane_in = (
                self.top[group.run] - 8 - TRACK * self.lanes[group.run][start.key] for group in (here, there)
            )
            points.append((x, lane))
            if here.run != there.run:
                trunk = self.left - 4 - TRACK * self.trunk[start.key]
                points += [(trunk, lane), (trunk, lane_in)]
            points.append((x_in, lane_in))
        return rounded([*points, (x_in, door), (end.x - 1, door)])

    def _gap(self, run: _Run, layer: int, key: str) -> float:
        begins = self.columns[layer - 1] + CARD if layer else self.left + 2
        return begins + 4 + TRACK * self.gaps[run, layer][key]

    @staticmethod
    def _next_to_it(here: Group, there: Group) -> bool:
        return here.run == there.run and there.layer == here.layer + 1


def _set_layers(held: Sequence[Group], ends: Mapping[str, Mapping[str, str]]) -> None:
    """One more than the latest of what a group is made of; one made of nothing stands right before its first use."""
    at = {key: i for i, group in enumerate(held) for key in group.keys}
    followers = [sorted({at[end] for key in group.keys for end in ends.get(key, ())}) for group in held]
    begins = set(range(len(held)))
    for i, group in enumerate(held):
        for j in (j for j in followers[i] if j > i and held[j].run == group.run):
            held[j].layer = max(held[j].layer, group.layer + 1)
            begins.discard(j)
    for i in begins:
        uses = [held[j].layer - 1 for j in followers[i] if j > i and held[j].run == held[i].run]
        held[i].layer = min(uses, default=held[i].layer)


def _stack(held: Sequence[Group], ends: Mapping[str, Mapping[str, str]]) -> None:
    """Puts the groups of each generation one under the other, in the order of what they are made of, from y = 0 on."""
    at = {key: group for group in held for key in group.keys}
    comes_from: dict[int, list[Group]] = {}
    for start, those in ends.items():
        for end in those:
            comes_from.setdefault(id(at[end]), []).append(at[start])

    def rank(group: Group) -> float:
        above = [each.y for each in comes_from.get(id(group), []) if each.run == group.run and each.layer < group.layer]
        return sum(above) / len(above) if above else math.inf

    for group in held:
        group.width = CARD
    for run, layer in sorted({(group.run, group.layer) for group in held}, key=lambda each: each[1]):
        y = 0.0
        for group in sorted((each for each in held if (each.run, each.layer) == (run, layer)), key=rank):
            group.y = y
            y += group.height + 14


def _count(taken: Mapping[str, int]) -> int:
    return 1 + max(taken.values(), default=-1)
