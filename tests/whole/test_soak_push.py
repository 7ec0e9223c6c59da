"""A few of the kills that `make soak` does by the hundred."""

import pathlib
import subprocess
import sys

import pytest
import soak_push


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_bad_view(tmp_path):
    script = pathlib.Path(soak_push.__file__)
    command = [sys.executable, str(script), "--kills", "20", "--seed", "7", "--folder", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "bad views: 0" in done.stdout, done.stdout + done.stderr[-2000:]
    assert done.returncode == 0
