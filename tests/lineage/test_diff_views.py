"""The command `diff`: text and JSON."""

import json

from lineage_runs import DiffRun
from lineage_stores import StoreMaker

from tfx_ranking.pipelines.cli import command_tree

BEFORE = {"numbers": [0, 1, 2, 3], "brands": ["acorn", "lumen"], "words": ["acorn", "lumen"]}


def test_the_command_prints_text_and_json(tmp_path, capsys):
    maker = StoreMaker(tmp_path)
    DiffRun(maker, "one", **BEFORE)
    DiffRun(maker, "two", value=0.4, span=2, **BEFORE)
    at = ["--metadata", str(maker.file)]
    assert command_tree.main(["diff", "one", "two", *at]) == 0
    text = capsys.readouterr().out
    assert text.splitlines()[0].startswith("before  run one  model ")
    assert "mrr     0.5000  →  0.4000  -0.1000" in text
    assert command_tree.main(["diff", "one", "two", "--json", *at]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["metrics"][0] == {"name": "mrr", "before": 0.5, "after": 0.4}
    assert answer["contract"]["verdict"] == "same"
    assert [each["name"] for each in answer["features"]] == ["clicked", "price", "brand"]
