"""Pushes to object stores, which rename nothing: the graph file comes last."""

import os
import pathlib
import signal
import subprocess
import sys
import uuid

import buckets
import object_server
import pytest
import servable_models

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger, lock, pushing, version_files
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.pushing import Terms, push, roll_back


def untried(model):
    return ""


@pytest.fixture(scope="module")
def s3():
    with object_server.serving("serving") as bucket:
        yield bucket


@pytest.fixture(params=["memory", "bucket", "s3"])
def base(request, tmp_path):
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{uuid.uuid4().hex}"
    return f"memory://{uuid.uuid4().hex}/serving" if request.param == "memory" else f"bucket://{tmp_path}/serving"


@pytest.fixture
def models(tmp_path):
    return [servable_models.save(tmp_path / f"model{i}", 0.5 + i, size=10_000) for i in range(3)]


def seen(base):
    """What loads, and what it holds."""
    versions = serving_versions.ServingBase(base).directories()
    return {version: model_files.digest(path) for version, path in versions.items() if model_files.is_loadable(path)}


def names(base):
    return [child.name for child in storage.children(storage.to_path(base))]


def test_push_and_rollback_and_prune(base, models):
    digests = [model_files.digest(model) for model in models]
    tried = []

    def check(model):
        assert model_files.is_loadable(model)
        assert storage.is_local(model)  # what came back from the store, in a folder that a loader takes
        tried.append(model_files.digest(model))
        return "loaded"

    for i, model in enumerate(models):
        done = push(model, base, Terms("next"), check=check)
        assert (done.version, done.checked, str(done.directory)) == (i + 1, "loaded", f"{base}/{i + 1}")
    assert tried == digests
    assert push(models[2], base, Terms("next"), check=check).unchanged
    assert seen(base) == dict(enumerate(digests, start=1))
    assert serving_versions.ServingBase(base).state() == {"base": base, "version": "3", "digest": digests[2]}
    done = roll_back(base, terms=Terms("next", keep=2), check=check)
    assert (done.version, done.restores, done.pruned) == (4, 2, (1, 2))
    assert seen(base) == {3: digests[2], 4: digests[1]}
    assert names(base) == [ledger.LEDGER, "3", "4"]


def test_the_graph_comes_last(base, models):
    def look(step):
        at = storage.to_path(base)
        if step == "publishing":
            assert not model_files.is_loadable(at / "1")
            assert serving_versions.ServingBase(at).live_version() is None
        steps.append(step)

    steps = []
    push(models[0], base, Terms("next"), check=untried, on_step=look)
    assert steps.count("publishing") == len(model_files.file_digests(models[0])) - 1
    assert serving_versions.ServingBase(base).live_version() == 1


def test_a_byte_that_flips_during_the_copy_is_detected(base, models):
    def flip(step):
        if step == "publishing":
            (storage.to_path(base) / "1" / "variables" / "variables.index").write_bytes(b"other")

    with pytest.raises(PushError, match=r"differs from the model"):
        push(models[0], base, Terms("next"), check=untried, on_step=flip)
    assert serving_versions.ServingBase(base).directories() == {}
    assert push(models[0], base, Terms("next"), check=untried).version == 2


def test_a_lock_is_an_object_with_its_owner(base, models):
    def another(step):
        if step == "copied":
            with pytest.raises(PushError, match=rf"process {os.getpid()} on .*, is pushing there now"):
                push(models[1], base, Terms("next"), check=untried)

    assert push(models[0], base, Terms("next"), check=untried, on_step=another).version == 1
    assert lock.OWNER not in names(base)
    assert list(seen(base)) == [1]


@pytest.mark.parametrize("fails_at", ["put", "copy"])
def test_a_store_s_refusal_is_reported_in_one_line(models, tmp_path, monkeypatch, fails_at):
    base = f"bucket://{tmp_path}/serving"
    push(models[0], base, Terms("next"), check=untried)
    before = seen(base)

    class Forbidden(Exception):
        """As Google's package has them: no OSError."""

    def fail(*_, **__):
        raise Forbidden("403: no write access")

    close = buckets.Upload.close
    with monkeypatch.context() as refused:
        if fails_at == "copy":
            refused.setattr(buckets.Bucket, "cp_file", fail)
        else:
            refused.setattr(buckets.Upload, "close", lambda self: fail() if "variables" in self.path else close(self))
        with pytest.raises(PushError, match=r"403: no write access, while pushing .*Nothing was pushed; what served"):
            push(models[1], base, Terms("next"), check=untried)
    assert seen(base) == before
    again = push(models[1], base, Terms("next"), check=untried)
    assert seen(base) == {**before, again.version: model_files.digest(models[1])}
    assert names(base) == [ledger.LEDGER, "1", str(again.version)]


def test_a_store_that_nobody_knows(models):
    with pytest.raises(ValueError, match="nowhere://x: cannot be reached"):
        push(models[0], "nowhere://x", check=untried)


PUSH_AND_DIE = """
import os, signal, sys
import buckets
from tfx_ranking.components.push.pushing import Terms, push

source, base, step_to_die_at, nth = sys.argv[1:]
steps = []

def on_step(step):
    steps.append(step)
    if steps.count(step_to_die_at) == int(nth):
        os.kill(os.getpid(), signal.SIGKILL)

push(source, base, Terms("next"), check=lambda model: "", on_step=on_step)
"""
STEPS = [step for step in pushing.STEPS if step not in ("labelled", "pruning", "pruned")]


@pytest.mark.parametrize(("step", "nth"), [*((step, 1) for step in STEPS), ("copying", 2), ("publishing", 2)])
def test_a_kill_at_any_step_leaves_what_loads_whole(models, tmp_path, step, nth):
    base = f"bucket://{tmp_path}/serving"
    push(models[0], base, Terms("next"), check=untried)
    old, new = (model_files.digest(model) for model in models[:2])
    command = [sys.executable, "-c", PUSH_AND_DIE, str(models[1]), base, step, str(nth)]
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(buckets.__file__).parent)}
    assert subprocess.run(command, env=environment).returncode == -signal.SIGKILL
    assert seen(base) == ({1: old, 2: new} if step == "published" else {1: old})
    again = push(models[1], base, Terms("next"), check=untried)
    # A number that a server may have seen is not given again.
    assert again.version == (3 if step in ("recorded", "publishing") else 2)
    assert again.unchanged == (step == "published")
    assert seen(base) == {1: old, again.version: new}
    assert names(base) == [ledger.LEDGER, "1", str(again.version)]
    assert not (storage.to_path(base) / version_files.STAGING).exists()
