"""Runs and lineage in three renderings: text, JSON and an HTML page.

Input: the values of `origin`.  Output: text to print, what `json.dumps` takes, or HTML in one file.  The page shows the
facts of the text, and beside them the graph and all properties of each step and artifact.
"""

import collections
import dataclasses
import datetime
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage.origin import config_of, receipts
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, File, Lineage, Run
from tfx_ranking.pipelines.lineage.views.bands import wide
from tfx_ranking.pipelines.lineage.views.graph import artifact_key, run_title, step_key, tall
from tfx_ranking.pipelines.lineage.views.page import (
    Cell,
    CellContent,
    Facts,
    Graph,
    Page,
    Row,
    Section,
    Sheet,
    Table,
    Texts,
    render,
)
from tfx_ranking.pipelines.text_layout import WIDTH, clock, columns, duration, wrapped

_RUN_COLUMNS: dict[str, Callable[[Run], CellContent]] = {
    "run": lambda run: run.id,
    "pipeline": lambda run: run.pipeline,
    "state": lambda run: Cell(run.state, run.state),
    "started": lambda run: clock(run.started),
    "took": lambda run: duration(run.seconds),
    "steps": lambda run: f"{run.steps}" + (f" ({run.cached} cached)" if run.cached else ""),
    "spans": lambda run: spans.text(run.spans),
    "metric": lambda run: "" if run.value is None else f"{run.metric} {run.value:.4f}",
    "blessed": lambda run: yes_or_no(run.blessed),
    "pushed": lambda run: Cell(f"{run.pushed} (unchanged)", "quiet") if run.unchanged else run.pushed,
    "reason": lambda run: run.reason,
}


def runs_text(runs: Sequence[Run]) -> str:
    """One line per run, and a second line with the reason if something went wrong."""
    if not runs:
        return "no runs yet"
    several = len({run.pipeline for run in runs}) > 1
    heading = ["run", "state", "started", "took", "spans", "metric", "blessed", "pushed"]
    rows = [[*heading[:1], *(["pipeline"] if several else []), *heading[1:]]]
    for run in runs:
        row = [run.id, run.state, clock(run.started), duration(run.seconds), spans.text(run.spans)]
        row += [f"{run.metric} {run.value:.4f}" if run.value is not None else "", _blessed(run), _pushed(run)]
        rows.append([*row[:1], *([run.pipeline] if several else []), *row[1:]])
    heading_line, *run_lines = columns(rows)
    lines = [heading_line]
    for run, line in zip(runs, run_lines):
        lines += [line, *([f"  {run.reason}"] if run.reason else [])]
    return "\n".join(lines)


def runs_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """A list of objects with the fields of `Run`."""
    return [plain(dataclasses.asdict(run)) for run in runs]


def runs_page(runs: Sequence[Run]) -> str:
    """One row per run, newest first; empty columns are left out, and the pipeline's if there is only one."""
    several = len({run.pipeline for run in runs}) > 1
    filled = {heading: cell for heading, cell in _RUN_COLUMNS.items() if not runs or any(map(cell, runs))}
    shown = {heading: cell for heading, cell in filled.items() if several or heading != "pipeline"}
    rows = [Row([cell(run) for cell in shown.values()]) for run in runs]
    counts = collections.Counter(run.state for run in runs)
    note = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = Table("Runs", list(shown), rows, ("took",), ("pipeline", "reason"), note or "no runs yet")
    return render(Page("Pipeline runs", sections=[table]))


def lineage_text(lineage: Lineage) -> str:
    """The artifacts of the query, then the steps by run with their inputs and outputs.

    For an upstream lineage also the files, the configs and the packages.
    """
    lines = _subject(lineage)
    by_run = _steps_by_run(lineage)
    steps = [each for of_run in by_run.values() for each in of_run]
    rows = iter(columns([_step(each, lineage) for each in steps]))
    for (pipeline, run), of_run in by_run.items():
        lines += ["", run_name(run) + f" of {pipeline}" * bool(pipeline)]
        lines += [next(rows) for _ in of_run]
    if not steps:
        lines += ["", _no_steps(lineage)]
    if lineage.down:
        return "\n".join(lines)
    for each in reversed(steps):
        if each.files:
            lines += ["", f"files read in {run_name(each.run)}"]
            lines += columns([[f"  {f.digest}", f"{f.size:,} B", f.split, f.path] for f in each.files])
    for (_, run), of_run in by_run.items():
        lines += _config(run, of_run)
    for receipt in receipts(lineage):
        lines += ["", f"packages of run {receipt['run']}"]
        lines += wrapped("  ", [f"{name} {version}" for name, version in receipt["packages"].items()])
    return "\n".join(lines)


def lineage_json(lineage: Lineage) -> dict[str, Any]:
    """`asked` (the query), `down`, `subject` (artifacts), `executions` with links and files, `artifacts` by id,
    `receipts`."""
    return {
        "asked": lineage.query,
        "down": lineage.down,
        "subject": [plain(dataclasses.asdict(each)) for each in lineage.subject],
        "executions": [
            plain({**_with_links(each), "files": [dataclasses.asdict(file) for file in each.files]})
            for each in lineage.executions
        ],
        "artifacts": {str(i): plain(dataclasses.asdict(each)) for i, each in lineage.artifacts.items()},
        "receipts": receipts(lineage),
    }


