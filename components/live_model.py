"""LiveModel: copies the version that serves now into a Model artifact.

Input: the state of the push destination.  Output: a copy of the live version under `Format-Serving`.  It is the one
baseline of a run, for every step that compares a model with it or starts from it.
"""

import pathlib
import shutil
from typing import Any, Dict

from tfx.dsl.component.experimental.annotations import OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model

from tfx_ranking.components import storage
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push.versions import ServingBase


@component
def LiveModel(destination: Parameter[Dict[str, Any]], model: OutputArtifact[Model]):
    """Copies the version that serves now.

    destination: `ServingBase(push.base).state()` when the pipeline was put together; a new state makes TFX run the step
    again.  With `base` alone (a compiled pipeline) the step reads the state when it runs.
    model: properties `version`, `digest` and `live`; when nothing serves, the directory is empty and `live` is 0.
    """
    copied = copy_live(destination, pathlib.Path(model.uri) / model_files.FORMAT_SERVING)
    model.set_int_custom_property("live", int(bool(copied["version"])))
    model.set_string_custom_property("version", copied["version"])
    model.set_string_custom_property("digest", copied["digest"])
    summary = f"version {copied['version']}" if copied["version"] else "nothing serves"
    model.set_string_custom_property("summary", summary)


def copy_live(destination: Dict[str, Any], to: pathlib.Path) -> Dict[str, Any]:
    """Copies the live version's directory to `to` and returns its state; copies nothing when nothing serves.

    Raises RankingError when the destination changed since `destination` was read.
    """
    base = ServingBase(destination["base"])
    expected = destination if "digest" in destination else base.state()
    version = base.live_version()
    if str(version or "") != str(expected["version"]):
        before, now = expected["version"] or "none", version or "none"
        raise RankingError(
            f"{base.folder}: version {before} was live when this run began, now it is {now}. "
            "Somebody else pushed there or removed it; run the same command again."
        )
    if not version:
        return {"base": destination["base"], "version": "", "digest": ""}
    source = base.directory(version)
    shutil.rmtree(to, ignore_errors=True)
    for path, file in storage.files_in(source).items():
        storage.copy_file(file, to / path)
    digest = model_files.digest(to)
    if digest != expected["digest"]:
        raise RankingError(
            f"{source}: files have changed since this run began (digest {expected['digest'][:12]}, now {digest[:12]}). "
            "Do not edit a version in place; run the same command again to use it as it is now."
        )
    return {"base": destination["base"], "version": str(version), "digest": digest}
