"""Lineage as text and as JSON.

Enters: the values of `lineage`.  Leaves: text to print, or what `json.dumps` takes.
"""

import dataclasses
import datetime
import json
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfx_ranking.components.serving_versions import LINEAGE_IN_MODEL
from tfx_ranking.pipelines.lineage import Artifact, Execution, Lineage, Run

WIDTH = 110  # columns of the text


def runs_text(runs: Sequence[Run]) -> str:
    """One line a run, a second one for what went wrong."""
    if not runs:
        return "no runs yet"
    several = len({run.pipeline for run in runs}) > 1
    heading = ["run", "state", "started", "took", "span", "metric", "blessed", "pushed"]
    rows = [[*heading[:1], *(["pipeline"] if several else []), *heading[1:]]]
    for run in runs:
        row = [run.id, run.state, _clock(run.started), _took(run.seconds), "" if run.span is None else str(run.span)]
        row += [f"{run.metric} {run.value:.4f}" if run.value is not None else "", _blessed(run), _pushed(run)]
        rows.append([*row[:1], *([run.pipeline] if several else []), *row[1:]])
    lines = _columns(rows)
    told = [lines[0]]
    for run, line in zip(runs, lines[1:]):
        told += [line, *([f"  {run.reason}"] if run.reason else [])]
    return "\n".join(told)


def runs_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A list of objects with the fields of `Run`."""
    return [_plain(dataclasses.asdict(run)) for run in runs]


def lineage_text(lineage: Lineage) -> str:
    """What was asked for, the steps by run with what they gave, the files, the configs, the packages."""
    lines = _subject(lineage.subject)
    run = None
    rows: list[list[str]] = []
    heads: dict[int, str] = {}
    for each in lineage.executions:
        if (each.pipeline, each.run) != run:
            run = (each.pipeline, each.run)
            heads[len(rows)] = f"run {each.run or '?'}" + (f" of {each.pipeline}" if each.pipeline else "")
        took = _took((each.ended - each.started).total_seconds())
        given = [lineage.artifacts[link.artifact] for link in each.outputs if link.artifact in lineage.artifacts]
        what = next((a.summary for a in given if a.summary), "") or each.reason
        rows.append([f"  {each.node}", each.state, _clock(each.started), took, _ids(given), what])
    for i, line in enumerate(_columns(rows)):
        lines += ["", heads[i]] if i in heads else []
        lines.append(line)
    if not rows:
        lines += ["", "no step of it is known"]
    for each in reversed(lineage.executions):
        if each.files:
            lines += ["", f"files read by {each.node}, run {each.run}"]
            lines += _columns([[f"  {f.digest}", f"{f.size:,} B", f.split, f.path] for f in each.files])
    for each in lineage.executions:
        lines += _config(each)
    for packages in _packages(lineage):
        lines += ["", *_wrapped("packages  ", [f"{name} {version}" for name, version in packages.items()])]
    return "\n".join(lines)


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """`asked`, `subject` (artifacts), `executions` with links, properties and files, `artifacts` by id, `packages`."""
    return {
        "asked": lineage.asked,
        "subject": [_plain(dataclasses.asdict(each)) for each in lineage.subject],
        "executions": [
            _plain({**_with_links(each), "files": [dataclasses.asdict(file) for file in each.files]})
            for each in lineage.executions
        ],
        "artifacts": {str(i): _plain(dataclasses.asdict(each)) for i, each in lineage.artifacts.items()},
        "packages": _packages(lineage),
    }


def _subject(subject: Sequence[Artifact]) -> list[str]:
    bytes_of = next((each.digest for each in subject if each.digest), "")
    lines = [f"model {bytes_of}"] if bytes_of and len({each.digest for each in subject}) == 1 else []
    rows = [[f"  #{a.id}", a.type, _clock(a.made), a.properties.get("pushed_destination") or a.uri] for a in subject]
    return [*lines, *_columns(rows)]


def _config(execution: Execution) -> list[str]:
    """What a step was called with, a section a line; the files are told elsewhere."""
    held = execution.properties.get("config") or execution.properties.get("custom_config") or {}
    held = held.get("config", held) if isinstance(held, Mapping) else {}
    told = {name: value for name, value in held.items() if value not in ({}, "", None)}
    if not told:
        return []
    lines = ["", f"config of {execution.node}"]
    for name, value in told.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines.append(f"  {name:<12} {text if len(text) <= WIDTH - 15 else text[: WIDTH - 16] + '…'}")
    return lines


def _packages(lineage: Lineage) -> list[dict[str, str]]:
    """The package versions that the models' own receipts name, as far as the models are still there."""
    found: list[dict[str, str]] = []
    models = [each for each in (*lineage.subject, *lineage.artifacts.values()) if each.digest]
    places = [pathlib.Path(lineage.asked)]
    places += [pathlib.Path(m.properties.get("pushed_destination") or f"{m.uri}/Format-Serving") for m in models]
    for place in places:
        file = place / LINEAGE_IN_MODEL
        packages = json.loads(file.read_text()).get("packages", {}) if file.is_file() else {}
        if packages and packages not in found:
            found.append(packages)
    return found


def _with_links(execution: Execution) -> dict[str, Any]:
    links = {side: [link._asdict() for link in getattr(execution, side)] for side in ("inputs", "outputs")}
    return {**dataclasses.asdict(execution), **links}


def _blessed(run: Run) -> str:
    return "" if run.blessed is None else "yes" if run.blessed else "no"


def _pushed(run: Run) -> str:
    return f"({run.pushed})" if run.unchanged else run.pushed


def _ids(artifacts: Iterable[Artifact]) -> str:
    return " ".join(f"#{each.id}" for each in artifacts)


def _clock(when: datetime.datetime) -> str:
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S}"


def _took(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _wrapped(heading: str, facts: Sequence[str]) -> list[str]:
    lines = [heading]
    for i, fact in enumerate(facts):
        text = fact + ("" if i + 1 == len(facts) else ", ")
        if i and len(lines[-1] + text.rstrip()) > WIDTH:
            lines.append(" " * len(heading))
        lines[-1] += text
    return [line.rstrip() for line in lines]


def _plain(value: Any) -> Any:
    """What JSON can hold: times in ISO form, tuples as lists."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Mapping):
        return {str(name): _plain(held) for name, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(held) for held in value]
    return value
