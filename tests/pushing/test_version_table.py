"""The table of the versions under a base directory."""

import json

import servable_models

from tfx_ranking.pipelines.cli import command_tree


def test_versions_of_a_folder_that_nobody_pushed_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command_tree.main(["versions", "serving"]) == 0
    assert capsys.readouterr().out == "serving: there is no version here\n"
    servable_models.save(tmp_path / "serving" / "3", 0.5, pipeline="shop", run="2026-11-21T15:39:50.109360")
    servable_models.save(tmp_path / "serving" / "4", 1.5, size=3_000_000)
    (tmp_path / "serving" / "4" / "saved_model.pb").unlink()
    assert command_tree.main(["versions", "serving"]) == 0
    heading, broken, live = capsys.readouterr().out.splitlines()
    assert heading.split() == ["version", "pushed", "at", "(UTC)", "run", "label", "size"]
    assert broken.split()[0] == "4"
    assert broken.endswith("3.0 MB  broken: no saved_model.pb")
    assert live.split()[0] == "3"
    assert live.split()[3:5] == ["2026-11-21T15:39:50", "live"]
    assert command_tree.main(["versions", "serving", "--json"]) == 0
    four, three = json.loads(capsys.readouterr().out)
    assert (four["version"], four["problem"], three["live"]) == (4, "broken: no saved_model.pb", True)
