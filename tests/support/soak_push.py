"""Pushes and rollbacks that are killed at random moments, and what a server sees after each.

    python tests/support/soak_push.py [--kills 200] [--seed 1] [--folder DIR]

Each kill (SIGKILL) hits a process of its own that pushes a real model, or rolls back, into one of three destinations: a
folder, a folder with version labels, an object store.  Half of the moments are spread over the time that a push takes,
most of which goes into trying the model, half over its steps.  This process has TensorFlow loaded and tries the models
for the pushing processes, by the same check that a push makes (`samples.check`); after each kill it looks at the
destination as a server does: every version that stands there is loaded by the loader that TensorFlow Serving runs and
asked its sample, its digest must be that of a whole model, and a version once seen never becomes another.  What cannot
be loaded must not be visible, in the object store: must not load.  The exit code is 1 after one bad view.
"""

import argparse
import collections
import json
import logging
import multiprocessing
import os
import pathlib
import random
import signal
import tempfile
import threading
import time
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.process import BaseProcess

import buckets  # noqa: F401  registers bucket://

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, PushRefused
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger, lock
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.labels import Labels
from tfx_ranking.components.push.pushing import Terms, push, roll_back
from tfx_ranking.components.serving import samples, serving_process

MODELS = 5
STEPS_OF_A_PUSH = 20  # about as many as it names
KEEP = 3


def destinations(folder: pathlib.Path) -> dict[str, tuple[str, Terms]]:
    """Base and terms of each kind."""
    labels = Labels(str(folder / "models.config"), "shop")
    return {
        "folder": (str(folder / "plain"), Terms("next", keep=KEEP)),
        "labels": (str(folder / "labelled"), Terms("next", keep=KEEP, labels=labels)),
        "objects": (f"bucket://{folder}/objects", Terms("next", keep=KEEP)),
    }


# --- the process that is killed


def child(folder: str, kind: str, model: str, socket: str, connection: Connection) -> None:
    """Pushes `model`, or rolls back if that is "back", when the parent sends a message; sends the name of each step."""
    base, terms = destinations(pathlib.Path(folder))[kind]
    resident = Client(socket)

    def check(model: pathlib.Path) -> str:
        resident.send(str(model))
        answer, refused = resident.recv()
        if refused:
            raise PushRefused(refused)
        return str(answer)

    connection.recv()
    try:
        if model == "back":
            roll_back(base, terms=terms, check=check, on_step=connection.send)
        else:
            forced = Terms("next", keep=KEEP, labels=terms.labels, force=True)  # what was rolled back as well
            push(model, base, forced, check=check, on_step=connection.send)
    except PushError as error:
        if "go back to" not in str(error) and "nothing serves" not in str(error):
            raise
    connection.send("done")


# --- the process that looks


