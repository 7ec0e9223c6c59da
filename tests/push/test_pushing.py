"""A push is a whole version or none, whatever happens."""

import errno
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tfx_ranking.components.errors import PushError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger, lock, pushing, version_files
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.labels import Labels
from tfx_ranking.components.push.pushing import Terms


def make_model(directory, content=b"graph"):
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(content)
    (directory / "variables" / "variables.index").write_bytes(b"index")
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(content * 1000)
    (directory / "assets").mkdir()
    (directory / "assets" / "brand").write_bytes(b"acme\n")
    return directory


def push(source, base, version="unix_time", on_step=lambda step: None, **terms):
    """A push whose model is not tried: what these models lack is a graph that loads."""
    return pushing.push(source, base, Terms(version, **terms), check=lambda model: "", on_step=on_step)


@pytest.fixture
def models(tmp_path):
    return [make_model(tmp_path / f"model{i}", content=f"graph {i}".encode()) for i in range(3)]


def seen(base):
    """What TensorFlow Serving sees: version to digest."""
    versions = serving_versions.ServingBase(base).directories()
    return {version: model_files.digest(path) for version, path in versions.items()}


def test_a_push_makes_one_version_with_the_same_bytes(models, tmp_path):
    pushed = push(models[0], tmp_path / "not" / "yet" / "there", "next")
    assert pushed.version == 1
    assert pushed.directory == tmp_path / "not" / "yet" / "there" / "1"
    assert not pushed.unchanged
    assert seen(pushed.directory.parent) == {1: model_files.digest(models[0])} == {1: pushed.digest}
    assert (pushed.directory / "saved_model.pb").stat().st_mode & 0o444


@pytest.mark.parametrize("policy", ["next", "unix_time"])
def test_a_version_is_above_every_integer_named_child(models, tmp_path, policy):
    future = int(time.time()) + 10_000
    (tmp_path / "serving" / str(future)).mkdir(parents=True)  # broken, and still a number that Serving has seen
    assert push(models[0], tmp_path / "serving", policy).version == future + 1
    assert push(models[1], tmp_path / "serving", policy).version == future + 2


def test_unix_time_is_now(models, tmp_path):
    before = int(time.time())
    version = push(models[0], tmp_path / "serving").version
    assert before <= version <= int(time.time())


def test_no_number_left(models, tmp_path):
    (tmp_path / "serving" / str(2**63 - 1)).mkdir(parents=True)
    with pytest.raises(PushError, match="no version number is left above it"):
        push(models[0], tmp_path / "serving")


def test_what_is_live_is_not_pushed_again_but_what_was_is(models, tmp_path):
    base = tmp_path / "serving"
    push(models[0], base, "next")
    again = push(models[0], base, "next")
    assert (again.version, again.unchanged) == (1, True)
    push(models[1], base, "next")
    assert push(models[0], base, "next").version == 3
    shutil.rmtree(base / "3")
    shutil.rmtree(base / "2")
    shutil.rmtree(base / "1")
    assert push(models[0], base, "next").version == 4  # an emptied destination is filled again, and no number twice


def test_a_broken_live_version_is_no_reason_to_skip(models, tmp_path):
    base = tmp_path / "serving"
    push(models[0], base, "next")
    (base / "1" / "variables" / "variables.index").unlink()
    assert push(models[0], base, "next").version == 2


