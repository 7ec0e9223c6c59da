"""What the README shows works as it stands there."""

import pathlib
import re

import yaml

from tfx_ranking.components import config
from tfx_ranking.components.serving import client_requests
from tfx_ranking.pipelines import demo, search_logs

README = pathlib.Path(__file__).parent.parent.parent / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_config_is_taken():
    (block,) = _blocks("yaml")
    ranking = config.parse(yaml.safe_load(block))
    assert list(ranking.items) == ["brand", "price"]
    assert ranking.push.version == "next"


def test_the_targets_are_there():
    targets = re.findall(r"^make (\S+)|`make (\S+)`", README.read_text(), re.MULTILINE)
    makefile = (README.parent / "Makefile").read_text()
    for target in {one or other for one, other in targets}:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_a_client_scores_as_shown(real_run, capsys):
    run = real_run("tfr-numeric")
    record = run.records("RankingExampleGen", "examples", "test")[0]
    snippet = _blocks("python")[0]
    exec(snippet, {"directory": str(run.served), "elwc_bytes": client_requests.to_elwc(record, run.config)})
    assert "[]" in capsys.readouterr().out  # the empty list


def test_a_component_alone_as_shown(real_run, monkeypatch):
    run = real_run("tfr-numeric")
    monkeypatch.chdir(run.folder)
    shown: dict[str, object] = {}
    exec(_blocks("python")[1], shown)
    assert shown["examples"].outputs["examples"].type_name == "Examples"


def test_what_it_asks_for_is_in_the_demo():
    text = README.read_text()
    logs = {f"logs/{day}.csv" for day in search_logs.days(demo.SIMULATION)}
    assert set(re.findall(r"logs/[\d-]+\.csv", text)) <= logs
    ranking = config.parse(yaml.safe_load(demo.RANKING_YAML))
    assert ranking.push.version == config.parse(yaml.safe_load(_blocks("yaml")[0])).push.version == "next"
    assert set(re.findall(rf"{ranking.push.base}/(\d+)", text)) == {"1", "2"}
    (pattern, instead) = re.findall(r"sed -i 's/(.*)/(.*)/' ranking.yaml", text)[0]
    assert config.parse(yaml.safe_load(re.sub(pattern, instead, demo.RANKING_YAML))).training.propensity is None
