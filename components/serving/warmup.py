"""Writes the warm-up requests that TensorFlow Serving runs when it loads a model.

Input: list examples and the table rows of the model's signatures.
Output: `assets.extra/tf_serving_warmup_requests`.

The requests hold real lists, short and long ones, so that what TensorFlow Serving compiles and allocates while it loads
the model is what the first client needs.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt

from tfx_ranking.components.choices.signatures import REGRESS, Signature
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.serving import client_requests
from tfx_ranking.components.serving.client_requests import Feed

WARMUP_IN_MODEL = "assets.extra/tf_serving_warmup_requests"  # TensorFlow Serving's name
MOST_RECORDS = 1_000  # TensorFlow Serving refuses a file with more


def warmup_records(rows: Mapping[str, Signature], lists: Sequence[bytes], config: RankingConfig) -> list[bytes]:
    """Makes serialized `PredictionLog`s: for each signature one request per list, and one with all the lists.

    rows: signature name → its row in the table of signatures.  lists: list examples of different lengths; the last ones
    are left out if there would be more than MOST_RECORDS records.
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
    """Writes the records as an uncompressed TFRecord file, the only format that TensorFlow Serving reads."""
    import tensorflow as tf

    path = model / WARMUP_IN_MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


def predict_request(signature: str, feed: Feed, model: str) -> Any:
    """Builds a `tensorflow.serving.PredictRequest`.  model: the name under which TensorFlow Serving has the model."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in feed.items():
        dtype = tf.string if value.dtype == object else None
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value.tolist() if dtype else value, dtype, value.shape))
    return request


def regression_request(signature: str, examples: npt.NDArray[Any], model: str) -> Any:
    """Builds a `tensorflow.serving.RegressionRequest` from serialized Examples."""
    from tensorflow.core.example import example_pb2
    from tensorflow_serving.apis import regression_pb2

    request = regression_pb2.RegressionRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    request.input.example_list.examples.extend(example_pb2.Example.FromString(one) for one in examples)
    return request
