"""Makes requests that can be sent without changes: `tfx-ranking request`.

Input: an exported model, and a list from a file of any input format, or the sample request inside the model.
Output: a serialized `PredictRequest`, a `curl` command or a Python program for gRPC.  A request is a set of named
arrays, for every kind of signature; `RENDERERS` lists the forms that it can be written in.

To add a form: 1. write a function from a `ReadyRequest` to text or bytes; 2. add a row to `RENDERERS`; 3. add its name
to `--output` in `cli/model_commands.py`.
"""

import base64
import dataclasses
import json
import pathlib
import sys
import urllib.parse
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices import signatures
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import RankingError, UsageError, did_you_mean
from tfx_ranking.components.exported.model_files import sample_file
from tfx_ranking.components.exported.saved_model import signature_definitions
from tfx_ranking.components.ingestion import grouping
from tfx_ranking.components.lists.list_examples import encode
from tfx_ranking.components.serving import client_requests, samples, warmup
from tfx_ranking.pipelines.asking import inspection, unlabelled
from tfx_ranking.pipelines.asking.list_choice import FIRST, Choice, choose
from tfx_ranking.pipelines.quiet import quiet_imports

DEFAULT = "serving_default"


@dataclasses.dataclass(frozen=True)
class ReadyRequest:
    """A call of TensorFlow Serving's Predict.  inputs: name → array; strings are object arrays of bytes.

    left_out: the records that could not be read, one of which may have belonged to a list of the request.
    """

    model: str
    signature: str
    inputs: dict[str, npt.NDArray[Any]]
    left_out: tuple[str, ...] = ()


def make(
    directory: pathlib.Path,
    signature: str,
    source: str | None,
    choice: Choice = FIRST,
    format: str | None = None,
    config: pathlib.Path | None = None,
) -> ReadyRequest:
    """Makes the request for `signature`, with lists from the files that `source` matches, or with the model's sample.

    directory: a SavedModel of tfx-ranking, or a folder of versions.  format, config: see `unlabelled.read_config`.
    Raises RankingError if the model has no such signature, or the files have no such list.
    """
    model = inspection.inspect(directory).directory
    ranking = unlabelled.read_config(model, [source] if source else [], format, config)
    known = {each.name: {tensor.name: tensor.dtype for tensor in each.inputs} for each in signature_definitions(model)}
    if signature not in known:
        raise RankingError(f"--signature: {_unknown('signature', signature, known, f'{model} has')}")
    row_name = ranking.serving.default if signature == DEFAULT else signature
    if source is None:
        if choice != FIRST:
            raise UsageError("--row, --group and --lists choose from a file; name it with --from.")
        return ReadyRequest(ranking.name, signature, _sample(model, row_name, known[signature]))
    files, reading = unlabelled.requests(ranking, unlabelled.features(model, ranking)), unlabelled.Reading()
    table = files[0].table
    _, batch, _ = grouping.arrange(choose(files, choice, reading), ranking.data, table, 0.0)
    records = encode(batch, table)
    with quiet_imports():
        made = client_requests.feed(_row(ranking, row_name), records, ranking)
    inputs = {name: made[name] for name in made if name in known[signature]}
    return ReadyRequest(ranking.name, signature, inputs, tuple(unlabelled.bad_lines(reading)))


def write(request: ReadyRequest, form: str, to: pathlib.Path | None) -> list[pathlib.Path]:
    """Writes a row of `RENDERERS` to a file, or all of them into a folder; to standard output when `to` is None.

    Returns the files written.  Raises UsageError for bytes on a terminal, and for all forms on standard output.
    """
    if form == "all":
        if to is None:
            raise UsageError("--output all makes several files; name a folder for them with --to.")
        to.mkdir(parents=True, exist_ok=True)
        files = {to / each.file: each.render(request) for each in RENDERERS.values()}
    elif to is not None:
        files = {to: RENDERERS[form].render(request)}
    else:
        rendered = RENDERERS[form].render(request)
        if isinstance(rendered, bytes) and sys.stdout.isatty():
            raise UsageError(
                "--output bytes is not text for a terminal; name a file with --to, or pipe it to a program."
            )
        if isinstance(rendered, bytes):
            sys.stdout.buffer.write(rendered)
            sys.stdout.buffer.flush()
        else:
            print(rendered, end="")
        return []
    for file, content in files.items():
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(files)


