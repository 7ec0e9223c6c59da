"""What a second run does again, asked of ML Metadata: exactly what depends on what changed.

One small shop is run once and settled; each test changes one thing, runs, and puts it back, so that the next one finds
everything in the cache.  No later model is ever good enough to be pushed, so the destination changes only where a test
changes it.  `test_rerun_table.py` has every key of the config.
"""

import contextlib
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import run_support
from run_support import COMPONENTS, Shop, ran

from tfx_ranking.components.exported import model_files
from tfx_ranking.pipelines import search_logs


def from_on(node: str) -> list[str]:
    """A component and everything that depends on it; LiveModel depends on the destination alone."""
    return [each for each in COMPONENTS[COMPONENTS.index(node) :] if each != "LiveModel"]


@pytest.fixture(scope="module")
def first(tmp_path_factory) -> tuple[Shop, dict[str, str]]:
    shop = run_support.open_shop(tmp_path_factory.mktemp("shop"))
    shop.set("evaluation.bless", {"min_improvement": 10.0})
    return shop, shop.run()


@pytest.fixture(scope="module")
def second(first) -> dict[str, str]:
    return first[0].run()


@pytest.fixture
def shop(first, second) -> Shop:
    """The shop with nothing left to do."""
    return first[0]


@contextlib.contextmanager
def edited(file: pathlib.Path, old: str, new: str) -> Iterator[None]:
    before = file.read_text()
    assert old in before
    file.write_text(before.replace(old, new, 1))
    try:
        yield
    finally:
        file.write_text(before)


@contextlib.contextmanager
def changed(shop: Shop, path: str, value: object) -> Iterator[None]:
    before = shop.config_file.read_text()
    shop.set(path, value)
    try:
        yield
    finally:
        shop.config_file.write_text(before)


@pytest.fixture
def one_more_file(shop) -> Iterator[None]:
    """More items for 20 of the searches, in a file that the input's pattern matches."""
    simulation = search_logs.Simulation(queries=20, days=1, first_day="2026-12-01", products=100, seed=2)
    search_logs.write_csv(simulation, shop.folder / "logs")
    yield
    (shop.folder / "logs" / "2026-12-01.csv").unlink()


def test_the_first_run_does_everything_and_pushes(first):
    shop, states = first
    assert ran(states) == list(COMPONENTS)
    assert len(shop.versions()) == 1
    assert shop.running() == []


def test_with_nothing_changed_only_what_asks_the_destination_runs_and_nothing_is_pushed(first, second):
    shop, _ = first
    versions = shop.versions()
    assert ran(second) == ["LiveModel", "RankingEvaluator", "RankingPusher"]  # a version serves now, a first baseline
    assert ran(shop.run()) == ["RankingPusher"]
    assert ran(shop.run("local")) == ["RankingPusher"]  # TFX's other runner finds the same cache
    assert shop.versions() == versions


def test_a_changed_learning_rate_trains_again_and_nothing_before(shop):
    with changed(shop, "training.learning_rate", 0.01):
        assert ran(shop.run()) == from_on("RankingTrainer")
    assert ran(shop.run()) == ["RankingPusher"]


def test_changed_slices_evaluate_again(shop):
    with changed(shop, "evaluation.slices", ["country"]):
        assert ran(shop.run()) == ["RankingEvaluator", "RankingPusher"]


def test_a_changed_version_policy_is_the_pushers_alone(shop):
    with changed(shop, "push.version", "next"):
        assert ran(shop.run()) == ["RankingPusher"]


def test_an_emptied_destination_is_filled_again(shop):
    (version,) = shop.versions()
    before = model_files.digest(shop.base / str(version))
    shutil.rmtree(shop.base)
    assert ran(shop.run()) == ["RankingPusher"]  # all else, "nothing serves" included, is known from the first run
    (again,) = shop.versions()
    assert model_files.digest(shop.base / str(again)) == before
    assert set(ran(shop.run())) <= {"LiveModel", "RankingEvaluator", "RankingPusher"}  # the version is another number


def test_one_changed_byte_of_the_input_runs_again_everything_that_depends_on_it(shop):
    log = min((shop.folder / "logs").glob("*.csv"))
    content = log.read_bytes()
    last = content.rstrip()[-1:]
    log.write_bytes(content.rstrip()[:-1] + (b"0" if last != b"0" else b"1") + b"\n")
    assert len(log.read_bytes()) == len(content)
    assert ran(shop.run()) == from_on("RankingExampleGen")
    log.write_bytes(content)
    assert ran(shop.run()) == ["RankingPusher"]


@pytest.mark.usefixtures("one_more_file")
def test_one_more_file_and_a_failure_that_is_explained_and_resumed_from(shop):
    """The failure stands in for the rest of the run: what ran again before it is the question."""
    with edited(shop.features, "    return outputs", '    raise ValueError("out of stock")'):
        done = subprocess.run(shop.command(), capture_output=True, text=True, env={**os.environ, "COLUMNS": "60"})
    assert done.returncode == 1
    states = shop.states()
    assert {states[node] for node in ("RankingExampleGen", "StatisticsGen", "RankingSchemaGen")} == {"done"}
    assert states["ExampleValidator"] in ("done", "waiting")  # beside Transform, no runner promises which goes first
    assert states["Transform"] == "failed"
    assert {states[node] for node in from_on("RankingTrainer")} == {"waiting"}
    assert shop.running() == []

    first_line, *lines = done.stdout.splitlines()  # without a terminal: plain lines, none of them wrapped
    log = pathlib.Path(first_line.removeprefix("log: "))
    assert "out of stock" in log.read_text()
    last_lines = {line.split()[0]: " ".join(line.split()[1:]) for line in lines}  # the last of each component
    items = sum(len(file.read_text().splitlines()) - 1 for file in (shop.folder / "logs").iterdir())
    assert re.fullmatch(rf"done \d+\.\d s 120 lists, {items} items, 0 quarantined", last_lines["RankingExampleGen"])
    assert re.fullmatch(r"failed \d+\.\d s", last_lines["Transform"])
    assert set(last_lines) <= set(COMPONENTS) - {*from_on("RankingTrainer")}  # a component that waits has no line
    waited = "loading TensorFlow and TFX, about 20 s ..."
    assert done.stderr.splitlines() == [waited, "", "Transform failed: ValueError: out of stock", f"log: {log}"]
    assert "\x1b" not in done.stdout + done.stderr

    # One line edited: the process that ran this module before takes it as it is now, and goes on from what was done.
    with edited(shop.features, "* 1.0", "* 2.0"):
        assert set(from_on("Transform")) <= set(ran(shop.run())) <= {"ExampleValidator", *from_on("Transform")}


@pytest.mark.slow
def test_a_changed_transform_of_an_item_feature_ingests_nothing_again(shop):
    with changed(shop, "items.price.transform", ["sign_log1p"]):
        assert ran(shop.run()) == from_on("Transform")


@pytest.mark.slow
def test_one_edited_line_of_the_users_own_function_transforms_again(shop):
    with edited(shop.features, "* 1.0", "* 3.0"):
        assert ran(shop.run()) == from_on("Transform")
    assert ran(shop.run()) == ["RankingPusher"]


@pytest.mark.slow
def test_an_artifact_that_is_gone_is_made_again(shop):
    graphs = sorted((shop.folder / "artifacts" / "shop" / "Transform" / "transform_graph").iterdir())
    for graph in graphs:
        shutil.rmtree(graph)
    assert ran(shop.run()) == from_on("Transform")
