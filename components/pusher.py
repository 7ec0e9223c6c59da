"""RankingPusher: makes a blessed model the version that TensorFlow Serving serves.

Input: an exported model and its blessing.  Output: `<base>/<version>/` and a PushedModel with TFX's own properties.
The step reads the destination in every run, so that what it records is true now.
"""

import pathlib
import re
from typing import Any, Dict

from tfx.components.util import model_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import PushRefused
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import pushing
from tfx_ranking.components.push.ledger import Entry
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.components.serving import samples

READS = ("push",)


@component
def RankingPusher(
    model: InputArtifact[Model],
    config: Parameter[str],
    destination: Parameter[Dict[str, Any]],
    pushed_model: OutputArtifact[PushedModel],
    model_blessing: InputArtifact[ModelBlessing] = None,
):
    """Pushes the SavedModel under `Format-Serving`, unless its bytes serve already or the model is refused.

    A model is refused when it is not blessed, was rolled back, does not load in TensorFlow Serving, answers its samples
    differently than when it was exported, or (without a blessing) breaks the contract with the live model's clients.
    destination: `ServingBase(base).state()`, plus `asked` (the time, so that TFX never uses a cached result) and
    `highest` (the highest version in ML Metadata, for a destination that lost its ledger).
    pushed_model: `pushed`, `pushed_destination` and `pushed_version` as TFX's Pusher writes them, `digest`, `reason`,
    `checked`, `label`, and `unchanged`: 1 when the bytes served already (`pushed` is 1 then too).  A refused model has
    `pushed` 0, its reason, and `refused`: "not blessed" or a kind of PushRefused.
    Raises PushError when an accepted model could not be pushed: no space, no permission, another push.
    """
    source, base = pathlib.Path(model.uri) / model_files.FORMAT_SERVING, destination["base"]
    live = ServingBase(base).state()
    kept = f"version {live['version']} still serves" if live["version"] else "nothing serves"
    reason = _why_not_blessed(model_blessing)
    refused = "not blessed" if reason else ""
    if not refused or model_files.digest(source) == live["digest"]:
        try:
            # The evaluator has applied the config's contract rule to a blessed model.
            terms = pushing.Terms.of(
                ranking_config.from_selection(config),
                above=int(destination.get("highest") or 0),
                allow_breaking=model_blessing is not None,
            )
            pushed = pushing.push(source, base, terms, check=samples.check, about=_evaluation(model_blessing))
            _record(pushed_model, pushed, "blessed" if model_blessing else "pushed without a blessing")
            return
        except PushRefused as error:
            refused, reason = error.kind, str(error)
    pushed_model.set_int_custom_property("pushed", 0)
    pushed_model.set_string_custom_property("digest", model_files.digest(source))
    pushed_model.set_string_custom_property("refused", refused)
    pushed_model.set_string_custom_property("reason", reason)
    pushed_model.set_string_custom_property("summary", f"not pushed, {kept}: {reason}")


def _record(pushed_model: Any, pushed: pushing.Pushed, reason: str) -> None:
    summary = (
        f"nothing changed, version {pushed.version} serves" if pushed.unchanged else f"pushed version {pushed.version}"
    )
    summary += f" as {pushed.label}" * bool(pushed.label)
    summary += f"; {pushed.problem}" * bool(pushed.problem)
    pushed_model.set_int_custom_property("pushed", 1)
    pushed_model.set_int_custom_property("unchanged", int(pushed.unchanged))
    pushed_model.set_string_custom_property("pushed_destination", str(pushed.directory))
    pushed_model.set_string_custom_property("pushed_version", str(pushed.version))
    pushed_model.set_string_custom_property("digest", pushed.digest)
    pushed_model.set_string_custom_property("reason", "these bytes serve already" if pushed.unchanged else reason)
    pushed_model.set_string_custom_property("summary", summary)
    for name, value in (("label", pushed.label), ("checked", pushed.checked)):
        if value:
            pushed_model.set_string_custom_property(name, value)


def _evaluation(blessing: Any) -> Entry:
    """The ledger's entry for the evaluation, whose summary begins with the metric and its value."""
    if blessing is None:
        return Entry(0)
    metric = re.match(r"\S+ -?\d\S*", blessing.get_string_custom_property("summary") or "")
    return Entry(0, blessing="blessed", metric=metric[0] if metric else "")


def _why_not_blessed(blessing: Any) -> str:
    """Why the evaluator refused the model; "" for a blessed model, or without an evaluator."""
    if blessing is None or model_utils.is_model_blessed(blessing):
        return ""
    return blessing.get_string_custom_property("reason") or "not blessed"
