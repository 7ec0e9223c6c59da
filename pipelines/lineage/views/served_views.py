"""Serving periods, impact and the models over time in three renderings: text, JSON and an HTML page.

Input: the values of `served` and `impact`.  Output: text to print, what `json.dumps` takes, or HTML in one file.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage import impact as impact_kinds
from tfx_ranking.pipelines.lineage.values import (
    AffectedModel,
    Impact,
    LiveVersion,
    ModelRecord,
    PushEvent,
    ServingPeriod,
)
from tfx_ranking.pipelines.lineage.views.origin_views import counted, files_table, plain, yes_or_no
from tfx_ranking.pipelines.lineage.views.page import Cell, CellContent, Facts, Page, Plot, Row, Section, Table, render
from tfx_ranking.pipelines.lineage.views.plot import Point, chart
from tfx_ranking.pipelines.text_layout import clock, columns

CONTRIBUTIONS = {
    impact_kinds.TRAINED: "trained on it",
    impact_kinds.BEGAN: "started from a model trained on it",
    impact_kinds.EVALUATED: "evaluated on it",
}
Versions = Sequence[tuple[PushEvent, ModelRecord | None]]


def served_text(periods: Sequence[ServingPeriod], base: str) -> str:
    """One paragraph per version: when it served, which run pushed it with which metric, and its files."""
    return "\n\n".join([base, *("\n".join(_period(each)) for each in periods)])


def served_json(periods: Sequence[ServingPeriod]) -> list[dict[str, Any]]:
    """A list of objects with the fields of `ServingPeriod`."""
    return [plain(dataclasses.asdict(each)) for each in periods]


def served_page(periods: Sequence[ServingPeriod], base: str) -> str:
    """Each version that served, with its run, its metric and its files."""
    sections: list[Section] = []
    for each in periods:
        model = each.model
        facts: list[tuple[str, CellContent]] = [
            ("from", clock(each.since)),
            ("until", clock(each.until) if each.until else Cell("now", "live")),
            ("reason", _push_reason(each.push)),
            ("model", Cell(each.push.digest or "?", "code")),
        ]
        if model:
            facts += [
                ("run", model.run or "none"),
                ("pipeline", model.pipeline),
                ("spans", spans.text(model.spans)),
            ]
            facts += [("metric", metric_text(model)), ("blessed", yes_or_no(model.blessed))]
        else:
            facts.append(("run", "unknown: the store has no step that made this model"))
        sections.append(Facts(f"Version {each.push.version}", [(name, content) for name, content in facts if content]))
        if each.files:
            sections.append(files_table(f"Training files of version {each.push.version}", each.files))
    return render(Page(f"Versions served from {base}", [], sections))


def impact_text(impact: Impact) -> str:
    """What serves now, then one line per model."""
    lines = [f"{impact.query}: {impact_summary(impact)}"]
    for live in impact.live:
        model = _live_model(impact, live)
        serving = f"version {live.version}" if live.version else "nothing"
        relation = f", {CONTRIBUTIONS[model.how]}" if model else ", which is not affected" if live.version else ""
        seen = "" if live.seen else ", by the last record (the destination is out of reach from here)"
        lines += [f"live at {live.base}: {serving}{relation}{seen}"]
    if impact.models:
        rows = [["model", "run", "contribution", "spans", "metric", "blessed", "pushed as", "live"]]
        lines += ["", *columns(rows + [_affected(each) for each in impact.models])]
    return "\n".join(lines)


def impact_json(impact: Impact) -> dict[str, Any]:
    """The fields of `Impact`; the query is `asked`."""
    fields = dataclasses.asdict(impact)
    json_fields: dict[str, Any] = plain({"asked": fields.pop("query"), **fields})
    return json_fields


def impact_page(impact: Impact) -> str:
    """What serves now, then one row per model, newest first."""
    facts: list[tuple[str, CellContent]] = [("result", impact_summary(impact))]
    for live in impact.live:
        model = _live_model(impact, live)
        relation = CONTRIBUTIONS[model.how] if model else "not affected" if live.version else ""
        seen = "" if live.seen else "by the last record; the destination is out of reach from here"
        version = f"version {live.version}" if live.version else "nothing"
        text = ", ".join(each for each in (version, relation, seen) if each)
        facts.append(("serves now", Cell(f"{live.base}: {text}", "live" if model else "quiet")))
    rows = [
        Row(
            [
                Cell(each.model.digest[:12] or f"#{each.model.id}", "code"),
                each.model.run,
                CONTRIBUTIONS[each.how],
                spans.text(each.model.spans),
                metric_text(each.model),
                yes_or_no(each.model.blessed),
                ", ".join(dict.fromkeys(event.version for event in each.pushes)),
                Cell("live", "live") if each.live else "",
            ]
        )
        for each in impact.models
    ]
    headings = ("model", "run", "contribution", "spans", "metric", "blessed", "pushed as", "now")
    sources = Table(
        "Sources",
        ("artifact", "type", "recorded", "summary", "location"),
        [Row([f"#{e.id}", e.type, clock(e.made), e.summary, Cell(e.uri, "code")]) for e in impact.sources],
        (),
        ("summary",),
    )
    title = f"Models affected by {impact.query}"
    return render(Page(title, facts, [Table("Models", headings, rows), sources]))


def models_text(versions: Versions, live: Sequence[LiveVersion]) -> str:
    """One line per push, newest first; the version that serves now is marked."""
    if not versions:
        return "no model was pushed yet"
    several = len({event.base for event, _ in versions}) > 1
    serving = {(each.base, each.version) for each in live}
    rows = [["version", *(["destination"] if several else []), "pushed", "run", "spans", "metric", "", "now"]]
    for event, model in reversed(versions):
        row = [event.version, *([event.base] if several else []), clock(event.at), model.run if model else "?"]
        row += [spans.text(model.spans) if model else "", metric_text(model), kind_text(event)]
        is_live = (event.base, event.version) in serving
        serving -= {(event.base, event.version)}  # marked once, at its newest push or label
        rows.append([*row, "live" if is_live else ""])
    return "\n".join(columns(rows))


def models_json(versions: Versions, live: Sequence[LiveVersion]) -> list[dict[str, Any]]:
    """A list of `push`, `model` (null if no step exported these bytes) and `live`, oldest first."""
    serving = {(each.base, each.version) for each in live}
    return [
        {
            "push": plain(dataclasses.asdict(event)),
            "model": plain(dataclasses.asdict(model)) if model else None,
            "live": (event.base, event.version) in serving,
        }
        for event, model in versions
    ]


def models_page(versions: Versions, live: Sequence[LiveVersion]) -> str:
    """For each destination a plot of the metric over its versions, and a table of them, newest first."""
    sections: list[Section] = []
    for base in dict.fromkeys(event.base for event, _ in versions):
        of_base = [(event, model) for event, model in versions if event.base == base]
        states = _version_states(of_base, {each.version for each in live if each.base == base})
        sections += [*_plot(base, of_base, states), _versions_table(base, of_base, states)]
    facts = [] if versions else [("pushed", "no model was pushed yet")]
    return render(Page("Models over time", facts, sections))


def impact_summary(impact: Impact) -> str:
    """How many models are affected, by contribution, and how many of them were pushed."""
    if not impact.models:
        return "no model was trained or evaluated on it"
    counts = {how: sum(each.how == how for each in impact.models) for how in CONTRIBUTIONS}
    pushed = sum(bool(each.pushes) for each in impact.models)
    parts = [f"{count:,} {CONTRIBUTIONS[how]}" for how, count in counts.items() if count]
    noun = "model" if len(impact.models) == 1 else "models"
    return f"{len(impact.models):,} {noun} ({', '.join(parts)}), {pushed:,} pushed"


def metric_text(model: ModelRecord | None) -> str:
    """A model's deciding metric and its value; "" if it has none."""
    return f"{model.metric} {model.value:.4f}" if model and model.value is not None else ""


