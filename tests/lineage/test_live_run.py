"""The run that made the live model."""

from lineage_runs import DiffRun
from lineage_stores import StoreMaker

from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.lineage.live_run import LiveRun, live_run


def test_the_inputs_of_the_run_that_made_the_live_model(tmp_path):
    maker = StoreMaker(tmp_path)
    made = DiffRun(maker, "one", numbers=[0, 1], brands=["acorn"], words=["acorn"])
    live = digest(made.directory)
    store = lineage_store.connect(str(maker.file))
    answer = live_run(store, "7", live)
    assert (answer.version, answer.digest, answer.run, answer.files) == ("7", live, "one", {"d1"})
    assert answer.statistics == str(maker.folder / "statistics" / "one")
    assert answer.schema == str(maker.folder / "schema" / "one")
    assert live_run(store, "8", "a digest that no run made") == LiveRun(version="8", digest="a digest that no run made")
