"""Push: a SavedModel becomes a version of a base directory, whole or not at all.

Enters: a SavedModel's directory and the base.  Leaves: `<base>/<version>/`.  The one idea: everything happens in a
staging directory whose name TensorFlow Serving ignores; one rename makes the version appear.  No TensorFlow, no TFX.
"""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator
from typing import Literal

from tfx_ranking.components import serving_versions
from tfx_ranking.components.errors import PushError

STEPS = ("locked", "cleared", "staged", "copying", "copied", "verified", "renamed")
LOCK = ".push.lock"
STAGING = ".pushing"


@dataclasses.dataclass(frozen=True)
class Pushed:
    """Where the bytes serve."""

    version: int
    directory: pathlib.Path
    digest: str
    unchanged: bool  # they did already, nothing was written


def push(
    source: serving_versions.Path,
    base: serving_versions.Path,
    version_policy: Literal["unix_time", "next"] = "unix_time",
    on_step: Callable[[str], None] = lambda step: None,
) -> Pushed:
    """Makes the SavedModel in `source` the highest version under `base`.

    The version is the time in seconds or the next integer, always above every integer-named child, whole or broken.
    A model whose digest is live already is not pushed again.  on_step is called with each of STEPS once it is done
    (copying: once a file).  What a killed push left behind is cleared by the next one.
    Raises PushError: the model is none, another push is going on, no permission, no space, a copy that differs.
    Whatever happens, `base` shows the old versions or these and the new one, whole.
    """
    source, base = pathlib.Path(source), pathlib.Path(base)
    with _readable_errors(source, base):
        if not serving_versions.is_loadable(source):
            raise PushError(f"{source}: expected a SavedModel (saved_model.pb and variables/); export the model first.")
        files = serving_versions.file_digests(source)
        digest = serving_versions.combine(files)
        if not (base / STAGING).exists() and (already := _live_as(base, digest)):
            return already  # asked before the lock, which a read-only base could not hold
        _make(base)
        with _only_push(base):
            on_step("locked")
            _clear_debris(base)
            on_step("cleared")
            if already := _live_as(base, digest):
                return already
            return _publish(source, files, base, version_policy, on_step)


def _publish(
    source: pathlib.Path,
    files: dict[str, serving_versions.FileDigest],
    base: pathlib.Path,
    version_policy: str,
    on_step: Callable[[str], None],
) -> Pushed:
    staging = base / STAGING
    try:
        staging.mkdir()
        on_step("staged")
        for path in sorted(files):
            _copy(source / path, staging / path)
            on_step("copying")
        for folder, _, _ in os.walk(staging, topdown=False):
            _sync(pathlib.Path(folder))
        on_step("copied")
        _verify(staging, files)
        on_step("verified")
        version = _next_version(base, version_policy)
        # Renamed, not copied: TF Serving loads a version directory the moment it sees one, and missing variables
        # fail only at request time.
        staging.rename(base / str(version))
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    _sync(base)
    on_step("renamed")
    return Pushed(version, base / str(version), serving_versions.combine(files), unchanged=False)


def _next_version(base: pathlib.Path, policy: str) -> int:
    highest = max(serving_versions.version_directories(base), default=0)
    version = highest + 1 if policy == "next" else max(int(time.time()), highest + 1)
    if serving_versions.parse_version(str(version)) is None:
        raise PushError(f"{base}/{highest}: no version number is left above it; move that directory away.")
    return version


def _live_as(base: pathlib.Path, digest: str) -> Pushed | None:
    version = serving_versions.live_version(base)
    if version is None:
        return None
    directory = serving_versions.version_directories(base)[version]
    return Pushed(version, directory, digest, unchanged=True) if serving_versions.digest(directory) == digest else None


def _verify(staging: pathlib.Path, files: dict[str, serving_versions.FileDigest]) -> None:
    copied = serving_versions.file_digests(staging)
    for path in sorted({*files, *copied}):
        if copied.get(path) != files.get(path):
            raise PushError(
                f"{path}: the copy at {staging.parent} differs from the model (expected {_describe(files.get(path))}, "
                f"came {_describe(copied.get(path))}). Nothing was pushed; check the disk and push again."
            )


def _describe(file: serving_versions.FileDigest | None) -> str:
    return f"{file.size} bytes with digest {file.digest[:12]}" if file else "no such file"


@contextlib.contextmanager
def _only_push(base: pathlib.Path) -> Iterator[None]:
    # The kernel lets go of the lock when its owner dies, however it dies; the file itself stays.
    with open(base / LOCK, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "another process"
            raise PushError(f"{base}: {owner} is pushing there now. Nothing was pushed; try again later.") from None
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {os.uname().nodename}")
        lock.flush()
        yield


def _clear_debris(base: pathlib.Path) -> None:
    """With the lock held, a staging directory has no living owner."""
    staging = base / STAGING
    if staging.exists():
        shutil.rmtree(staging)


def _make(base: pathlib.Path) -> None:
    if not base.is_dir():
        base.mkdir(parents=True)
        _sync(base.parent)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with open(source, "rb") as read, open(target, "xb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
        written.flush()
        os.fsync(written.fileno())


def _sync(directory: pathlib.Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _readable_errors(source: pathlib.Path, base: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PushError(
            f"{error.filename or base}: {error.strerror or error}, while pushing {source} to {base}. "
            "Nothing was pushed; what served before still serves."
        ) from error
