"""`tfx-ranking schedule` with the real `retrain`: pushed, nothing to do, stopped between two components, gone on."""

import json
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import run_support

from tfx_ranking.pipelines import search_logs

pytestmark = pytest.mark.slow
PATIENCE = 600.0  # seconds; a test that waits longer has failed


@pytest.fixture
def shop(tmp_path) -> run_support.Shop:
    return run_support.open_shop(tmp_path)


@pytest.fixture
def serve(shop) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the service; what is left of it is killed."""
    started = []

    def start(*options: str) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "tfx_ranking.pipelines.cli",
            "schedule",
            str(shop.config_file),
            *options,
        ]
        with (shop.folder / "service.log").open("a") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def status(shop: run_support.Shop) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tfx_ranking.pipelines.cli",
        "schedule",
        "status",
        str(shop.config_file),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else {"last": None}


def until(condition: Callable[[], Any], shop: run_support.Shop, process: subprocess.Popen[str]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (result := condition()):
        printed = (shop.folder / "service.log").read_text()
        assert time.monotonic() < end, printed
        assert process.poll() is None, printed
        time.sleep(1.0)
    return result


def ended(shop: run_support.Shop, runs: int, process: subprocess.Popen[str]) -> dict[str, Any]:
    until(lambda: (shop.folder / "service.log").read_text().count("run ended") >= runs, shop, process)
    return status(shop)["last"]


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


def test_a_schedule_retrains(shop, serve):
    hook_file = shop.folder / "hook.jsonl"
    append = f"import sys; open('{hook_file}', 'a').write(sys.stdin.read() + chr(10))"
    hook = f'{shlex.quote(sys.executable)} -c "{append}"'
    service = serve("--every", "1d", "--notify", hook)
    first = ended(shop, 1, service)
    assert first["outcome"] == "pushed", pathlib.Path(first["log"]).read_text()
    (version,) = shop.versions()
    assert str(version) in first["message"]
    stop(service)
    (payload,) = [json.loads(line) for line in hook_file.read_text().splitlines()]
    assert (payload["event"], payload["pipeline"], payload["exit_code"]) == ("pushed", "shop", 0)

    service = serve("--every", "2d", "--notify", hook)  # another plan begins at once
    assert ended(shop, 2, service)["outcome"] == "nothing to do"
    stop(service)
    assert len(hook_file.read_text().splitlines()) == 1

    search_logs.write_csv(
        search_logs.Simulation(queries=60, days=1, first_day="2026-12-01", products=100, seed=2), shop.folder / "logs"
    )
    service = serve("--every", "3d")
    until(lambda: status(shop)["running"] and shop.running(), shop, service)
    stop(service)
    stopped = status(shop)["last"]
    assert (stopped["outcome"], stopped["exit_code"]) == ("stopped", 130), pathlib.Path(stopped["log"]).read_text()
    assert shop.running() == []
    service = serve("--every", "3d")
    assert ended(shop, 4, service)["outcome"] in ("pushed", "not blessed")
    assert "the last run was stopped: continuing" in (shop.folder / "service.log").read_text()
    stop(service)
