"""A diff of two runs or models in three renderings: text, JSON and an HTML page.

Input: a `Diff`.  Output: text to print, what `json.dumps` takes, or HTML in one file.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage.diff import Change, Diff, Moved, told
from tfx_ranking.pipelines.lineage.origin_views import plain, run_name
from tfx_ranking.pipelines.lineage.pages.page import Cell, Held, Page, Row, Section, Table, render
from tfx_ranking.pipelines.lineage.sides import Side
from tfx_ranking.pipelines.text_layout import columns

SHOWN = 20  # rows of a section; JSON has them all
_BEFORE_AFTER = ("before", "after")


def diff_text(diff: Diff) -> str:
    """The two sides, the metrics, what could explain their change, then what differs, a section a kind."""
    sides = columns([["before", *_side(diff.before)], ["after", *_side(diff.after)]])
    sections = [
        ("metrics", [_metric(each) for each in diff.metrics]),
        ("both models over the lists of the second", [_metric(each) for each in diff.same_lists]),
        (question(diff), [[f"{i}.", c] for i, c in enumerate(diff.causes, 1)]),
        ("data", [_change(each) for each in diff.data]),
        ("features that moved, of the train split", [_moved(each) for each in diff.features if each.moved]),
        ("vocabularies", [_words(*each) for each in diff.vocabularies]),
        ("config", [_change(each) for each in diff.config]),
        ("code", [_change(each) for each in diff.code]),
        ("packages", [_change(each) for each in diff.packages]),
        ("contract", _contract(diff)),
        ("not compared", [[each] for each in diff.unknown]),
    ]
    lines = list(sides)
    for title, rows in sections:
        if rows:
            more = len(rows) - SHOWN
            lines += ["", title, *(f"  {row}" for row in columns(rows[:SHOWN]))]
            lines += [f"  … and {more:,} more"] if more > 0 else []
    if not diff.causes:
        lines += ["", "nothing that is recorded differs"]
    return "\n".join(lines)


def diff_json(diff: Diff) -> dict[str, Any]:
    """The fields of `Diff`; a change is an object with `name`, `before`, `after`."""
    held = {field.name: getattr(diff, field.name) for field in dataclasses.fields(diff)}
    held |= {side: dataclasses.asdict(held[side]) for side in ("before", "after")}
    for name, value in held.items():
        if isinstance(value, tuple) and value and hasattr(value[0], "_asdict"):
            held[name] = [each._asdict() for each in value]
    held["contract"] = diff.contract._asdict() if diff.contract else None
    plained: dict[str, Any] = plain(held)
    return plained


def question(diff: Diff) -> str:
    decided = diff.metrics[0] if diff.metrics else None
    if decided is None or decided.before is None or decided.after is None:
        return "what differs, the weightiest first"
    moved = decided.after - decided.before
    return f"what could explain the change of {decided.name} ({moved:+.4f}), the likeliest first"


def _side(side: Side) -> list[str]:
    model = f"model {side.model.digest[:12] or '#' + str(side.model.id)}" if side.model else "no model"
    examples = side.examples
    data = f"examples #{examples.id}: {examples.summary}" if examples else "no examples"
    several = "spans" if examples and len(examples.spans) > 1 else "span"
    if examples and examples.spans and several not in examples.summary:
        data += f", {several} {spans.said(examples.spans)}"
    return [run_name(side.run), model, data, side.problem]


def _metric(change: Change) -> list[str]:
    before, after = ("none" if each is None else f"{each:.4f}" for each in (change.before, change.after))
    both = change.before is not None and change.after is not None
    return [change.name, before, "→", after, f"{change.after - change.before:+.4f}" if both else ""]


def _change(change: Change) -> list[str]:
    if change.name.startswith("file "):
        became = "new" if change.before is None else "gone" if change.after is None else "other bytes"
        return [change.name, became]
    return [change.name, told(change.before), "→", told(change.after)]


def _moved(each: Moved) -> list[str]:
    what = f"share of {each.value!r}" if each.value else "mean"
    figures = [f"{value:.2%}" if each.value else f"{value:.4g}" for value in (each.before, each.after)]
    row = [each.name, "" if each.role == "feature" else each.role, f"by {each.distance:.3f}", what]
    row += [figures[0], "→", figures[1]]
    changed = each.missing_before != each.missing_after
    return [*row, f"missing {each.missing_before:.1%} → {each.missing_after:.1%}" if changed else ""]


def _words(name: str, before: int, after: int, gone: int, new: int) -> list[str]:
    return [name, f"{before:,}", "→", f"{after:,} values", f"{new:,} new, {gone:,} gone"]


def _contract(diff: Diff) -> Sequence[Sequence[str]]:
    if diff.contract is None:
        return []
    return [[diff.contract.verdict], *([f"  {each}"] for each in diff.contract.differences)]


def diff_page(diff: Diff) -> str:
    """The two sides, the metrics, what could explain their change, then what differs, a table a kind."""
    sides = Table("What is compared", ("", *_BEFORE_AFTER), _sides_table(diff.before, diff.after), (), _BEFORE_AFTER)
    causes = [Row([str(i), cause]) for i, cause in enumerate(diff.causes, 1)]
    moved = [_moved_row(each) for each in diff.features if each.moved]
    words = [Row([each.name, *(f"{count:,}" for count in each[1:])]) for each in diff.vocabularies]
    contract = [Row([each]) for each in diff.contract.differences] if diff.contract else []
    numbers = (*_BEFORE_AFTER, "distance", "new", "gone")
    tables = [
        _metrics_table("Metrics", diff.metrics),
        _metrics_table("Both models over the lists of the second", diff.same_lists),
        Table(question(diff).capitalize(), ("", "reason"), causes, (), ("reason",)),
        _changes_table("Data", diff.data),
        Table(
            "Features that moved, of the train split",
            ("feature", "role", "distance", "of", *_BEFORE_AFTER, "missing before", "missing after"),
            moved,
            (*numbers, "missing before", "missing after"),
        ),
        Table("Vocabularies", ("feature", *_BEFORE_AFTER, "gone", "new"), words, numbers),
        _changes_table("Config", diff.config),
        _changes_table("Code", diff.code),
        _changes_table("Packages", diff.packages),
        Table(f"Contract: {diff.contract.verdict if diff.contract else ''}", ("what changed",), contract),
        Table("Not compared", ("what and why",), [Row([each]) for each in diff.unknown], (), ("what and why",)),
    ]  # fmt: skip
    facts: list[tuple[str, Held]] = [] if diff.causes else [("found", "nothing that is recorded differs")]
    sections: list[Section] = [sides, *(each for each in tables if each.rows)]
    return render(Page(f"From {diff.before.asked} to {diff.after.asked}", facts, sections))


def _sides_table(before: Side, after: Side) -> list[Row]:
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


def _metrics_table(title: str, metrics: Sequence[Change]) -> Table:
    rows = [Row([each.name, _figure(each.before), _figure(each.after), _difference(each)]) for each in metrics]
    return Table(title, ("metric", *_BEFORE_AFTER, "change"), rows, (*_BEFORE_AFTER, "change"))


def _changes_table(title: str, changes: Sequence[Change]) -> Table:
    rows = [Row([each.name, _said(each, each.before), _said(each, each.after)]) for each in changes]
    return Table(title, ("what", *_BEFORE_AFTER), rows, (), ("what", *_BEFORE_AFTER))


def _said(change: Change, value: Any) -> Held:
    if change.name.startswith("file "):
        return Cell(value, "code") if value else "not there"
    return told(value)


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _difference(each: Change) -> str:
    if each.before is None or each.after is None:
        return ""
    return f"{each.after - each.before:+.4f}"


def _moved_row(each: Moved) -> Row:
    figures = [f"{value:.2%}" if each.value else f"{value:.4g}" for value in (each.before, each.after)]
    of = f"share of {each.value!r}" if each.value else "mean"
    missing = [f"{value:.1%}" for value in (each.missing_before, each.missing_after)]
    return Row([each.name, each.role, f"{each.distance:.3f}", of, *figures, *missing])
