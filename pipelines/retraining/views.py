"""Renders a retraining decision and its outcome as text and as JSON."""

import dataclasses
from typing import Any

from tfx_ranking.components.ingestion import spans
from tfx_ranking.pipelines.retraining.decision import Decision, Outcome


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The outcome as a JSON document."""
    decision, live = outcome.decision, outcome.decision.live
    return {
        "exit": int(outcome.exit),
        "outcome": outcome.name,
        "message": outcome.message,
        "said": outcome.message,  # until 0.3: 0.1's name
        "run": outcome.run_id,
        "live": live
        and {
            "version": live.version,
            "digest": live.digest,
            "run": live.run,
            "made": live.made and live.made.isoformat(timespec="seconds"),
            "spans": list(live.spans),
        },
        "window": decision.source.get("spans"),
        "missing_spans": decision.source.get("missing_spans"),
        "repeated": decision.source.get("repeated"),
        "checks": [dataclasses.asdict(each) for each in decision.checks],
        "reasons": list(decision.reasons),
        "against": list(decision.against),
    }


def decision_text(decision: Decision) -> str:
    """The facts behind a decision, one a line."""
    live = decision.live
    lines = ["serving: nothing"]
    if live is not None:
        trained_on = f", trained on spans {spans.text(live.spans)}" if live.spans else ""
        lines = [f"serving: version {live.version}{trained_on}{f' (run {live.run})' if live.run else ''}"]
    if "spans" in decision.source:
        missing = decision.source.get("missing_spans")
        note = f" ({spans.text(missing)} missing)" if missing else ""
        window = decision.source["spans"]
        lines.append(f"window:  span{'s' * (len(window) > 1)} {spans.text(window)}{note}")
    if decision.source.get("repeated"):
        lines.append(f"twice:   {', '.join(decision.source['repeated'])}")
    for each in decision.checks:
        verdict = f"refused: {each.refused}" if each.refused else f"{each.lists:,} lists, good"
        lines.append(f"new:     {each.name}: {verdict}")
    return "\n".join([*lines, *(f"reason:  {each}" for each in decision.reasons)])
