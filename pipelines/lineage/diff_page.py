"""A diff of two runs or models as an HTML page.

Enters: `lineage_diff.Diff`.  Leaves: HTML, one file.
"""

from collections.abc import Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage.diff import Change, Diff, Moved, told
from tfx_ranking.pipelines.lineage.diff_views import question
from tfx_ranking.pipelines.lineage.origin_views import run_name
from tfx_ranking.pipelines.lineage.pages.page import Cell, Held, Page, Row, Section, Table, render
from tfx_ranking.pipelines.lineage.sides import Side

_BEFORE_AFTER = ("before", "after")


def diff_page(diff: Diff) -> str:
    """The two sides, the metrics, what could explain their change, then what differs, a table a kind."""
    sides = Table("What is compared", ("", *_BEFORE_AFTER), _sides(diff.before, diff.after), (), _BEFORE_AFTER)
    causes = [Row([str(i), cause]) for i, cause in enumerate(diff.causes, 1)]
    moved = [_moved(each) for each in diff.features if each.moved]
    words = [Row([each.name, *(f"{count:,}" for count in each[1:])]) for each in diff.vocabularies]
    contract = [Row([each]) for each in diff.contract.differences] if diff.contract else []
    numbers = (*_BEFORE_AFTER, "distance", "new", "gone")
    tables = [
        _metrics("Metrics", diff.metrics),
        _metrics("Both models over the lists of the second", diff.same_lists),
        Table(question(diff).capitalize(), ("", "reason"), causes, (), ("reason",)),
        _changes("Data", diff.data),
        Table(
            "Features that moved, of the train split",
            ("feature", "role", "distance", "of", *_BEFORE_AFTER, "missing before", "missing after"),
            moved,
            (*numbers, "missing before", "missing after"),
        ),
        Table("Vocabularies", ("feature", *_BEFORE_AFTER, "gone", "new"), words, numbers),
        _changes("Config", diff.config),
        _changes("Code", diff.code),
        _changes("Packages", diff.packages),
        Table(f"Contract: {diff.contract.verdict if diff.contract else ''}", ("what changed",), contract),
        Table("Not compared", ("what and why",), [Row([each]) for each in diff.unknown], (), ("what and why",)),
    ]  # fmt: skip
    facts: list[tuple[str, Held]] = [] if diff.causes else [("found", "nothing that is recorded differs")]
    sections: list[Section] = [sides, *(each for each in tables if each.rows)]
    return render(Page(f"From {diff.before.asked} to {diff.after.asked}", facts, sections))


def _sides(before: Side, after: Side) -> list[Row]:
    rows: dict[str, list[Held]] = {
        "run": [run_name(side.run) for side in (before, after)],
        "pipeline": [side.pipeline for side in (before, after)],
        "model": [
            Cell(side.model.digest[:12] or f"#{side.model.id}", "code") if side.model else "none"
            for side in (before, after)
        ],
        "examples": [
            f"#{side.examples.id}: {side.examples.summary}" if side.examples else "none" for side in (before, after)
        ],
        "span": [
            spans.said(side.examples.spans) if side.examples and side.examples.spans else "" for side in (before, after)
        ],
    }
    return [Row([name, *held]) for name, held in rows.items() if any(held)]


def _metrics(title: str, metrics: Sequence[Change]) -> Table:
    rows = [Row([each.name, _figure(each.before), _figure(each.after), _change(each)]) for each in metrics]
    return Table(title, ("metric", *_BEFORE_AFTER, "change"), rows, (*_BEFORE_AFTER, "change"))


def _changes(title: str, changes: Sequence[Change]) -> Table:
    rows = [Row([each.name, _said(each, each.before), _said(each, each.after)]) for each in changes]
    return Table(title, ("what", *_BEFORE_AFTER), rows, (), ("what", *_BEFORE_AFTER))


def _said(change: Change, value: Any) -> Held:
    if change.name.startswith("file "):
        return Cell(value, "code") if value else "not there"
    return told(value)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _change(each: Change) -> str:
    if each.before is None or each.after is None:
        return ""
    return f"{each.after - each.before:+.4f}"


def _moved(each: Moved) -> Row:
    figures = [f"{value:.2%}" if each.value else f"{value:.4g}" for value in (each.before, each.after)]
    of = f"share of {each.value!r}" if each.value else "mean"
    missing = [f"{value:.1%}" for value in (each.missing_before, each.missing_after)]
    return Row([each.name, each.role, f"{each.distance:.3f}", of, *figures, *missing])
