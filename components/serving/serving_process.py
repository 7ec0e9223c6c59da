"""Asks a SavedModel as TensorFlow Serving would: in a process of its own that imports TensorFlow alone.

Enters: a SavedModel, the calls to make.  Leaves: their answers.  The one idea: `tf.compat.v1.saved_model.loader` is the
loader that TensorFlow Serving runs, and it refuses models that `tf.saved_model.load` accepts (a variable that is not
tracked by itself); nothing of TFX or of ours is there to help.

    python -m tfx_ranking.components.serving.serving_process MODEL CALLS ANSWERS
"""

import contextlib
import ctypes
import json
import pathlib
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from tfx_ranking.components.errors import RankingError

Arrays = Mapping[str, npt.NDArray[Any]]  # by the names of the signature's inputs, or outputs


def ask(model: str, calls: Mapping[str, Sequence[Arrays]]) -> dict[str, list[dict[str, npt.NDArray[Any]]]]:
    """Signature → the outputs of each of its calls, asked in a new process.

    model: a SavedModel's directory.  Raises RankingError with TensorFlow's own words when the model cannot be loaded or
    answers with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answered = pathlib.Path(folder, "calls.pickle"), pathlib.Path(folder, "answers.pickle")
        asked.write_bytes(pickle.dumps({name: list(each) for name, each in calls.items()}))
        command = [
            sys.executable,
            "-m",
            "tfx_ranking.components.serving.serving_process",
            model,
            str(asked),
            str(answered),
        ]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
        if ran.returncode:
            reason = [line for line in ran.stderr.splitlines() if line.strip()][-12:]
            raise RankingError(f"{model}: scoring in a process of its own failed.\n" + "\n".join(reason))
        answers: dict[str, list[dict[str, npt.NDArray[Any]]]] = pickle.loads(answered.read_bytes())
        return answers


def main(model: str, asked: str, answered: str) -> None:
    """Makes the calls and writes the answers."""
    import tensorflow  # noqa: F401

    ours = sorted(name for name in sys.modules if name.partition(".")[0] in ("tfx", "tfx_bsl", "tensorflow_transform"))
    if ours:
        raise RuntimeError(f"this process is to hold TensorFlow alone; it has {ours[:3]}")
    answers = answer(model, pickle.loads(pathlib.Path(asked).read_bytes()))
    pathlib.Path(answered).write_bytes(pickle.dumps(answers))
    print(json.dumps({signature: len(calls) for signature, calls in answers.items()}))


def answer(model: str, calls: Mapping[str, Sequence[Arrays]]) -> dict[str, list[dict[str, Any]]]:
    """What `ask` gives, asked in this process."""
    import tensorflow as tf

    answers: dict[str, list[dict[str, Any]]] = {}
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.loader.load(session, ["serve"], model)
        for signature, made in calls.items():
            definition = loaded.signature_def[signature]
            inputs = {name: tensor.name for name, tensor in definition.inputs.items()}
            outputs = {name: tensor.name for name, tensor in definition.outputs.items()}
            answers[signature] = []
            for call in made:
                fed = {inputs[name]: value for name, value in call.items() if name in inputs}
                answers[signature].append(session.run(outputs, fed))
    return answers


if __name__ == "__main__":
    with contextlib.suppress(OSError, AttributeError):  # PR_SET_PDEATHSIG: a killed run leaves nobody scoring
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    main(*sys.argv[1:])
