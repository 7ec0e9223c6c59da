"""The commands `served`, `impact` and `models`: text and JSON."""

import json

import pytest
from lineage_runs import Days
from lineage_stores import FAILED, StoreMaker, saved_model

from tfx_ranking.components.exported.model_files import digest
from tfx_ranking.pipelines.cli import command_tree


def test_the_commands_print_text_and_json(tmp_path, capsys):
    days = Days(tmp_path)
    days.run("failed", 1, exported=False)
    days.maker.step("failed", "SignatureExporter", {}, {}, FAILED)
    saved_model(days.base / "10", "served")
    days.run("one", 2, version=10)
    days.push(10, digest(days.base / "10"), unchanged=1)
    at = ["--metadata", str(days.maker.file)]
    assert command_tree.main(["served", str(days.base), "--at", "today", *at]) == 0
    output = capsys.readouterr().out
    assert "version 10, from" in output
    assert "until now" in output
    assert "data  span 2, 1 file:\n    d2  20 B  all  /logs/2.csv" in output
    assert command_tree.main(["served", str(days.base), "--json", *at]) == 0
    (each,) = json.loads(capsys.readouterr().out)
    assert (each["push"]["version"], each["model"]["run"], each["until"]) == ("10", "one", None)
    assert command_tree.main(["impact", "--span", "2", *at]) == 0
    output = capsys.readouterr().out.splitlines()
    assert output[:2] == [
        "span 2: 1 model (1 trained on it), 1 pushed",
        f"live at {days.base}: version 10, trained on it",
    ]
    assert command_tree.main(["impact", "--span", "1", "--json", *at]) == 0
    assert [each["pushes"] for each in json.loads(capsys.readouterr().out)["models"]] == [[]]
    assert command_tree.main(["served", str(days.base), "--at", "never", *at]) == 2
    assert capsys.readouterr().err.startswith("tfx-ranking: 'never': not a time; expected a date")
    with pytest.raises(SystemExit) as left:
        command_tree.main(["impact", *at])
    assert left.value.code == 2


def test_an_empty_store(tmp_path, capsys):
    at = ["--metadata", str(StoreMaker(tmp_path).file)]
    assert command_tree.main(["models", *at]) == 0
    assert capsys.readouterr().out == "no model was pushed yet\n"
    for question in (["served", "here"], ["impact", "--span", "1"], ["impact", "--run", "x"], ["diff", "a", "b"]):
        assert command_tree.main([*question, *at]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
