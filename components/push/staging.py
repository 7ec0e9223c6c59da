"""What a push does with files: staged out of sight, made a version in one step, taken away again.

Enters: a model's files, a base.  Leaves: a version's directory, or none.  The one idea: a folder of this machine is
renamed, which is one step; in an object store, which renames nothing, the graph file comes last and goes first, since
without it TensorFlow Serving finds no model in a version's directory.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.exported.model_files import FileDigest
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push import lock
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.ledger import Ledger

STAGING = ".pushing"
PRUNING = ".pruning-"  # and the version


def stage(
    source: pathlib.Path,
    files: Mapping[str, FileDigest],
    base: pathlib.Path,
    alive: Callable[[], None],
    on_step: Callable[[str], None],
) -> pathlib.Path:
    """Copies a model's files to where no server looks and compares the copies; gives the folder.

    Raises PushError naming the file that differs.
    """
    staging = base / STAGING
    if storage.is_local(base):
        staging.mkdir()
    on_step("staged")
    for path in sorted(files):
        storage.copy_file(source / path, staging / path, alive)
        on_step("copying")
    _sync(staging)
    on_step("copied")
    verify(staging, files)
    return staging


def verify(copied: pathlib.Path, files: Mapping[str, FileDigest]) -> None:
    """Raises PushError unless a folder holds exactly these files."""
    found = model_files.file_digests(copied)
    for path in sorted({*files, *found}):
        if found.get(path) != files.get(path):
            raise PushError(
                f"{path}: the copy at {copied.parent} differs from the model (expected {_describe(files.get(path))}, "
                f"came {_describe(found.get(path))}). Nothing was pushed; check the disk and push again."
            )


def publish(
    staging: pathlib.Path, files: Mapping[str, FileDigest], version: pathlib.Path, on_step: Callable[[str], None]
) -> None:
    """Makes the staged files a version."""
    if storage.is_local(version):
        # Renamed, not copied: TF Serving loads a version directory the moment it sees one, and missing variables
        # fail only at request time.
        staging.rename(version)
        with contextlib.suppress(OSError):  # it is seen by now; a disk that fails here says so to the next writer
            storage.sync_folder(version.parent)
        return
    graphs = [path for path in files if path in model_files.GRAPHS]
    for path in sorted(set(files) - set(graphs)):
        _copied_within(staging / path, version / path)
        on_step("publishing")
    verify(version, {path: held for path, held in files.items() if path not in graphs})
    for path in graphs:
        _copied_within(staging / path, version / path)
    try:
        verify(version, files)
    except PushError:
        withdraw(version)
        raise
    storage.remove_folder(staging)


def withdraw(version: pathlib.Path) -> None:
    """Deletes a version such that no server ever sees a part of it as a model."""
    if storage.is_local(version):
        hidden = version.parent / f"{PRUNING}{version.name.strip()}"
        storage.remove_folder(hidden)
        version.rename(hidden)
        storage.sync_folder(version.parent)
        storage.remove_folder(hidden)
        return
    for graph in model_files.GRAPHS:
        (version / graph).unlink(missing_ok=True)
    storage.remove_folder(version)


def has_debris(base: pathlib.Path) -> bool:
    """Whether a push or its pruning died here, or is under way."""
    return any(
        child.name in (STAGING, lock.OWNER) or child.name.startswith(PRUNING) for child in storage.children(base)
    )


def clear_debris(base: pathlib.Path, ledger: Ledger) -> None:
    """Takes away what killed pushes left; with the lock held, none of it has a living owner."""
    versions = serving_versions.version_directories(base)
    newest = ledger.entries[-1].version if ledger.entries else None
    on_its_way = not storage.is_local(base) and newest in versions and storage.children(base / STAGING)
    if on_its_way and newest is not None and not model_files.is_loadable(versions[newest]):
        withdraw(versions[newest])  # killed between the staging folder and the version
    storage.remove_folder(base / STAGING)
    for child in storage.children(base):
        if child.name.startswith(PRUNING):
            storage.remove_folder(child)
    for entry in ledger.entries:
        if entry.pruned_at and entry.version in versions:
            withdraw(versions[entry.version])


def prune(
    base: pathlib.Path, ledger: Ledger, keep: int, also: int | None, on_step: Callable[[str], None]
) -> tuple[int, ...]:
    """Deletes all but the newest `keep` versions that load; gives what was deleted, and writes it into the ledger.

    What is live or has a label stays besides, and so does `also`.
    """
    versions = serving_versions.version_directories(base)
    loadable = [number for number in versions if model_files.is_loadable(versions[number])]
    stay = {*loadable[-keep:], serving_versions.live_version(base), *serving_versions.labels(base).values(), also}
    # What neither loads nor was pushed is somebody else's, who may be about to copy it.
    known = {*loadable, *(entry.version for entry in ledger.entries)}
    gone = tuple(number for number in versions if number in known - stay and number < max(loadable, default=0))
    if gone:
        for number in gone:
            ledger = ledger.having(dataclasses.replace(ledger.entry(number), pruned_at=push_ledger.now()))
        push_ledger.write(base, ledger)
        for number in gone:
            on_step("pruning")
            withdraw(versions[number])
    return gone


def _copied_within(source: pathlib.Path, target: pathlib.Path) -> None:
    """One object to another of the same store, without coming by here where the store can."""
    target.fs.makedirs(target.parent.path, exist_ok=True)  # type: ignore[attr-defined]
    target.fs.copy(source.path, target.path)  # type: ignore[attr-defined]


def _sync(folder: pathlib.Path) -> None:
    if storage.is_local(folder):
        for child in folder.rglob("*"):
            if child.is_dir():
                storage.sync_folder(child)
        storage.sync_folder(folder)


def _describe(file: FileDigest | None) -> str:
    return f"{file.size} bytes with digest {file.digest[:12]}" if file else "no such file"
