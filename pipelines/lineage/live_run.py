"""The run that made the model which serves: what it read, and what it learnt of its data.

Enters: an ML Metadata store, the model's digest.  Leaves: an immutable value.  Imports neither TFX nor TensorFlow.
"""

import dataclasses
import datetime

from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Execution


@dataclasses.dataclass(frozen=True)
class LiveRun:
    """The model that serves, and what the run that made it read; the rest is empty where lineage knows no such run."""

    version: str
    digest: str
    run: str = ""
    made: datetime.datetime | None = None
    files: frozenset[str] = frozenset()  # digests of what it was trained on
    spans: tuple[int, ...] = ()
    statistics: str = ""  # uris of its artifacts
    schema: str = ""


def live_run(store: Store, version: str, digest: str) -> LiveRun:
    """The run that made the model of these bytes, and what it read."""
    made = [each for each in store.model(digest) if each.type == "Model" and not each.copied]
    exports = store.made(store.makers(each.id for each in made)).values()
    export = next((each for each in exports if _input(each, "examples") and _input(each, "schema")), None)
    if export is None:
        return LiveRun(version, digest)
    examples, schema = _input(export, "examples"), _input(export, "schema")
    makers = store.made(store.makers([examples])).values()
    users = store.made(store.users([examples])).values()
    statistics = [link.artifact for each in users for link in each.outputs if link.name == "statistics"]
    held = store.artifacts([examples, schema, *statistics])
    files = frozenset(file.digest for each in makers for file in each.files)
    told = held[examples].properties.get("spans", [])
    newest = max(statistics, default=None)
    return LiveRun(
        version,
        digest,
        export.run,
        made[0].made,
        files,
        tuple(told),
        held[newest].uri if newest in held else "",
        held[schema].uri,
    )


def _input(execution: Execution, name: str) -> int:
    return next((link.artifact for link in execution.inputs if link.name == name), 0)
