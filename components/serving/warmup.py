"""Requests that travel with a model: TensorFlow Serving's warm-up, and a sample of each signature with its answer.

Enters: list examples, the signatures' rows, answers.  Leaves: `assets.extra/tf_serving_warmup_requests` and
`assets.extra/tfx_ranking/samples/`.  The one idea: real lists, short and long ones, so that what TensorFlow Serving
compiles and allocates at load is what the first client needs.
"""

import base64
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import REGRESS, Signature
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.exported.model_files import SAMPLES_IN_MODEL
from tfx_ranking.components.serving import client_requests
from tfx_ranking.components.serving.client_requests import Feed

WARMUP_IN_MODEL = "assets.extra/tf_serving_warmup_requests"  # TensorFlow Serving's name
MOST_RECORDS = 1_000  # more than these TensorFlow Serving refuses


def warmup_records(rows: Mapping[str, Signature], lists: Sequence[bytes], config: RankingConfig) -> list[bytes]:
    """Serialized `PredictionLog`s: for each signature every list alone, and all of them in one call.

    lists: list examples, of every length; as many are taken as fit in MOST_RECORDS.
    """
    from tensorflow_serving.apis import prediction_log_pb2

    lists = lists[: MOST_RECORDS // max(1, len(rows)) - 1]
    records = []
    for name, row in rows.items():
        for some in (*([one] for one in lists), lists):
            log = prediction_log_pb2.PredictionLog()
            feed = client_requests.feed(row, some, config)
            if row.method == REGRESS:
                log.regress_log.request.CopyFrom(regression_request(name, feed[row.input], config.name))
            else:
                log.predict_log.request.CopyFrom(predict_request(name, feed, config.name))
            records.append(log.SerializeToString(deterministic=True))
    return records


def write_warmup(model: pathlib.Path, records: Sequence[bytes]) -> None:
    """A plain TFRecord: TensorFlow Serving reads no other."""
    import tensorflow as tf

    path = model / WARMUP_IN_MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def write_sample(model: pathlib.Path, signature: str, feed: Feed, outputs: Feed, name: str) -> None:
    """One request as the bytes of a PredictRequest (`.pb`) and as REST JSON beside the answer it must get (`.json`).

    name: the model's, under which TensorFlow Serving has it.
    """
    folder = model / SAMPLES_IN_MODEL
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / signature.replace("/", "_")
    request = predict_request(signature, feed, name).SerializeToString(deterministic=True)
    path.with_name(f"{path.name}.pb").write_bytes(request)
    answer = {"outputs": {key: _plain(value) for key, value in sorted(outputs.items())}}
    if len(outputs) == 1:  # REST answers a single output without its name
        answer = {"outputs": next(iter(answer["outputs"].values()))}
    sample = {"request": rest_request(signature, feed), "response": answer}
    path.with_name(f"{path.name}.json").write_text(json.dumps(sample, indent=1) + "\n")


def predict_request(signature: str, feed: Feed, model: str) -> Any:
    """TensorFlow Serving's `PredictRequest`."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in feed.items():
        dtype = tf.string if value.dtype == object else None
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value.tolist() if dtype else value, dtype, value.shape))
    return request


def regression_request(signature: str, examples: npt.NDArray[Any], model: str) -> Any:
    """TensorFlow Serving's `RegressionRequest` of serialized Examples."""
    from tensorflow.core.example import example_pb2
    from tensorflow_serving.apis import regression_pb2

    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.example_list.examples.extend(example_pb2.Example.FromString(one) for one in examples)
    return request


def rest_request(signature: str, feed: Feed) -> dict[str, Any]:
    """The JSON body of TensorFlow Serving's REST Predict, in columns."""
    return {"signature_name": signature, "inputs": {name: _plain(value, True) for name, value in feed.items()}}


def _plain(value: npt.NDArray[Any], request: bool = False) -> Any:
    """An array as REST has it: bytes as base64 in requests, as text in answers; float32 with the digits it has."""
    if value.dtype == object:

        def text(one: Any) -> Any:
            if isinstance(one, list):
                return [text(each) for each in one]
            return {"b64": base64.b64encode(one).decode()} if request else one.decode("utf-8", "backslashreplace")

        return text(value.tolist())
    if value.dtype == np.float32:
        return value.astype(str).astype(np.float64).tolist()  # 0.1 and not 0.10000000149011612
    return value.tolist()
