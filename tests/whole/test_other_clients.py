"""Tests that client code from the documentation of TF-Ranking and ml4ir works with our model.

The calls are copied from the named files of those projects; only the requests' bytes and the model's path are ours.
"""

import numpy as np
import pytest
import small_rankers
import tensorflow as tf
from small_rankers import SHOP

from tfx_ranking.components.choices.signatures import COMPATIBILITY
from tfx_ranking.components.serving import answers, client_requests, parity

LISTS = small_rankers.random_lists(SHOP, [5, 1, 8], seed=9)


@pytest.fixture(scope="module")
def expected(shop):
    return shop.trained(LISTS)[1]


def _protos(system: str, signature: str) -> list[bytes]:
    row = COMPATIBILITY[system][signature]
    return client_requests.feed(row, LISTS, SHOP)[row.input].tolist()


def _assert_close(scores, expected):
    assert parity.compare(np.asarray(expected), np.asarray(scores)).agrees, (expected, scores)


def test_tf_rankings_predict(shop, expected):
    """tensorflow/ranking, tensorflow_ranking/python/keras/saved_model.py: the docstring of `Signatures`."""
    path, serialized_elwcs = str(shop.served), tf.constant(_protos("tf_ranking", tf.saved_model.PREDICT_METHOD_NAME))

    loaded_model = tf.saved_model.load(path)
    predictor = loaded_model.signatures[tf.saved_model.PREDICT_METHOD_NAME]
    scores = predictor(serialized_elwcs)[tf.saved_model.PREDICT_OUTPUTS]

    assert scores.shape == (3, 8)
    for row, one in zip(scores.numpy(), expected, strict=True):
        _assert_close(row[: len(one)], one)
        np.testing.assert_array_equal(row[len(one) :], np.float32(np.log(1e-10)))  # TF-Ranking's own padding


def test_tf_rankings_regress(shop, expected):
    """tensorflow/ranking, tensorflow_ranking/python/keras/saved_model.py: the docstring of `Signatures`."""
    path, serialized_examples = str(shop.served), tf.constant(_protos("tf_ranking", tf.saved_model.REGRESS_METHOD_NAME))

    loaded_model = tf.saved_model.load(path)
    predictor = loaded_model.signatures[tf.saved_model.REGRESS_METHOD_NAME]
    scores = predictor(serialized_examples)[tf.saved_model.REGRESS_OUTPUTS]

    _assert_close(scores, np.concatenate(expected))


def test_tf_rankings_predict_is_the_default_when_the_config_chooses_it(shop_of_tf_ranking, expected):
    """tensorflow/ranking, tensorflow_ranking/python/keras/saved_model_test.py: `serving_default` is predict."""
    saved_model = tf.saved_model.load(shop_of_tf_ranking)
    predictor = saved_model.signatures[tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY]
    listwise_logits = predictor(tf.convert_to_tensor(_protos("tf_ranking", tf.saved_model.PREDICT_METHOD_NAME)))[
        tf.saved_model.PREDICT_OUTPUTS
    ]

    assert listwise_logits.get_shape().as_list() == [3, 8]
    for row, one in zip(listwise_logits.numpy(), expected, strict=True):
        _assert_close(row[: len(one)], one)


@pytest.fixture(scope="module")
def shop_of_tf_ranking(shop, tmp_path_factory):
    """The shop's ranker with only TF-Ranking's signatures, for clients that name no signature."""
    import dataclasses

    from tfx_ranking.components import signature_exporter

    serving = dataclasses.replace(
        SHOP.serving, signatures=(), compatibility=("tf_ranking",), default=tf.saved_model.PREDICT_METHOD_NAME
    )
    folder = str(tmp_path_factory.mktemp("tf_ranking"))
    ranker = signature_exporter.load_ranker(shop.paths, dataclasses.replace(SHOP, serving=serving))
    signature_exporter.save(ranker, folder)
    return folder


def test_ml4irs_serving_tfrecord(shop, expected):
    """salesforce/ml4ir, python/notebooks/predicting_with_ml4ir.ipynb, "Way 1: Using TF only".

    The notebook loads with `kmodels.load_model(path, compile=False)`; Keras 3 no longer loads SavedModels, and its
    error message recommends TensorFlow's own loader.
    """
    model = tf.saved_model.load(str(shop.served))
    dataset = tf.data.Dataset.from_tensor_slices(_protos("ml4ir", "serving_tfrecord"))

    infer_fn = model.signatures["serving_tfrecord"]
    total_preds = []
    for batch in dataset.batch(1024):
        probs = infer_fn(protos=batch)
        probs = probs["ranking_score"].numpy()
        total_preds.append(probs)

    (scores,) = total_preds  # lists of all lengths in one call, which ml4ir's own models refuse
    for row, one in zip(scores, expected, strict=True):
        _assert_close(row[: len(one)], answers.softmax(one))
        assert np.all(row[len(one) :] == 0)


def test_ml4irs_one_list_at_a_time(shop, expected):
    """salesforce/ml4ir, python/ml4ir/applications/ranking/tests/test_serving.py."""
    tfrecord_signature = tf.saved_model.load(str(shop.served)).signatures["serving_tfrecord"]
    sequence_example_protos = tf.constant(_protos("ml4ir", "serving_tfrecord"))

    tfrecord_signature_predictions = [
        tfrecord_signature(protos=tf.gather(sequence_example_protos, [i]))["ranking_score"] for i in range(3)
    ]

    for scores, one in zip(tfrecord_signature_predictions, expected, strict=True):
        _assert_close(scores[0], answers.softmax(one))


def test_the_graphs_input_has_the_name_that_ml4irs_jvm_client_uses(shop):
    """salesforce/ml4ir, docs/source/quickstart/serving.md: it feeds the node `serving_tfrecord_protos` by its name."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((shop.served / "saved_model.pb").read_bytes())
    (graph,) = proto.meta_graphs
    assert graph.signature_def["serving_tfrecord"].inputs["protos"].name == "serving_tfrecord_protos:0"


@pytest.mark.parametrize("system", COMPATIBILITY)
def test_method_names_are_those_that_tensorflow_serving_expects(system, shop):
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((shop.served / "saved_model.pb").read_bytes())
    definitions = proto.meta_graphs[0].signature_def
    for name, row in COMPATIBILITY[system].items():
        assert definitions[name].method_name == row.method
