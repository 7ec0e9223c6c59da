"""A lineage as a drawing: where each step, each artifact and each line between them stands.

Enters: a `Lineage`.  Leaves: a `Drawing`, in pixels.  The one idea: a step and what it gave stand together as a group,
and lines run beside the groups, never across one.  `tall` puts one group under the other; `lineage_bands` draws wide.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tfx_ranking.pipelines.lineage.values import Artifact, Execution, Lineage
from tfx_ranking.pipelines.text_layout import duration

LINE, ROW = 15, 22  # height of a line of a step's text, and of an artifact
PHONE = 366  # width of `tall`
TRACK = 5  # from one line to the next beside it
INDENT = 8  # of what a step gave
_BOLD, _PLAIN, _SMALL = 8.3, 7.2, 6.6  # width of a letter, about: of the widest fonts that a browser may take


class Box(NamedTuple):
    """A step or an artifact."""

    key: str  # step-7, artifact-11
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]  # what stands in it, cut to its width
    item: Execution | Artifact

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


class Link(NamedTuple):
    """A line from a step to what it gave, from an artifact to a step that took it, or from a model to its copy."""

    start: str
    end: str
    kind: str  # gave, took, same
    path: str  # SVG's


class Band(NamedTuple):
    """A run."""

    x: float
    y: float
    width: float
    height: float
    title: str

    @property
    def text(self) -> str:
        """The title, cut to the band's width."""
        return _cut(self.title, int((self.width - 24) / _PLAIN))


@dataclasses.dataclass(frozen=True)
class Drawing:
    """All of a lineage, in pixels."""

    width: float
    height: float
    bands: tuple[Band, ...]
    boxes: tuple[Box, ...]
    links: tuple[Link, ...]


@dataclasses.dataclass
class Group:
    """A step over what it gave; or what no step of the lineage gave."""

    step: Execution | None
    given: list[Artifact]
    run: tuple[str, str]  # pipeline and run
    layer: int = 0  # its generation in the run
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def keys(self) -> list[str]:
        return [*([step_key(self.step.id)] if self.step else []), *(artifact_key(each.id) for each in self.given)]

    @property
    def height(self) -> float:
        last = self.boxes()[-1]
        return last.y + last.height - self.y

    def boxes(self) -> list[Box]:
        found, y = [], self.y
        if self.step:
            lines = (*_in_lines(self.step.node, int((self.width - 16) / _BOLD)), _state(self.step))
            found.append(Box(self.keys[0], self.x, y, self.width, LINE * len(lines) + 10, lines, self.step))
            y += found[-1].height + 4
        indent = INDENT if self.step else 0
        for each in self.given:
            text = _cut(f"#{each.id} {each.type}", int((self.width - indent - 18) / _SMALL))
            found.append(Box(artifact_key(each.id), self.x + indent, y, self.width - indent, ROW, (text,), each))
            y += ROW + 4
        return found


def step_key(execution: int) -> str:
    return f"step-{execution}"


def artifact_key(artifact: int) -> str:
    return f"artifact-{artifact}"


def tall(lineage: Lineage) -> Drawing:
    """One group under the other, the first above, the lines at the right: for a phone."""
    held = groups(lineage)
    ends = lines_between(lineage, held)
    order = {key: i for i, group in enumerate(held) for key in group.keys}
    beside = tracks({start: [order[start], *(order[end] for end in those)] for start, those in ends.items()})
    count = 1 + max(beside.values(), default=-1)
    apart = min(TRACK, 120 / max(count, 1))
    right = PHONE - 24 - apart * count
    bands: list[Band] = []
    y = 0.0
    for run in dict.fromkeys(group.run for group in held):
        top, y = y, y + 34
        for group in (each for each in held if each.run == run):
            group.x, group.y, group.width = 10, y, right - 10
            y += group.height + 14
        bands.append(Band(0.5, top + 0.5, PHONE - 1, y - top, run_title(run)))
        y += 12
    boxes = {box.key: box for group in held for box in group.boxes()}
    doors = doors_of(ends, boxes)
    links = given_links(held, boxes)
    for start, those in ends.items():
        box, x = boxes[start], right + 14 + apart * beside[start]
        for end, kind in those.items():
            door = doors[start, end]
            points = [(right, box.middle), (x, box.middle), (x, door), (right + 1, door)]
            links.append(Link(start, end, kind, rounded(points)))
    return Drawing(PHONE, max(y - 11, 1), tuple(bands), tuple(boxes.values()), tuple(links))


def groups(lineage: Lineage) -> list[Group]:
    """Every step with what it gave first, and every other artifact, before the first step that took it; by run."""
    steps = sorted(lineage.executions, key=lambda each: each.id)
    made: set[int] = set()
    found: dict[int, Group] = {}
    for step in steps:
        own = [link.artifact for link in step.outputs if link.artifact not in made]
        made.update(own)
        given = [lineage.artifacts[each] for each in dict.fromkeys(own) if each in lineage.artifacts]
        found[step.id] = Group(step, given, (step.pipeline, step.run))
    placed: list[Group] = []
    for step in steps:
        taken = dict.fromkeys(link.artifact for link in step.inputs if link.artifact not in made)
        made.update(taken)
        loose = [lineage.artifacts[each] for each in taken if each in lineage.artifacts]
        placed += [*([Group(None, loose, (step.pipeline, step.run))] if loose else []), found[step.id]]
    alone = [each for each in lineage.artifacts.values() if each.id not in made]
    placed += [Group(None, alone, ("", "?"))] if alone else []
    runs = list(dict.fromkeys(group.run for group in placed))
    return sorted(placed, key=lambda group: runs.index(group.run))


