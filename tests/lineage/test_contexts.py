"""The pipeline, run and node of each execution, on small stores."""

from lineage_stores import StoreMaker

from tfx_ranking.pipelines.lineage import contexts, origin
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.lineage.views import origin_views


def test_two_pipelines_in_one_store(tmp_path):
    for pipeline in ("shop", "shop.eu"):
        maker = StoreMaker(tmp_path, pipeline)
        examples = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
        maker.step(f"of {pipeline}", "RankingExampleGen", {}, {"examples": examples})
    store = lineage_store.connect(str(maker.file))
    runs = origin.runs(store)
    assert [(each.id, each.pipeline) for each in runs] == [("of shop.eu", "shop.eu"), ("of shop", "shop")]
    assert origin_views.runs_text(runs).splitlines()[0].split()[:3] == ["run", "pipeline", "state"]
    (step,) = origin.upstream(store, str(examples.id)).executions
    assert (step.pipeline, step.run, step.node) == ("shop.eu", "of shop.eu", "RankingExampleGen")


def test_many_runs_of_two_pipelines(tmp_path):
    wanted = {}
    for pipeline in ("shop", "shop.eu"):
        maker = StoreMaker(tmp_path, pipeline)
        for i in range(contexts._FEW // 2 + 1):  # more than are fetched one by one
            run = f"{i} of {pipeline}"
            examples = maker.artifact("Examples", f"RankingExampleGen/examples/{run}", span=i)
            maker.step(run, "RankingExampleGen", {}, {"examples": examples})
            wanted[run] = pipeline
    store = lineage_store.connect(str(maker.file))
    assert {each.id: each.pipeline for each in origin.runs(store)} == wanted
    assert {each.id: each.pipeline for each in origin.runs(store, 3)}.items() <= wanted.items()


def test_nodes_that_are_not_named_after_their_components(tmp_path):
    maker = StoreMaker(tmp_path)
    first = maker.artifact("Examples", "RankingExampleGen/examples/1", span=0)
    maker.step("one", "RankingExampleGen", {}, {"examples": first}, called="new_lists")
    second = maker.artifact("Examples", "RankingExampleGen/examples/2", span=1)
    maker.step("one", "RankingExampleGen", {}, {"examples": second}, called="previous_lists")
    model = maker.artifact("Model", "RankingTrainer/model/3")
    maker.step("one", "RankingTrainer", {"examples": first, "previous": second}, {"model": model})
    lineage = origin.upstream(lineage_store.connect(str(maker.file)), str(model.id))
    assert [each.node for each in lineage.executions] == ["RankingTrainer", "previous_lists", "new_lists"]


def test_parallel_runs(tmp_path):
    maker = StoreMaker(tmp_path)
    made = {}
    for run in ("one", "two"):
        made[run] = maker.artifact("Examples", f"RankingExampleGen/examples/{run}", span=0)
        maker.step(run, "RankingExampleGen", {}, {"examples": made[run]})
    for run in ("two", "one"):  # the last step belongs to the first run; by its time it would belong to the second
        model = maker.artifact("Model", f"RankingTrainer/model/{run}")
        maker.step(run, "RankingTrainer", {"examples": made[run]}, {"model": model})
    lineage = origin.upstream(lineage_store.connect(str(maker.file)), str(model.id))
    assert [(each.run, each.node) for each in lineage.executions] == [
        ("one", "RankingTrainer"),
        ("one", "RankingExampleGen"),
    ]
