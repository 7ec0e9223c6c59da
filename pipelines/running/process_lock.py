"""A lock file that a process holds while it lives.

Input: a file's path.  Output: the lock, or the process id of its holder.
The kernel releases the lock when the process dies, however it dies.  So there are no stale locks.
"""

import contextlib
import fcntl
import os
import pathlib
import time
from collections.abc import Iterator

from tfx_ranking.components.errors import RankingError

_DYING = 2.0  # seconds; a killed process holds the lock until the kernel has freed its memory


@contextlib.contextmanager
def hold(file: pathlib.Path, refused: str) -> Iterator[None]:
    """Holds the lock while the block runs.

    When another process has it, raises RankingError with the text `refused`, in which `{holder}` becomes its id.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+") as lock:
        end = time.monotonic() + _DYING
        while not _try_lock(lock.fileno(), fcntl.LOCK_EX):
            if time.monotonic() > end:
                raise RankingError(refused.format(holder=_read_holder(file)))
            time.sleep(0.1)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def holder(file: pathlib.Path) -> str:
    """The id of the process that holds the lock: "unknown" before it is written, "" when no process holds it."""
    try:
        with file.open() as lock:
            return "" if _try_lock(lock.fileno(), fcntl.LOCK_SH) else _read_holder(file)
    except FileNotFoundError:
        return ""


def _try_lock(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_holder(file: pathlib.Path) -> str:
    return file.read_text().strip() or "unknown"
