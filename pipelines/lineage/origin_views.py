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
from tfx_ranking.pipelines.lineage.pages.bands import wide
from tfx_ranking.pipelines.lineage.pages.graph import artifact_key, run_title, step_key, tall
from tfx_ranking.pipelines.lineage.pages.page import (
    Cell,
    Facts,
    Graph,
    Held,
    Page,
    Row,
    Section,
    Sheet,
    Table,
    Texts,
    render,
)
from tfx_ranking.pipelines.lineage.values import Artifact, Execution, File, Lineage, Run
from tfx_ranking.pipelines.text_layout import WIDTH, clock, columns, duration, wrapped


def runs_text(runs: Sequence[Run]) -> str:
    """One line a run, a second one for what went wrong."""
    if not runs:
        return "no runs yet"
    several = len({run.pipeline for run in runs}) > 1
    heading = ["run", "state", "started", "took", "spans", "metric", "blessed", "pushed"]
    rows = [[*heading[:1], *(["pipeline"] if several else []), *heading[1:]]]
    for run in runs:
        row = [run.id, run.state, clock(run.started), duration(run.seconds), spans.said(run.spans)]
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
    time = duration((each.ended - each.started).total_seconds()) if each.state in ("done", "failed") else ""
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


def plain(value: Any) -> Any:
    """What JSON can hold: times in ISO form, tuples as lists."""
    if isinstance(value, datetime.datetime):
        return value.isoformat(timespec="milliseconds")
    if isinstance(value, Mapping):
        return {str(name): plain(held) for name, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(held) for held in value]
    return value


_RUN: dict[str, Callable[[Run], Held]] = {
    "run": lambda run: run.id,
    "pipeline": lambda run: run.pipeline,
    "state": lambda run: Cell(run.state, run.state),
    "started": lambda run: clock(run.started),
    "took": lambda run: duration(run.seconds),
    "steps": lambda run: f"{run.steps}" + (f" ({run.cached} cached)" if run.cached else ""),
    "spans": lambda run: spans.said(run.spans),
    "metric": lambda run: "" if run.value is None else f"{run.metric} {run.value:.4f}",
    "blessed": lambda run: yes_or_no(run.blessed),
    "pushed": lambda run: Cell(f"{run.pushed} (unchanged)", "quiet") if run.unchanged else run.pushed,
    "why": lambda run: run.reason,
}


def runs_page(runs: Sequence[Run]) -> str:
    """A row a run, newest first; of the columns those that say something, the pipeline where there are several."""
    several = len({run.pipeline for run in runs}) > 1
    told = {heading: of for heading, of in _RUN.items() if not runs or any(map(of, runs))}
    shown = {heading: of for heading, of in told.items() if several or heading != "pipeline"}
    rows = [Row([of(run) for of in shown.values()]) for run in runs]
    counts = collections.Counter(run.state for run in runs)
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = Table("Runs", list(shown), rows, ("took",), ("pipeline", "why"), said or "no runs yet")
    return render(Page("Pipeline runs", sections=[table]))


def lineage_page(lineage: Lineage) -> str:
    """The graph, then the steps, the files with digests, each run's config and the packages."""
    runs = list(dict.fromkeys((each.pipeline, each.run) for each in lineage.executions))
    of_run = {run: [each for each in lineage.executions if (each.pipeline, each.run) == run] for run in runs}
    sections: list[Section] = [_subject_table(lineage)] if lineage.subject else []
    if lineage.executions or lineage.artifacts:
        sections.append(_graph(lineage))
    sections.append(_steps(lineage, [each for run in runs for each in of_run[run]]))
    if not lineage.down:
        sections += _beside(lineage, of_run)
    digests = sorted({each.digest for each in lineage.subject} - {""})
    facts: list[tuple[str, Held]] = [("model", Cell(digest, "code")) for digest in digests[:1] if len(digests) == 1]
    named = sum(bool(name) for _, name in runs)
    facts.append(("shown", f"{counted(len(lineage.executions), 'step')} of {counted(named, 'run')}"))
    sheets = [_step_sheet(each) for each in lineage.executions]
    sheets += [_artifact_sheet(each, lineage) for each in lineage.artifacts.values()]
    asked = pathlib.Path(lineage.asked).name if "/" in lineage.asked else lineage.asked.replace("version:", "version ")
    title = f"What came of {asked}" if lineage.down else f"Where {asked} came from"
    return render(Page(title, [("asked for", lineage.asked), *facts], sections, sheets))


def yes_or_no(said: bool | None) -> Held:
    return "" if said is None else Cell("yes", "yes") if said else Cell("no", "no")


def artifact_links(artifacts: Iterable[int]) -> Held:
    return [Cell(f"#{each}", to=artifact_key(each)) for each in artifacts]


def counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def files_table(title: str, files: Iterable[File]) -> Table:
    """What examples were read from, with digests."""
    rows = [Row([Cell(f.path, "code"), f.split, f"{f.size:,}", Cell(f.digest, "code")]) for f in files]
    return Table(title, ("file", "split", "bytes", "digest"), rows, ("bytes",))


