"""The lock of a destination, where the kernel locks files and where it does not."""

import errno
import fcntl
import json
import os
import subprocess
import sys
import time

import pytest

from tfx_ranking.components.errors import PushError
from tfx_ranking.components.push import lock

HOST = os.uname().nodename


@pytest.fixture(params=["flock", "no flock", "no flock, no links"])
def kind(request, monkeypatch):
    """On a file system with flock, and on one that has none."""
    if request.param != "flock":

        def fail(descriptor, how):
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

        monkeypatch.setattr(fcntl, "flock", fail)
    if request.param == "no flock, no links":

        def no_link(source, target):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", no_link)
    return request.param


def dead_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def leave(folder, **owner):
    """The lock file of a push that did not give it back."""
    now = time.time()
    left = {"process": 1, "began": "", "host": HOST, "since": now, "renewed": now, "token": "left"} | owner
    (folder / lock.OWNER).write_text(json.dumps(left))


def test_the_loser_says_who_holds_it_and_since_when(tmp_path, kind):
    with lock.hold(tmp_path):
        with pytest.raises(
            PushError, match=rf"process {os.getpid()} on {HOST}, since 20.* UTC \(0 s\), is pushing there"
        ):
            with lock.hold(tmp_path):
                pass
    with lock.hold(tmp_path) as alive:
        alive()


def test_the_lock_is_released_when_the_push_fails(tmp_path, kind):
    with pytest.raises(ZeroDivisionError):
        with lock.hold(tmp_path):
            raise ZeroDivisionError
    with lock.hold(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_without_flock_a_dead_owners_lock_is_taken_over(tmp_path, kind):
    leave(tmp_path, process=dead_process(), began="1")
    with lock.hold(tmp_path):
        assert json.loads((tmp_path / lock.OWNER).read_text())["process"] == os.getpid()
    assert not (tmp_path / lock.OWNER).exists()


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_a_number_that_another_process_has_now_is_a_dead_owner(tmp_path, kind):
    leave(tmp_path, process=os.getpid(), began="1")
    with lock.hold(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_an_owner_on_another_host_is_believed_until_it_has_been_silent_for_long(tmp_path, kind):
    leave(tmp_path, host="web1", renewed=time.time() - lock.STALE_AFTER + 60)
    with pytest.raises(PushError, match="process 1 on web1, since"):
        with lock.hold(tmp_path):
            pass
    leave(tmp_path, host="web1", renewed=time.time() - lock.STALE_AFTER - 1)
    with lock.hold(tmp_path):
        pass


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_who_was_silent_for_long_finds_out_that_the_lock_was_taken_over(tmp_path, kind):
    with lock.hold(tmp_path) as alive:
        alive()
        leave(tmp_path, host="web1")
        with pytest.raises(PushError, match=r"process 1 on web1, since.*has taken the lock over"):
            alive()
    assert (tmp_path / lock.OWNER).exists()  # it is web1's


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_a_long_push_renews_its_lock(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(lock, "RENEW_AFTER", 0.0)
    with lock.hold(tmp_path) as alive:
        before = json.loads((tmp_path / lock.OWNER).read_text())
        alive()
        after = json.loads((tmp_path / lock.OWNER).read_text())
        assert after["renewed"] > before["renewed"]
        assert after["token"] == before["token"]


@pytest.mark.parametrize("kind", ["no flock"], indirect=True)
def test_a_lock_file_of_no_sense_is_nobodys(tmp_path, kind):
    (tmp_path / lock.OWNER).write_text("?")
    with lock.hold(tmp_path):
        pass
