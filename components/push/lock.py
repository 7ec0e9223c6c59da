"""The lock of a base directory: one push at a time, and the loser is told who holds it and since when.

Enters: a base.  Leaves: the lock, held.  The one idea: where the kernel locks files it also lets go of a dead owner's
lock; where nothing does (an object store, a file system without flock) the lock is a file with its owner in it, renewed
as the push goes on, and taken over when its owner is dead or has not been heard of for STALE_AFTER.
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
OWNER = ".push.owner"  # in place of LOCK where the kernel locks nothing
STALE_AFTER = 15 * 60.0  # seconds without a sign of life
RENEW_AFTER = 60.0  # seconds
_NO_FLOCK = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def hold(base: pathlib.Path) -> Iterator[Callable[[], None]]:
    """Holds the lock of a base that is there; gives what is to be called now and then to show that the owner lives.

    Raises PushError when another push holds it; the sign of life does, when the lock was taken over in the meantime.
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
            raise _lost(base, _parsed(lock.read())) from None
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
    """A lock that is a file; it is there as long as it is held."""
    owner = _owner()
    while not _created(file, owner):
        other = _read(file)
        if other is None:
            continue  # given back in this very moment
        if not is_stale(other):
            raise _lost(file.parent, other)
        if _read(file) == other:
            file.unlink(missing_ok=True)

    def renew() -> None:
        found = _read(file)
        if found is None or found["token"] != owner["token"]:
            raise PushError(
                f"{file.parent}: {describe(found) if found else 'another process'} has taken the lock over, since this "
                f"push was not heard of for {STALE_AFTER / 60:.0f} minutes. Nothing was pushed; push again."
            )
        if time.time() - owner["renewed"] > RENEW_AFTER:
            owner["renewed"] = time.time()
            storage.replace_file(file, json.dumps(owner).encode())

    renew()  # a store that cannot create exclusively keeps the last writer
    try:
        yield renew
    finally:
        found = _read(file)
        if found and found["token"] == owner["token"]:
            file.unlink(missing_ok=True)


def is_stale(owner: dict[str, Any]) -> bool:
    """Whether whoever wrote this holds the lock no more: dead on this host, or not heard of for long."""
    if owner.get("host") == os.uname().nodename:
        return _began(int(owner.get("process", 0))) != owner.get("began")
    return time.time() - float(owner.get("renewed", 0)) > STALE_AFTER


def describe(owner: dict[str, Any]) -> str:
    """Who, and since when.

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
    """When a process of this host began, in the kernel's ticks, since numbers are used again; "" for a dead one."""
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _created(file: pathlib.Path, owner: dict[str, Any]) -> bool:
    content = json.dumps(owner).encode()
    try:
        if storage.is_local(file):
            beside = file.with_name(f"{file.name}.{owner['token']}")  # linked, so that it is never seen half written
            beside.write_bytes(content)
            try:
                os.link(beside, file)
            except FileExistsError:
                raise
            except OSError:  # nor are there links here; whoever reads half of it takes the lock for nobody's
                with open(file, "xb") as written:
                    written.write(content)
            finally:
                beside.unlink()
        elif file.exists():
            return False
        else:
            try:
                file.fs.pipe_file(file.path, content, mode="create")  # type: ignore[attr-defined]
            except (NotImplementedError, TypeError, ValueError):  # this store cannot; `renew` finds out who was last
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


def _lost(base: pathlib.Path, owner: dict[str, Any]) -> PushError:
    return PushError(f"{base}: {describe(owner)}, is pushing there now. Nothing was pushed; try again later.")