def _subject_table(lineage: Lineage) -> Table:
    rows = [
        Row(
            [
                artifact_links([each.id]),
                each.type,
                clock(each.made),
                Cell(str(each.properties.get("pushed_destination") or each.uri), "code"),
            ]
        )
        for each in lineage.subject
    ]
    return Table("What was asked for", ("artifact", "type", "recorded", "where"), rows)


def _graph(lineage: Lineage) -> Graph:
    titles = {step_key(each.id): _title([each.node, each.state, each.reason]) for each in lineage.executions}
    for held in lineage.artifacts.values():
        titles[artifact_key(held.id)] = _title([f"#{held.id} {held.type}", held.summary, held.uri])
    note = (
        "A card is a step, under it is what it gave; lines lead to the steps that took that. Dashed: the same bytes, "
        "copied. What stands without a card was given by a step that is not shown. Choose any to see its properties."
    )
    asked = {artifact_key(each.id) for each in lineage.subject}
    return Graph("Graph", wide(lineage), tall(lineage), asked, titles, note)


def _beside(lineage: Lineage, of_run: Mapping[tuple[str, str], Sequence[Execution]]) -> list[Section]:
    """The files, configs and packages."""
    sections: list[Section] = []
    for each in (each for steps in of_run.values() for each in steps if each.files):
        sections.append(files_table(f"Files read in {run_name(each.run)}", each.files))
    configs = {run_title(run): config_of(steps) for run, steps in of_run.items()}
    texts = [(name, _yaml(held, default_flow_style=None, sort_keys=False)) for name, held in configs.items() if held]
    if texts:
        sections.append(Texts("Config, as far as these steps read it", texts))
    for receipt in receipts(lineage):
        packages = [(str(name), str(version)) for name, version in receipt["packages"].items()]
        sections.append(Facts(f"Packages of run {receipt['run']}", packages, many=True))
    return sections


def _steps(lineage: Lineage, steps: Sequence[Execution]) -> Table:
    several = len({(each.pipeline, each.run) for each in steps}) > 1
    headings = [*(["run"] if several else []), "step", "state", "started", "took", "inputs", "outputs", "said"]
    rows = []
    for each in steps:
        given = [lineage.artifacts[link.artifact] for link in each.outputs if link.artifact in lineage.artifacts]
        said = next((artifact.summary for artifact in given if artifact.summary), "") or each.reason
        ended = each.state in ("done", "failed")
        rows.append(
            Row(
                [
                    *([each.run] if several else []),
                    Cell(each.node, to=step_key(each.id)),
                    Cell(each.state, each.state),
                    clock(each.started),
                    duration((each.ended - each.started).total_seconds()) if ended else "",
                    artifact_links(dict.fromkeys(link.artifact for link in each.inputs)),
                    artifact_links(dict.fromkeys(link.artifact for link in each.outputs)),
                    said,
                ]
            )
        )
    none = "nothing came of it" if lineage.down else "no step that led to it is known"
    return Table("Steps, the latest first", headings, rows, ("took",), ("said",), "" if rows else none)


def _step_sheet(step: Execution) -> Sheet:
    facts: list[tuple[str, Held]] = [("state", Cell(step.state, step.state))]
    facts += [("why", step.reason)] if step.reason else []
    facts += [("run", step.run), ("pipeline", step.pipeline)]
    facts += [("started", clock(step.started)), ("ended", clock(step.ended))]
    for side, links in (("inputs", step.inputs), ("outputs", step.outputs)):
        found = [Cell(f"#{link.artifact} {link.name}", to=artifact_key(link.artifact)) for link in links]
        facts += [(side, found)] if found else []
    return Sheet(step_key(step.id), f"{step.node} (step {step.id})", facts, _yaml(step.properties))


def _artifact_sheet(artifact: Artifact, lineage: Lineage) -> Sheet:
    facts: list[tuple[str, Held]] = [("said", artifact.summary)] if artifact.summary else []
    facts += [("where", Cell(artifact.uri, "code")), ("recorded", clock(artifact.made))]
    for side in ("outputs", "inputs"):
        steps = [e for e in lineage.executions if artifact.id in {link.artifact for link in getattr(e, side)}]
        found = [Cell(each.node, to=step_key(each.id)) for each in steps]
        facts += [("given by" if side == "outputs" else "taken by", found)] if found else []
    held = {name: value for name, value in artifact.properties.items() if name != "summary"}
    return Sheet(artifact_key(artifact.id), f"{artifact.type} #{artifact.id}", facts, _yaml(held))


def _yaml(held: Mapping[str, Any], **style: Any) -> str:
    """YAML for people to read; through JSON, since YAML knows fewer types than a property may be."""
    import yaml  # pages alone need it

    plain_types = json.loads(json.dumps(held, default=str))
    style = {"default_flow_style": False, **style}
    return str(yaml.safe_dump(plain_types, width=100, allow_unicode=True, **style)) if plain_types else ""


def _title(facts: Iterable[str]) -> str:
    return "\n".join(each for each in facts if each)
