"""What served, what was touched and the models over time, in three renderings: text, JSON and an HTML page.

Input: the values of `served` and `impact`.  Output: text to print, what `json.dumps` takes, or HTML in one file.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import impact
from tfx_ranking.pipelines.lineage.origin_views import counted, files_table, plain, yes_or_no
from tfx_ranking.pipelines.lineage.pages.page import Cell, Facts, Held, Page, Plot, Row, Section, Table, render
from tfx_ranking.pipelines.lineage.pages.plot import Point, chart
from tfx_ranking.pipelines.lineage.values import Impact, Live, Model, Push, Served, Touched
from tfx_ranking.pipelines.text_layout import clock, columns

HOW = {
    impact.TRAINED: "trained on it",
    impact.BEGAN: "began from a model of it",
    impact.EVALUATED: "evaluated on it",
}
_Found = Sequence[tuple[Push, Model | None]]


def served_text(found: Sequence[Served], base: str) -> str:
    """A paragraph a version: from when until when, pushed by which run with which figure, from which files."""
    return "\n\n".join([base, *("\n".join(_serving(each)) for each in found)])


def served_json(found: Sequence[Served]) -> list[dict[str, Any]]:
    """A list of objects with the fields of `Served`."""
    return [plain(dataclasses.asdict(each)) for each in found]


def impact_text(found: Impact) -> str:
    """One line a model; first which of them serve now."""
    told = [f"{found.asked}: {impact_line(found)}"]
    for at in found.live:
        which = next((each for each in found.models if at.base in each.live), None)
        seen = "" if at.seen else ", as it was recorded last (the destination cannot be seen from here)"
        serving = f"version {at.version}" if at.version else "nothing"
        of_it = f", {HOW[which.how]}" if which else ", which has nothing to do with it" if at.version else ""
        told += [f"live at {at.base}: {serving}{of_it}{seen}"]
    if found.models:
        rows = [["model", "run", "part", "spans", "metric", "blessed", "pushed as", "live"]]
        told += ["", *columns(rows + [_touched(each) for each in found.models])]
    return "\n".join(told)


def impact_json(found: Impact) -> dict[str, Any]:
    """The fields of `Impact`."""
    told: dict[str, Any] = plain(dataclasses.asdict(found))
    return told


def models_text(found: Sequence[tuple[Push, Model | None]], live: Sequence[Live]) -> str:
    """One line a push, the newest first; the version that serves now is marked."""
    if not found:
        return "no model was pushed yet"
    several = len({change.base for change, _ in found}) > 1
    serving = {(each.base, each.version) for each in live}
    heading = ["version", *(["destination"] if several else []), "pushed", "run", "spans", "metric", "", "now"]
    rows = [heading]
    for change, model in reversed(found):
        row = [change.version, *([change.base] if several else []), clock(change.at), model.run if model else "?"]
        row += [spans.said(model.spans) if model else "", metric_of(model), kind_of(change)]
        is_live = (change.base, change.version) in serving
        serving -= {(change.base, change.version)}  # marked once, where it was last pushed or labelled
        rows.append([*row, "live" if is_live else ""])
    return "\n".join(columns(rows))


def models_json(found: Sequence[tuple[Push, Model | None]], live: Sequence[Live]) -> list[dict[str, Any]]:
    """A list of `push`, `model` (null for bytes that no step exported) and `live`, oldest first."""
    serving = {(each.base, each.version) for each in live}
    return [
        {
            "push": plain(dataclasses.asdict(change)),
            "model": plain(dataclasses.asdict(model)) if model else None,
            "live": (change.base, change.version) in serving,
        }
        for change, model in found
    ]


def _serving(each: Served) -> list[str]:
    until = f"until {clock(each.until)}" if each.until else "and still"
    model = each.model
    what = f"pushed {kind_of(each.push)}".rstrip() if each.push.kind == "push" else kind_of(each.push)
    told = [f"version {each.push.version}, from {clock(each.since)} {until}", f"  {what}"]
    told[-1] += f": {each.push.reason}" * bool(each.push.reason)
    if model is None:
        return [*told, f"  model {each.push.digest or '?'}, of no step that the store knows"]
    told += [
        f"  model {model.digest}",
        f"  run   {model.run or 'none'}{f' of {model.pipeline}' * bool(model.pipeline)}",
    ]
    told += [f"  {metric_of(model)}" + {True: ", blessed", False: ", not blessed", None: ""}[model.blessed]]
    span = f"span{'s' * (len(model.spans) > 1)} {spans.said(model.spans)}, " if model.spans else ""
    told += [f"  data  {span}{len(each.files)} file{'s' * (len(each.files) != 1)}" + (":" if each.files else "")]
    return told + columns([[f"    {f.digest}", f"{f.size:,} B", f.split, f.path] for f in each.files])


def impact_line(found: Impact) -> str:
    """How many models, by the part it had in them, and how many of them were pushed."""
    if not found.models:
        return "no model was trained or evaluated on it"
    counts = {how: sum(each.how == how for each in found.models) for how in HOW}
    pushed = sum(bool(each.pushes) for each in found.models)
    parts = [f"{count:,} {HOW[how]}" for how, count in counts.items() if count]
    noun = "model" if len(found.models) == 1 else "models"
    return f"{len(found.models):,} {noun} ({', '.join(parts)}), {pushed:,} pushed"


def _touched(each: Touched) -> list[str]:
    model = each.model
    blessed = "" if model.blessed is None else "yes" if model.blessed else "no"
    versions = ", ".join(dict.fromkeys(change.version for change in each.pushes))
    live = "yes" if each.live else ""
    named = model.digest[:12] or f"#{model.id}"
    return [named, model.run, HOW[each.how], spans.said(model.spans), metric_of(model), blessed, versions, live]


def metric_of(model: Model | None) -> str:
    return f"{model.metric} {model.value:.4f}" if model and model.value is not None else ""


def kind_of(change: Push) -> str:
    """What a change was other than a plain push; "" for one."""
    if change.kind == "rollback":
        return f"rollback of {change.rollback_of} to {change.restores}"
    return f"label {change.label}" if change.kind == "label" else f"as {change.label}" if change.label else ""


def models_page(found: _Found, live: Sequence[Live]) -> str:
    """For each destination its versions' metric over time and a table of them, newest first."""
    sections: list[Section] = []
    for base in dict.fromkeys(change.base for change, _ in found):
        of_base = [(change, model) for change, model in found if change.base == base]
        marks = _marks(of_base, {each.version for each in live if each.base == base})
        sections += [*_plot(base, of_base, marks), _versions(base, of_base, marks)]
    title = "Models over time"
    return render(Page(title, [] if found else [("pushed", "no model was pushed yet")], sections))


