"""Finds the run that made the live model, and the data that this run read.

Input: an ML Metadata store and the model's digest.  Output: an immutable value.  Imports neither TFX nor TensorFlow.
"""

import dataclasses
import datetime

from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Execution


@dataclasses.dataclass(frozen=True, kw_only=True)
class LiveRun:
    """The live model and the inputs of the run that made it; all but the first two are empty if no run is recorded."""

    version: str
    digest: str
    run: str = ""
    made: datetime.datetime | None = None
    files: frozenset[str] = frozenset()  # digests of the files that it was trained on
    spans: tuple[int, ...] = ()
    statistics: str = ""  # uri of its ExampleStatistics
    schema: str = ""  # uri of its Schema


def live_run(store: Store, version: str, digest: str) -> LiveRun:
    """The run that made the model with this digest, and what it read."""
    models = [each for each in store.with_digest(digest) if each.type == "Model" and not each.copied]
    exports = store.executions(store.producers(each.id for each in models)).values()
    export = next((each for each in exports if _input(each, "examples") and _input(each, "schema")), None)
    if export is None:
        return LiveRun(version=version, digest=digest)
    examples, schema = _input(export, "examples"), _input(export, "schema")
    generators = store.executions(store.producers([examples])).values()
    consumers = store.executions(store.consumers([examples])).values()
    statistics = [link.artifact for each in consumers for link in each.outputs if link.name == "statistics"]
    newest = max(statistics, default=None)
    artifacts = store.artifacts([examples, schema, *statistics])
    return LiveRun(
        version=version,
        digest=digest,
        run=export.run,
        made=models[0].made,
        files=frozenset(file.digest for each in generators for file in each.files),
        spans=tuple(artifacts[examples].properties.get("spans", [])),
        statistics=artifacts[newest].uri if newest in artifacts else "",
        schema=artifacts[schema].uri,
    )


def _input(execution: Execution, name: str) -> int:
    return next((link.artifact for link in execution.inputs if link.name == name), 0)
