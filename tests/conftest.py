"""What every test shares: the real data's folder, the reference figures' folder, a quiet TensorFlow."""

import os
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


@pytest.fixture(scope="session")
def real_run(data_dir, tmp_path_factory):
    """The finished pipeline of a real set (`pipeline_runs.PipelineRun`), cut to about 60 lists, run at first use."""
    import pipeline_runs

    done: dict[str, pipeline_runs.PipelineRun] = {}

    def run(name: str) -> pipeline_runs.PipelineRun:
        if name not in done:
            done[name] = pipeline_runs.run_set(name, data_dir, tmp_path_factory.mktemp("real") / name, lists=60)
        return done[name]

    return run


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A small ranker of drawn weights with every signature there is (`small_rankers.Shop`), exported at first use."""
    import small_rankers

    return small_rankers.export_shop(tmp_path_factory.mktemp("shop"))
