"""An environment for each peer, with pinned versions, apart from ours and outside the tree's commits.

Enters: a peer's name.  Leaves: the Python of its environment, `.peers/<name>/bin/python`, made on first use with
uv, or with venv and pip where there is no uv.  The one idea: the pins of `benchmarks/peers/<name>.txt` are the
environment, and when they change it is made anew.

    python benchmarks/peers/environments.py    makes those that are missing
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
OURS = ("PYTHONPATH", "VIRTUAL_ENV", "TF_USE_LEGACY_KERAS")  # what our process has set is not the peers' business


def python(peer: str) -> str:
    """The peer's Python.  Ends the program when it cannot be made, with what to do."""
    pins, home = HERE / f"{peer}.txt", ROOT / ".peers" / peer
    found, stamp = str(home / "bin" / "python"), home / "pins"
    digest = hashlib.sha256(pins.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return found
    print(f"making {home.relative_to(ROOT)} from {pins.relative_to(ROOT)}; minutes where nothing is cached", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    base, uv = python310(), find_uv()
    if uv:
        _run([uv, "venv", "--quiet", "--python", base, str(home)])
        _run([uv, "pip", "sync", "--quiet", "--python", found, str(pins)])  # the pins and nothing else
    else:
        _run([base, "-m", "venv", str(home)])
        _run([found, "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(pins)])
    stamp.write_text(digest)
    return found


def run(peer: str, script: str, options: Mapping[str, Any]) -> Any:
    """What a script of this folder reports, from a process in the peer's environment.

    options: handed over as JSON.  The script's last line is JSON.
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
    """A script of this folder in the peer's environment (ours when None), with pipes to talk to it line by line."""
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
    """A Python 3.10: that of our own environment when it is one, else the first on PATH."""
    if sys.version_info[:2] == (3, 10):
        return os.path.realpath(sys.executable)
    found = shutil.which("python3.10")
    if not found:
        raise SystemExit("TF-Ranking 0.5.5 and ml4ir 0.1.16 need Python 3.10; put a python3.10 on PATH and try again.")
    return found


def find_uv() -> str | None:
    """uv as setup.sh finds it: on PATH, else where set-up has put it."""
    local = ROOT / ".tools" / "bin" / "uv"
    return None if os.environ.get("NO_UV") else shutil.which("uv") or (str(local) if local.exists() else None)


def _run(command: list[str]) -> None:
    if subprocess.run(command, env={**_environment(), "UV_PYTHON_DOWNLOADS": "never"}).returncode:
        raise SystemExit(f"could not make a peer's environment: {' '.join(command)}")


if __name__ == "__main__":
    for each in PEERS:
        print(each, python(each))