def make_models(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Real SavedModels with variables, of 2 MB each, and their sample; by digest."""
    import numpy as np
    import tensorflow as tf

    class Ranker(tf.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.weights = tf.Variable(tf.random.stateless_uniform([64], [seed, 1]))
            self.table = tf.Variable(tf.random.stateless_uniform([8_000, 64], [seed, 2]))

        @tf.function(input_signature=[tf.TensorSpec([None, 64], tf.float32, "x")])
        def predict(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"scores": tf.linalg.matvec(x, self.weights) + tf.reduce_sum(self.table[0])}

    made = {}
    for seed in range(MODELS):
        ranker, to = Ranker(seed), folder / f"model{seed}"
        tf.saved_model.save(ranker, str(to), signatures={"predict": ranker.predict})
        x = np.float32([[0.5] * 64, [0.25] * 64])
        scores = serving_process.answer(str(to), {"predict": [{"x": x}]})["predict"][0]["scores"]
        request = {"signature_name": "predict", "inputs": {"x": x.tolist()}}
        file = to / model_files.SAMPLES_IN_MODEL / "predict.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"request": request, "response": {"outputs": scores.tolist()}}))
        made[model_files.digest(to)] = to
    return made


def try_model(model: pathlib.Path) -> str:
    """The check of a push, its loader in this process."""
    try:
        return samples.check(model, serving_process.answer)
    except PushRefused:
        raise
    except Exception as error:
        raise PushRefused(f"it cannot be loaded: {error}") from error


def answer(connection: Connection) -> None:
    """Tries models for one pushing process until it ends."""
    try:
        while True:
            try:
                connection.send((try_model(pathlib.Path(connection.recv())), ""))
            except PushRefused as error:
                connection.send(("", str(error)))
    except (EOFError, OSError):
        connection.close()


class Views:
    """What was seen of the destinations."""

    def __init__(self, models: dict[str, pathlib.Path]) -> None:
        self.models, self.seen = models, collections.defaultdict[str, dict[int, str]](dict)
        self.loads, self.unloadable, self.bad = 0, 0, list[str]()

    def look(self, kind: str, base: str, terms: Terms) -> None:
        """Looks at one destination as a server does."""
        versions = serving_versions.ServingBase(base).directories()
        for version, directory in versions.items():
            local = pathlib.Path(str(directory).removeprefix("bucket://"))  # the object store lies in a folder
            if not model_files.is_loadable(directory):
                self.unloadable += 1
                if kind != "objects":
                    self.bad.append(f"{kind}: version {version} is visible and broken")
                try:
                    try_model(local)
                    self.bad.append(f"{kind}: version {version} is not whole and loads")
                except (PushRefused, ValueError):
                    pass
                continue
            digest = model_files.digest(directory)
            if digest not in self.models:
                self.bad.append(f"{kind}: version {version} is no whole model")
            if self.seen[kind].setdefault(version, digest) != digest:
                self.bad.append(f"{kind}: version {version} has become another model")
            try:
                try_model(local)
                self.loads += 1
            except PushRefused as error:
                self.bad.append(f"{kind}: version {version}: {error}")
        if self.seen[kind] and serving_versions.ServingBase(base).live_version() is None:
            self.bad.append(f"{kind}: nothing serves any more")
        if terms.labels and not {*serving_versions.ServingBase(base).labels().values()} <= {*versions}:
            self.bad.append(f"{kind}: models.config names a version that is not there")


def kill(process: BaseProcess, connection: Connection, takes: float, rng: random.Random) -> list[str]:
    """Kills a running process at a random moment; returns the messages that it sent until then."""
    heard = list[str]()
    try:
        if rng.random() < 0.5:
            for _ in range(rng.randrange(STEPS_OF_A_PUSH)):
                heard.append(connection.recv())
            time.sleep(rng.uniform(0.0, 0.01))
        else:
            time.sleep(rng.uniform(0.0, takes))
        process.kill()
        while True:
            heard.append(connection.recv())
    except (EOFError, OSError):  # it has ended, perhaps in the middle of a word
        process.join()
        return heard


def soak(kills: int, seed: int, folder: pathlib.Path) -> int:
    """Runs it; gives the number of bad views."""
    begun, rng = time.monotonic(), random.Random(seed)
    models, kinds = make_models(folder), destinations(folder)
    views, steps, longest = Views(models), collections.Counter[str](), dict.fromkeys(kinds, 1.0)
    processes = multiprocessing.get_context("forkserver")  # each begins with everything imported but TensorFlow
    processes.set_forkserver_preload(
        ["buckets", "tfx_ranking.components.exported.contract", "tfx_ranking.components.serving.samples"]
    )
    with Listener(str(folder / "check.sock"), "AF_UNIX", backlog=8) as listener:
        killed = finished = 0
        while killed < kills:
            kind = rng.choice([*kinds])
            what = "back" if rng.random() < 0.2 else str(rng.choice([*models.values()]))
            connection, its = processes.Pipe()
            process = processes.Process(target=child, args=(str(folder), kind, what, listener.address, its))
            process.start()
            its.close()
            threading.Thread(target=answer, args=[listener.accept()], daemon=True).start()
            went = time.monotonic()
            connection.send("go")
            heard = kill(process, connection, longest[kind], rng)
            if "done" in heard:
                longest[kind] = 0.7 * longest[kind] + 0.3 * (time.monotonic() - went)
                finished += 1
            elif process.exitcode == -signal.SIGKILL:
                killed += 1
                steps[heard[-1] if heard else "begun"] += 1
                if killed % 20 == 0:
                    print(f"{killed} kills, {time.monotonic() - begun:.0f} s, bad views: {len(views.bad)}", flush=True)
            else:
                views.bad.append(f"{kind}: a push failed with {process.exitcode} after {heard}")
            views.look(kind, *kinds[kind])
    for kind, (base, terms) in kinds.items():
        last = Terms("next", keep=KEEP, labels=terms.labels, force=True)
        for model in models.values():
            done = push(model, base, last, check=try_model)
        views.look(kind, base, terms)
        named = {child.name for child in storage.children(storage.to_path(base))}
        debris = {name for name in named if serving_versions.parse_version(name) is None}
        debris -= {ledger.LEDGER, lock.LOCK}
        if debris or done.directory.name not in named:
            views.bad.append(f"{kind}: left over after the last push: {sorted(debris)}")
    took = time.monotonic() - begun
    print(f"{killed} pushes and rollbacks killed, {finished} finished, in {took:.0f} s (seed {seed})")
    print("killed after: " + ", ".join(f"{step} {count}" for step, count in steps.most_common()))
    numbers = {kind: max(seen) for kind, seen in views.seen.items()}
    print(
        f"versions given: {numbers}; loaded and asked {views.loads} times; half-copied and refused {views.unloadable}"
    )
    print(f"bad views: {len(views.bad)}")
    for bad in views.bad[:20]:
        print(f"  {bad}")
    return len(views.bad)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=pathlib.Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        return int(soak(arguments.kills, arguments.seed, folder) > 0)


if __name__ == "__main__":
    raise SystemExit(main())
