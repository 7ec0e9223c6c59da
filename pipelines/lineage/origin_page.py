"""Runs and lineage as HTML pages.

Enters: the values of `lineage`.  Leaves: HTML, one file each.  The one idea: what stands in the text stands in the
page, and beside it the graph and all that the store holds of each step and artifact.
"""

import collections
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import yaml

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import origin_views as views
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
from tfx_ranking.pipelines.text_layout import clock

_RUN: dict[str, Callable[[Run], Held]] = {
    "run": lambda run: run.id,
    "pipeline": lambda run: run.pipeline,
    "state": lambda run: Cell(run.state, run.state),
    "started": lambda run: clock(run.started),
    "took": lambda run: views.took(run.seconds),
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
    columns = {heading: of for heading, of in told.items() if several or heading != "pipeline"}
    rows = [Row([of(run) for of in columns.values()]) for run in runs]
    counts = collections.Counter(run.state for run in runs)
    said = ", ".join(f"{count} {state}" for state, count in counts.items() if count)
    table = Table("Runs", list(columns), rows, ("took",), ("pipeline", "why"), said or "no runs yet")
    return render(Page("Pipeline runs", sections=[table]))


def lineage_page(lineage: Lineage) -> str:
    """The graph, then the steps, the files with digests, each run's config and the packages."""
    runs = list(dict.fromkeys((each.pipeline, each.run) for each in lineage.executions))
    of_run = {run: [each for each in lineage.executions if (each.pipeline, each.run) == run] for run in runs}
    sections: list[Section] = [_subject(lineage)] if lineage.subject else []
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


def _subject(lineage: Lineage) -> Table:
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
        sections.append(files_table(f"Files read in {views.run_name(each.run)}", each.files))
    configs = {run_title(run): config_of(steps) for run, steps in of_run.items()}
    texts = [
        (name, yaml.safe_dump(held, default_flow_style=None, sort_keys=False, width=100, allow_unicode=True))
        for name, held in configs.items()
        if held
    ]
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
                    views.took((each.ended - each.started).total_seconds()) if ended else "",
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


def _yaml(held: Mapping[str, Any]) -> str:
    """As people read it; through JSON, since YAML knows fewer types than a property may be."""
    plain = json.loads(json.dumps(held, default=str))
    return yaml.safe_dump(plain, default_flow_style=False, width=100, allow_unicode=True) if plain else ""


def _title(facts: Iterable[str]) -> str:
    return "\n".join(each for each in facts if each)
