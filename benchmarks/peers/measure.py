"""Measures signatures of SavedModels, one turn at a time, in any environment that has TensorFlow.

Input: lines of JSON: first the folder of requests, then one message per measurement or per request for scores.
Output: one line of JSON per message: items/s of batches and seconds of each call of one list, or a number of scores.

Each environment has one process of this program, whose models stay loaded and warm until their next turn.

Requests: `<kind>-many.tfrecord` and `<kind>-one.tfrecord` for protos, `many.npz` and `one.npz` (features float32
[item, feature], row_splits int64 [list + 1]) for tensors.
"""

import json
import os
import pathlib
import sys
import time
from typing import Any, Callable, Dict, List, Tuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

BATCH = 32  # lists per call
Call = Callable[[], Dict[str, Any]]


def main() -> None:
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # keep what libraries print out of the answers
        folder = pathlib.Path(json.loads(sys.stdin.readline()))
        sides: Dict[str, Side] = {}
        for line in sys.stdin:
            message = json.loads(line)
            key = json.dumps(message["side"], sort_keys=True)
            if key not in sides:
                sides[key] = Side(folder, **message["side"])
            side = sides[key]
            answer = side.scores(message["scores"]) if "scores" in message else side.measure(message["seconds"])
            print(json.dumps(answer), file=answers, flush=True)


class Side:
    """One signature of one model, by one loader: "python" (`tf.saved_model.load`) or "serving" (TensorFlow Serving's).

    requests: a kind of proto, "tensors" (one per feature, [list, item], and `sizes`) or "matrix".  lists: per call.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        model: str,
        signature: str,
        input: str,
        output: str,
        requests: str,
        loader: str,
        lists: int = BATCH,
    ):
        self.output = output
        load = {"python": load_in_python, "serving": load_as_serving}[loader]
        self.many, self.sizes = requests_of(folder, "many", requests, input, lists)
        self.one, _ = requests_of(folder, "one", requests, input, 1)
        self.call, prepare = load(model, signature, [*self.one[0]])
        self.many = [prepare(request) for request in self.many]
        self.one = [prepare(request) for request in self.one]
        for request in (*self.many, *self.one):
            self.call(request)

    def measure(self, seconds: float) -> Dict[str, Any]:
        """Measures items_per_second of whole rounds of batches, and seconds of each call of one list."""
        rounds, began, ended = 0, time.perf_counter(), 0.0
        while ended < began + seconds:
            for request in self.many:
                self.call(request)
            rounds, ended = rounds + 1, time.perf_counter()
        rate = rounds * int(np.sum(self.sizes)) / (ended - began)
        durations: List[float] = []
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            for request in self.one:
                start = time.perf_counter()
                self.call(request)
                durations.append(time.perf_counter() - start)
        return {"items_per_second": rate, "seconds": durations}

    def scores(self, file: str) -> int:
        """Writes the scores of all the lists of the batches, flat, as float32 [item]; returns how many."""
        flat = []
        sizes = iter(self.sizes)
        for request in self.many:
            answer = np.asarray(self.call(request)[self.output])
            if answer.ndim == 1:
                flat.append(answer)
            else:
                flat.extend(row[: next(sizes)] for row in answer)
        np.save(file, np.concatenate(flat).astype(np.float32))
        return int(sum(map(len, flat)))


def load_in_python(model: str, signature: str, inputs: List[str]) -> Tuple[Callable[..., Any], Callable[..., Any]]:
    loaded = tf.saved_model.load(model)
    function = loaded.signatures[signature]
    function.kept = loaded  # keeps the model's variables alive

    def call(request: Dict[str, tf.Tensor]) -> Dict[str, Any]:
        return {name: value.numpy() for name, value in function(**request).items()}

    return call, lambda request: {name: tf.constant(value) for name, value in request.items()}


def load_as_serving(model: str, signature: str, inputs: List[str]) -> Tuple[Callable[..., Any], Callable[..., Any]]:
    session = tf.compat.v1.Session(graph=tf.Graph())
    with session.graph.as_default():
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], model).signature_def[signature]
        tensor = session.graph.get_tensor_by_name
        outputs = {name: tensor(info.name) for name, info in loaded.outputs.items()}
        run = session.make_callable(outputs, [tensor(loaded.inputs[name].name) for name in inputs])
    return lambda request: run(*request), lambda request: [request[name] for name in inputs]


def requests_of(
    folder: pathlib.Path, which: str, kind: str, input: str, lists: int
) -> Tuple[List[Dict[str, Any]], Any]:
    """Reads the inputs of the calls, `lists` lists in each, and the sizes of all the lists."""
    with np.load(folder / f"{which}.npz") as read:
        features, splits = read["features"], read["row_splits"]
    sizes = np.diff(splits)
    starts = range(0, len(sizes), lists)
    if kind not in ("tensors", "matrix"):
        records = list(tf.data.TFRecordDataset(str(folder / f"{kind}-{which}.tfrecord")).as_numpy_iterator())
        return [{input: np.array(records[at : at + lists], object)} for at in starts], sizes
    calls = []
    for at in starts:
        some = sizes[at : at + lists]
        rows = features[splits[at] : splits[at + len(some)]]
        if kind == "matrix":
            calls.append({input: rows})
            continue
        padded = np.zeros((features.shape[1], len(some), max(some)), np.float32)
        padded[:, np.arange(max(some)) < some[:, None]] = rows.T
        calls.append({**{f"f{i + 1}": column for i, column in enumerate(padded)}, "sizes": some})
    return calls, sizes


if __name__ == "__main__":
    main()