def serialized(request: ReadyRequest) -> bytes:
    """A `tensorflow.serving.PredictRequest`, the same bytes for the same request."""
    with quiet_imports():
        proto = warmup.predict_request(request.signature, request.inputs, request.model)
    content: bytes = proto.SerializeToString(deterministic=True)
    return content


def curl(request: ReadyRequest) -> str:
    """A shell command; the body is on standard input, because the length of a command line is limited."""
    address = f"http://localhost:8501/v1/models/{urllib.parse.quote(request.model, safe='')}:predict"
    head = f"curl -sS -X POST '{address}' -H 'Content-Type: application/json' -d @- <<'JSON'"
    return f"{head}\n{json.dumps(samples.rest_request(request.signature, request.inputs))}\nJSON\n"


def grpc_program(request: ReadyRequest) -> str:
    """A Python program that sends the request and prints the answer; its argument is the server's address."""
    inputs = []
    for name, values in request.inputs.items():
        dtype = "object" if values.dtype == object else f'"{values.dtype.name}"'
        inputs.append(f"    {json.dumps(name)}: np.array({_literal(values)}, {dtype}).reshape({values.shape}),")
    return _PROGRAM.format(
        model=json.dumps(request.model), signature=json.dumps(request.signature), inputs="\n".join(inputs)
    )


_PROGRAM = '''"""Asks TensorFlow Serving; needs tensorflow-serving-api.  python FILE [ADDRESS]"""

import sys
from base64 import b64decode

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

address = sys.argv[1] if len(sys.argv) > 1 else "localhost:8500"
nan = float("nan")
inputs = {{
{inputs}
}}
request = predict_pb2.PredictRequest()
request.model_spec.name = {model}
request.model_spec.signature_name = {signature}
for name, values in inputs.items():
    request.inputs[name].CopyFrom(tf.make_tensor_proto(values))

with grpc.insecure_channel(address) as channel:
    answer = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=10)
for name in sorted(answer.outputs):
    print(name, tf.make_ndarray(answer.outputs[name]).tolist())
'''


class Renderer(NamedTuple):
    """One form of a request."""

    render: Callable[[ReadyRequest], str | bytes]
    file: str  # the file's name when all forms are written to one folder


RENDERERS: dict[str, Renderer] = {
    "curl": Renderer(curl, "request.sh"),
    "grpc": Renderer(grpc_program, "request.py"),
    "bytes": Renderer(serialized, "request.pb"),
}


def _row(ranking: RankingConfig, name: str) -> signatures.Signature:
    rows = ranking.serving.rows
    if name not in rows:
        raise RankingError(f"--signature: {_unknown('signature', name, rows, 'the config that was exported has')}")
    return rows[name]


def _unknown(what: str, name: str, known: Collection[str], who: str) -> str:
    hint = did_you_mean(name, known) or "."
    return f"there is no {what} {name!r}{hint} {who} {', '.join(sorted(known))}."


def _sample(model: pathlib.Path, signature: str, dtypes: dict[str, str]) -> dict[str, npt.NDArray[Any]]:
    file = sample_file(model, signature)
    if not file.is_file():
        raise RankingError(
            f"{model}: the model has no sample request for {signature!r}; take a list from a file with --from."
        )
    inputs = json.loads(file.read_text())["request"]["inputs"]
    return samples.arrays(inputs, dtypes)


def _literal(values: npt.NDArray[Any]) -> str:
    """Python code for the nested lists of an array."""

    def code(part: Any) -> str:
        if isinstance(part, list):
            return f"[{', '.join(map(code, part))}]"
        return f'b64decode("{base64.b64encode(part).decode()}")' if isinstance(part, bytes) else str(part)

    # The text of a float32 is exact with fewer digits than that of its float64.
    return code((values.astype(str) if values.dtype == np.float32 else values).tolist())
