"""A diff of two runs or models in three renderings: text, JSON and an HTML page.

Input: a `Diff`.  Output: text to print, what `json.dumps` takes, or HTML in one file.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.lineage.diff import ChangedValue, Diff, FeatureShift, VocabularyChange, value_text
from tfx_ranking.pipelines.lineage.diff_sides import Side
from tfx_ranking.pipelines.lineage.views.origin_views import plain, run_name
from tfx_ranking.pipelines.lineage.views.page import Cell, CellContent, Page, Row, Section, Table, render
from tfx_ranking.pipelines.text_layout import columns

SHOWN = 20  # rows of a section; JSON has all of them
NOTHING = "nothing that is recorded differs"
_BEFORE_AFTER = ("before", "after")


def diff_text(diff: Diff) -> str:
    """The two sides, the metrics, what could explain their change, then one section for each kind of difference."""
    sides = columns([["before", *_side(diff.before)], ["after", *_side(diff.after)]])
    sections = [
        ("metrics", [_metric(each) for each in diff.metrics]),
        ("both models on the lists of the second", [_metric(each) for each in diff.same_lists]),
        (causes_title(diff), [[f"{i}.", cause] for i, cause in enumerate(diff.causes, 1)]),
        ("data", [_change(each) for each in diff.data]),
        ("features that shifted (train split)", [_shift(each) for each in diff.features if each.moved]),
        ("vocabularies", [_vocabulary(each) for each in diff.vocabularies]),
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
        lines += ["", NOTHING]
    return "\n".join(lines)


def diff_json(diff: Diff) -> dict[str, Any]:
    """The fields of `Diff`; a change is an object with `name`, `before`, `after`; a side's query is `asked`."""
    fields = {field.name: getattr(diff, field.name) for field in dataclasses.fields(diff)}
    for name in _BEFORE_AFTER:
        side = dataclasses.asdict(fields[name])
        fields[name] = {"asked": side.pop("query"), **side}
    for name, value in fields.items():
        if isinstance(value, tuple) and value and hasattr(value[0], "_asdict"):
            fields[name] = [each._asdict() for each in value]
    fields["contract"] = diff.contract._asdict() if diff.contract else None
    json_fields: dict[str, Any] = plain(fields)
    return json_fields


def diff_page(diff: Diff) -> str:
    """The two sides, the metrics, what could explain their change, then one table for each kind of difference."""
    sides = Table("Compared", ("", *_BEFORE_AFTER), _side_rows(diff.before, diff.after), (), _BEFORE_AFTER)
    causes = [Row([str(i), cause]) for i, cause in enumerate(diff.causes, 1)]
    shifts = [_shift_row(each) for each in diff.features if each.moved]
    vocabularies = [Row([each.name, *(f"{count:,}" for count in each[1:])]) for each in diff.vocabularies]
    contract = [Row([each]) for each in diff.contract.differences] if diff.contract else []
    numbers = (*_BEFORE_AFTER, "distance", "new", "gone")
    tables = [
        _metrics_table("Metrics", diff.metrics),
        _metrics_table("Both models on the lists of the second", diff.same_lists),
        Table(causes_title(diff).capitalize(), ("", "reason"), causes, (), ("reason",)),
        _changes_table("Data", diff.data),
        Table(
            "Features that shifted (train split)",
            ("feature", "role", "distance", "of", *_BEFORE_AFTER, "missing before", "missing after"),
            shifts,
            (*numbers, "missing before", "missing after"),
        ),
        Table("Vocabularies", ("feature", *_BEFORE_AFTER, "gone", "new"), vocabularies, numbers),
        _changes_table("Config", diff.config),
        _changes_table("Code", diff.code),
        _changes_table("Packages", diff.packages),
        Table(f"Contract: {diff.contract.verdict if diff.contract else ''}", ("difference",), contract),
        Table("Not compared", ("what and why",), [Row([each]) for each in diff.unknown], (), ("what and why",)),
    ]  # fmt: skip
    facts: list[tuple[str, CellContent]] = [] if diff.causes else [("result", NOTHING)]
    sections: list[Section] = [sides, *(each for each in tables if each.rows)]
    return render(Page(f"Differences between {diff.before.query} and {diff.after.query}", facts, sections))


