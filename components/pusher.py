"""RankingPusher: a blessed model becomes the version that TensorFlow Serving serves.

Enters: an exported model, its blessing.  Leaves: `<base>/<version>/` and a PushedModel with TFX's own properties.
The one idea: the destination is asked each time, so that what is recorded is what is there.
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
from tfx_ranking.components.push import ledger, versions
from tfx_ranking.components.push import push as pushing
from tfx_ranking.components.push.labels import Labels
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
    """Pushes the SavedModel under `Format-Serving` unless its bytes serve already or it may not serve.

    It may not when it is not blessed, was rolled back, cannot be loaded as TensorFlow Serving does, answers its samples
    otherwise than when it was exported, or, without a blessing, breaks the contract with the live model's clients.
    destination: `serving_versions.state(base)`; the time of asking (`asked`), so that no cached answer is taken; the
    highest version that ML Metadata knows of (`highest`), for a destination that has lost its ledger.
    pushed_model: `pushed`, `pushed_destination`, `pushed_version` as TFX's Pusher writes them, `digest`, `reason`,
    `checked`, `label`, and `unchanged` 1 where nothing had to be written; `pushed` is 1 then, for the model does serve
    there.  A model that may not serve has `pushed` 0 and, beside its reason, `refused`: "not blessed", or a kind of
    PushRefused.
    Raises PushError when it was to be pushed and could not be: no space, no permission, another push.
    """
    source, base = pathlib.Path(model.uri) / model_files.FORMAT_SERVING, destination["base"]
    live = versions.state(base)
    kept = f"version {live['version']} still serves" if live["version"] else "nothing serves"
    refused, reason = ("not blessed", _refusal(model_blessing)) if _refusal(model_blessing) else ("", "")
    if not refused or model_files.digest(source) == live["digest"]:
        try:
            terms = _terms(config, destination, model_blessing)
            pushed = pushing.push(source, base, terms, check=samples.check, about=_about(model_blessing))
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
    for name, said in (("label", pushed.label), ("checked", pushed.checked)):
        if said:
            pushed_model.set_string_custom_property(name, said)


def _terms(config: str, destination: Dict[str, Any], blessing: Any) -> pushing.Terms:
    read = ranking_config.from_selection(config)
    if read.push is None:
        return pushing.Terms()
    labels = Labels(read.push.models_config, read.name) if read.push.models_config else None
    # A blessed model's contract has been judged, by the config's own rule.
    return pushing.Terms(
        read.push.version,
        read.push.keep,
        labels,
        read.push.label,
        above=int(destination.get("highest") or 0),
        allow_breaking=blessing is not None,
    )


def _about(blessing: Any) -> ledger.Entry:
    """What the ledger remembers of the evaluation, whose summary begins with the metric and its value."""
    if blessing is None:
        return ledger.Entry(0)
    metric = re.match(r"\S+ -?\d\S*", blessing.get_string_custom_property("summary") or "")
    return ledger.Entry(0, blessing="blessed", metric=metric[0] if metric else "")


def _refusal(blessing: Any) -> str:
    """Why a model may not be pushed; "" when it may."""
    if blessing is None or model_utils.is_model_blessed(blessing):
        return ""
    return blessing.get_string_custom_property("reason") or "not blessed"
