"""Lays out a lineage as a graph: the position of each step, each artifact and each line between them.

Input: a `Lineage`.  Output: a `Drawing`, in pixels.  A step and its outputs form a group; lines run beside the groups
and never cross one.  `tall` puts the groups in one column, for narrow windows; `bands.wide` draws for wide ones.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tfx_ranking.pipelines.lineage.values import Artifact, Execution, Lineage
from tfx_ranking.pipelines.text_layout import duration

LINE, ROW = 15, 22  # height of a line of text in a step, and of an artifact
PHONE = 366  # width of `tall`
TRACK = 5  # distance of parallel lines
INDENT = 8  # of a step's outputs
_BOLD, _PLAIN, _SMALL = 8.3, 7.2, 6.6  # approximate width of a letter, in the widest font that a browser may use


class Box(NamedTuple):
    """A step or an artifact."""

    key: str  # step-7, artifact-11
    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]  # its text, cut to its width
    item: Execution | Artifact

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


class Line(NamedTuple):
    """A line from a step to its output, from an artifact to a step that used it, or from a model to its copy."""

    start: str
    end: str
    kind: str  # output, input, same
    path: str  # the SVG path


class Band(NamedTuple):
    """The rectangle around a run."""

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
    """The whole graph, in pixels."""

    width: float
    height: float
    bands: tuple[Band, ...]
    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]


@dataclasses.dataclass
class Group:
    """A step above its outputs; or artifacts that no step of the lineage made."""

    step: Execution | None
    artifacts: list[Artifact]
    run: tuple[str, str]  # pipeline and run
    layer: int = 0  # its column in the run
    x: float = 0
    y: float = 0
    width: float = 0

    @property
    def keys(self) -> list[str]:
        """The keys of its boxes."""
        return [*([step_key(self.step.id)] if self.step else []), *(artifact_key(each.id) for each in self.artifacts)]

    @property
    def height(self) -> float:
        """Of all its boxes together."""
        last = self.boxes()[-1]
        return last.y + last.height - self.y

    def boxes(self) -> list[Box]:
        """Its boxes, the step first, at the group's position."""
        boxes, y = [], self.y
        if self.step:
            lines = (*_in_lines(self.step.node, int((self.width - 16) / _BOLD)), _state(self.step))
            boxes.append(Box(self.keys[0], self.x, y, self.width, LINE * len(lines) + 10, lines, self.step))
            y += boxes[-1].height + 4
        indent = INDENT if self.step else 0
        for each in self.artifacts:
            text = _cut(f"#{each.id} {each.type}", int((self.width - indent - 18) / _SMALL))
            boxes.append(Box(artifact_key(each.id), self.x + indent, y, self.width - indent, ROW, (text,), each))
            y += ROW + 4
        return boxes


def step_key(execution: int) -> str:
    """The id of a step on the page."""
    return f"step-{execution}"


def artifact_key(artifact: int) -> str:
    """The id of an artifact on the page."""
    return f"artifact-{artifact}"


def tall(lineage: Lineage) -> Drawing:
    """All groups in one column, oldest first, with the lines at the right: for a phone."""
    placed = groups(lineage)
    ends = lines_between(lineage, placed)
    order = {key: i for i, group in enumerate(placed) for key in group.keys}
    beside = tracks({start: [order[start], *(order[end] for end in kinds)] for start, kinds in ends.items()})
    count = 1 + max(beside.values(), default=-1)
    apart = min(TRACK, 120 / max(count, 1))
    right = PHONE - 24 - apart * count
    bands: list[Band] = []
    y = 0.0
    for run in dict.fromkeys(group.run for group in placed):
        top, y = y, y + 34
        for group in (each for each in placed if each.run == run):
            group.x, group.y, group.width = 10, y, right - 10
            y += group.height + 14
        bands.append(Band(0.5, top + 0.5, PHONE - 1, y - top, run_title(run)))
        y += 12
    boxes = {box.key: box for group in placed for box in group.boxes()}
    arrival = arrivals(ends, boxes)
    lines = output_lines(placed, boxes)
    for start, kinds in ends.items():
        box, x = boxes[start], right + 14 + apart * beside[start]
        for end, kind in kinds.items():
            y_end = arrival[start, end]
            points = [(right, box.middle), (x, box.middle), (x, y_end), (right + 1, y_end)]
            lines.append(Line(start, end, kind, rounded(points)))
    return Drawing(PHONE, max(y - 11, 1), tuple(bands), tuple(boxes.values()), tuple(lines))