def served_page(found: Sequence[Served], base: str) -> str:
    """What served: each version with its run, its metric and its files."""
    sections: list[Section] = []
    for each in found:
        model = each.model
        facts: list[tuple[str, Held]] = [
            ("from", clock(each.since)),
            ("until", clock(each.until) if each.until else Cell("it still serves", "live")),
            ("pushed", ": ".join(part for part in (kind_of(each.push), each.push.reason) if part)),
            ("model", Cell(each.push.digest or "?", "code")),
        ]
        if model:
            facts += [("run", model.run or "none"), ("pipeline", model.pipeline), ("spans", spans.said(model.spans))]
            facts += [("metric", metric_of(model)), ("blessed", yes_or_no(model.blessed))]
        else:
            facts.append(("run", "the store knows no step that made this model"))
        sections.append(Facts(f"Version {each.push.version}", [(name, held) for name, held in facts if held]))
        if each.files:
            sections.append(files_table(f"What version {each.push.version} was made of", each.files))
    return render(Page(f"What served below {base}", [], sections))


def impact_page(found: Impact) -> str:
    """What serves now of it, then a row a model, newest first."""
    facts: list[tuple[str, Held]] = [("found", impact_line(found))]
    for at in found.live:
        which = next((each for each in found.models if at.base in each.live), None)
        part = HOW[which.how] if which else "has nothing to do with it" if at.version else ""
        seen = "" if at.seen else "as it was recorded last; the destination cannot be seen from here"
        said = ", ".join(each for each in (f"version {at.version}" if at.version else "nothing", part, seen) if each)
        facts.append(("serves now", Cell(f"{at.base}: {said}", "live" if which else "quiet")))
    rows = [
        Row(
            [
                Cell(each.model.digest[:12] or f"#{each.model.id}", "code"),
                each.model.run,
                HOW[each.how],
                spans.said(each.model.spans),
                metric_of(each.model),
                yes_or_no(each.model.blessed),
                ", ".join(dict.fromkeys(change.version for change in each.pushes)),
                Cell("live", "live") if each.live else "",
            ]
        )
        for each in found.models
    ]
    headings = ("model", "run", "part", "spans", "metric", "blessed", "pushed as", "now")
    sources = Table(
        "Where it begins",
        ("artifact", "type", "recorded", "said", "where"),
        [Row([f"#{e.id}", e.type, clock(e.made), e.summary, Cell(e.uri, "code")]) for e in found.sources],
        (),
        ("said",),
    )
    return render(Page(f"What came of {found.asked}", facts, [Table("Models", headings, rows), sources]))


def _marks(found: _Found, serving: set[str]) -> dict[str, str]:
    """What each version is: live, rolled back, not blessed or just pushed."""
    taken_back = {change.rollback_of for change, _ in found}
    marks = {}
    for change, model in found:
        marks[change.version] = "pushed"
        if model and model.blessed is False:
            marks[change.version] = "not blessed"
        if change.version in taken_back:
            marks[change.version] = "rolled back"
        if change.version in serving:
            marks[change.version] = "live"
    return marks


def _plot(base: str, found: _Found, marks: dict[str, str]) -> list[Section]:
    """Of the metric that the newest model was judged by; none where fewer than two versions were."""
    judged = [
        (change, model) for change, model in found if model and model.value is not None and change.kind != "label"
    ]
    if not judged:
        return []
    metric = judged[-1][1].metric
    points = [
        Point(
            model.value,
            marks[change.version],
            f"{change.at.astimezone():%m-%d %H:%M}",
            f"version {change.version}, {marks[change.version]}\n{metric_of(model)}\npushed {clock(change.at)}",
            f"push-{change.id}",
        )
        for change, model in judged
        if model.metric == metric and model.value is not None
    ]
    if len(points) < 2:
        return []
    left_out = len({change.version for change, _ in found}) - len({point.key for point in points})
    note = f"{counted(left_out, 'version')} without a figure of it not shown" if left_out > 0 else ""
    return [Plot(f"{metric} of what was pushed to {base}", chart(points, 1190, 300), chart(points, 366, 260), note)]


def _versions(base: str, found: _Found, marks: dict[str, str]) -> Table:
    rows = [
        Row(
            [
                change.version,
                Cell("" if change.kind == "label" else marks[change.version], marks[change.version].replace(" ", "-")),
                clock(change.at),
                model.run if model else "?",
                spans.said(model.spans) if model else "",
                metric_of(model),
                yes_or_no(model.blessed) if model else "",
                ": ".join(part for part in (kind_of(change), change.reason) if part),
            ],
            f"push-{change.id}",
        )
        for change, model in reversed(found)
    ]
    headings = ("version", "now", "pushed", "run", "spans", "metric", "blessed", "why")
    return Table(f"Versions below {base}", headings, rows, (), ("why",))