def lines_between(lineage: Lineage, held: Sequence[Group]) -> dict[str, dict[str, str]]:
    """The kinds of the lines that leave each key, by the key where they end; without those inside of a group."""
    ends: dict[str, dict[str, str]] = {}
    own = {artifact_key(each.id): group for group in held for each in group.given}
    for step in lineage.executions:
        for link in step.inputs:
            if link.artifact in lineage.artifacts:
                ends.setdefault(artifact_key(link.artifact), {})[step_key(step.id)] = "took"
        for key in (artifact_key(link.artifact) for link in step.outputs if link.artifact in lineage.artifacts):
            if own[key].step is not step:
                ends.setdefault(step_key(step.id), {})[key] = "gave"
    models = [each for each in lineage.artifacts.values() if each.digest and not each.copied]
    source = {each.digest: each for each in models}  # the last one: what was pushed, where it was
    begun = [(step_key(step.id), str(step.properties.get("initial_model", ""))) for step in lineage.executions]
    copies = [(artifact_key(each.id), each.digest) for each in lineage.artifacts.values() if each.copied]
    for key, digest in (*copies, *begun):
        if digest in source:
            ends.setdefault(artifact_key(source[digest].id), {}).setdefault(key, "same")
    return ends


def tracks(reach: Mapping[str, Iterable[float]]) -> dict[str, int]:
    """A track for each line, from 0 on, by the places it has to reach: no two lines of a track meet."""
    taken: list[float] = []  # where each track is free again
    found = {}
    for key, (low, high) in sorted(((key, _hull(places)) for key, places in reach.items()), key=lambda each: each[1]):
        track = next((i for i, end in enumerate(taken) if end < low), len(taken))
        taken[track : track + 1] = [high]
        found[key] = track
    return found


def doors_of(ends: Mapping[str, Mapping[str, str]], boxes: Mapping[str, Box]) -> dict[tuple[str, str], float]:
    """How high each line arrives: spread over the side of the box that it ends at, in the order of where they start."""
    arriving: dict[str, list[str]] = {}
    for start in sorted(ends, key=lambda key: boxes[key].y):
        for end in ends[start]:
            arriving.setdefault(end, []).append(start)
    return {
        (start, end): boxes[end].y + boxes[end].height * (i + 1) / (len(those) + 1)
        for end, those in arriving.items()
        for i, start in enumerate(those)
    }


def given_links(held: Iterable[Group], boxes: Mapping[str, Box]) -> list[Link]:
    """From each step down its group's left side to what it gave."""
    links = []
    for group in held:
        for each in group.given if group.step else []:
            start, end = boxes[group.keys[0]], boxes[artifact_key(each.id)]
            points = [(start.x + 5, start.y + start.height), (start.x + 5, end.middle), (end.x - 1, end.middle)]
            links.append(Link(start.key, end.key, "gave", rounded(points)))
    return links


def rounded(points: Sequence[tuple[float, float]]) -> str:
    """SVG's path along the points, its right angles rounded."""
    path = f"M{_number(*points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:]):
        path += f"L{_number(*_towards(corner, before))}Q{_number(*corner)} {_number(*_towards(corner, after))}"
    return f"{path}L{_number(*points[-1])}"


def run_title(run: tuple[str, str]) -> str:
    pipeline, name = run
    if name == "?":
        return "made by steps that are not followed"
    return (f"run {name}" if name else "outside any run") + (f" of {pipeline}" if pipeline else "")


def _state(step: Execution) -> str:
    ended = step.state in ("done", "failed")
    return f"{step.state}, {duration((step.ended - step.started).total_seconds())}" if ended else step.state


def _towards(corner: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    (x, y), (there_x, there_y) = corner, other
    far = max(abs(there_x - x), abs(there_y - y))
    part = min(4, far / 2) / far if far else 0
    return x + (there_x - x) * part, y + (there_y - y) * part


def _number(x: float, y: float) -> str:
    return f"{x:.1f},{y:.1f}".replace(".0", "")


def _hull(places: Iterable[float]) -> tuple[float, float]:
    held = list(places)
    return min(held), max(held)


def _in_lines(name: str, room: int) -> tuple[str, ...]:
    """A name in at most two lines, broken before a capital letter where it has one."""
    lines = [""]
    for part in re.findall(r"[A-Z_.-]?[^A-Z_.-]+|[A-Z_.-]", name):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return tuple(_cut(line, room) for line in [lines[0], *(["".join(lines[1:])] if lines[1:] else [])])


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"
