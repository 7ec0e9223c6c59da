"""Runs that die: what the next one does, and what a destination ever shows.

`killed_run.py` is a run that is killed while a component works; the rest is done to the command itself, as a person or
a machine would.
"""

import contextlib
import os
import pathlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import forked_python
import numpy as np
import pipeline_runs
import pytest
import run_support
import serving_client
from run_support import COMPONENTS, Shop, ran

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists.list_examples import columns, decode
from tfx_ranking.components.push import versions
from tfx_ranking.components.serving import parity

pytestmark = pytest.mark.slow
PATIENCE = 300.0  # seconds; a test that waits longer has failed


class Watch:
    """Looks at a destination all the time and digests each version the moment it appears."""

    def __init__(self, base: pathlib.Path):
        self.base, self.seen, self.over = base, dict[int, str](), False
        self.thread = threading.Thread(target=self.look)

    def look(self) -> None:
        while not self.over:
            for version, directory in versions.ServingBase(self.base).directories().items():
                if version not in self.seen:
                    self.seen[version] = model_files.digest(directory)
            time.sleep(0.001)

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.thread.join()


@pytest.fixture
def shop(tmp_path) -> Shop:
    return run_support.open_shop(tmp_path)


def killed_run(shop: Shop, moment: str, nodes: set[str]) -> str:
    """Runs until it is killed in one of `nodes`; gives that one."""
    script = pathlib.Path(__file__).parent.parent / "support" / "killed_run.py"
    arguments = [str(script), moment, ",".join(nodes), str(shop.config_file), "--root", str(shop.folder)]
    done = forked_python.run(arguments)
    assert done.returncode == -signal.SIGKILL, done.stdout[-2000:]
    (dead,) = shop.running()  # the earlier ones are no longer
    return dead


def test_killed_in_each_component_and_once_more_before_the_push_is_recorded(shop):
    remaining, finished = set(COMPONENTS), set[str]()
    with Watch(shop.base) as watch:
        while remaining:
            dead = killed_run(shop, "output", remaining)
            states = shop.states()
            assert states.pop(dead) == "running"
            assert {states[node] for node in finished} <= {"cached", "waiting"}
            finished |= {node for node, state in states.items() if state in ("done", "cached")}
            remaining.remove(dead)
        assert shop.versions() == []

        assert killed_run(shop, "done", {"RankingPusher"}) == "RankingPusher"
        assert set(shop.states().values()) == {"cached", "running"}
        (version,) = shop.versions()  # it serves already, though nothing says so

        # A version serves now, so LiveModel copies it and the evaluator compares with it.
        assert ran(shop.run()) == ["LiveModel", "RankingEvaluator", "RankingPusher"]
        assert shop.running() == []
        assert newest_push(shop) == {"pushed": 1, "unchanged": 1, "pushed_version": str(version)}
        assert ran(shop.run()) == ["RankingPusher"]
        assert shop.versions() == [version]
    exported = properties(shop, "SignatureExporter", "model")
    assert watch.seen == {version: exported["digest"]}  # whole when it was first seen, and never another
    assert exported["parity_lists"] > 0
    scores_as_it_was_trained(shop)


def newest_push(shop: Shop) -> dict[str, object]:
    recorded = properties(shop, "RankingPusher", "pushed_model")
    return {key: recorded[key] for key in ("pushed", "unchanged", "pushed_version")}


def properties(shop: Shop, node: str, channel: str) -> dict[str, object]:
    return as_run(shop).properties(node, channel)


def as_run(shop: Shop) -> pipeline_runs.PipelineRun:
    return pipeline_runs.PipelineRun(shop.folder, ranking_config.load(shop.config_file), "")


def scores_as_it_was_trained(shop: Shop) -> None:
    """The pushed version in a process of TensorFlow alone, against the transformed examples through the Keras model."""
    run = as_run(shop)
    records = run.records("RankingExampleGen", "examples", "test")
    name = run.config.data.group_id
    group_ids = decode(records, {name: columns(run.config)[name]}).context[name].tolist()
    scores, sizes = serving_client.fresh_process_score(run.served, "list_example", records)
    served = np.split(scores, np.cumsum(sizes)[:-1])
    trained = run.training_scores()
    assert all(
        parity.compare(trained[group_id], received).agrees for group_id, received in zip(group_ids, served, strict=True)
    )


@pytest.fixture
def command(shop) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Starts `tfx-ranking run` as a terminal would, in a process group of its own."""
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(shop.command(), stdout=pipe, stderr=pipe, text=True, start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def works_in(shop: Shop, node: str) -> Callable[[], bool]:
    # TFX makes the folder once it has recorded the execution: nobody opens the store while it is created.
    return lambda: (shop.folder / "artifacts" / "shop" / node).exists() and node in shop.running()


def processes_of(shop: Shop) -> list[pathlib.Path]:
    """The processes that were started for this shop, by their command line, as their folders in /proc."""
    processes = []
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(shop.folder).encode() in (process / "cmdline").read_bytes() and lives(process):
                processes.append(process)
    return [process for process in processes if process.name != str(os.getpid())]


def lives(process: pathlib.Path) -> bool:
    try:
        return (process / "stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_ctrl_c_ends_cleanly_and_the_next_run_goes_on(shop, command):
    process = command()
    wait_until(works_in(shop, "Transform"))
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "interrupted; the same command continues after the finished steps" in errors
    assert "Traceback" not in errors
    assert shop.running() == []
    assert processes_of(shop) == []
    states = shop.states()
    assert states["Transform"] == "failed"
    finished = {node for node, state in states.items() if state == "done"}
    assert finished >= {"RankingExampleGen", "StatisticsGen", "RankingSchemaGen"}

    process = command()
    out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    states = shop.states()
    assert {states[node] for node in finished} == {"cached"}
    assert states["RankingPusher"] == "done"
    assert len(shop.versions()) == 1
    assert f"serving: {shop.base}/{shop.versions()[0]}" in out


def test_a_killed_command_leaves_nobody_behind_and_two_do_not_run_at_once(shop, command):
    first = command()
    wait_until(works_in(shop, "SignatureExporter"))  # which has a child of its own at times
    second = command()
    _, errors = second.communicate(timeout=PATIENCE)
    assert second.returncode == 1
    assert "shop: another run is under way (process " in errors
    started = processes_of(shop)
    assert len(started) > 1
    first.kill()
    first.wait()
    wait_until(lambda: not any(map(lives, started)))
    assert shop.running() == ["SignatureExporter"]  # nobody was left to record its end
    assert set(ran(shop.run())) >= {"SignatureExporter", "RankingEvaluator", "RankingPusher"}
    assert shop.running() == []
    assert len(shop.versions()) == 1
