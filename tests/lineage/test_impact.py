"""Which models some data or a run contributed to."""

import json

import pytest
from lineage_runs import Days
from lineage_stores import saved_model

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.lineage import impact


def _impact(result):
    return [
        (each.model.run, each.how, [push.version for push in each.pushes], bool(each.live)) for each in result.models
    ]


def test_the_impact_of_a_span(tmp_path):
    days = Days(tmp_path)
    saved_model(days.base / "10", "served")
    examples = days.run("one", 17, version=10)
    of_seventeen = days.model
    days.run("again", 17, examples=examples)  # on the cached examples, not blessed
    days.run("two", [16, 17, 18], version=20)
    days.run("begun", 19, begun=of_seventeen)
    days.run("apart", 20)
    days.evaluate("apart", examples, days.model, 0.4, False)  # on the lists of an earlier span
    days.run("ended early", 17, exported=False)
    days.run("other", 21, version=30)
    result = impact.of_span(days.store, 17)
    assert _impact(result) == [
        ("ended early", "trained", [], False),
        ("apart", "evaluated", [], False),
        ("begun", "began", [], False),
        ("two", "trained", ["20"], False),
        ("again", "trained", [], False),
        ("one", "trained", ["10"], True),  # the destination has only version 10, whatever was recorded last
    ]
    assert [(each.version, each.seen) for each in result.live] == [("10", True)]
    assert result.models[0].model.spans == (17,)  # through the transformed examples
    assert _impact(impact.of_file(days.store, "17.csv")) == _impact(impact.of_file(days.store, "d17"))  # by its digest
    assert [run for run, *_ in _impact(impact.of_file(days.store, "/logs/18.csv"))] == ["two"]
    assert _impact(impact.of_run(days.store, "again")) == [
        ("again", "trained", [], False)
    ]  # without its cached examples
    saved_model(days.base / "40", "of somebody else")
    assert {each.live for each in impact.of_span(days.store, 17).models} == {()}
    with pytest.raises(RankingError, match=r"span 5: .* has no examples of this span; it has spans: 16-21\."):
        impact.of_span(days.store, 5)
    with pytest.raises(RankingError, match=r"7\.csv: .* has no examples that were read from this file"):
        impact.of_file(days.store, "7.csv")
    with pytest.raises(RankingError, match=r"nobody: .* has no run with this id"):
        impact.of_run(days.store, "nobody")


def test_a_model_that_was_evaluated_on_earlier_spans(tmp_path):
    days = Days(tmp_path)
    examples = days.run("one", [16, 17], version=10)
    judged = days.maker.artifact(
        "ModelEvaluation", "e/later", previous_examples=examples.uri, previous_spans=json.dumps([17])
    )
    days.run("two", 18)
    copy = days.maker.artifact("Model", "live/1", live=1, digest="digest of one")
    inputs = {"model": days.model, "baseline_model": copy}
    days.maker.step("two", "RankingEvaluator", inputs, {"evaluation": judged})
    trained = ("one", "trained", ["10"], True)
    assert _impact(impact.of_span(days.store, 17)) == [("two", "evaluated", [], False), trained]
    assert _impact(impact.of_span(days.store, 16)) == [trained]  # only lists of the last span were used
    unfiltered = days.store
    unfiltered._filters = False
    assert impact.of_span(unfiltered, 17) == impact.of_span(days.store, 17)


def test_a_model_that_started_from_another_one(tmp_path):
    days = Days(tmp_path)
    days.run("one", 17, version=10)
    copy = days.maker.artifact("Model", "live/1", live=1, digest="digest of one")
    days.maker.step("two", "LiveModel", {}, {"model": copy})
    days.run("two", 18, version=20, begun=copy)
    result = impact.of_span(days.store, 17)
    assert _impact(result) == [("two", "began", ["20"], True), ("one", "trained", ["10"], False)]
    assert not result.live[0].seen  # the folder does not exist: by the last record


def test_anomalies_do_not_pass_a_contribution_on(tmp_path):
    days = Days(tmp_path)
    days.run("one", 17)
    (anomalies,) = days.store.of_type("ExampleAnomalies")
    later = days.maker.artifact("Model", "trained/later")
    checked = days.maker.store.get_artifacts_by_id([anomalies.id])[0]
    days.maker.step("two", "RankingTrainer", {"anomalies": checked}, {"model": later})
    assert [run for run, *_ in _impact(impact.of_span(days.store, 17))] == ["one"]
