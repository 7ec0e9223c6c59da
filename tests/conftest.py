"""What every test shares: the real data's folder, the reference figures' folder, a quiet TensorFlow."""

import os
from pathlib import Path

# Before any test imports TensorFlow; a child process inherits it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import import_graph
import made_once
import pytest

# No test asserts on time, so no deadline; the same examples each time in CI.
hypothesis.settings.register_profile("tfx-ranking", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("tfx-ranking")

ROOT = Path(__file__).resolve().parent.parent


def _path(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, ROOT.parent / "shared" / default)).resolve()


def _folder(variable: str, default: str) -> Path:
    folder = _path(variable, default)
    if not folder.is_dir():
        pytest.skip(f"{variable}: no folder {folder.name!r} of real files; set {variable} to where they are")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real data sets: `TFX_RANKING_DATA`, else `../shared/data`; the test is skipped without it."""
    return _folder("TFX_RANKING_DATA", "data")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """Folder of the golden values: `TFX_RANKING_REFERENCE`, else `../shared/reference`; skipped without it."""
    return _folder("TFX_RANKING_REFERENCE", "reference")


def pytest_addoption(parser):
    parser.addoption(
        "--line",
        choices=["current"],
        help="leave out the tests whose result cannot differ on the current line of TFX (docs/testing.md says which)",
    )


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # the workers of pytest-xdist inherit what this sets
        made_once.open_kept(_path("TFX_RANKING_DATA", "data"))


# The files that take longest, the longest first: with `--dist loadfile --no-loadscope-reorder` they start first, so
# that no worker is left alone with one of them at the end.
LONGEST = (
    *("test_kubeflow_replay.py", "test_image.py", "test_pipeline.py", "test_demo.py", "test_reruns.py"),
    *("test_signature_exporter.py", "test_soak_retraining.py", "test_signature_matrix.py"),
    *("test_scheduled_retraining.py", "test_kills.py", "test_warm_start_runs.py", "test_quality.py"),
    *("test_evaluator.py", "test_step.py"),
)


def pytest_collection_modifyitems(config, items):
    rank = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))
    if config.getoption("--line") != "current":
        return
    differs = {path: bool(import_graph.reasons(path)) for path in {item.path for item in items}}
    kept = [item for item in items if differs[item.path] and not item.get_closest_marker("one_line")]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


@pytest.fixture(scope="session")
def session_dir(tmp_path_factory) -> Path:
    """One folder of this session for all workers."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def real_run(data_dir, session_dir):
    """The finished pipeline of a real set (`pipeline_runs.PipelineRun`), cut to about 60 lists, run at first use.

    All tests share it: a test that changes files makes a copy first.
    """
    import pipeline_runs

    done: dict[str, pipeline_runs.PipelineRun] = {}

    def run(name: str) -> pipeline_runs.PipelineRun:
        if name not in done:
            folder, run_id = made_once.made_once(
                session_dir, name, lambda folder: pipeline_runs.run_set(name, data_dir, folder, lists=60).run_id
            )
            done[name] = pipeline_runs.finished(folder, run_id)
        return done[name]

    return run


@pytest.fixture(scope="session")
def shop(session_dir):
    """A small ranker of drawn weights with every signature there is (`small_rankers.Shop`), exported at first use."""
    import small_rankers

    folder, _ = made_once.made_once(session_dir, "small-shop", small_rankers.export_shop)
    return small_rankers.exported_shop(folder)
