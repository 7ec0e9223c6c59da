"""Clients of an exported model that know nothing of us: C++ against TensorFlow's library, and Python.

`score` asks the C++ client, `fresh_process_score` a Python process that imports TensorFlow and nothing of TFX.  Both
take serialized protos, one a list, and give (scores float32 [item], sizes int64 [list]).
"""

import functools
import hashlib
import os
import pathlib
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence

import numpy as np
import pytest

SOURCE = pathlib.Path(__file__).with_suffix(".cc")


class ClientError(Exception):
    """The client ended with an error; the text is TensorFlow's."""


def score(
    model: str | os.PathLike, signature: str, serialized: Sequence[bytes], lists_a_call: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Scores by the C++ client.  Raises ClientError with the loader's or the kernel's message."""
    requests = b"".join(struct.pack("<Q", len(one)) + one for one in serialized)
    ran = subprocess.run(
        [build(), os.fspath(model), signature, str(lists_a_call)], input=requests, capture_output=True, env=_quiet()
    )
    if ran.returncode:
        raise ClientError(ran.stderr.decode(errors="replace"))
    rows = [np.array(line.split(), np.float32) for line in ran.stdout.decode().splitlines()]
    return np.concatenate([np.empty(0, np.float32), *rows]), np.array([len(row) for row in rows], np.int64)


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
            {SOURCE} -o {staging} -L{tensorflow} -l:libtensorflow_cc.so.2 -l:libtensorflow_framework.so.2
            -Wl,-rpath,{tensorflow}"""
        ran = subprocess.run(command.split(), capture_output=True, text=True)
        if ran.returncode:
            raise ClientError(ran.stderr[-4000:])
        staging.rename(client)
    return str(client)


_FRESH = """
import sys
import numpy as np
import tensorflow as tf
model, signature, requests, answer = sys.argv[1:]
ranker = tf.saved_model.load(model)
protos = list(tf.data.TFRecordDataset(requests).as_numpy_iterator())
came = ranker.signatures[signature](inputs=tf.constant(protos, tf.string, shape=[len(protos)]))
ours = ("tfx", "tfx_bsl", "tfx_ranking", "tensorflow_transform")
strangers = [name for name in sys.modules if name.split(".")[0] in ours]
assert not strangers, strangers
np.savez(answer, **{name: value.numpy() for name, value in came.items()})
"""


def fresh_process_score(
    model: str | os.PathLike, signature: str, serialized: Sequence[bytes]
) -> tuple[np.ndarray, np.ndarray]:
    """Scores by `tf.saved_model.load` in a new process, all lists in one call.  Raises ClientError."""
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        requests, answer = f"{folder}/requests.tfrecord", f"{folder}/answer.npz"
        with tf.io.TFRecordWriter(requests) as writer:
            for one in serialized:
                writer.write(one)
        command = [sys.executable, "-c", _FRESH, os.fspath(model), signature, requests, answer]
        ran = subprocess.run(command, capture_output=True, text=True, errors="replace", env=_quiet(), cwd=folder)
        if ran.returncode:
            raise ClientError(ran.stderr)
        with np.load(answer) as came:
            scores, sizes = came["scores"], came["sizes"]
    real = np.arange(scores.shape[1]) < sizes[:, None]
    assert np.all(scores[~real] == np.finfo(np.float32).min), "padding is the smallest finite float32"
    return scores[real], sizes


def _quiet() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
