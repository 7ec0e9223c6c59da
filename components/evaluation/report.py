"""Summarises the metrics of all lists in a report, and decides whether the model is blessed.

Input: a table with one row per list (see `columns`).  Output: a report for JSON, with a verdict.  The rows are sorted
before they are summed, so that the order in which Beam measured the lists does not change any digit.

>>> from tfx_ranking.components.config.evaluation_section import Bless
>>> judge(0.7412, 0.7398, Bless(metric="ndcg@10")).summary
'ndcg@10 0.7412 (live 0.7398, +0.0014): blessed'
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tfx_ranking.components.config.evaluation_section import Bless, Evaluation
from tfx_ranking.components.exported.contract import FIRST, ContractComparison
from tfx_ranking.components.ingestion import spans
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention

TOLERANCE = 1e-9  # of every comparison with a threshold: two sums of the same numbers may differ in their last digits

NAMED = 3  # how many differences of a contract the reason lists


class Verdict(NamedTuple):
    """Whether a model may be pushed, the reason, and a short line with both."""

    blessed: bool
    reason: str
    summary: str


class Before(NamedTuple):
    """The metrics of both models on lists that the live model was blessed on; see `previous_lists.Previous`."""

    table: pa.Table | None = None  # with the columns of `columns`; no rows if there are no such lists
    spans: tuple[int, ...] = ()
    uri: str = ""  # of their Examples
    absent: str = ""  # why the live model has no known lists; "" otherwise
    refused: str = ""  # why known lists cannot be read; "" otherwise


NO_PREVIOUS = Before()


def names(evaluation: Evaluation) -> list[str]:
    """The metrics to compute: the configured ones and the one that decides, each once."""
    return list(dict.fromkeys([*evaluation.metrics, evaluation.bless.metric]))


def columns(evaluation: Evaluation, models: list[str]) -> dict[str, pa.DataType]:
    """The columns of a table with one row per list.

    A metric is NaN if its convention drops the list or a score was NaN.
    models: "model", and "baseline" if there is one.

    >>> list(columns(Evaluation(metrics=("mrr",), slices=("country",), bless=Bless(metric="mrr")), ["model"]))
    ['group_id', 'items', 'slice.country', 'model.finite', 'model.mrr']
    """
    table = {"group_id": pa.string(), "items": pa.int64()}
    table |= {f"slice.{feature}": pa.string() for feature in evaluation.slices}
    for model in models:
        table |= {f"{model}.finite": pa.bool_()}
        table |= {f"{model}.{name}": pa.float64() for name in names(evaluation)}
    return table


def in_order(table: pa.Table) -> pa.Table:
    """The table with its rows sorted by group id, then by the other columns."""
    return table.sort_by([(name, "ascending") for name in table.column_names]).combine_chunks()


def summarise(
    table: pa.Table,
    evaluation: Evaluation,
    about: Mapping[str, Any],
    no_baseline: str = "",
    compared: ContractComparison = FIRST,
    before: Before = NO_PREVIOUS,
) -> dict[str, Any]:
    """Makes the report: every metric with its convention, overall and per slice, for the model and the baseline.

    table: the columns of `columns`, rows in any order.  about: more keys for the report, e.g. the models' digests.
    no_baseline: why there is no baseline; "" if there is one.  compared: the model's contract against the live model's.
    before: the metrics on lists that the live model was blessed on.  A metric without any list is None.
    """
    table = in_order(table)
    broken = {model: _broken(table, model) for model in ("model", "baseline")}
    if broken["baseline"]:
        no_baseline = f"the live model's scores are not numbers in {broken['baseline']}"
    slices: dict[str, dict[str, Any]] = {}
    for feature in evaluation.slices:
        values = np.asarray(table[f"slice.{feature}"])
        slices[feature] = {
            value: _figures(table.filter(pa.array(values == value)), evaluation, not no_baseline)
            for value in sorted(set(values))
        }
    overall = _figures(table, evaluation, not no_baseline)
    decisive = overall["metrics"][evaluation.bless.metric]
    verdict = judge(decisive["value"], decisive.get("baseline"), evaluation.bless, broken["model"], no_baseline)
    if not no_baseline and len(set(about.get("digests", {}).values())) == 1:
        verdict = verdict._replace(reason=f"{verdict.reason} (it is the same model, byte by byte)")
    convention = Convention.of(evaluation)
    previous: dict[str, Any] = {}
    if not no_baseline and (before.table is not None or before.absent or before.refused):
        previous = {"spans": list(before.spans), "examples": before.uri, "absent": before.absent}
        if before.table is not None and before.table.num_rows:
            previous |= _figures(in_order(before.table), evaluation, True)
            previous["broken"] = _broken(before.table, "model")
        verdict = with_previous(verdict, previous, evaluation.bless, before.absent, before.refused)
    verdict = with_contract(verdict, compared, evaluation.bless)
    return {
        **about,
        **({"previous": previous} if previous.get("examples") or previous.get("absent") else {}),
        "conventions": {name: ranking_metrics.describe(name, convention) for name in names(evaluation)},
        **overall,
        "slices": slices,
        "baseline": not no_baseline,
        "no_baseline": no_baseline,
        "contract": compared._asdict(),
        "bless": {**dataclasses.asdict(evaluation.bless), "tolerance": TOLERANCE, **verdict._asdict()},
    }


def judge(
    value: float | None,
    baseline: float | None,
    bless: Bless,
    broken: str = "",
    no_baseline: str = "first model",
) -> Verdict:
    """Decides whether `value` is good enough.

    An improvement of exactly `min_improvement` and a value of exactly `min_value` pass, to within TOLERANCE.  Without a
    baseline (None) only `min_value` counts.  broken: the lists where the model's scores are not numbers; "" for none.
    """
    metric = bless.metric
    if broken:
        return Verdict(False, f"its scores are not numbers in {broken}", f"scores not finite in {broken}: not blessed")
    if value is None:
        return Verdict(False, f"no list of the split has a value of {metric}", f"no list with {metric}: not blessed")
    change = None if baseline is None else value - baseline
    compared = no_baseline if change is None else f"live {baseline:.4f}, {change:+.4f}"
    figures = f"{metric} {value:.4f} ({compared})"
    failed = []
    if change is not None and not change >= bless.min_improvement - TOLERANCE:
        expected = f"expected at least {bless.min_improvement:+g}"
        failed.append(f"its {metric} of {value:.6f} is {change:+.6f} from the live model's, {expected}")
    if bless.min_value is not None and not value >= bless.min_value - TOLERANCE:
        failed.append(f"its {metric} of {value:.6f} is below min_value {bless.min_value:g}")
    if failed:
        return Verdict(False, "; ".join(failed), f"{figures}: not blessed")
    passed = f"no baseline: {no_baseline}" if change is None else f"{metric} {change:+.6f} from the live model's"
    return Verdict(True, passed, f"{figures}: blessed")


def with_previous(
    verdict: Verdict, previous: Mapping[str, Any], bless: Bless, absent: str = "", refused: str = ""
) -> Verdict:
    """Adds to a verdict whether the model is also good enough on the lists that the live model was blessed on.

    previous: the metrics of both models on these lists, `spans` and `broken`.  Without metrics the verdict stays, and a
    passing one gives `absent` as the reason.  refused: why known lists cannot be read; then the model is not blessed.

    >>> figures = {"spans": [1, 2], "metrics": {"mrr": {"value": 0.5, "baseline": 0.6, "difference": -0.1}}}
    >>> good = Verdict(True, "mrr +0.1 from the live model's", "mrr 0.7 (live 0.6, +0.1): blessed")
    >>> with_previous(good, figures, Bless(metric="mrr")).summary
    'mrr 0.7 (live 0.6, +0.1), on spans 1-2 -0.1000: not blessed'
    """
    figures = verdict.summary.rpartition(": ")[0]
    if refused:
        reason = f"{refused} (evaluation.bless.previous_spans: 0 asks for none)"
        reasons = (reason,) if verdict.blessed else (verdict.reason, reason)
        return Verdict(False, "; ".join(reasons), f"{figures}, no previous lists: not blessed")
    if absent:
        return verdict._replace(reason=f"{verdict.reason}; {absent}") if verdict.blessed else verdict
    measured = previous.get("metrics", {}).get(bless.metric, {})
    change = measured.get("difference")
    if change is None and not previous.get("broken"):
        return verdict  # no list, or none with a value of the metric
    where = f"on spans {spans.text(previous['spans'])}" if previous["spans"] else "on its lists"
    if previous.get("broken"):
        worse, result = f"its scores are not numbers {where} in {previous['broken']}", f"{where} not finite"
    else:
        holds = change >= bless.min_improvement - TOLERANCE
        figures_there = f"its {bless.metric} of {measured['value']:.6f} is {change:+.6f} from the live model's"
        expected = f"expected at least {bless.min_improvement:+g}"
        worse = "" if holds else f"{where}, which the live model was blessed on, {figures_there}, {expected}"
        result = f"{where} {change:+.4f}"
    blessed = verdict.blessed and not worse
    reason = "; ".join(filter(None, ("" if worse and verdict.blessed else verdict.reason, worse)))
    return Verdict(blessed, reason, f"{figures}, {result}: {'blessed' if blessed else 'not blessed'}")


def with_contract(verdict: Verdict, compared: ContractComparison, bless: Bless) -> Verdict:
    """Adds to a verdict whether the model breaks the contract with the live model's clients.

    >>> gone = ContractComparison("breaking", ["signature rank is gone"], "contract breaking (-1 signature)")
    >>> verdict = with_contract(Verdict(True, "mrr +0.1 from the live model's", "mrr 0.5: blessed"), gone, Bless())
    >>> verdict.blessed, verdict.summary
    (False, 'mrr 0.5, contract breaking (-1 signature): not blessed')
    """
    if not compared.summary:
        return verdict
    figures = verdict.summary.rpartition(": ")[0]
    breaks = compared.verdict == "breaking"
    blessed = verdict.blessed and (bless.allow_breaking or not breaks)
    summary = f"{figures}, {compared.summary}: {'blessed' if blessed else 'not blessed'}"
    if not breaks:
        return verdict._replace(summary=summary)
    named = "; ".join(compared.differences[:NAMED])
    more = f"; and {len(compared.differences) - NAMED} more" if len(compared.differences) > NAMED else ""
    if bless.allow_breaking:
        return Verdict(blessed, f"{verdict.reason}; allowed to break the live model's clients: {named}{more}", summary)
    broken = f"it breaks the live model's clients: {named}{more} (evaluation.bless.allow_breaking: true lets it pass)"
    reasons = (broken, verdict.reason) if verdict.blessed else (verdict.reason, broken)
    return Verdict(False, "; ".join(reasons), summary)


def _figures(table: pa.Table, evaluation: Evaluation, with_baseline: bool) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    for name in names(evaluation):
        values = np.asarray(table[f"model.{name}"])
        kept = int(np.count_nonzero(~np.isnan(values)))
        metrics[name] = {
            "convention": ranking_metrics.describe(name, Convention.of(evaluation)),
            "value": _number(ranking_metrics.mean(values)),
            "lists": kept,
            "dropped": len(values) - kept,
        }
        if with_baseline:
            baseline = _number(ranking_metrics.mean(table[f"baseline.{name}"]))
            comparable = baseline is not None and metrics[name]["value"] is not None
            metrics[name] |= {
                "baseline": baseline,
                "difference": metrics[name]["value"] - baseline if comparable else None,
            }
    return {"lists": table.num_rows, "items": int(np.sum(table["items"])), "metrics": metrics}


def _broken(table: pa.Table, model: str) -> str:
    """The lists for which a model's scores are not all numbers, as text; "" for none or without this model."""
    if f"{model}.finite" not in table.column_names:
        return ""
    bad = np.asarray(table["group_id"])[~np.asarray(table[f"{model}.finite"])]
    return f"{len(bad)} of {table.num_rows} lists, the first {bad[0]!r}" if len(bad) else ""


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
