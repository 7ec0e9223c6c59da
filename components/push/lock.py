"""Locks a base directory, so that one push runs at a time; a second push fails and names the first.

Input: a base directory.  Output: a context in which the lock is held.  The kernel locks a local file, and releases the
lock when its process dies.  Without kernel locks (an object store, a file system without flock) the lock is a file
that names its owner.  The owner renews it during the push; another push takes it over when the owner is dead or has
not renewed it for STALE_AFTER.
"""

import contextlib
import datetime
import errno
import fcntl
import json
import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError

LOCK = ".push.lock"
OWNER = ".push.owner"  # instead of LOCK where the kernel has no locks
STALE_AFTER = 15 * 60.0  # seconds without a renewal
RENEW_AFTER = 60.0  # seconds
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(base: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Holds the lock of an existing base; yields a function that renews the lock, to be called now and then.

    Raises PushError when another push holds the lock.  The function raises it when another push took the lock over.
    """
    if not storage.is_local(base):
        with _owned(base / OWNER) as renew:
            yield renew
        return
    with open(base / LOCK, "a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise _busy_error(base, _parsed(lock.read())) from None
        except OSError as error:
            if error.errno not in _NO_FLOCK:
                raise
            with _owned(base / OWNER) as renew:
                yield renew
            return
        lock.truncate(0)
        lock.write(json.dumps(_owner()))
        lock.flush()
        yield lambda: None


@contextlib.contextmanager
def _owned(file: pathlib.Path) -> Iterator[Callable[[], None]]:
    """A lock that is a file, which exists as long as the lock is held."""
    owner = _owner()
    while not _created(file, owner):
        other = _read(file)
        if other is None:
            continue  # released a moment ago
        if not is_stale(other):
            raise _busy_error(file.parent, other)
        if _read(file) == other:
            file.unlink(missing_ok=True)

    def renew() -> None:
        current = _read(file)
        if current is None or current["token"] != owner["token"]:
            by = describe(current) if current else "another process"
            raise PushError(
                f"{file.parent}: {by} has taken the lock over, because this push did not renew it for "
                f"{STALE_AFTER / 60:.0f} minutes. Nothing was pushed; push again."
            )
        if time.time() - owner["renewed"] > RENEW_AFTER:
            owner["renewed"] = time.time()
            storage.replace_file(file, json.dumps(owner).encode())

    renew()  # in a store without exclusive creation the last writer has the lock
    try:
        yield renew
    finally:
        current = _read(file)
        if current and current["token"] == owner["token"]:
            file.unlink(missing_ok=True)


def is_stale(owner: dict[str, Any]) -> bool:
    """Whether the owner lost the lock: its process is dead (on this host), or did not renew it for STALE_AFTER."""
    if owner.get("host") == os.uname().nodename:
        return _began(int(owner.get("process", 0))) != owner.get("began")
    return time.time() - float(owner.get("renewed", 0)) > STALE_AFTER


def describe(owner: dict[str, Any]) -> str:
    """The owner's process, host and start as text.

    >>> describe({"process": 7, "host": "web1", "since": 0.0}).partition(" (")[0]
    'process 7 on web1, since 1970-01-01 00:00:00 UTC'
    """
    if "process" not in owner:
        return "another process"
    since = datetime.datetime.fromtimestamp(owner["since"], datetime.timezone.utc)
    age = time.time() - owner["since"]
    return f"process {owner['process']} on {owner['host']}, since {since:%Y-%m-%d %H:%M:%S} UTC ({age:.0f} s)"


def _owner() -> dict[str, Any]:
    now = time.time()
    process = os.getpid()
    return {
        **{"process": process, "began": _began(process), "host": os.uname().nodename},
        **{"since": now, "renewed": now, "token": uuid.uuid4().hex},
    }


def _began(process: int) -> str:
    """When a process of this host began, in kernel ticks; "" for a dead one.  Process numbers are used again."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _created(file: pathlib.Path, owner: dict[str, Any]) -> bool:
    content = json.dumps(owner).encode()
    try:
        if storage.is_local(file):
            beside = file.with_name(f"{file.name}.{owner['token']}")  # linked, so that nobody reads half of it
            beside.write_bytes(content)
            try:
                os.link(beside, file)
            except FileExistsError:
                raise
            except OSError:  # no links here either; who reads half a file sees a lock without an owner
                with open(file, "xb") as written:
                    written.write(content)
            finally:
                beside.unlink()
        elif file.exists():
            return False
        else:
            try:
                file.fs.pipe_file(file.path, content, mode="create")  # type: ignore[attr-defined]
            except (
                NotImplementedError,
                TypeError,
                ValueError,
            ):  # this store cannot; `renew` sees which writer was last
                file.write_bytes(content)
    except FileExistsError:
        return False
    return True


def _read(file: pathlib.Path) -> dict[str, Any] | None:
    try:
        return _parsed(file.read_text())
    except FileNotFoundError:
        return None


def _parsed(text: str) -> dict[str, Any]:
    try:
        owner = json.loads(text)
    except ValueError:
        owner = None
    return owner if isinstance(owner, dict) and "token" in owner else {"token": ""}


def _busy_error(base: pathlib.Path, owner: dict[str, Any]) -> PushError:
    return PushError(f"{base}: {describe(owner)}, is pushing there now. Nothing was pushed; try again later.")