def kind_text(event: PushEvent) -> str:
    """The kind of a change; "" for a push without a label."""
    if event.kind == "rollback":
        return f"rollback of {event.rollback_of} to {event.restores}"
    return f"label {event.label}" if event.kind == "label" else f"as {event.label}" if event.label else ""


def _period(each: ServingPeriod) -> list[str]:
    until = clock(each.until) if each.until else "now"
    model, push = each.model, each.push
    what = f"pushed {kind_text(push)}".rstrip() if push.kind == "push" else kind_text(push)
    lines = [f"version {push.version}, from {clock(each.since)} until {until}", f"  {what}"]
    lines[-1] += f": {push.reason}" * bool(push.reason)
    if model is None:
        return [*lines, f"  model {push.digest or '?'}; the store has no step that made it"]
    lines += [
        f"  model {model.digest}",
        f"  run   {model.run or 'none'}{f' of {model.pipeline}' * bool(model.pipeline)}",
    ]
    lines += [f"  {metric_text(model)}" + {True: ", blessed", False: ", not blessed", None: ""}[model.blessed]]
    span = f"span{'s' * (len(model.spans) > 1)} {spans.text(model.spans)}, " if model.spans else ""
    lines += [f"  data  {span}{counted(len(each.files), 'file')}" + (":" if each.files else "")]
    return lines + columns([[f"    {f.digest}", f"{f.size:,} B", f.split, f.path] for f in each.files])


