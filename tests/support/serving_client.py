"""Clients of an exported model that know nothing of us: C++ against TensorFlow's library, and Python.

`cpp` asks the C++ client, `fresh_process` a Python process that imports TensorFlow and nothing of TFX; each makes any
number of calls in one process.  `call` is one signature's outputs by either, `score` the scores of lists of protos.
"""

import atexit
import functools
import hashlib
import json
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest

SOURCE = pathlib.Path(__file__).with_suffix(".cc")
FAILED = 2**64 - 1
Arrays = Mapping[str, np.ndarray]


class ClientError(Exception):
    """A call, or the loading of the model, ended with an error; the text is TensorFlow's, its code first."""


Answer = dict[str, np.ndarray] | ClientError
Client = Callable[[str | os.PathLike, Sequence[tuple[str, Arrays]]], list[Answer]]


def cpp(model: str | os.PathLike, calls: Sequence[tuple[str, Arrays]]) -> list[Answer]:
    """The answer of each (signature, inputs) by the C++ client; a ClientError in place of one that failed.

    Raises ClientError where the model cannot be loaded.
    """
    import tensorflow as tf
    from tensorflow.core.framework import tensor_pb2

    def texts() -> Iterator[bytes]:
        for signature, inputs in calls:
            yield _text(signature.encode()) + struct.pack("<Q", len(inputs))
            for name, value in inputs.items():
                proto = tf.make_tensor_proto(value, tf.as_dtype(value.dtype), value.shape)
                yield _text(name.encode()) + _text(proto.SerializeToString())

    ran = subprocess.run([build(), os.fspath(model)], input=b"".join(texts()), capture_output=True, env=_quiet())
    if ran.returncode:
        raise ClientError(ran.stderr.decode(errors="replace"))
    rest = memoryview(ran.stdout)

    def number() -> int:
        nonlocal rest
        (value,), rest = struct.unpack_from("<Q", rest), rest[8:]
        return value

    def text() -> bytes:
        nonlocal rest
        length = number()
        value, rest = bytes(rest[:length]), rest[length:]
        return value

    answers: list[Answer] = []
    for _ in calls:
        outputs = number()
        if outputs == FAILED:
            answers.append(ClientError(text().decode(errors="replace")))
        else:
            named = ((text().decode(), text()) for _ in range(outputs))
            parsed = {name: tensor_pb2.TensorProto.FromString(serialized) for name, serialized in named}
            answers.append({name: tf.make_ndarray(proto) for name, proto in parsed.items()})
    return answers


