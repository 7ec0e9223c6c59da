"""The Dockerfile's image, made without a container engine in a Debian 13 tree, and the compiled pipeline run by it.

`make test-current` runs it there; anywhere else it is skipped, since it installs into the machine that it runs on.
"""

import os
import pathlib
import pwd
import re
import shutil
import subprocess
import sys

import dockerfile
import kubeflow_replay
import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
TREE = "TFX_RANKING_DEBIAN_TREE"  # set within the tree, which nobody else uses

pytestmark = [
    pytest.mark.slow,
    pytest.mark.current,
    pytest.mark.skipif(not os.environ.get(TREE), reason="needs a Debian 13 tree of its own: `make test-current`"),
]


@pytest.fixture(scope="module")
def image() -> dockerfile.Image:
    for made in ("/opt/uv", "/opt/ranking", "/build"):
        shutil.rmtree(made, ignore_errors=True)  # of an earlier run in this tree
    if "ranking" in (each.pw_name for each in pwd.getpwall()):
        subprocess.run(["userdel", "--remove", "ranking"], check=True, capture_output=True)
    outside = {name: value for name, value in os.environ.items() if "CERT" in name or "CA_" in name or "PROXY" in name}
    return dockerfile.follow(ROOT / "Dockerfile", "debian:13-slim", outside)


def _in_image(image: dockerfile.Image, *command: str) -> str:
    home = pwd.getpwuid(int(image.user)).pw_dir
    environment = {**image.environment, "HOME": home, "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = (*kubeflow_replay.as_user(image.user), *command)
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_answers_and_nobody_is_root(image):
    assert int(image.user) > 0, "a number, or Kubernetes refuses to start it"
    assert "compile" in _in_image(image, *image.entrypoint, "--help")
    assert _in_image(image, "id", "--user").strip() == "10001"


def test_it_holds_the_pinned_packages_and_none_of_development(image):
    show = "import importlib.metadata as m; print('\\n'.join(f'{d.name}=={d.version}' for d in m.distributions()))"
    installed = set(map(_normal, _in_image(image, "python", "-c", show).splitlines()))
    pins = set(map(_normal, (ROOT / "requirements" / "py313.txt").read_text().splitlines()))
    ours = {each for each in installed if each.startswith("tfx-ranking==")}
    assert len(ours) == 1
    assert installed - ours <= pins
    assert not {"pytest", "mypy", "ruff", "lightgbm"} & {each.split("==")[0] for each in installed}
    assert {"tfx==1.21.0", "kfp==2.16.1"} <= installed


def _normal(pin: str) -> str:
    name, _, version = pin.strip().lower().partition("==")
    return f"{re.sub('[-_.]+', '-', name)}=={version}"


def test_it_is_installed_as_a_wheel(image):
    where = _in_image(image, "python", "-c", "import tfx_ranking.components as c; print(c.__file__)")
    assert where.startswith("/opt/ranking/lib/python3.13/site-packages/tfx_ranking/components/")


def test_the_compiled_pipeline_runs_in_it(image):
    """All of `test_kubeflow_replay.py`, its containers run by the image's Python and its user."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "slow", "tests/whole/test_kubeflow_replay.py"],
        cwd=ROOT,
        env={**os.environ, "TFX_RANKING_IMAGE": f"{image.user}:/opt/ranking/bin/python"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert " passed" in done.stdout
