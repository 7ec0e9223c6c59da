"""Writes a sample request of each signature into a model, and checks that the model still gives the same answers.

Input: for `write_sample` a request and its answer, when the model is exported; for `check` a SavedModel.
Output: `assets.extra/tfx_ranking/samples/`; a summary of the check, or PushRefused.

`check` loads the model in another process with the loader that TensorFlow Serving uses, so a model that passes can be
loaded and called there.
"""

import base64
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.errors import PushRefused, RankingError
from tfx_ranking.components.exported.model_files import SAMPLES_IN_MODEL, sample_file
from tfx_ranking.components.exported.saved_model import signature_definitions
from tfx_ranking.components.serving import serving_process, warmup
from tfx_ranking.components.serving.client_requests import Feed

TOLERANCE = 1e-4  # times max(1, largest |value|): float32 sums differ in the last digits from machine to machine
Array = npt.NDArray[Any]
Ask = Callable[..., dict[str, list[dict[str, Array]]]]


def write_sample(model: pathlib.Path, signature: str, feed: Feed, outputs: Feed, name: str) -> None:
    """Writes one request as the bytes of a `PredictRequest` (`.pb`), and as REST JSON with its answer (`.json`).

    feed: the request's inputs.  outputs: the answer.  name: the name under which TensorFlow Serving has the model.
    """
    file = sample_file(model, signature)
    file.parent.mkdir(parents=True, exist_ok=True)
    request = warmup.predict_request(signature, feed, name).SerializeToString(deterministic=True)
    file.with_name(f"{file.stem}.pb").write_bytes(request)
    answer = {"outputs": {key: _rest_value(value) for key, value in sorted(outputs.items())}}
    if len(outputs) == 1:  # REST leaves out the name of a single output
        answer = {"outputs": next(iter(answer["outputs"].values()))}
    sample = {"request": rest_request(signature, feed), "response": answer}
    file.write_text(json.dumps(sample, indent=1) + "\n")


def rest_request(signature: str, feed: Feed) -> dict[str, Any]:
    """The JSON body of a request to TensorFlow Serving's REST Predict, in the columnar format."""
    return {"signature_name": signature, "inputs": {name: _rest_value(value, True) for name, value in feed.items()}}


def check(model: pathlib.Path, ask: Ask = serving_process.ask) -> str:
    """Loads a model, sends it its sample requests, and returns a summary of what was checked.

    ask: loads the model and answers requests.  A model without samples is only loaded.
    Raises PushRefused when the model cannot be loaded, or the answer to a sample differs from the recorded one.
    """
    dtypes = {each.name: {one.name: one.dtype for one in each.inputs} for each in signature_definitions(model)}
    calls, expected = {}, {}
    for file in sorted((model / SAMPLES_IN_MODEL).glob("*.json")):
        sample = json.loads(file.read_text())
        signature = sample["request"]["signature_name"]
        if signature not in dtypes:
            raise PushRefused(f"its sample {file.name} calls signature {signature}, which the model does not have")
        calls[signature] = [arrays(sample["request"]["inputs"], dtypes[signature])]
        expected[signature] = sample["response"]["outputs"]
    try:
        answers = ask(str(model), calls)
    except RankingError as error:
        reason = str(error).strip().splitlines()[-1]  # the lines above are TensorFlow's traceback
        raise PushRefused(f"it cannot be loaded and called as TensorFlow Serving does: {reason}") from error
    for signature, outputs in expected.items():
        if wrong := difference(outputs, answers[signature][0]):
            raise PushRefused(f"signature {signature} no longer answers its sample as it did at export: {wrong}")
    if not expected:
        return "loaded (the model has no sample requests)"
    return f"loaded, and {len(expected)} sample request{'s' * (len(expected) != 1)} answered as at export"


def arrays(inputs: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Array]:
    """Converts the inputs of a columnar REST request back to arrays.  dtypes: input name → TensorFlow's dtype."""
    return {name: _array(values, dtypes[name]) for name, values in inputs.items()}