def lineage_page(lineage: Lineage) -> str:
    """The graph, then the steps; for an upstream lineage also the files with digests, the configs and the packages."""
    by_run = _steps_by_run(lineage)
    sections: list[Section] = [_subject_table(lineage)] if lineage.subject else []
    if lineage.executions or lineage.artifacts:
        sections.append(_graph(lineage))
    sections.append(_steps_table(lineage, [each for steps in by_run.values() for each in steps]))
    if not lineage.down:
        sections += _files_configs_packages(lineage, by_run)
    digests = sorted({each.digest for each in lineage.subject} - {""})
    facts: list[tuple[str, CellContent]] = [("query", lineage.query)]
    facts += [("model", Cell(digest, "code")) for digest in digests[:1] if len(digests) == 1]
    named = sum(bool(name) for _, name in by_run)
    facts.append(("shown", f"{counted(len(lineage.executions), 'step')} of {counted(named, 'run')}"))
    sheets = [_step_sheet(each) for each in lineage.executions]
    sheets += [_artifact_sheet(each, lineage) for each in lineage.artifacts.values()]
    name = pathlib.Path(lineage.query).name if "/" in lineage.query else lineage.query.replace("version:", "version ")
    title = f"Outputs of {name}" if lineage.down else f"Origin of {name}"
    return render(Page(title, facts, sections, sheets))


def yes_or_no(value: bool | None) -> CellContent:
    """A page's cell for a bool; "" for None."""
    return "" if value is None else Cell("yes", "yes") if value else Cell("no", "no")


def artifact_links(artifacts: Iterable[int]) -> CellContent:
    """A page's cell with links to artifacts."""
    return [Cell(f"#{each}", to=artifact_key(each)) for each in artifacts]


def counted(count: int, noun: str) -> str:
    """
    >>> counted(1, "step"), counted(2, "step")
    ('1 step', '2 steps')
    """
    return f"{count} {noun}" + ("" if count == 1 else "s")


def files_table(title: str, files: Iterable[File]) -> Table:
    """A page's table of files that examples were read from, with digests."""
    rows = [Row([Cell(f.path, "code"), f.split, f"{f.size:,}", Cell(f.digest, "code")]) for f in files]
    return Table(title, ("file", "split", "bytes", "digest"), rows, ("bytes",))


def run_name(run: str) -> str:
    """A run in a heading; "" is a component that ran alone, for example in a notebook."""
    return f"run {run}" if run else "no run"


def plain(value: Any) -> Any:
    """A value with types that JSON has: times in ISO form, tuples as lists."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value


def _steps_by_run(lineage: Lineage) -> dict[tuple[str, str], list[Execution]]:
    """The steps by pipeline and run, both latest first."""
    by_run: dict[tuple[str, str], list[Execution]] = {}
    for each in lineage.executions:
        by_run.setdefault((each.pipeline, each.run), []).append(each)
    return by_run


def _no_steps(lineage: Lineage) -> str:
    return "no step used it" if lineage.down else "no step that produced it is known"


def _summary(step: Execution, lineage: Lineage) -> str:
    """The first summary among a step's outputs; without one, the reason why it failed."""
    outputs = [lineage.artifacts[link.artifact] for link in step.outputs if link.artifact in lineage.artifacts]
    return next((artifact.summary for artifact in outputs if artifact.summary), "") or step.reason


def _duration(step: Execution) -> str:
    ended = step.state in ("done", "failed")
    return duration((step.ended - step.started).total_seconds()) if ended else ""


def _location(artifact: Artifact) -> str:
    return str(artifact.properties.get("pushed_destination") or artifact.uri)


def _subject(lineage: Lineage) -> list[str]:
    digests = {each.digest for each in lineage.subject}
    lines = [f"model {digest}" for digest in digests if digest and len(digests) == 1]
    rows = [[f"  #{each.id}", each.type, clock(each.made), _location(each)] for each in lineage.subject]
    return [*(lines or [lineage.query]), *columns(rows)]


def _step(each: Execution, lineage: Lineage) -> list[str]:
    inputs, outputs = (" ".join(f"#{link.artifact}" for link in links) for links in (each.inputs, each.outputs))
    row = [f"  {each.node}", each.state, clock(each.started), _duration(each), inputs, "→", outputs]
    return [*row, _summary(each, lineage)]


def _config(run: str, steps: Sequence[Execution]) -> list[str]:
    """The config's sections, one per line, cut to the width."""
    config = config_of(steps)
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()}
    room = WIDTH - 13
    lines = [f"  {name:<10} {text if len(text) <= room else text[: room - 1] + '…'}" for name, text in texts.items()]
    return ["", f"config of {run_name(run)}, as far as these steps read it", *lines] if config else []


