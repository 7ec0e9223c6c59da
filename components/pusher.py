"""RankingPusher: a blessed model becomes the version that TensorFlow Serving serves.

Enters: an exported model, its blessing.  Leaves: `<base>/<version>/` and a PushedModel with TFX's own properties.
The one idea: the destination is asked each time, so that what is recorded is what is there.
"""

import pathlib
from typing import Any, Dict

from tfx.components.util import model_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import push as pushing
from tfx_ranking.components import serving_versions

READS = ("push",)


@component
def RankingPusher(
    model: InputArtifact[Model],
    config: Parameter[Dict[str, Any]],
    destination: Parameter[Dict[str, Any]],
    pushed_model: OutputArtifact[PushedModel],
    model_blessing: InputArtifact[ModelBlessing] = None,
):
    """Pushes the SavedModel under `Format-Serving` unless its bytes serve already or it is not blessed.

    destination: `serving_versions.state(base)` and the time of asking (`asked`), so that no cached answer is taken.
    pushed_model: `pushed`, `pushed_destination`, `pushed_version` as TFX's Pusher writes them, `digest`, `reason`, and
    `unchanged` 1 where nothing had to be written; `pushed` is 1 then, for the model does serve there.
    """
    source = pathlib.Path(model.uri) / "Format-Serving"
    policy = ranking_config.from_selection(config).push
    refused = _refusal(model_blessing)
    live = serving_versions.state(destination["base"])
    if refused and serving_versions.digest(source) != live["digest"]:
        kept = f"version {live['version']} still serves" if live["version"] else "nothing serves"
        pushed_model.set_int_custom_property("pushed", 0)
        pushed_model.set_string_custom_property("reason", refused)
        pushed_model.set_string_custom_property("summary", f"not pushed, {kept}: {refused}")
        return
    pushed = pushing.push(source, destination["base"], policy.version if policy else "unix_time")
    reason = "blessed" if model_blessing else "pushed without a blessing"
    reason = "these bytes serve already" if pushed.unchanged else reason
    summary = (
        f"nothing changed, version {pushed.version} serves" if pushed.unchanged else f"pushed version {pushed.version}"
    )
    pushed_model.set_int_custom_property("pushed", 1)
    pushed_model.set_int_custom_property("unchanged", int(pushed.unchanged))
    pushed_model.set_string_custom_property("pushed_destination", str(pushed.directory))
    pushed_model.set_string_custom_property("pushed_version", str(pushed.version))
    pushed_model.set_string_custom_property("digest", pushed.digest)
    pushed_model.set_string_custom_property("reason", reason)
    pushed_model.set_string_custom_property("summary", summary)


def _refusal(blessing: Any) -> str:
    """Why a model may not be pushed; "" when it may."""
    if blessing is None or model_utils.is_model_blessed(blessing):
        return ""
    return blessing.get_string_custom_property("reason") or "not blessed"
