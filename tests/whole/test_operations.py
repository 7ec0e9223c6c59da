"""What docs/operations.md shows is there: commands and options, exit codes, keys of the config."""

import pathlib
import re

import yaml

from tfx_ranking.components import config
from tfx_ranking.components.config.push_sections import Retrain
from tfx_ranking.pipelines.retraining.exit_codes import Exit

TEXT = (pathlib.Path(__file__).parent.parent.parent / "docs" / "operations.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


LANGUAGES = ("crontab", "ini", "yaml")


def test_each_keeper_of_time_calls_retrain():
    for language, count in zip(LANGUAGES, (1, 1, 1)):
        assert "\n".join(blocks(language)).count("tfx-ranking retrain ranking.yaml") == count, language


def test_the_exit_codes_are_the_table():
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", TEXT, re.MULTILINE)]
    assert sorted(codes) == sorted(int(each) for each in Exit)


def test_the_config_is_taken():
    (shown,) = [each for each in blocks("yaml") if "retrain:" in each]
    taken = config.parse(yaml.safe_load(shown))
    assert taken.retrain.refuse.threshold("price") == 0.5
    assert taken.retrain.drift.threshold("price") == 0.1


def test_what_kubernetes_gets_is_yaml():
    (job,) = [yaml.safe_load(each) for each in blocks("yaml") if "CronJob" in each]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"


def test_every_retrain_key_is_explained():
    for key in Retrain.__dataclass_fields__:
        assert f"{key}:" in TEXT
