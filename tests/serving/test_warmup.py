"""Tests that warm-up and sample requests get the training scores from clients that know only TensorFlow."""

import json
import shutil

import numpy as np
import pytest
import serving_client
import small_rankers
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from tfx_ranking.components.exported import model_files
from tfx_ranking.components.serving import answers, client_requests, parity, warmup

CONFIG = small_rankers.SHOP
EVERYTHING = CONFIG.serving.rows


@pytest.fixture(scope="module")
def replayed(shop, tmp_path_factory):
    """Sends a request of all lists to each signature, every warm-up record and every sample, to a copy of the model.

    Returns the (signature, inputs, recorded answer or None) of each call, and the answers by client.
    """
    moved = tmp_path_factory.mktemp("copy") / "model"
    shutil.copytree(shop.served, moved)
    records = shop.sample.list_examples
    calls = [(name, client_requests.feed(row, records, CONFIG), None) for name, row in EVERYTHING.items()]
    warm_up = tf.data.TFRecordDataset(str(moved / warmup.WARMUP_IN_MODEL)).as_numpy_iterator()
    calls += [(*_logged(record), None) for record in warm_up]
    for name in EVERYTHING:
        path = model_files.sample_file(moved, name)
        request = predict_pb2.PredictRequest.FromString(path.with_suffix(".pb").read_bytes())
        answer = json.loads(path.read_text())["response"]["outputs"]
        assert request.model_spec.signature_name == name
        calls.append((name, _inputs(request), answer))
    requests = [(name, feed) for name, feed, _ in calls]
    return calls, {name: client(moved, requests) for name, client in serving_client.CLIENTS.items()}


@pytest.mark.parametrize("client", serving_client.CLIENTS)
def test_clients_that_know_only_tensorflow_get_the_training_scores(client, shop, replayed):
    for (name, row), outputs in zip(EVERYTHING.items(), replayed[1][client], strict=False):
        if not row.answer_kind.ordered:
            continue
        for expected, scores in row.answer_kind.load_pairs()(outputs, answers.TrainedLists(scores=shop.sample.scores)):
            assert parity.compare(expected, scores).agrees, name


def test_every_warm_up_record_and_sample_gets_the_same_answer_in_c_plus_plus_and_python(replayed):
    """Compares call by call; the answer to a sample also equals the one recorded in the model."""
    calls, answered = replayed
    assert len(calls) > 4 * len(EVERYTHING)
    for (name, _, answer), ours, theirs in zip(calls, answered["cpp"], answered["fresh_process"], strict=True):
        assert set(ours) == set(theirs), name
        recorded = {} if answer is None else answer if isinstance(answer, dict) else {next(iter(ours)): answer}
        assert not recorded or set(recorded) == set(ours)
        for output, value in ours.items():
            if value.dtype == object:
                assert value.tolist() == theirs[output].tolist(), (name, output)
                assert output not in recorded or np.vectorize(bytes.decode)(value).tolist() == recorded[output]
                continue
            for other in (theirs[output], recorded.get(output, value)):
                np.testing.assert_allclose(value, other, rtol=1e-5, atol=1e-5, err_msg=f"{name} {output}")


def _logged(record):
    """Converts a PredictionLog to (signature, inputs)."""
    log = prediction_log_pb2.PredictionLog.FromString(record)
    if log.WhichOneof("log_type") == "predict_log":
        return log.predict_log.request.model_spec.signature_name, _inputs(log.predict_log.request)
    request = log.regress_log.request
    examples = [one.SerializeToString() for one in request.input.example_list.examples]
    return request.model_spec.signature_name, {"inputs": serving_client.protos(examples)}


def _inputs(request):
    return {name: tf.make_ndarray(value) for name, value in request.inputs.items()}
