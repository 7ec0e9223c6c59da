"""Makes the folders that many tests read (a real set's finished pipeline, the exported shop) once.

Input: a function that fills a folder.  Output: the folder and the text that the function returned.

Within one session all pytest-xdist workers share a folder.  With `TFX_RANKING_MADE=FOLDER` (the Makefile sets it) later
sessions share it too, as long as nothing changed that it depends on.
"""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SOURCES = ("components", "pipelines", "tfx_ranking", "tests/support", "requirements")
FOLDER = "TFX_RANKING_MADE"  # set by the Makefile
KEPT = "TFX_RANKING_MADE_KEPT"  # the folder of this session's key in it; set by `open_kept` for the workers


def open_kept(data: pathlib.Path) -> None:
    """Makes the folder of today's sources in `TFX_RANKING_MADE`, and removes those of other sources."""
    if FOLDER not in os.environ:
        return
    base = pathlib.Path(os.environ[FOLDER]).resolve()
    kept = base / key(data)
    kept.mkdir(parents=True, exist_ok=True)
    for other in base.iterdir():
        if other != kept:
            shutil.rmtree(other)
    os.environ[KEPT] = str(kept)


def key(data: pathlib.Path, root: pathlib.Path = ROOT) -> str:
    """A digest of everything that the folders depend on: Python, the sources, the pins, and the data's file names and
    sizes."""
    digest = hashlib.blake2b(f"{sys.version} {root}".encode(), digest_size=8)
    for top in SOURCES:
        for file in _files(root / top):
            if file.suffix != ".pyc":
                digest.update(f"\n{file.relative_to(root)} ".encode() + hashlib.blake2b(file.read_bytes()).digest())
    for file in _files(data):
        digest.update(f"\n{file} {file.stat().st_size}".encode())
    return digest.hexdigest()


def made_once(session: pathlib.Path, name: str, make: Callable[[pathlib.Path], str]) -> tuple[pathlib.Path, str]:
    """A folder that the first process to ask for it fills, and what `make` returned; the others wait for it.

    `session` is the folder of this pytest session, for when nothing is kept.

    Raises:
      AssertionError: a test changed a file of the folder; the next session makes it again.
    """
    shared = pathlib.Path(os.environ.get(KEPT, session))
    folder, made = shared / f"shared-{name}", shared / f"shared-{name}.made"
    with open(shared / f"shared-{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a test that failed in it
            returned = make(folder)
            made.write_text(json.dumps({"returned": returned, "files": _digests(folder)}))
    document = json.loads(made.read_text())
    now = _digests(folder)
    changed = sorted(path for path in now.keys() | document["files"] if now.get(path) != document["files"].get(path))
    if changed:
        made.unlink(missing_ok=True)
    assert not changed, f"a test changed files of {folder}, which all tests share: {changed[:10]}; copy it instead"
    return folder, document["returned"]


def _digests(folder: pathlib.Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()
        for file in _files(folder)
    }


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """Every file below a folder in a fixed order, without what Python compiled."""
    return (each for each in sorted(folder.rglob("*")) if each.is_file() and "__pycache__" not in each.parts)
