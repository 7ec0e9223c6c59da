"""What docs/operations.md shows is there: commands and options, exit codes, keys of the config."""

import argparse
import pathlib
import re
import shlex

import pytest
import yaml

from tfx_ranking.components import config
from tfx_ranking.pipelines import cli
from tfx_ranking.pipelines.retraining import Exit

TEXT = (pathlib.Path(__file__).parent.parent / "docs" / "operations.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> list[list[str]]:
    """Every call of the command in the file, as its arguments."""
    shown = re.findall(r"tfx-ranking ([^\n`]*)", "\n".join(blocks("sh")))
    scheduled = re.findall(r"tfx-ranking (retrain ranking\.yaml)", "\n".join(map("\n".join, map(blocks, LANGUAGES))))
    inline = re.findall(r"`tfx-ranking ([^`]*)`", TEXT)
    return [shlex.split(each, comments=True) for each in (*shown, *scheduled, *inline)]


LANGUAGES = ("crontab", "ini", "yaml")


def test_each_keeper_of_time_calls_retrain():
    for language, count in zip(LANGUAGES, (1, 1, 1)):
        assert "\n".join(blocks(language)).count("tfx-ranking retrain ranking.yaml") == count, language


@pytest.mark.parametrize("arguments", [each for each in commands() if len(each) > 1], ids=" ".join)
def test_the_commands_are_taken_as_shown(arguments):
    parser: argparse.ArgumentParser = cli._parser()
    assert parser.parse_args(arguments).command


def test_a_command_without_its_arguments_is_named_rightly():
    known = {command for arguments in commands() for command in arguments[:1]}
    for command in known:
        with pytest.raises(SystemExit) as left:
            cli.main([command, "--help"])
        assert left.value.code == 0


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
    for key in config.Retrain.__dataclass_fields__:
        assert f"{key}:" in TEXT