def _push_reason(event: PushEvent) -> str:
    return ": ".join(part for part in (kind_text(event), event.reason) if part)


def _live_model(impact: Impact, live: LiveVersion) -> AffectedModel | None:
    """The affected model that serves at a destination; None if another model, or nothing, serves there."""
    return next((each for each in impact.models if live.base in each.live), None)


def _affected(each: AffectedModel) -> list[str]:
    model = each.model
    blessed = "" if model.blessed is None else "yes" if model.blessed else "no"
    versions = ", ".join(dict.fromkeys(event.version for event in each.pushes))
    name = model.digest[:12] or f"#{model.id}"
    row = [
        name,
        model.run,
        CONTRIBUTIONS[each.how],
        spans.text(model.spans),
        metric_text(model),
        blessed,
        versions,
    ]
    return [*row, "yes" if each.live else ""]


def _version_states(versions: Versions, serving: set[str]) -> dict[str, str]:
    """The state of each version: live, rolled back, not blessed or pushed."""
    rolled_back = {event.rollback_of for event, _ in versions}
    states = {}
    for event, model in versions:
        states[event.version] = "pushed"
        if model and model.blessed is False:
            states[event.version] = "not blessed"
        if event.version in rolled_back:
            states[event.version] = "rolled back"
        if event.version in serving:
            states[event.version] = "live"
    return states


def _plot(base: str, versions: Versions, states: dict[str, str]) -> list[Section]:
    """A plot of the newest model's metric; none if fewer than two versions have it."""
    evaluated = [
        (event, model) for event, model in versions if model and model.value is not None and event.kind != "label"
    ]
    if not evaluated:
        return []
    metric = evaluated[-1][1].metric
    points = [
        Point(
            value=model.value,
            kind=states[event.version],
            label=f"{event.at.astimezone():%m-%d %H:%M}",
            title=f"version {event.version}, {states[event.version]}\n{metric_text(model)}\npushed {clock(event.at)}",
            key=f"push-{event.id}",
        )
        for event, model in evaluated
        if model.metric == metric and model.value is not None
    ]
    if len(points) < 2:
        return []
    left_out = len({event.version for event, _ in versions}) - len({point.key for point in points})
    note = f"Not shown: {counted(left_out, 'version')} without a value." if left_out > 0 else ""
    title = f"{metric} of the versions pushed to {base}"
    return [Plot(title, chart(points, 1190, 300), chart(points, 366, 260), note)]


def _versions_table(base: str, versions: Versions, states: dict[str, str]) -> Table:
    rows = [
        Row(
            [
                event.version,
                Cell("" if event.kind == "label" else states[event.version], states[event.version].replace(" ", "-")),
                clock(event.at),
                model.run if model else "?",
                spans.text(model.spans) if model else "",
                metric_text(model),
                yes_or_no(model.blessed) if model else "",
                _push_reason(event),
            ],
            f"push-{event.id}",
        )
        for event, model in reversed(versions)
    ]
    headings = ("version", "now", "pushed", "run", "spans", "metric", "blessed", "reason")
    return Table(f"Versions at {base}", headings, rows, (), ("reason",))
