"""A lock file that a living process holds: taken, and asked who holds it.

Enters: a file's path.  Leaves: the lock held, or the holder's process id.  The one idea: the kernel lets go of the lock
when its process dies, however it dies, so there is no stale one.
"""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from tfx_ranking.components.errors import RankingError

_DYING = 2.0  # seconds that a killed process may still hold the lock while the kernel takes its memory back


@contextlib.contextmanager
def hold(file: pathlib.Path, refused: str) -> Iterator[None]:
    """Holds the lock.  Raises RankingError with `refused`, in which `{holder}` is a process id, when another does."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        end = time.monotonic() + _DYING
        while not _taken(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise RankingError(refused.format(holder=_written(file)))
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def holder(file: pathlib.Path) -> str:
    """The process that holds the lock, "unknown" where it has not said; "" when nobody does."""
    try:
        with file.open() as lock:
            return "" if _taken(lock.fileno(), fcntl.LOCK_SH) else _written(file)
    except FileNotFoundError:
        return ""


def _taken(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _written(file: pathlib.Path) -> str:
    return file.read_text().strip() or "unknown"
