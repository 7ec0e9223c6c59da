"""What served, what was touched and the models over time, as HTML pages.

Enters: the values of `lineage_serving` and `lineage_impact`.  Leaves: HTML, one file each.
"""

from collections.abc import Sequence

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage.origin_page import counted, files_table, yes_or_no
from tfx_ranking.pipelines.lineage.pages.page import Cell, Facts, Held, Page, Plot, Row, Section, Table, render
from tfx_ranking.pipelines.lineage.pages.plot import Point, chart
from tfx_ranking.pipelines.lineage.served_views import HOW, impact_line, kind_of, metric_of
from tfx_ranking.pipelines.lineage.values import Impact, Live, Model, Push, Served
from tfx_ranking.pipelines.text_layout import clock

_Found = Sequence[tuple[Push, Model | None]]


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
