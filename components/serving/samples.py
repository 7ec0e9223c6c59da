"""The requests that travel with a model, asked again: does it still answer as it did when it was exported?

Enters: a SavedModel with `assets.extra/tfx_ranking/samples/`.  Leaves: what trying it came to, or PushRefused.  The one
idea: it is loaded in a process of its own by the loader that TensorFlow Serving runs, so what passes here serves there.
"""

import base64
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.errors import PushRefused, RankingError
from tfx_ranking.components.exported.model_files import SAMPLES_IN_MODEL
from tfx_ranking.components.exported.saved_model import signature_definitions
from tfx_ranking.components.serving import serving_process

TOLERANCE = 1e-4  # of max(1, largest |value|): another machine's float32 sums differ in the last digits
Array = npt.NDArray[Any]
Ask = Callable[..., dict[str, list[dict[str, Array]]]]


def check(model: pathlib.Path, ask: Ask = serving_process.ask) -> str:
    """Loads a model and asks its samples; says in a few words what was tried.

    ask: who loads and answers.  Raises PushRefused when the model is not loaded or a sample gets another answer; a
    model that brought none is loaded only.
    """
    dtypes = {each.name: {one.name: one.dtype for one in each.inputs} for each in signature_definitions(model)}
    calls, expected = {}, {}
    for file in sorted((model / SAMPLES_IN_MODEL).glob("*.json")):
        sample = json.loads(file.read_text())
        signature = sample["request"]["signature_name"]
        if signature not in dtypes:
            raise PushRefused(f"its sample {file.name} asks for signature {signature}, which the model does not have")
        calls[signature] = [arrays(sample["request"]["inputs"], dtypes[signature])]
        expected[signature] = sample["response"]["outputs"]
    try:
        answers = ask(str(model), calls)
    except RankingError as error:
        said = str(error).strip().splitlines()[-1]  # above it stands where in TensorFlow it was raised
        raise PushRefused(f"it cannot be loaded and asked as TensorFlow Serving does: {said}") from error
    for signature, outputs in expected.items():
        if wrong := difference(outputs, answers[signature][0]):
            raise PushRefused(f"signature {signature} answers its sample otherwise than when it was exported: {wrong}")
    if not expected:
        return "loaded (it brought no sample requests to ask)"
    return f"loaded, and {len(expected)} sample request{'s' * (len(expected) != 1)} answered as when it was exported"


def arrays(inputs: Mapping[str, Any], dtypes: Mapping[str, str]) -> dict[str, Array]:
    """A columnar request as TensorFlow Serving's REST has it, as arrays again.  dtypes: TensorFlow's, by input."""
    return {name: _array(values, dtypes[name]) for name, values in inputs.items()}


def difference(expected: Any, came: Mapping[str, Array]) -> str:
    """How an answer differs from a sample's, which has no names where the output is a single one; "" when it agrees.

    Rows of names may stand in another order where the numbers that go with them tie.

    >>> difference([[1.0, 2.0]], {"scores": np.float32([[1.0, 2.0]])})
    ''
    >>> difference([[1.0, 2.0]], {"scores": np.float32([[1.0, 2.5]])})
    'scores[0, 1] is 2.5, it was 2.0'
    """
    outputs = expected if isinstance(expected, dict) else {next(iter(came), ""): expected}
    if set(outputs) != set(came):
        return f"it has outputs {sorted(came)}, it had {sorted(outputs)}"
    was = {name: np.array(values) for name, values in outputs.items()}
    now = {name: _plain(values) for name, values in came.items()}
    for name in sorted(was):
        # An empty list has no shape in JSON.
        if was[name].size != now[name].size or (was[name].size and was[name].shape != now[name].shape):
            return f"{name} has the shape {list(now[name].shape)}, it had {list(was[name].shape)}"
    wrong = {name: at for name in was if (at := np.argwhere(_differs(was[name], now[name]))).size}
    texts = [name for name in wrong if was[name].dtype.kind == "U"]
    if texts and len(texts) == len(wrong) and _ties(was, now):
        return ""
    for name, places in sorted(wrong.items()):
        first = tuple(places[0].tolist())
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
    """Whether each row has the same texts with the same numbers, in whatever order."""
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


def _plain(values: Array) -> Array:
    """Texts as the sample has them."""
    if values.dtype.kind not in "OS":
        return values
    flat = [each.decode("utf-8", "backslashreplace") for each in values.ravel().tolist()]
    return np.array(flat, str).reshape(values.shape)
