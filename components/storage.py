"""Paths in a local folder or in an object store that fsspec knows (`gs://`, `s3://`, …), and operations on them.

Input: a path or a URL.  Output: a path object with pathlib's methods; the functions here do what pathlib cannot.
The important difference: only a local folder can be renamed in one step.  A local path does not import fsspec.

>>> is_local(to_path("serving/shop")), to_path("serving/shop") / "7"
(True, PosixPath('serving/shop/7'))
"""

import glob
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import IO, Any, cast

from tfx_ranking.components.errors import RankingError

PathLike = str | os.PathLike[str]
_BLOCK = 1 << 20


def to_path(path: PathLike) -> pathlib.Path:
    """The path object of a local path or of a URL; a URL gives a UPath, which has pathlib's methods.

    Raises RankingError when the package for this object store is not installed.
    """
    text = str(path)
    if text.startswith("file://"):
        return pathlib.Path(text.removeprefix("file://"))
    if "://" not in text:
        return pathlib.Path(text)
    import upath

    if text.startswith("minio://"):  # Kubeflow's scheme; MinIO speaks S3, and AWS_ENDPOINT_URL holds its address
        text = text.replace("minio", "s3", 1)
    try:
        # Without the cache of listings: other processes write to the same folders.
        remote = upath.UPath(text, use_listings_cache=False)
        remote.fs  # noqa: B018  imports the store's package
        return cast(pathlib.Path, remote)
    except (ImportError, ValueError) as error:
        raise RankingError(f"{text}: cannot be reached: {error}") from error


def existing_path(path: PathLike) -> pathlib.Path | None:
    """The path object; None where nothing exists at the path or its store cannot be reached from this machine."""
    try:
        candidate = to_path(path)
        return candidate if candidate.exists() else None
    except Exception:  # each store's package raises its own exceptions
        return None


def artifact_files() -> Any:
    """TFX's own file systems (`tfx.dsl.io.fileio`), in which artifacts lie; TensorFlow reads `gs://` for them."""
    from tfx.dsl.io import fileio  # here, because importing TFX takes seconds

    return fileio


def matching_files(pattern: str) -> list[str]:
    """The files that match a glob pattern, local or in an object store; folders are left out.

    `gs://` needs no extra package, because TensorFlow reads it.  Raises RankingError as `to_path` does.
    """
    if "://" not in pattern:
        return [path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)]
    if pattern.startswith("gs://"):
        files = artifact_files()
        return [path for path in files.glob(pattern) if not files.isdir(path)]
    remote = cast(Any, to_path(pattern))
    entries = remote.fs.glob(remote.path, detail=True)
    return [remote.fs.unstrip_protocol(path) for path, info in entries.items() if info["type"] == "file"]


def open_file(path: str) -> IO[bytes]:
    """Opens a file for reading bytes, local or in an object store."""
    if "://" not in path:
        return open(path, "rb")
    if path.startswith("gs://"):
        return cast(IO[bytes], artifact_files().open(path, "rb"))
    return to_path(path).open("rb")


def file_size(path: str) -> int:
    """A file's size in bytes, local or in an object store."""
    if "://" not in path:
        return os.path.getsize(path)
    if path.startswith("gs://"):
        import tensorflow as tf

        return int(tf.io.gfile.stat(path).length)
    return to_path(path).stat().st_size


def is_local(folder: pathlib.Path) -> bool:
    """Whether the path is on this machine, where a folder can be renamed in one step."""
    return isinstance(folder, pathlib.Path)


def absolute(path: PathLike) -> str:
    """The path as it is recorded: absolute if local; a URL without a trailing slash."""
    resolved = to_path(path)
    return os.path.abspath(resolved) if is_local(resolved) else str(resolved).rstrip("/")


def children(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files and folders directly in a folder, sorted by name; [] if the folder does not exist."""
    if not is_local(folder) and not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir(), key=lambda child: child.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files_in(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """All files in a folder and its subfolders, by relative path with `/`; follows symbolic links.

    Raises FileNotFoundError if the folder does not exist.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such directory.")
    if is_local(folder):
        walk = os.walk(folder, onerror=_raise, followlinks=True)
        paths = [pathlib.Path(parent, name) for parent, _, names in walk for name in names]
        relative = [path.relative_to(folder).as_posix() for path in paths]
    else:  # one listing; walking would send a request for each folder and each file
        fs, root = cast(Any, folder).fs, cast(Any, folder).path.rstrip("/")
        relative = [each.removeprefix(f"{root}/") for each in fs.find(root)]
    return {name: folder / name for name in sorted(relative, key=lambda name: name.split("/"))}


def copy_file(source: pathlib.Path, target: pathlib.Path, alive: Callable[[], None] = lambda: None) -> None:
    """Copies a file to a path where none exists; a local copy is synced to disk.

    alive: called after each block of a long copy.
    """
    if is_local(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    with source.open("rb") as read, target.open("xb" if is_local(target) else "wb") as written:
        while block := read.read(_BLOCK):
            written.write(block)
            alive()
        written.flush()
        if is_local(target):
            os.fsync(written.fileno())


def replace_file(file: pathlib.Path, content: bytes) -> None:
    """Writes a small file so that a reader gets the old content or the new content, never a part of it."""
    if not is_local(file):
        file.write_bytes(content)  # an object becomes visible when its upload is complete
        return
    new = file.with_name(f"{file.name}.new")
    with open(new, "wb") as written:
        written.write(content)
        written.flush()
        os.fsync(written.fileno())
    os.replace(new, file)
    sync_folder(file.parent)


def remove_folder(folder: pathlib.Path) -> None:
    """Deletes a folder and everything in it; does nothing if it does not exist."""
    if is_local(folder):
        if folder.exists():
            shutil.rmtree(folder)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]


def make_folder(folder: pathlib.Path) -> None:
    """Creates a local folder and its parents; an object store needs no folders."""
    if is_local(folder) and not folder.is_dir():
        folder.mkdir(parents=True)
        sync_folder(folder.parent)


def sync_folder(folder: pathlib.Path) -> None:
    """Syncs the names in a local folder to disk."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
