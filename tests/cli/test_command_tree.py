"""The command as a person uses it: help, errors in one line, nothing heavy before it is needed."""

import json
import os
import shlex
import subprocess
import sys
from importlib import metadata

import pytest

from tfx_ranking.pipelines import quiet
from tfx_ranking.pipelines.cli import command_tree


def test_a_wrong_config_is_one_line_and_no_traceback(tmp_path, capsys):
    file = tmp_path / "ranking.yaml"
    file.write_text(
        json.dumps({"name": "a", "data": {"input": "x", "format": "csv", "lable": "y"}, "items": {"f": {}}})
    )
    assert command_tree.main(["run", str(file)]) == 1
    assert capsys.readouterr().err == f"tfx-ranking: {file}: data.lable: unknown key; did you mean 'label'?\n"


def test_nothing_to_inspect(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert command_tree.main(["inspect", str(tmp_path)]) == 1
    assert "expected a SavedModel (saved_model.pb) or a folder of versions; found notes.txt" in capsys.readouterr().err


def test_a_missing_input_is_reported_before_tfx_is_loaded(tmp_path, capsys):
    file = tmp_path / "ranking.yaml"
    for pattern, message in (
        ("logs/*.csv", f"data.input: no file matches '{tmp_path}/logs/*.csv'."),
        ("logs/{SPAN}/*.csv", f"data.input: no span for '{tmp_path}/logs/{{SPAN}}/*.csv'."),
    ):
        file.write_text(json.dumps({"name": "a", "data": {"input": pattern, "format": "csv"}, "items": {"f": {}}}))
        assert command_tree.main(["run", str(file)]) == 1
        assert capsys.readouterr().err == f"tfx-ranking: {message} The folder {tmp_path}/logs does not exist.\n"
    assert not (tmp_path / "artifacts").exists()


def test_a_misspelt_command(capsys):
    for word, hint in (("rnu", "did you mean 'run'?"), ("xyz", "tfx-ranking --help lists them all.")):
        with pytest.raises(SystemExit) as left:
            command_tree.main([word])
        assert left.value.code == 2
        assert capsys.readouterr().err.endswith(f"tfx-ranking: error: there is no command {word!r}; {hint}\n")


def test_the_version(capsys):
    with pytest.raises(SystemExit) as left:
        command_tree.main(["--version"])
    assert left.value.code == 0
    ours, theirs = metadata.version("tfx-ranking"), metadata.version("tfx")
    assert capsys.readouterr().out == f"tfx-ranking {ours}, TFX {theirs}\n"


@pytest.mark.parametrize(
    "line",
    [
        "schedule ranking.yaml",
        "schedule ranking.yaml --every 6x",
        "schedule ranking.yaml --every 6h --retry-after soon",
        "schedule ranking.yaml --every 6h --retries -1",
        "schedule ranking.yaml --every 6h --timezone Mars",
        "schedule ranking.yaml --cron '0 3 * *'",
        "schedule ranking.yaml --every 6h --dry-run",
        "schedule ranking.yaml other.yaml --every 6h",
        "served serving --at tomorow",
        "served serving --at 2999-01-01",
        "rank serving logs.csv --output x.txt",
        "submit pipeline.yaml --dry-run --span abc",
        "submit pipeline.yaml --dry-run --learning-rate -1",
        "compile ranking.yaml --image i --root s3://a --input x --input train=y",
        "compile ranking.yaml --image i --root s3://a --metadata '{]'",
        "runs --metadata '{]'",
    ],
)
def test_wrong_usage_is_2_and_one_line(line, tmp_path, monkeypatch, capsys):
    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}, "push": {"base": "serving"}}
    (tmp_path / "ranking.yaml").write_text(json.dumps(raw))
    monkeypatch.chdir(tmp_path)
    assert command_tree.main(shlex.split(line)) == 2
    assert capsys.readouterr().err.startswith("tfx-ranking: ")


@pytest.mark.parametrize(("loaded", "printed"), [(False, "loading TensorFlow, about 10 s ...\n"), (True, "")])
def test_loading_is_announced_once(loaded, printed, monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    if loaded:
        monkeypatch.setitem(sys.modules, "tensorflow", sys)
    with quiet.quiet_imports():
        os.write(2, b"noise")
    assert capfd.readouterr().err == printed


def test_light_commands_load_no_tensorflow(tmp_path):
    script = """
import contextlib, io, sys
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.metadata import run_records
from tfx_ranking.pipelines.running import local, progress
with contextlib.redirect_stdout(io.StringIO()):
    command_tree.main(["config-schema"])
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tfx", "apache_beam", "keras", "tfx_bsl"})
print(loaded)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
