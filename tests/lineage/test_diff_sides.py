"""The records of one side of a diff."""

import pytest
from lineage_runs import DiffRun
from lineage_stores import FAILED, StoreMaker

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.lineage import diff
from tfx_ranking.pipelines.lineage import store as lineage_store

BEFORE = {"numbers": [0, 1, 2, 3], "brands": ["acorn", "lumen"], "words": ["acorn", "lumen"]}


def test_a_run_that_ended_early(tmp_path):
    maker = StoreMaker(tmp_path)
    first = DiffRun(maker, "one", **BEFORE)
    live = maker.artifact("Model", "live/early", live=1, digest=digest(first.directory))
    maker.step("early", "LiveModel", {}, {"model": live})  # not a model of this run
    examples = maker.artifact("Examples", "examples/early", span=2)
    maker.step("early", "RankingExampleGen", {}, {"examples": examples})
    maker.step("early", "StatisticsGen", {"examples": examples}, {}, FAILED)
    differences = diff.diff(lineage_store.connect(str(maker.file)), "one", "early")
    assert differences.after.model is None
    assert differences.metrics == (("mrr", 0.5, None), ("ndcg@5", 0.25, None))
    assert differences.config[0].name == "data.label"  # the example generator of the second has no config
    assert ("spans", "1", "2") in differences.data


def test_neither_run_nor_model(tmp_path):
    maker = StoreMaker(tmp_path)
    side = DiffRun(maker, "one", **BEFORE)
    store = lineage_store.connect(str(maker.file))
    with pytest.raises(RankingError, match=r"a diff compares two runs or two models; this is of type Examples"):
        diff.diff(store, "one", f"artifact:{side.examples.id}")
    with pytest.raises(RankingError, match=r"nobody: not in "):
        diff.diff(store, "nobody", "one")


def test_the_same_model_under_two_names(tmp_path):
    maker = StoreMaker(tmp_path)
    side = DiffRun(maker, "one", **BEFORE)
    same = digest(side.directory)
    pushed = maker.artifact("PushedModel", "pushed/1", digest=same, pushed=1, pushed_version="1", refused="")
    maker.step("one", "RankingPusher", {}, {"pushed_model": pushed})
    store = lineage_store.connect(str(maker.file))
    differences = diff.diff(store, str(side.directory), same)
    assert diff.diff(store, same, f"artifact:{pushed.id}").causes == differences.causes
    assert differences.causes == ("it is the same model, byte by byte",)
    assert (differences.data, differences.features, differences.vocabularies, differences.config) == ((), (), (), ())
    assert differences.before.run == "one"
