"""The command as a person uses it: help, errors in one line, nothing heavy before it is needed."""

import json
import subprocess
import sys

from tfx_ranking.pipelines import cli


def test_a_wrong_config_is_one_line_and_no_traceback(tmp_path, capsys):
    file = tmp_path / "ranking.yaml"
    file.write_text(
        json.dumps({"name": "a", "data": {"input": "x", "format": "csv", "lable": "y"}, "items": {"f": {}}})
    )
    assert cli.main(["run", str(file)]) == 1
    assert capsys.readouterr().err == f"tfx-ranking: {file}: data.lable: unknown key; did you mean 'label'?\n"


def test_nothing_to_inspect(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert cli.main(["inspect", str(tmp_path)]) == 1
    assert "expected a SavedModel (saved_model.pb) or a folder of versions; found notes.txt" in capsys.readouterr().err


def test_light_commands_load_no_tensorflow(tmp_path):
    script = """
import contextlib, io, sys
from tfx_ranking.pipelines import cli, local, progress, runs
with contextlib.redirect_stdout(io.StringIO()):
    cli.main(["config-schema"])
loaded = sorted({name.split(".")[0] for name in sys.modules} & {"tensorflow", "tfx", "apache_beam", "keras", "tfx_bsl"})
print(loaded)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
