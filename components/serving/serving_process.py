"""Calls a SavedModel as TensorFlow Serving does, in a separate process that imports only TensorFlow.

Input: a SavedModel, and the calls of each signature as NumPy arrays.  Output: the outputs of each call.

`tf.compat.v1.saved_model.loader` is the loader that TensorFlow Serving uses.  It refuses models that
`tf.saved_model.load` accepts, for example one with a variable that the model does not track.  The process has neither
TFX nor the code of your scorer, which proves that the model needs neither.

Importing TensorFlow takes seconds, so one process imports it and forks a new process for each model:

    python -m tfx_ranking.components.serving.serving_process < requests > exit codes
"""

import atexit
import contextlib
import ctypes
import json
import os
import pathlib
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from tfx_ranking.components.errors import RankingError

_POLL = 0.02  # seconds between two checks whether a fork has ended
Arrays = Mapping[str, npt.NDArray[Any]]  # by the names of the signature's inputs or outputs


def ask(model: str, calls: Mapping[str, Sequence[Arrays]]) -> dict[str, list[dict[str, npt.NDArray[Any]]]]:
    """Signature → the outputs of each of its calls, computed in a new process.

    model: a SavedModel's directory.  calls: signature → the inputs of each call.  Raises RankingError, with
    TensorFlow's own message, when the model cannot be loaded or a call fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        requests, answers, errors = (pathlib.Path(folder, name) for name in ("requests", "answers", "errors"))
        requests.write_bytes(pickle.dumps({name: list(each) for name, each in calls.items()}))
        failure = _server.run([os.path.abspath(model), str(requests), str(answers), str(errors)])
        if failure is not None:
            text = errors.read_text(errors="replace") if errors.exists() else failure
            reason = [line for line in text.splitlines() if line.strip()][-12:]
            raise RankingError(f"{model}: scoring in a separate process failed.\n" + "\n".join(reason))
        outputs: dict[str, list[dict[str, npt.NDArray[Any]]]] = pickle.loads(answers.read_bytes())
        return outputs


class _Server:
    """The process that imports TensorFlow and forks; it starts at the first request and ends with this process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.log: Any = None  # the server's standard error, without that of its forks
        self.lock = threading.Lock()  # it serves one request at a time

    def run(self, request: list[str]) -> str | None:
        """None when the request succeeded; otherwise the text that the server printed, which may be empty."""
        with self.lock:
            if self.process is None or self.process.poll() is not None:
                self.start()
            assert self.process is not None
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            try:
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
                answer = self.process.stdout.readline()
            except BrokenPipeError:
                answer = b""
            if answer == b"0\n":
                return None
            if not answer:  # the server died; the next request starts a new one
                self.process.wait()
            self.log.seek(0)
            return str(self.log.read().decode(errors="replace"))

    def start(self) -> None:
        self.log = tempfile.TemporaryFile()  # noqa: SIM115, open as long as the process runs
        command = [sys.executable, "-m", "tfx_ranking.components.serving.serving_process"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.log, bufsize=0)
        atexit.register(self.stop, self.process)

    @staticmethod
    def stop(process: subprocess.Popen[bytes]) -> None:
        """Ends the server by closing its standard input."""
        with contextlib.suppress(BrokenPipeError):
            process.communicate()


_server = _Server()


def main() -> None:
    """Serves requests, one line each, until the standard input ends; answers each with its exit code."""
    import tensorflow  # noqa: F401

    ours = sorted(name for name in sys.modules if name.partition(".")[0] in ("tfx", "tfx_bsl", "tensorflow_transform"))
    if ours:
        raise RuntimeError(f"expected a process that imports only TensorFlow; it also has {ours[:3]}")
    while request := os.read(0, 1 << 16):  # one at a time, so a read returns one line
        child = os.fork()
        if not child:
            _serve(*json.loads(request))
        os.write(1, b"%d\n" % _exit_code(child))


def _exit_code(child: int) -> int:
    """Waits for a fork.  If the standard input ends first, the caller is gone: ends the fork and this process."""
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if select.select([0], [], [], _POLL)[0]:  # a caller sends no second request before it has the answer
            os.kill(child, signal.SIGKILL)
            raise SystemExit(1)


def _serve(model: str, requests: str, answers: str, errors: str) -> None:
    """Serves one request in the fork.  Does not return."""
    with contextlib.suppress(OSError, AttributeError):  # PR_SET_PDEATHSIG: the fork does not outlive the server
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    code = 1
    try:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
        outputs = answer(model, pickle.loads(pathlib.Path(requests).read_bytes()))
        pathlib.Path(answers).write_bytes(pickle.dumps(outputs))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def answer(model: str, calls: Mapping[str, Sequence[Arrays]]) -> dict[str, list[dict[str, Any]]]:
    """Does the same as `ask`, in this process."""
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
    main()