def causes_title(diff: Diff) -> str:
    """The heading of the causes, with the metric's change if both sides have the metric."""
    deciding = diff.metrics[0] if diff.metrics else None
    if deciding is None or deciding.before is None or deciding.after is None:
        return "differences, the most important first"
    change = deciding.after - deciding.before
    return f"what could explain the change of {deciding.name} ({change:+.4f}), the likeliest first"


def _side(side: Side) -> list[str]:
    model = f"model {side.model.digest[:12] or '#' + str(side.model.id)}" if side.model else "no model"
    examples = side.examples
    data = f"examples #{examples.id}: {examples.summary}" if examples else "no examples"
    noun = "spans" if examples and len(examples.spans) > 1 else "span"
    if examples and examples.spans and noun not in examples.summary:
        data += f", {noun} {spans.text(examples.spans)}"
    return [run_name(side.run), model, data, side.problem]


def _metric(change: ChangedValue) -> list[str]:
    return [change.name, _figure(change.before), "→", _figure(change.after), _difference(change)]


def _change(change: ChangedValue) -> list[str]:
    if change.name.startswith("file "):
        difference = "new" if change.before is None else "gone" if change.after is None else "other bytes"
        return [change.name, difference]
    return [change.name, value_text(change.before), "→", value_text(change.after)]


def _shift(each: FeatureShift) -> list[str]:
    before, after = _shift_figures(each)
    role = "" if each.role == "feature" else each.role
    row = [each.name, role, f"by {each.distance:.3f}", _shift_measure(each), before, "→", after]
    changed = each.missing_before != each.missing_after
    return [*row, f"missing {each.missing_before:.1%} → {each.missing_after:.1%}" if changed else ""]


def _shift_measure(each: FeatureShift) -> str:
    return f"share of {each.value!r}" if each.value else "mean"


def _shift_figures(each: FeatureShift) -> tuple[str, str]:
    before, after = (f"{value:.2%}" if each.value else f"{value:.4g}" for value in (each.before, each.after))
    return before, after


def _vocabulary(each: VocabularyChange) -> list[str]:
    return [each.name, f"{each.before:,}", "→", f"{each.after:,} values", f"{each.new:,} new, {each.gone:,} gone"]


def _contract(diff: Diff) -> Sequence[Sequence[str]]:
    if diff.contract is None:
        return []
    return [[diff.contract.verdict], *([f"  {each}"] for each in diff.contract.differences)]


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _difference(change: ChangedValue) -> str:
    return "" if change.before is None or change.after is None else f"{change.after - change.before:+.4f}"


def _side_rows(*sides: Side) -> list[Row]:
    rows: dict[str, list[CellContent]] = {
        "run": [run_name(side.run) for side in sides],
        "pipeline": [side.pipeline for side in sides],
        "model": [
            Cell(side.model.digest[:12] or f"#{side.model.id}", "code") if side.model else "none" for side in sides
        ],
        "examples": [f"#{side.examples.id}: {side.examples.summary}" if side.examples else "none" for side in sides],
        "span": [spans.text(side.examples.spans) if side.examples and side.examples.spans else "" for side in sides],
    }
    return [Row([name, *cells]) for name, cells in rows.items() if any(cells)]


def _metrics_table(title: str, metrics: Sequence[ChangedValue]) -> Table:
    rows = [Row([each.name, _figure(each.before), _figure(each.after), _difference(each)]) for each in metrics]
    return Table(title, ("metric", *_BEFORE_AFTER, "change"), rows, (*_BEFORE_AFTER, "change"))


def _changes_table(title: str, changes: Sequence[ChangedValue]) -> Table:
    rows = [Row([each.name, _value(each, each.before), _value(each, each.after)]) for each in changes]
    return Table(title, ("name", *_BEFORE_AFTER), rows, (), ("name", *_BEFORE_AFTER))


def _value(change: ChangedValue, value: Any) -> CellContent:
    if change.name.startswith("file "):
        return Cell(value, "code") if value else "absent"
    return value_text(value)


def _shift_row(each: FeatureShift) -> Row:
    missing = [f"{value:.1%}" for value in (each.missing_before, each.missing_after)]
    return Row([each.name, each.role, f"{each.distance:.3f}", _shift_measure(each), *_shift_figures(each), *missing])
