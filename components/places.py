"""Where models lie: a folder of this machine, or one in an object store that fsspec knows (`gs://`, `s3://`, …).

Enters: a path or a URL.  Leaves: something with pathlib's methods, and the few verbs that pathlib lacks.  The one idea:
only one difference matters here, whether a whole folder can be renamed in one step; nothing of fsspec is imported for a
local folder.

>>> is_local(place("serving/shop")), place("serving/shop") / "7"
(True, PosixPath('serving/shop/7'))
"""

import glob
import os
import pathlib
import shutil
from collections.abc import Callable
from typing import IO, Any, cast

from tfx_ranking.components.errors import RankingError

Path = str | os.PathLike[str]
_BLOCK = 1 << 20


def place(path: Path) -> pathlib.Path:
    """A local path, or one in an object store, which has the same methods (it is a UPath, annotated as its like).

    Raises RankingError when the package that knows the store is not installed.
    """
    text = str(path)
    if text.startswith("file://"):
        return pathlib.Path(text.removeprefix("file://"))
    if "://" not in text:
        return pathlib.Path(text)
    import upath

    if text.startswith("minio://"):  # as Kubeflow calls it; it speaks S3, and AWS_ENDPOINT_URL says where it is
        text = text.replace("minio", "s3", 1)
    try:
        # Without the cache of listings: another process writes there too.
        there = upath.UPath(text, use_listings_cache=False)
        there.fs  # noqa: B018  the store's package is imported here
        return cast(pathlib.Path, there)
    except (ImportError, ValueError) as error:
        raise RankingError(f"{text}: cannot be reached: {error}") from error


def found(path: Path) -> pathlib.Path | None:
    """What lies at a path; None where nothing does, or its store is out of reach from here."""
    try:
        at = place(path)
        return at if at.exists() else None
    except Exception:  # each store's package has failures of its own
        return None


def matching(pattern: str) -> list[str]:
    """The files that a pattern matches, in whichever store it names; a local folder is no file.

    Google's `gs://` needs no package: TensorFlow reads it.  Raises RankingError as `place` does.
    """
    if "://" not in pattern:
        return [path for path in glob.glob(pattern, recursive=True) if not os.path.isdir(path)]
    if pattern.startswith("gs://"):
        from tfx.dsl.io import fileio  # here, since importing TFX takes seconds

        return [path for path in fileio.glob(pattern) if not fileio.isdir(path)]
    asked = cast(Any, place(pattern))
    there = asked.fs.glob(asked.path, detail=True)
    return [asked.fs.unstrip_protocol(path) for path, about in there.items() if about["type"] == "file"]


def opened(path: str) -> IO[bytes]:
    """A file's bytes, in whichever store it lies."""
    if "://" not in path:
        return open(path, "rb")
    if path.startswith("gs://"):
        from tfx.dsl.io import fileio

        return cast(IO[bytes], fileio.open(path, "rb"))
    return place(path).open("rb")


def size(path: str) -> int:
    """A file's size in bytes, in whichever store it lies."""
    if "://" not in path:
        return os.path.getsize(path)
    if path.startswith("gs://"):
        import tensorflow as tf

        return int(tf.io.gfile.stat(path).length)
    return place(path).stat().st_size


def is_local(folder: pathlib.Path) -> bool:
    """Whether it is a folder of this machine, which is renamed in one step."""
    return isinstance(folder, pathlib.Path)


def absolute(path: Path) -> str:
    """The path as it is recorded."""
    at = place(path)
    return os.path.abspath(at) if is_local(at) else str(at).rstrip("/")


def children(folder: pathlib.Path) -> list[pathlib.Path]:
    """What lies directly in a folder, by name; [] where there is no such."""
    if not is_local(folder) and not folder.is_dir():
        return []
    try:
        return sorted(folder.iterdir(), key=lambda child: child.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Every file under a folder by its relative path with `/`; a linked one is a file as well.

    Raises FileNotFoundError where there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such directory.")
    if is_local(folder):
        walk = os.walk(folder, onerror=_raise, followlinks=True)
        names = [pathlib.Path(at, name).relative_to(folder).as_posix() for at, _, held in walk for name in held]
    else:  # one listing, where a step into each folder and a look at each file would be a request each
        fs, root = cast(Any, folder).fs, cast(Any, folder).path.rstrip("/")
        names = [each.removeprefix(f"{root}/") for each in fs.find(root)]
    return {name: folder / name for name in sorted(names, key=lambda name: name.split("/"))}


def copy(source: pathlib.Path, target: pathlib.Path, alive: Callable[[], None] = lambda: None) -> None:
    """Copies one file to where there is none; on this machine it is on the disk afterwards.

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


def write_whole(file: pathlib.Path, content: bytes) -> None:
    """Replaces a small file: a reader finds the old content or the new one, never a part."""
    if not is_local(file):
        file.write_bytes(content)  # an object appears when all of it has arrived
        return
    beside = file.with_name(f"{file.name}.new")
    with open(beside, "wb") as written:
        written.write(content)
        written.flush()
        os.fsync(written.fileno())
    os.replace(beside, file)
    sync(file.parent)


def remove(folder: pathlib.Path) -> None:
    """Deletes a folder and all in it; one that is not there is no error."""
    if is_local(folder):
        if folder.exists():
            shutil.rmtree(folder)
    elif folder.exists():
        folder.fs.rm(folder.path, recursive=True)  # type: ignore[attr-defined]


def make(folder: pathlib.Path) -> None:
    """Makes a folder and those above it; an object store has none to make."""
    if is_local(folder) and not folder.is_dir():
        folder.mkdir(parents=True)
        sync(folder.parent)


def sync(folder: pathlib.Path) -> None:
    """Has the names in a local folder on the disk."""
    if is_local(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error
