"""Faults that are real: a file system that is full, one that was mounted for reading, a file that cannot be changed.

They need root and `mount`; where that is not to be had they are skipped, and say so.
"""

import contextlib
import os
import subprocess

import pytest
import servable_models

from tfx_ranking.components.errors import PushError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger, lock
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.pushing import Terms, push, roll_back

NEXT = Terms("next")


def untried(model):
    return ""


def mount(*arguments):
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip() or done.returncode}")


@pytest.fixture
def disk(tmp_path):
    """A file system of 200 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid():
        pytest.skip("only root mounts")
    mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def seen(base):
    versions = serving_versions.ServingBase(base).directories()
    return {version: model_files.digest(path) for version, path in versions.items()}


def test_a_disk_that_is_full(disk, tmp_path):
    base = disk / "serving"
    small = servable_models.save(tmp_path / "small", 0.5, size=40_000)
    large = servable_models.save(tmp_path / "large", 1.5, size=120_000)
    push(small, base, NEXT, check=untried)
    before = seen(base)
    with contextlib.ExitStack() as left:
        fill = left.enter_context(open(disk / "filler", "wb"))
        fill.write(b"\1" * 60_000)
        fill.flush()
        with pytest.raises(PushError, match=r"No space left on device.*Nothing was pushed; what served before still"):
            push(large, base, NEXT, check=untried)
    assert seen(base) == before
    assert sorted(child.name for child in base.iterdir()) == [ledger.LEDGER, lock.LOCK, "1"]
    (disk / "filler").unlink()
    assert push(large, base, NEXT, check=untried).version == 2


def test_a_disk_too_full_even_for_the_ledger(disk, tmp_path):
    base = disk / "serving"
    push(servable_models.save(tmp_path / "first", 0.5), base, NEXT, check=untried)
    second = servable_models.save(tmp_path / "second", 1.5)
    before = seen(base)

    def fill(step):
        if step == "checked":
            with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
                while True:
                    file.write(b"\1" * 4096)

    with pytest.raises(PushError, match="No space left on device"):
        push(second, base, NEXT, check=untried, on_step=fill)
    assert seen(base) == before
    (disk / "filler").unlink()
    assert push(second, base, NEXT, check=untried).version == 2
    assert sorted(child.name for child in base.iterdir()) == [ledger.LEDGER, lock.LOCK, "1", "2"]


def test_a_target_that_is_mounted_for_reading(disk, tmp_path):
    base = disk / "serving"
    first = servable_models.save(tmp_path / "first", 0.5)
    second = servable_models.save(tmp_path / "second", 1.5)
    push(first, base, NEXT, check=untried)
    push(second, base, NEXT, check=untried)
    before = seen(base)
    mount("-o", "remount,ro", disk)
    assert push(second, base, NEXT, check=untried).unchanged  # nothing has to be written
    with pytest.raises(PushError, match=r"\.push\.lock: Read-only file system.*Nothing was pushed"):
        push(first, base, NEXT, check=untried)
    with pytest.raises(PushError, match="Read-only file system"):
        roll_back(base, terms=NEXT, check=untried)
    assert seen(base) == before
    mount("-o", "remount,rw", disk)
    assert roll_back(base, terms=NEXT, check=untried).version == 3


def test_a_target_that_may_not_be_changed_any_more_in_the_middle(tmp_path):
    base = tmp_path / "serving"
    push(servable_models.save(tmp_path / "first", 0.5), base, NEXT, check=untried)
    second = servable_models.save(tmp_path / "second", 1.5)
    before = seen(base)

    def forbid(step):
        if step == "verified" and subprocess.run(["chattr", "+i", str(base)], capture_output=True).returncode:
            pytest.skip("this file system has no immutable folders, or chattr is not here")

    try:
        with pytest.raises(PushError, match=r"Operation not permitted.*Nothing was pushed; what served before still"):
            push(second, base, NEXT, check=untried, on_step=forbid)
    finally:
        subprocess.run(["chattr", "-i", str(base)], capture_output=True)
    assert seen(base) == before
    assert push(second, base, NEXT, check=untried).version == 2
    assert seen(base) == {**before, 2: model_files.digest(second)}
    assert sorted(child.name for child in base.iterdir()) == [ledger.LEDGER, lock.LOCK, "1", "2"]
