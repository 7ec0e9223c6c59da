"""LiveModel: what the push destination serves now, as a Model artifact.

Enters: the destination's state.  Leaves: a copy of the live version under `Format-Serving`.  The one idea: one
baseline for whoever compares with what serves or starts from it, fixed for the whole run.
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
from tfx_ranking.components.push import versions


@component
def LiveModel(destination: Parameter[Dict[str, Any]], model: OutputArtifact[Model]):
    """Copies the version that serves now.

    destination: `serving_versions.state(push.base)`, taken when the pipeline was put together: it decides whether the
    cached copy still holds.  With `base` alone (a compiled pipeline) the version that is live when the step runs.
    model: properties `version`, `digest` and `live`; live 0 with an empty directory when nothing serves.
    """
    copied = copy_live(destination, pathlib.Path(model.uri) / model_files.FORMAT_SERVING)
    model.set_int_custom_property("live", int(bool(copied["version"])))
    model.set_string_custom_property("version", copied["version"])
    model.set_string_custom_property("digest", copied["digest"])
    summary = f"version {copied['version']}" if copied["version"] else "nothing serves"
    model.set_string_custom_property("summary", summary)


def copy_live(destination: Dict[str, Any], to: pathlib.Path) -> Dict[str, Any]:
    """Copies the live version's directory to `to` and returns the state it was in; copies nothing when nothing lives.

    Raises RankingError when the destination is no longer as `destination` says.
    """
    base = destination["base"]
    expected = destination if "digest" in destination else versions.state(base)
    found = versions.live_version(base)
    if str(found or "") != str(expected["version"]):
        before, now = expected["version"] or "none", found or "none"
        raise RankingError(
            f"{base}: version {before} was live when this run began, now it is {now}. "
            "Somebody else pushes there or removed it; run the same command again."
        )
    if not found:
        return {"base": base, "version": "", "digest": ""}
    source = versions.version_directories(base)[found]
    shutil.rmtree(to, ignore_errors=True)
    for path, file in storage.files_in(source).items():
        storage.copy_file(file, to / path)
    copied = model_files.digest(to)
    if copied != expected["digest"]:
        raise RankingError(
            f"{source}: files have changed since this run began (digest {expected['digest'][:12]}, now {copied[:12]}). "
            "A version is never edited in place; run the same command again to take it as it is."
        )
    return {"base": base, "version": str(found), "digest": copied}