def test_the_source_must_be_a_saved_model(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(PushError, match="expected a SavedModel"):
        push(tmp_path / "model", tmp_path / "serving")
    assert not (tmp_path / "serving").exists()


def test_a_flipped_byte_in_the_copy_is_detected(models, tmp_path):
    base = tmp_path / "serving"

    def flip(step):
        if step == "copied":
            (base / version_files.STAGING / "assets" / "brand").write_bytes(b"acmf\n")

    with pytest.raises(PushError, match=r"assets/brand: the copy at .* differs from the model"):
        push(models[0], base, on_step=flip)
    assert seen(base) == {}
    assert not (base / version_files.STAGING).exists()


@pytest.mark.parametrize("fault", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_or_broken(models, tmp_path, monkeypatch, fault):
    base = tmp_path / "serving"
    push(models[0], base, "next")
    before = seen(base)

    def fail(descriptor):
        raise OSError(fault, os.strerror(fault))

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(PushError, match=f"{os.strerror(fault)}.*{base}.*Nothing was pushed"):
            push(models[1], base, "next")
    assert seen(base) == before
    assert push(models[1], base, "next").version == 2


def test_a_file_larger_than_there_is_room_for(models, tmp_path):
    base = tmp_path / "serving"
    push(models[0], base, "next")
    before, limits = seen(base), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(PushError, match=r"File too large.*Nothing was pushed; what served before still serves"):
            push(models[1], base, "next")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert seen(base) == before
    assert not (base / version_files.STAGING).exists()


def test_a_target_that_cannot_be_written(models, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PushError, match=f"{tmp_path}/file.*Nothing was pushed"):
        push(models[0], tmp_path / "file" / "serving")


def test_no_permission(models, tmp_path, monkeypatch):
    base = tmp_path / "serving"
    push(models[0], base, "next")
    base.chmod(0o555)
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)  # pytest's folders above it are for their owner alone
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # permissions do not stop root
    try:
        with pytest.raises(PushError, match=r"serving/\.push\.lock: Permission denied"):
            push(pathlib.Path("model1"), pathlib.Path("serving"), "next")
        assert push(pathlib.Path("model0"), pathlib.Path("serving"), "next").unchanged
    finally:
        os.seteuid(user)
        base.chmod(0o755)
    assert list(seen(base)) == [1]


def test_two_pushes_at_once_one_wins_and_the_other_says_so(models, tmp_path):
    base, inside, go = tmp_path / "serving", threading.Event(), threading.Event()

    def wait(step):
        if step == "copied":
            inside.set()
            go.wait(60)

    first = threading.Thread(target=push, args=(models[0], base, "next", wait))
    first.start()
    assert inside.wait(60)
    with pytest.raises(
        PushError, match=rf"process {os.getpid()} on .*, since 20.* UTC \(\d+ s\), is pushing there now"
    ):
        push(models[1], base, "next")
    go.set()
    first.join()
    assert seen(base) == {1: model_files.digest(models[0])}
    assert push(models[1], base, "next").version == 2


NEXT = Terms("next")
PUSH_AND_DIE = """
import os, signal, sys
from tfx_ranking.components.push.pushing import Terms, push
from tfx_ranking.components.push.labels import Labels

source, base, step_to_die_at, nth, terms = sys.argv[1:]
steps = []

def on_step(step):
    steps.append(step)
    if steps.count(step_to_die_at) == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)

print("ready", flush=True)
push(source, base, eval(terms), check=lambda model: "", on_step=on_step)
"""


def pushing_process(source, base, step_to_die_at="", nth=1, terms=NEXT):
    """A process that pushes; it has reported that it is ready."""
    arguments = [sys.executable, "-c", PUSH_AND_DIE, str(source), str(base), step_to_die_at, str(nth), repr(terms)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


# Without labels to move, versions to delete and objects to copy.
LOCAL_STEPS = [step for step in pushing.STEPS if step not in ("publishing", "labelled", "pruning", "pruned")]


@pytest.mark.parametrize(("step", "nth"), [*((step, 1) for step in LOCAL_STEPS), ("copying", 3)])
def test_a_kill_at_any_step_leaves_the_old_versions_or_the_new_one_whole(models, tmp_path, step, nth):
    base = tmp_path / "serving"
    push(models[0], base, "next")
    old, new = model_files.digest(models[0]), model_files.digest(models[1])
    with pushing_process(models[1], base, step, nth) as killed:
        assert killed.wait() == -signal.SIGKILL
    assert seen(base) == ({1: old, 2: new} if step == "published" else {1: old})
    again = push(models[1], base, "next")
    # A number that was written down is not given again, though the version had not appeared yet.
    assert (again.version, again.unchanged) == (3 if step == "recorded" else 2, step == "published")
    assert seen(base) == {1: old, again.version: new}
    names = sorted(child.name for child in base.iterdir())
    assert names == [ledger.LEDGER, lock.LOCK, "1", str(again.version)]


@pytest.mark.parametrize("step", ["published", "labelled", "pruning", "pruned"])
def test_a_kill_after_the_version_appeared_is_made_good_by_the_same_push(models, tmp_path, step):
    base = tmp_path / "serving"
    terms = Terms("next", keep=1, labels=Labels(str(tmp_path / "models.config"), "shop"))
    for model in models[:2]:
        pushing.push(model, base, terms, check=lambda model: "")
    new = model_files.digest(models[2])
    with pushing_process(models[2], base, step, 1, terms) as killed:
        assert killed.wait() == -signal.SIGKILL
    assert serving_versions.ServingBase(base).live_version() == (2 if step == "published" else 3)
    assert seen(base)[3] == new
    again = pushing.push(models[2], base, terms, check=lambda model: "")
    assert (again.version, again.unchanged) == (3, step != "published")
    assert serving_versions.ServingBase(base).live_version() == 3
    pushing.push(make_model(tmp_path / "next", b"next"), base, terms, check=lambda model: "")
    assert list(seen(base)) == [3, 4]  # 3 had the label, and is asked until the server has read the file
    assert sorted(child.name for child in base.iterdir()) == [ledger.LEDGER, lock.LOCK, "3", "4"]
