"""Makes a Python environment with pinned versions for each peer (TF-Ranking, ml4ir), separate from ours.

Input: a peer's name and its pins, `benchmarks/peers/<name>.txt`.
Output: the environment's Python, `.peers/<name>/bin/python`, which Git ignores.

An environment is made at its first use, and again when the pins change, with uv, or with venv and pip if uv is missing.

    python benchmarks/peers/environments.py    makes the environments that are missing
"""

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

PEERS = ("tf_ranking", "ml4ir")
HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OURS = ("PYTHONPATH", "VIRTUAL_ENV", "TF_USE_LEGACY_KERAS")  # set for our process; not passed on to the peers


def python(peer: str) -> str:
    """Returns the path of the peer's Python; makes its environment if needed.  Raises SystemExit on failure."""
    pins, home = HERE / f"{peer}.txt", ROOT / ".peers" / peer
    interpreter, stamp = str(home / "bin" / "python"), home / "pins"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return interpreter
    print(
        f"making {home.relative_to(ROOT)} from {pins.relative_to(ROOT)}; this takes minutes if nothing is cached",
        flush=True,
    )
    shutil.rmtree(home, ignore_errors=True)
    base, uv = python310(), find_uv()
    if uv:
        _run([uv, "venv", "--quiet", "--python", base, str(home)])
        _run([uv, "pip", "sync", "--quiet", "--python", interpreter, str(pins)])  # the pins and nothing else
    else:
        _run([base, "-m", "venv", str(home)])
        _run([interpreter, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pins)])
    stamp.write_text(digest)
    return interpreter


def run(peer: str, script: str, options: Mapping[str, Any]) -> Any:
    """Runs a script of this folder in the peer's environment, and returns its report.

    options: passed to the script as JSON.  The report is the last line that the script prints, as JSON.
    Raises SystemExit, with the end of the script's output, when the script fails.
    """
    ran = subprocess.run(
        [python(peer), str(HERE / script), json.dumps(options)],
        capture_output=True,
        text=True,
        env=_environment(),
    )
    if ran.returncode or not ran.stdout.strip():
        raise SystemExit(f"{peer}: {script} failed.\n{ran.stderr[-4000:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def start(peer: str | None, script: str) -> subprocess.Popen:
    """Starts a script of this folder in the peer's environment (ours when None), with pipes for lines of text."""
    return subprocess.Popen(
        [python(peer) if peer else sys.executable, str(HERE / script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**kept, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONNOUSERSITE": "1"}


def python310() -> str:
    """Returns the path of a Python 3.10: our own environment's, or else the first one on PATH."""
    if sys.version_info[:2] == (3, 10):
        return os.path.realpath(sys.executable)
    interpreter = shutil.which("python3.10")
    if not interpreter:
        raise SystemExit("TF-Ranking 0.5.5 and ml4ir 0.1.16 need Python 3.10; put a python3.10 on PATH and try again.")
    return interpreter


def find_uv() -> str | None:
    """Finds uv as setup.sh does: on PATH, or else in `.tools`."""
    local = ROOT / ".tools" / "bin" / "uv"
    return None if os.environ.get("NO_UV") else shutil.which("uv") or (str(local) if local.exists() else None)


def _run(command: list[str]) -> None:
    if subprocess.run(command, env={**_environment(), "UV_PYTHON_DOWNLOADS": "never"}).returncode:
        raise SystemExit(f"could not make a peer's environment: {' '.join(command)}")


if __name__ == "__main__":
    for each in PEERS:
        print(each, python(each))
