"""Tests a run that is stopped: its component ends and is recorded, and the same command continues after it."""

import signal
import subprocess
import time

import pytest
import run_support
from run_support import COMPONENTS

from tfx_ranking.pipelines.lineage import origin, store

pytestmark = pytest.mark.slow
PATIENCE = 300.0  # seconds; a test that waits longer has failed


@pytest.mark.parametrize("orchestrator", ["beam", "local"])
def test_sigterm_ends_a_run_after_the_running_component(orchestrator, tmp_path):
    shop = run_support.open_shop(tmp_path)
    process = subprocess.Popen(
        shop.command("--orchestrator", orchestrator), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    wait_for_a_component(shop, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, output
    states = shop.states()
    done = [node for node, state in states.items() if state == "done"]
    assert set(states.values()) == {"done", "waiting"}, states  # nothing failed, nothing is marked as running
    (stopped,) = [line for line in output.splitlines() if line.startswith("stopped before ")]
    assert states[stopped.removeprefix("stopped before ")] == "waiting"
    assert "the same command continues after the finished steps" in output
    (run,) = origin.runs(store.connect(str(shop.folder / "metadata.sqlite")))
    assert run.state == "unfinished"
    waiting = {node for node, state in states.items() if state == "waiting"}
    assert set(run.reason.removeprefix("not started: ").split(", ")) == waiting

    again = shop.run(orchestrator)
    assert {again[node] for node in done} == {"cached"}
    assert {again[node] for node in COMPONENTS if node not in done} == {"done"}


def wait_for_a_component(shop: run_support.Shop, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        if (shop.folder / "metadata.sqlite").exists() and shop.running():
            return
        time.sleep(0.1)
    raise AssertionError(f"no component ran: {process.communicate()[0] if process.poll() is not None else 'too late'}")