def _with_links(execution: Execution) -> dict[str, Any]:
    links = {side: [link._asdict() for link in getattr(execution, side)] for side in ("inputs", "outputs")}
    return {**dataclasses.asdict(execution), **links}


def _blessed(run: Run) -> str:
    return "" if run.blessed is None else "yes" if run.blessed else "no"


def _pushed(run: Run) -> str:
    return f"({run.pushed})" if run.unchanged else run.pushed


def _subject_table(lineage: Lineage) -> Table:
    rows = [
        Row([artifact_links([each.id]), each.type, clock(each.made), Cell(_location(each), "code")])
        for each in lineage.subject
    ]
    return Table("Artifacts of the query", ("artifact", "type", "recorded", "location"), rows)


def _graph(lineage: Lineage) -> Graph:
    titles = {step_key(each.id): _title([each.node, each.state, each.reason]) for each in lineage.executions}
    for each in lineage.artifacts.values():
        titles[artifact_key(each.id)] = _title([f"#{each.id} {each.type}", each.summary, each.uri])
    note = (
        "A card is a step; its outputs stand below it. Lines lead from an output to the steps that used it. A dashed "
        "line connects a model with its copy. An artifact without a card is the output of a step that is not shown. "
        "Select a step or an artifact to see its properties."
    )
    selected = {artifact_key(each.id) for each in lineage.subject}
    return Graph("Graph", wide(lineage), tall(lineage), selected, titles, note)


def _files_configs_packages(lineage: Lineage, by_run: Mapping[tuple[str, str], Sequence[Execution]]) -> list[Section]:
    sections: list[Section] = []
    for each in (each for steps in by_run.values() for each in steps if each.files):
        sections.append(files_table(f"Files read in {run_name(each.run)}", each.files))
    configs = {run_title(run): config_of(steps) for run, steps in by_run.items()}
    texts = [(name, _yaml(each, default_flow_style=None, sort_keys=False)) for name, each in configs.items() if each]
    if texts:
        sections.append(Texts("Config, as far as these steps read it", texts))
    for receipt in receipts(lineage):
        packages = [(str(name), str(version)) for name, version in receipt["packages"].items()]
        sections.append(Facts(f"Packages of run {receipt['run']}", packages, many=True))
    return sections


def _steps_table(lineage: Lineage, steps: Sequence[Execution]) -> Table:
    several = len({(each.pipeline, each.run) for each in steps}) > 1
    headings = ["step", "state", "started", "took", "inputs", "outputs", "summary"]
    rows = [
        [
            Cell(each.node, to=step_key(each.id)),
            Cell(each.state, each.state),
            clock(each.started),
            _duration(each),
            artifact_links(dict.fromkeys(link.artifact for link in each.inputs)),
            artifact_links(dict.fromkeys(link.artifact for link in each.outputs)),
            _summary(each, lineage),
        ]
        for each in steps
    ]
    if several:
        headings = ["run", *headings]
        rows = [[each.run, *row] for each, row in zip(steps, rows)]
    note = "" if rows else _no_steps(lineage)
    return Table("Steps, latest first", headings, [Row(row) for row in rows], ("took",), ("summary",), note)


def _step_sheet(step: Execution) -> Sheet:
    facts: list[tuple[str, CellContent]] = [("state", Cell(step.state, step.state))]
    facts += [("reason", step.reason)] if step.reason else []
    facts += [("run", step.run), ("pipeline", step.pipeline)]
    facts += [("started", clock(step.started)), ("ended", clock(step.ended))]
    for side, links in (("inputs", step.inputs), ("outputs", step.outputs)):
        cells = [Cell(f"#{link.artifact} {link.name}", to=artifact_key(link.artifact)) for link in links]
        facts += [(side, cells)] if cells else []
    return Sheet(step_key(step.id), f"{step.node} (step {step.id})", facts, _yaml(step.properties))


def _artifact_sheet(artifact: Artifact, lineage: Lineage) -> Sheet:
    facts: list[tuple[str, CellContent]] = [("summary", artifact.summary)] if artifact.summary else []
    facts += [("location", Cell(artifact.uri, "code")), ("recorded", clock(artifact.made))]
    for side, label in (("outputs", "output of"), ("inputs", "input of")):
        steps = [each for each in lineage.executions if artifact.id in {link.artifact for link in getattr(each, side)}]
        cells = [Cell(each.node, to=step_key(each.id)) for each in steps]
        facts += [(label, cells)] if cells else []
    properties = {name: value for name, value in artifact.properties.items() if name != "summary"}
    return Sheet(artifact_key(artifact.id), f"{artifact.type} #{artifact.id}", facts, _yaml(properties))


def _yaml(properties: Mapping[str, Any], **style: Any) -> str:
    """Properties as YAML; by way of JSON, since a property may have a type that YAML does not know."""
    import yaml  # only pages need it

    json_types = json.loads(json.dumps(properties, default=str))
    style = {"default_flow_style": False, **style}
    return str(yaml.safe_dump(json_types, width=100, allow_unicode=True, **style)) if json_types else ""


def _title(facts: Iterable[str]) -> str:
    return "\n".join(each for each in facts if each)