def groups(lineage: Lineage) -> list[Group]:
    """The groups by run: every step with the outputs that it made first, and every other artifact in a group before the
    first step that used it."""
    steps = sorted(lineage.executions, key=lambda each: each.id)
    grouped: set[int] = set()
    by_step: dict[int, Group] = {}
    for step in steps:
        own = [link.artifact for link in step.outputs if link.artifact not in grouped]
        grouped.update(own)
        outputs = [lineage.artifacts[each] for each in dict.fromkeys(own) if each in lineage.artifacts]
        by_step[step.id] = Group(step, outputs, (step.pipeline, step.run))
    ordered: list[Group] = []
    for step in steps:
        inputs = dict.fromkeys(link.artifact for link in step.inputs if link.artifact not in grouped)
        grouped.update(inputs)
        without_step = [lineage.artifacts[each] for each in inputs if each in lineage.artifacts]
        ordered += [Group(None, without_step, (step.pipeline, step.run))] if without_step else []
        ordered.append(by_step[step.id])
    unused = [each for each in lineage.artifacts.values() if each.id not in grouped]
    ordered += [Group(None, unused, ("", "?"))] if unused else []
    runs = list(dict.fromkeys(group.run for group in ordered))
    return sorted(ordered, key=lambda group: runs.index(group.run))


def lines_between(lineage: Lineage, placed: Sequence[Group]) -> dict[str, dict[str, str]]:
    """The kind of each line by the keys of its start and its end, without the lines inside a group."""
    ends: dict[str, dict[str, str]] = {}
    own = {artifact_key(each.id): group for group in placed for each in group.artifacts}
    for step in lineage.executions:
        for link in step.inputs:
            if link.artifact in lineage.artifacts:
                ends.setdefault(artifact_key(link.artifact), {})[step_key(step.id)] = "input"
        for key in (artifact_key(link.artifact) for link in step.outputs if link.artifact in lineage.artifacts):
            if own[key].step is not step:
                ends.setdefault(step_key(step.id), {})[key] = "output"
    models = [each for each in lineage.artifacts.values() if each.digest and not each.copied]
    source = {each.digest: each for each in models}  # the last artifact of a digest: the push, if there was one
    warm_starts = [(step_key(step.id), str(step.properties.get("initial_model", ""))) for step in lineage.executions]
    copies = [(artifact_key(each.id), each.digest) for each in lineage.artifacts.values() if each.copied]
    for key, digest in (*copies, *warm_starts):
        if digest in source:
            ends.setdefault(artifact_key(source[digest].id), {}).setdefault(key, "same")
    return ends


def tracks(reach: Mapping[str, Iterable[float]]) -> dict[str, int]:
    """A track (0, 1, …) for each line, so that no two lines of one track overlap.

    reach: the positions that each line must reach, by its key.
    """
    ends: list[float] = []  # where the last line of each track ends
    track_of = {}
    ranges = {key: _range(positions) for key, positions in reach.items()}
    for key, (low, high) in sorted(ranges.items(), key=lambda each: each[1]):
        track = next((i for i, end in enumerate(ends) if end < low), len(ends))
        ends[track : track + 1] = [high]
        track_of[key] = track
    return track_of


def arrivals(ends: Mapping[str, Mapping[str, str]], boxes: Mapping[str, Box]) -> dict[tuple[str, str], float]:
    """The y at which each line arrives: spread over the side of its end box, in the order of their starts."""
    arriving: dict[str, list[str]] = {}
    for start in sorted(ends, key=lambda key: boxes[key].y):
        for end in ends[start]:
            arriving.setdefault(end, []).append(start)
    return {
        (start, end): boxes[end].y + boxes[end].height * (i + 1) / (len(starts) + 1)
        for end, starts in arriving.items()
        for i, start in enumerate(starts)
    }


def output_lines(placed: Iterable[Group], boxes: Mapping[str, Box]) -> list[Line]:
    """The lines from each step along its group's left side to its outputs."""
    lines = []
    for group in placed:
        for each in group.artifacts if group.step else []:
            start, end = boxes[group.keys[0]], boxes[artifact_key(each.id)]
            points = [(start.x + 5, start.y + start.height), (start.x + 5, end.middle), (end.x - 1, end.middle)]
            lines.append(Line(start.key, end.key, "output", rounded(points)))
    return lines


def rounded(points: Sequence[tuple[float, float]]) -> str:
    """The SVG path along the points, with rounded corners."""
    path = f"M{_number(*points[0])}"
    for before, corner, after in zip(points, points[1:], points[2:]):
        path += f"L{_number(*_towards(corner, before))}Q{_number(*corner)} {_number(*_towards(corner, after))}"
    return f"{path}L{_number(*points[-1])}"


def run_title(run: tuple[str, str]) -> str:
    """The title of a run's band.  run: pipeline and run."""
    pipeline, name = run
    if name == "?":
        return "made by steps that are not shown"
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


def _range(positions: Iterable[float]) -> tuple[float, float]:
    listed = list(positions)
    return min(listed), max(listed)


def _in_lines(name: str, room: int) -> tuple[str, ...]:
    """A name in at most two lines, broken before a capital letter if possible."""
    lines = [""]
    for part in re.findall(r"[A-Z_.-]?[^A-Z_.-]+|[A-Z_.-]", name):
        if lines[-1] and len(lines[-1]) + len(part) > room:
            lines.append("")
        lines[-1] += part
    return tuple(_cut(line, room) for line in [lines[0], *(["".join(lines[1:])] if lines[1:] else [])])


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(room - 1, 1)] + "…"