def difference(expected: Any, answer: Mapping[str, Array]) -> str:
    """Describes how an answer differs from a sample's answer; "" when they agree.

    expected: the sample's answer: output name → values, or only the values of a single output.
    Texts in a row may be in another order where the numbers beside them are equal, as item ids are when scores tie.

    >>> difference([[1.0, 2.0]], {"scores": np.float32([[1.0, 2.0]])})
    ''
    >>> difference([[1.0, 2.0]], {"scores": np.float32([[1.0, 2.5]])})
    'scores[0, 1] is 2.5, it was 2.0'
    """
    outputs = expected if isinstance(expected, dict) else {next(iter(answer), ""): expected}
    if set(outputs) != set(answer):
        return f"it has outputs {sorted(answer)}, it had {sorted(outputs)}"
    was = {name: np.array(values) for name, values in outputs.items()}
    now = {name: _decoded(values) for name, values in answer.items()}
    for name in sorted(was):
        # JSON does not keep the shape of an empty array.
        if was[name].size != now[name].size or (was[name].size and was[name].shape != now[name].shape):
            return f"{name} has the shape {list(now[name].shape)}, it had {list(was[name].shape)}"
    wrong = {name: at for name in was if (at := np.argwhere(_differs(was[name], now[name]))).size}
    texts = [name for name in wrong if was[name].dtype.kind == "U"]
    if texts and len(texts) == len(wrong) and _ties(was, now):
        return ""
    for name, positions in sorted(wrong.items()):
        first = tuple(positions[0].tolist())
        return f"{name}{list(first)} is {now[name][first].item()!r}, it was {was[name][first].item()!r}"
    return ""


def _differs(was: Array, now: Array) -> Array:
    if was.size == 0:
        return np.zeros(0, bool)
    if was.dtype.kind not in "fiu" or now.dtype.kind not in "fiu":
        return np.asarray(was != now)
    largest = np.nanmax(np.abs(np.where(np.isfinite(was), was, 0)))
    return ~np.isclose(now, was, rtol=0, atol=TOLERANCE * max(1.0, float(largest)), equal_nan=True)


def _ties(was: Mapping[str, Array], now: Mapping[str, Array]) -> bool:
    """Whether each row has the same texts with the same numbers, in any order."""
    key = next(name for name in was if was[name].dtype.kind == "U")
    shape = was[key].shape
    if len(shape) != 2 or any(each.shape[:2] != shape for each in was.values()):
        return False
    order, reorder = np.argsort(was[key], axis=1, kind="stable"), np.argsort(now[key], axis=1, kind="stable")
    rows = np.arange(shape[0])[:, None]
    return not any(np.any(_differs(was[name][rows, order], now[name][rows, reorder])) for name in was)


def _array(values: Any, dtype: str) -> Array:
    if dtype != "string":
        return np.array(values, {"float": np.float32, "double": np.float64}.get(dtype, dtype))

    def decoded(part: Any) -> Any:
        if isinstance(part, list):
            return [decoded(each) for each in part]
        return base64.b64decode(part["b64"]) if isinstance(part, dict) else part.encode()

    return np.array(decoded(values), object)


def _decoded(values: Array) -> Array:
    """Decodes bytes to text, as `write_sample` writes them."""
    if values.dtype.kind not in "OS":
        return values
    flat = [each.decode("utf-8", "backslashreplace") for each in values.ravel().tolist()]
    return np.array(flat, str).reshape(values.shape)


def _rest_value(value: Array, request: bool = False) -> Any:
    """Converts an array to JSON as REST has it: bytes are base64 in requests and text in answers.

    A float32 is written with its own digits: 0.1 and not 0.10000000149011612.
    """
    if value.dtype == object:

        def text(one: Any) -> Any:
            if isinstance(one, list):
                return [text(each) for each in one]
            return {"b64": base64.b64encode(one).decode()} if request else one.decode("utf-8", "backslashreplace")

        return text(value.tolist())
    if value.dtype == np.float32:
        return value.astype(str).astype(np.float64).tolist()
    return value.tolist()
