"""Lineage as text and as JSON.

Enters: the values of `lineage`.  Leaves: text to print, or what `json.dumps` takes.
"""

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage.origin import config_of, receipts
from tfx_ranking.pipelines.lineage.values import Execution, Lineage, Run
from tfx_ranking.pipelines.text_layout import WIDTH, clock, columns, wrapped


def runs_text(runs: Sequence[Run]) -> str:
    """One line a run, a second one for what went wrong."""
    if not runs:
        return "no runs yet"
    several = len({run.pipeline for run in runs}) > 1
    heading = ["run", "state", "started", "took", "spans", "metric", "blessed", "pushed"]
    rows = [[*heading[:1], *(["pipeline"] if several else []), *heading[1:]]]
    for run in runs:
        row = [run.id, run.state, clock(run.started), took(run.seconds), spans.said(run.spans)]
        row += [f"{run.metric} {run.value:.4f}" if run.value is not None else "", _blessed(run), _pushed(run)]
        rows.append([*row[:1], *([run.pipeline] if several else []), *row[1:]])
    lines = columns(rows)
    told = [lines[0]]
    for run, line in zip(runs, lines[1:]):
        told += [line, *([f"  {run.reason}"] if run.reason else [])]
    return "\n".join(told)


def runs_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A list of objects with the fields of `Run`."""
    return [plain(dataclasses.asdict(run)) for run in runs]


def lineage_text(lineage: Lineage) -> str:
    """What was asked for, the steps by run with what they took and gave; upstream the files, configs and packages."""
    lines = _subject(lineage)
    runs = list(dict.fromkeys((each.pipeline, each.run) for each in lineage.executions))
    steps = [each for run in runs for each in lineage.executions if (each.pipeline, each.run) == run]
    shown = dict(zip(runs, [""] * len(runs)))
    for each, row in zip(steps, columns([_step(each, lineage) for each in steps])):
        run = (each.pipeline, each.run)
        if run in shown:
            shown.pop(run)
            lines += ["", run_name(each.run) + f" of {each.pipeline}" * bool(each.pipeline)]
        lines.append(row)
    if not steps:
        lines += ["", "nothing came of it" if lineage.down else "no step that led to it is known"]
    if lineage.down:
        return "\n".join(lines)
    for each in reversed(steps):
        if each.files:
            lines += ["", f"files read in {run_name(each.run)}"]
            lines += columns([[f"  {f.digest}", f"{f.size:,} B", f.split, f.path] for f in each.files])
    for run in runs:
        lines += _config(run[1], [each for each in steps if (each.pipeline, each.run) == run])
    for receipt in receipts(lineage):
        lines += ["", f"packages of run {receipt['run']}"]
        lines += wrapped("  ", [f"{name} {version}" for name, version in receipt["packages"].items()])
    return "\n".join(lines)


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """`asked`, `down`, `subject` (artifacts), `executions` with links and files, `artifacts` by id, `receipts`."""
    return {
        "asked": lineage.asked,
        "down": lineage.down,
        "subject": [plain(dataclasses.asdict(each)) for each in lineage.subject],
        "executions": [
            plain({**_with_links(each), "files": [dataclasses.asdict(file) for file in each.files]})
            for each in lineage.executions
        ],
        "artifacts": {str(i): plain(dataclasses.asdict(each)) for i, each in lineage.artifacts.items()},
        "receipts": receipts(lineage),
    }


def _subject(lineage: Lineage) -> list[str]:
    digests = {each.digest for each in lineage.subject}
    lines = [f"model {digest}" for digest in digests if digest and len(digests) == 1]
    rows = [
        [f"  #{each.id}", each.type, clock(each.made), str(each.properties.get("pushed_destination") or each.uri)]
        for each in lineage.subject
    ]
    return [*(lines or [lineage.asked]), *columns(rows)]


def _step(each: Execution, lineage: Lineage) -> list[str]:
    given = [lineage.artifacts[link.artifact] for link in each.outputs if link.artifact in lineage.artifacts]
    said = next((artifact.summary for artifact in given if artifact.summary), "") or each.reason
    time = took((each.ended - each.started).total_seconds()) if each.state in ("done", "failed") else ""
    inputs, outputs = (" ".join(f"#{link.artifact}" for link in links) for links in (each.inputs, each.outputs))
    return [f"  {each.node}", each.state, clock(each.started), time, inputs, "→", outputs, said]


def _config(run: str, steps: Sequence[Execution]) -> list[str]:
    """The config's sections, one a line, cut where it is long."""
    told = config_of(steps)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in told.items()}
    room = WIDTH - 13
    cut = [f"  {name:<10} {text if len(text) <= room else text[: room - 1] + '…'}" for name, text in texts.items()]
    return ["", f"config of {run_name(run)}, as far as these steps read it", *cut] if told else []


def run_name(run: str) -> str:
    return f"run {run}" if run else "no run"  # a component alone, as a notebook runs it


def _with_links(execution: Execution) -> dict[str, Any]:
    links = {side: [link._asdict() for link in getattr(execution, side)] for side in ("inputs", "outputs")}
    return {**dataclasses.asdict(execution), **links}


def _blessed(run: Run) -> str:
    return "" if run.blessed is None else "yes" if run.blessed else "no"


def _pushed(run: Run) -> str:
    return f"({run.pushed})" if run.unchanged else run.pushed


def took(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def plain(value: Any) -> Any:
    """What JSON can hold: times in ISO form, tuples as lists."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    return value
