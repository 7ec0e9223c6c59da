"""The file operations of a push: stage a model out of sight, make it a version in one step, delete it again.

Input: a model's files and a base directory.  Output: a version's directory, or none.  A local folder becomes a version
by one rename.  An object store cannot rename; there the graph file is written last and deleted first, because
TensorFlow Serving does not see a model in a directory without it.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError
from tfx_ranking.components.exported.model_files import GRAPHS, FileDigest, file_digests, is_loadable
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push import lock
from tfx_ranking.components.push.ledger import Ledger
from tfx_ranking.components.push.versions import ServingBase

STAGING = ".pushing"
PRUNING = ".pruning-"  # plus the version


def stage(
    source: pathlib.Path,
    files: Mapping[str, FileDigest],
    base: ServingBase,
    alive: Callable[[], None],
    on_step: Callable[[str], None],
) -> pathlib.Path:
    """Copies a model's files to a folder that no server reads, compares the copies, and returns the folder.

    Raises PushError that names the first file that differs.
    """
    staging = base.folder / STAGING
    if storage.is_local(staging):
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
    copies = file_digests(copied)
    for path in sorted({*files, *copies}):
        if copies.get(path) != files.get(path):
            raise PushError(
                f"{path}: the copy at {copied.parent} differs from the model (expected {_describe(files.get(path))}, "
                f"got {_describe(copies.get(path))}). Nothing was pushed; check the disk and push again."
            )


def make_visible(
    staging: pathlib.Path, files: Mapping[str, FileDigest], version: pathlib.Path, on_step: Callable[[str], None]
) -> None:
    """Makes the staged files a version that servers see."""
    if storage.is_local(version):
        # Renamed, not copied: TF Serving loads a version directory the moment it sees one, and missing variables
        # fail only at request time.
        staging.rename(version)
        with contextlib.suppress(OSError):  # servers see the version already; the next write reports a failing disk
            storage.sync_folder(version.parent)
        return
    graphs = [path for path in files if path in GRAPHS]
    for path in sorted(set(files) - set(graphs)):
        _copy_within_store(staging / path, version / path)
        on_step("publishing")
    verify(version, {path: file for path, file in files.items() if path not in graphs})
    for path in graphs:
        _copy_within_store(staging / path, version / path)
    try:
        verify(version, files)
    except PushError:
        withdraw(version)
        raise
    storage.remove_folder(staging)


def withdraw(version: pathlib.Path) -> None:
    """Deletes a version so that no server sees an incomplete model at any moment."""
    if storage.is_local(version):
        hidden = version.parent / f"{PRUNING}{version.name.strip()}"
        storage.remove_folder(hidden)
        version.rename(hidden)
        storage.sync_folder(version.parent)
        storage.remove_folder(hidden)
        return
    for graph in GRAPHS:
        (version / graph).unlink(missing_ok=True)
    storage.remove_folder(version)


def has_debris(base: ServingBase) -> bool:
    """Whether a killed push left files here, or a push is running now."""
    names = [child.name for child in storage.children(base.folder)]
    return any(name in (STAGING, lock.OWNER) or name.startswith(PRUNING) for name in names)


def clear_debris(base: ServingBase, ledger: Ledger) -> None:
    """Deletes what killed pushes left.  Call it only with the lock held: then no running push owns these files."""
    directories = base.directories()
    newest = ledger.entries[-1].version if ledger.entries else None
    in_store = not storage.is_local(base.folder)
    unfinished = in_store and newest in directories and storage.children(base.folder / STAGING)
    if unfinished and newest is not None and not is_loadable(directories[newest]):
        withdraw(directories[newest])  # the push was killed between the staging folder and the version
    storage.remove_folder(base.folder / STAGING)
    for child in storage.children(base.folder):
        if child.name.startswith(PRUNING):
            storage.remove_folder(child)
    for entry in ledger.entries:
        if entry.pruned_at and entry.version in directories:
            withdraw(directories[entry.version])


def prune(
    base: ServingBase, ledger: Ledger, keep: int, also: int | None, on_step: Callable[[str], None]
) -> tuple[int, ...]:
    """Deletes all but the newest `keep` loadable versions; records them in the ledger and returns them.

    The live version, every labelled version and `also` are kept too.
    """
    directories = base.directories()
    loadable = [number for number in directories if is_loadable(directories[number])]
    kept = {*loadable[-keep:], base.live_version(), *base.labels().values(), also}
    # A directory that is not loadable and was not pushed belongs to somebody else, who may be copying it now.
    known = {*loadable, *(entry.version for entry in ledger.entries)}
    pruned = tuple(number for number in directories if number in known - kept and number < max(loadable, default=0))
    if pruned:
        for number in pruned:
            ledger = ledger.having(dataclasses.replace(ledger.entry(number), pruned_at=push_ledger.now()))
        push_ledger.write(base.folder, ledger)
        for number in pruned:
            on_step("pruning")
            withdraw(directories[number])
    return pruned


def _copy_within_store(source: pathlib.Path, target: pathlib.Path) -> None:
    """Copies one object to another in the same store; the bytes stay in the store when the store supports it."""
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
