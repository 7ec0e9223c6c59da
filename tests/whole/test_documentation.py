"""README and docs against the tree of commands: what they show is taken, and no command goes without being shown."""

import argparse
import pathlib
import re
import shlex

import pytest

from tfx_ranking.pipelines.cli import command_tree

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def _tree() -> list[str]:
    (group,) = [each for each in command_tree.parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return list(group.choices)


def _calls() -> list[list[str]]:
    """Every call of the command in a block, and those in the text that have arguments, without comments."""
    calls_shown = []
    for file in FILES:
        text = file.read_text()
        for language, block in re.findall(r"```(\w+)\n(.*?)```", text, re.DOTALL):
            block = re.sub(r"\\\n\s*", " ", block)
            # Elsewhere a call stands within something else: a line of cron, a unit, a list in YAML.
            call = r"^tfx-ranking (.*)$" if language == "sh" else r"tfx-ranking ([a-z][^\n;&\"]*)"
            calls_shown += re.findall(call, block, re.MULTILINE)
        calls_shown += re.findall(r"`tfx-ranking ([^`]+ [^`]*)`", text)
    calls = [shlex.split(re.sub(r" > .*", "", each), comments=True) for each in calls_shown]
    return [list(each) for each in dict.fromkeys(map(tuple, calls)) if len(each) > 1 or each[0] in ("demo", "runs")]


@pytest.mark.parametrize("arguments", _calls(), ids=" ".join)
def test_what_is_shown_is_taken(arguments):
    assert command_tree.parser().parse_args(arguments).command


def test_every_command_is_shown():
    shown = {name for file in FILES for name in re.findall(r"tfx-ranking ([a-z][\w-]*)", file.read_text())}
    assert set(_tree()) == shown & set(_tree())
    assert not [name for name in shown if name not in _tree()]


@pytest.mark.parametrize("command", _tree())
def test_every_command_explains_itself_with_an_example_that_is_taken(command, capsys):
    with pytest.raises(SystemExit) as left:
        command_tree.main([command, "--help"])
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    (example,) = re.findall(r"^example: tfx-ranking (.*)$", help_text, re.MULTILINE)
    assert "exit codes:" in help_text
    assert command_tree.parser().parse_args(shlex.split(example.split(" > ")[0])).command
    assert example.startswith(command)
