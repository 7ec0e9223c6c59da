"""The answers of the lineage questions about a pipeline's newest run, in a form that is equal for two equal stores."""

import datetime
import pathlib

import pytest

from tfx_ranking.components.push import versions
from tfx_ranking.pipelines.lineage import impact as lineage_impact
from tfx_ranking.pipelines.lineage import origin, served
from tfx_ranking.pipelines.lineage import store as lineage_store


def answers(store: lineage_store.Store, pipeline: str, base: str | pathlib.Path) -> dict[str, object]:
    """All answers without ids, times, digests of models and folders, which differ between runs and machines."""
    version = str(versions.ServingBase(base).live_version())
    run = next(each for each in origin.runs(store) if each.pipeline == pipeline)
    upstream, downstream = origin.upstream(store, f"{base}/{version}"), origin.downstream(store, run.id)

    def steps(lineage):
        def links(linked):
            return sorted((link.name, lineage.artifacts[link.artifact].type) for link in linked)

        return sorted((each.node, each.state, links(each.inputs), links(each.outputs)) for each in lineage.executions)

    now = datetime.datetime.now(datetime.timezone.utc)
    (serving,) = served.served(store, str(base), now, now)
    impact = lineage_impact.of_run(store, run.id)
    files = [file for each in upstream.executions for file in each.files]
    assert {each.run for each in upstream.executions} == {run.id}
    return {
        "run": (run.state, run.steps, run.cached, run.spans, run.metric, run.blessed, run.unchanged),
        "value": pytest.approx(run.value, abs=0.005),
        "version": run.pushed == version,
        "upstream": steps(upstream),
        "downstream": steps(downstream),
        "files": [(pathlib.Path(file.path).name, file.size, file.digest, file.split) for file in files],
        "served": (serving.push.version == version, serving.until, serving.model.run == run.id),
        "served files": [pathlib.Path(file.path).name for file in serving.files],
        "impact": [each.how for each in impact.models],
        "live": [(each.base == str(base), each.version == version) for each in impact.live],
        "config": sorted({name for each in upstream.executions for name in each.config}),
    }