_FRESH = """
import json, os, pickle, sys, traceback
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import error_codes_pb2

def ask(ranker, signature, inputs):
    named = {}
    for name, value in inputs.items():
        kind = tf.string if value.dtype == object else tf.as_dtype(value.dtype)
        named[name] = tf.constant(value.tolist(), kind, value.shape)
    try:
        return {name: value.numpy() for name, value in ranker.signatures[signature](**named).items()}
    except tf.errors.OpError as error:
        return f"{error_codes_pb2.Code.Name(error.error_code)}: {error.message}"

def serve(model, folder):
    os.chdir(folder)
    os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT), 2)
    ranker = tf.saved_model.load(model)
    answers = [ask(ranker, *call) for call in pickle.load(open("calls", "rb"))]
    ours = ("tfx", "tfx_bsl", "tfx_ranking", "tensorflow_transform")
    strangers = [name for name in sys.modules if name.split(".")[0] in ours]
    assert not strangers, strangers
    pickle.dump(answers, open("answers", "wb"))

while request := sys.stdin.readline():
    child = os.fork()
    if not child:
        try:
            serve(*json.loads(request))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@functools.cache
def _tensorflow_alone() -> subprocess.Popen[str]:
    """A process that has imported TensorFlow and nothing of TFX; it forks a process for each model."""
    pipe = subprocess.PIPE
    process = subprocess.Popen(
        [sys.executable, "-c", _FRESH], stdin=pipe, stdout=pipe, text=True, env=_quiet(), cwd=tempfile.gettempdir()
    )
    atexit.register(process.kill)
    return process


def fresh_process(model: str | os.PathLike, calls: Sequence[tuple[str, Arrays]]) -> list[Answer]:
    """As `cpp`, by `tf.saved_model.load` in a process of its own that has imported TensorFlow alone."""
    server = _tensorflow_alone()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "calls").write_bytes(pickle.dumps([(signature, dict(inputs)) for signature, inputs in calls]))
        server.stdin.write(json.dumps([os.path.abspath(model), name]) + "\n")
        server.stdin.flush()
        if server.stdout.readline() != "0\n":
            raise ClientError((folder / "errors").read_text(errors="replace"))
        answers = pickle.loads((folder / "answers").read_bytes())
    return [ClientError(answer) if isinstance(answer, str) else answer for answer in answers]


CLIENTS: dict[str, Client] = {"cpp": cpp, "fresh_process": fresh_process}


def call(
    model: str | os.PathLike, signature: str, calls: Sequence[Arrays], client: Client = cpp
) -> list[dict[str, np.ndarray]]:
    """The outputs of each call of one signature.  Raises ClientError with the loader's or the kernel's message."""
    answers = client(model, [(signature, inputs) for inputs in calls])
    for answer in answers:
        if isinstance(answer, ClientError):
            raise answer
    return answers


def score(
    model: str | os.PathLike,
    signature: str,
    serialized: Sequence[bytes],
    lists_a_call: int = 32,
    client: Client = cpp,
) -> tuple[np.ndarray, np.ndarray]:
    """(scores float32 [item], sizes int64 [list]) of lists of protos; what stands behind a list's end is checked."""
    starts = range(0, max(1, len(serialized)), lists_a_call)  # once at least: an empty batch is a request too
    calls = [{"inputs": protos(serialized[start : start + lists_a_call])} for start in starts]
    scores, sizes = [np.empty(0, np.float32)], [np.empty(0, np.int64)]
    for answer in call(model, signature, calls, client):
        real = np.arange(answer["scores"].shape[1]) < answer["sizes"][:, None]
        assert np.all(answer["scores"][~real] == np.finfo(np.float32).min), "padding is the smallest finite float32"
        scores.append(answer["scores"][real])
        sizes.append(answer["sizes"])
    return np.concatenate(scores), np.concatenate(sizes)


def fresh_process_score(
    model: str | os.PathLike, signature: str, serialized: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """`score` by `fresh_process`, all lists in one call."""
    return score(model, signature, serialized, max(1, len(serialized)), fresh_process)


def protos(serialized: Sequence[bytes]) -> np.ndarray:
    """As an input: object [list]."""
    return np.array([*serialized, None], object)[:-1]  # None keeps NumPy from guessing a dtype


@functools.cache
def build() -> str:
    """Compiles the client against the installed TensorFlow; kept between runs of the tests."""
    if not shutil.which("g++"):
        pytest.skip("no g++ to build the C++ client with")
    where = "import importlib.util as u; print(u.find_spec('tensorflow').submodule_search_locations[0])"
    tensorflow = subprocess.run(
        [sys.executable, "-c", where], capture_output=True, text=True, check=True
    ).stdout.strip()
    library = pathlib.Path(tensorflow, "libtensorflow_cc.so.2")
    identity = SOURCE.read_bytes() + f"{library}{library.stat().st_size}{library.stat().st_mtime}".encode()
    folder = pathlib.Path(tempfile.gettempdir(), f"tfx-ranking-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    client = folder / f"serving_client-{hashlib.sha256(identity).hexdigest()[:16]}"
    if not client.exists():
        staging = client.with_suffix(f".{os.getpid()}")
        command = f"""g++ -std=c++17 -O1 -D_GLIBCXX_USE_CXX11_ABI=1 -DEIGEN_MAX_ALIGN_BYTES=64 -I{tensorflow}/include
            {SOURCE} -o {staging} -L{tensorflow} -Wl,-rpath,{tensorflow}
            -Wl,--no-as-needed -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2"""
        ran = subprocess.run(command.split(), capture_output=True, text=True)
        if ran.returncode:
            raise ClientError(ran.stderr[-4000:])
        staging.rename(client)
    return str(client)


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _quiet() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
