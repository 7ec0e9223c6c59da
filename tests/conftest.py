"""What every test shares: the real data's folder, the reference figures' folder, a quiet TensorFlow."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Before any test imports TensorFlow; a child process inherits it.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import pytest

# No test asserts on time, so no deadline; the same examples each time in CI.
hypothesis.settings.register_profile("tfx-ranking", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("tfx-ranking")

ROOT = Path(__file__).resolve().parent.parent


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default)).resolve()
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


def _made_once(tmp_path_factory, name: str, make: Callable[[Path], str]) -> tuple[Path, str]:
    """A folder that the first process to ask for it fills, and what `make` said; the other workers wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    folder, made = shared / f"shared-{name}", shared / f"shared-{name}.made"
    with open(shared / f"shared-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a test that failed in it
            made.write_text(make(folder))
    return folder, made.read_text()


@pytest.fixture(scope="session")
def real_run(data_dir, tmp_path_factory):
    """The finished pipeline of a real set (`pipeline_runs.PipelineRun`), cut to about 60 lists, run at first use."""
    import pipeline_runs

    done: dict[str, pipeline_runs.PipelineRun] = {}

    def run(name: str) -> pipeline_runs.PipelineRun:
        if name not in done:
            folder, run_id = _made_once(
                tmp_path_factory, name, lambda folder: pipeline_runs.run_set(name, data_dir, folder, lists=60).run_id
            )
            done[name] = pipeline_runs.finished(folder, run_id)
        return done[name]

    return run


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A small ranker of drawn weights with every signature there is (`small_rankers.Shop`), exported at first use."""
    import small_rankers

    folder, _ = _made_once(tmp_path_factory, "small-shop", small_rankers.export_shop)
    return small_rankers.exported_shop(folder)
