"""The distribution: wheel, names, doctests, pins. The folders are what a user gets, as `tfx_ranking`."""

import ast
import doctest
import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("tfx_ranking", "components", "pipelines")
PACKAGES = FOLDERS[1:]  # imported as `tfx_ranking.<folder>`
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


def _tree(root: Path) -> dict[str, bytes]:
    """Every file of the packages as the wheel must hold it: {"tfx_ranking/components/errors.py": its bytes}."""
    files = (path for folder in FOLDERS for path in (root / folder).rglob("*") if path.is_file())
    return {
        f"tfx_ranking/{str(path.relative_to(root)).removeprefix('tfx_ranking/')}": path.read_bytes()
        for path in files
        if "__pycache__" not in path.parts
    }


def _modules_with_doctests() -> list[str]:
    return sorted(
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, content in _tree(ROOT).items()
        if name.endswith(".py") and b">>> " in content
    )


def test_the_wheel_equals_the_tree(tmp_path):
    # Built from a copy: setuptools leaves build/ behind, and a stale build/ gets into the next wheel.
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    for package in FOLDERS:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    tree = _tree(tmp_path)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", "."]
    done = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
        in_metadata = {name.split(".dist-info/")[1] for name in archive.namelist() if ".dist-info/" in name}
    assert sorted(content) == sorted(tree)  # a sub-package or a data file would be missing here
    assert content == tree
    assert "licenses/LICENSE" in in_metadata
    assert "entry_points.txt" in in_metadata


def test_the_image_is_built_from_every_folder():
    copied = (ROOT / "Dockerfile").read_text()
    sent = (ROOT / ".dockerignore").read_text().splitlines()
    for folder in FOLDERS:
        assert f"COPY {folder} {folder}\n" in copied
        assert f"!{folder}" in sent


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_installed_by_name_from_this_tree(package):
    module = importlib.import_module(f"tfx_ranking.{package}")
    assert Path(module.__file__).resolve() == ROOT / package / "__init__.py"


@pytest.mark.parametrize("package", PACKAGES)
def test_the_folders_cannot_be_imported_by_their_own_name(package, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    with pytest.raises(ImportError, match=f"Import tfx_ranking.{package}"):
        importlib.import_module(package)


def test_the_command_is_installed():
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="tfx-ranking")
    assert callable(script.load())


@pytest.mark.parametrize("name", _modules_with_doctests())
def test_doctests(name):
    # By the installed name: `pytest --doctest-modules` would import a second copy as components.*.
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_file_holds_pins_only(lock):
    """One `name==version` a line: no index, no path, no address gets onto another machine."""
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.+!]*", line)] == []
    assert "/" not in lock.read_text()


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_file_pins_what_pyproject_asks_for(lock):
    python = lock.stem.removeprefix("py3")
    pins = dict(line.split("==") for line in lock.read_text().splitlines() if not line.startswith("#"))
    for text in importlib.metadata.requires("tfx-ranking") or []:
        requirement = Requirement(text)
        environments = ({"python_version": f"3.{python}", "extra": extra} for extra in ("", "dev", "notebook"))
        if requirement.marker is None or any(requirement.marker.evaluate(environment) for environment in environments):
            pinned = pins.get(canonicalize_name(requirement.name))
            assert pinned is not None, f"{lock.name} lacks {requirement}: run `make lock`"
            assert requirement.specifier.contains(pinned), f"{lock.name} pins {pinned}, not {requirement}: `make lock`"


# What TFX declares itself: it pins the versions, so that a second bound here could only contradict it.
TFX_BRINGS = {"absl", "google", "keras", "ml_metadata", "numpy", "pyarrow", "tensorflow", "tensorflow_data_validation"}
TFX_BRINGS |= {"tensorflow_metadata", "tensorflow_transform", "tfx_bsl"}
DISTRIBUTIONS = {"kfp_server_api": "kfp-server-api", "tensorflow_serving": "tensorflow-serving-api", "yaml": "pyyaml"}
DISTRIBUTIONS |= {
    "apache_beam": "apache-beam",
    "upath": "universal-pathlib",
    "urllib3": "kfp-server-api",
    "pydantic_core": "pydantic",
}


def test_each_import_is_declared():
    imported = set()
    for name, content in _tree(ROOT).items():
        for node in ast.walk(ast.parse(content)) if name.endswith(".py") else ():
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
    others = imported - set(sys.stdlib_module_names) - TFX_BRINGS - {"tfx_ranking"}
    declared = {Requirement(text).name for text in importlib.metadata.requires("tfx-ranking") or []}
    assert {DISTRIBUTIONS.get(each, each) for each in others} <= declared


def test_each_dependency_has_its_reason():
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    names = {Requirement(text).name for text in importlib.metadata.requires("tfx-ranking") or []}
    assert [name for name in sorted(names) if f"`{name}`" not in reasons] == []
