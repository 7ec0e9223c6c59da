"""Scores requests as TensorFlow Serving would: in a process of its own that imports TensorFlow alone.

Enters: a SavedModel, one TFRecord of serialized requests per signature.  Leaves: one `.npz` of scores per signature.
The one idea: `tf.compat.v1.saved_model.loader` is the loader that TensorFlow Serving runs, and it refuses models that
`tf.saved_model.load` accepts (a variable that is not tracked by itself); nothing of TFX or of ours is there to help.

    python -m tfx_ranking.components.serving_process MODEL FOLDER predict list_example
"""

import contextlib
import ctypes
import json
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.errors import RankingError

BATCH = 32  # lists a call
Scores = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


def score(model: str, requests: Mapping[str, Sequence[bytes]], folder: pathlib.Path) -> dict[str, Scores]:
    """Signature → (scores float32 [item], sizes int64 [list]) of the requests, asked in a new process.

    model: a SavedModel's directory.  requests: signature → serialized protos, one a list.  folder: for the files in
    between.  Raises RankingError with TensorFlow's own words when the model cannot be loaded or answers with an error.
    """
    import tensorflow as tf

    folder.mkdir(parents=True, exist_ok=True)
    for signature, protos in requests.items():
        with tf.io.TFRecordWriter(str(folder / f"{signature}.tfrecord")) as writer:
            for proto in protos:
                writer.write(proto)
    command = [sys.executable, "-m", "tfx_ranking.components.serving_process", model, str(folder), *requests]
    ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if ran.returncode:
        reason = [line for line in ran.stderr.splitlines() if line.strip()][-12:]
        raise RankingError(f"{model}: scoring in a process of its own failed.\n" + "\n".join(reason))
    answers = {}
    for signature in requests:
        with np.load(folder / f"{signature}.npz") as answer:
            answers[signature] = (answer["scores"], answer["sizes"])
    return answers


def main(model: str, folder: str, *signatures: str) -> None:
    """Answers `<folder>/<signature>.tfrecord` with `<folder>/<signature>.npz`."""
    import tensorflow as tf

    ours = sorted(name for name in sys.modules if name.partition(".")[0] in ("tfx", "tfx_bsl", "tensorflow_transform"))
    if ours:
        raise RuntimeError(f"this process is to hold TensorFlow alone; it has {ours[:3]}")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], model)
        for signature in signatures:
            definition = loaded.signature_def[signature]
            inputs = definition.inputs["inputs"].name
            outputs = {name: tensor.name for name, tensor in definition.outputs.items()}
            protos = list(tf.compat.v1.io.tf_record_iterator(f"{folder}/{signature}.tfrecord"))
            scores, sizes = [], []
            for start in range(0, len(protos), BATCH):
                answer = session.run(outputs, {inputs: protos[start : start + BATCH]})
                real = np.arange(answer["scores"].shape[1]) < answer["sizes"][:, None]
                padding = answer["scores"][~real]
                if not np.all(padding == np.finfo(np.float32).min):
                    raise RuntimeError(f"signature {signature}: padding is not the smallest float32 but {padding}")
                scores.append(answer["scores"][real])
                sizes.append(answer["sizes"])
            np.savez(
                f"{folder}/{signature}.npz",
                scores=np.concatenate([np.empty(0, np.float32), *scores]),
                sizes=np.concatenate([np.empty(0, np.int64), *sizes]),
            )
    print(json.dumps({"signatures": signatures}))


if __name__ == "__main__":
    with contextlib.suppress(OSError, AttributeError):  # PR_SET_PDEATHSIG: a killed run leaves nobody scoring
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    main(*sys.argv[1:])
