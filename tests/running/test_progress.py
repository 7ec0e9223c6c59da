"""Tests what the progress of a run looks like, from the states alone."""

import io
import pathlib

import pytest
import rich.console

from tfx_ranking.components import config as ranking_config
from tfx_ranking.pipelines.metadata.run_records import Step
from tfx_ranking.pipelines.running import progress

STEPS = [
    Step("RankingExampleGen", "cached", 0.1, "120 lists, 568 items, 0 quarantined"),
    Step("Transform", "done", 12.34),
    Step("RankingTrainer", "failed", 2.0),
    Step("SignatureExporter", "running", 3.0),
    Step("RankingPusher", "waiting"),
]


def render(renderable: object) -> list[str]:
    console = rich.console.Console(file=io.StringIO(), width=100)
    console.print(renderable)
    return [line.strip() for line in console.file.getvalue().splitlines() if line.strip()]


def test_the_table_shows_state_seconds_and_figure():
    heading, _, *rows, caption = render(progress.table(STEPS, 61.2))
    assert heading.split() == ["component", "state", "seconds", "figure"]
    assert [row.split()[:3] for row in rows] == [
        ["RankingExampleGen", "cached", "120"],  # a cached step has no time
        ["Transform", "done", "12.3"],
        ["RankingTrainer", "failed", "2.0"],
        ["SignatureExporter", "running", "3.0"],
        ["RankingPusher", "waiting"],
    ]
    assert rows[0].endswith("120 lists, 568 items, 0 quarantined")
    assert caption == "61 s"


def test_before_any_component_one_line():
    assert render(progress.table([], 7.0)) == ["7 s   starting: loading TensorFlow and TFX"]
    assert render(progress.table([], 7.0, "interrupted")) == ["7 s   interrupted"]


def test_without_a_terminal_each_change_is_one_plain_line():
    console, seen = rich.console.Console(file=io.StringIO(), width=20), dict[str, str]()
    progress._print_changes(STEPS, seen, console)
    progress._print_changes(
        [*STEPS[:3], Step("SignatureExporter", "done", 4.0, "2 signatures"), STEPS[4]], seen, console
    )
    assert [" ".join(line.split()) for line in console.file.getvalue().splitlines()] == [
        "RankingExampleGen cached 120 lists, 568 items, 0 quarantined",
        "Transform done 12.3 s",
        "RankingTrainer failed 2.0 s",
        "SignatureExporter running",
        "SignatureExporter done 4.0 s 2 signatures",
    ]


@pytest.mark.parametrize("push", [None, "serving"])
def test_the_outcome_names_where_the_model_is(push, tmp_path):
    raw = {"name": "shop", "data": {"input": "x", "format": "csv"}, "items": {"f1": {}}}
    config = ranking_config.parse({**raw, "push": {"base": str(tmp_path)}} if push else raw)
    steps = [*STEPS[:2], Step("RankingPusher", "done", 1.0, "pushed version 7")] if push else STEPS[:2]
    if not push:
        steps.append(Step("SignatureExporter", "done", 1.0, "2 signatures", "/shop/model/8"))
        lines = [
            "exported: /shop/model/8; not pushed: the config has no push",
            "next:     tfx-ranking inspect /shop/model/8",
        ]
        assert progress.outcome(config, steps).splitlines() == lines
        return
    for file in ("saved_model.pb", "variables/variables.index"):
        pathlib.Path(tmp_path, "7", file).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(tmp_path, "7", file).touch()
    lines = ["pushed version 7", f"serving: {tmp_path}/7", f"next:    tfx-ranking inspect {tmp_path}/7"]
    assert progress.outcome(config, steps).splitlines() == lines
