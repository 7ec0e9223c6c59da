"""Tests that the TFLite model gives the same scores as the Keras network, for lists of any number and length."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components.config.training_sections import Model
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import Input
from tfx_ranking.components.serving import tflite

INPUTS = [
    Input("items/numeric", "numeric", 3),
    Input("context/numeric", "numeric", 2),
    Input("items/brand", "category", 5, 2),
    Input("items/title", "tokens", 7, 3),
]
LISTS = {  # two lists, of 3 items and of 1; titles of 2, 0, 1 and 1 words; brand 9 is unknown
    "items/numeric": tf.constant(np.arange(12, dtype=np.float32).reshape(4, 3)),
    "context/numeric": tf.constant([[0.5, -1.0], [2.0, 0.0]]),
    "items/brand": tf.constant([0, 4, 9, 1], tf.int64),
    "items/title": tf.constant([6, 2, 0, 5], tf.int64),
    "items/title/row_lengths": tf.constant([2, 0, 1, 1], tf.int64),
    "row_lengths": tf.constant([3, 1], tf.int64),
}


def network_with_random_weights(model: Model) -> keras.Model:
    keras.utils.set_random_seed(2)
    network = networks.build(INPUTS, model)
    rng = np.random.default_rng(2)
    network.set_weights([value + rng.normal(0, 0.3, value.shape) for value in network.get_weights()])
    return network


def interpreter_scores(path, inputs):
    runner = tf.lite.Interpreter(model_path=str(path)).get_signature_runner()
    names = {"items/title/row_lengths": "items_title_row_lengths"}
    return runner(**{names.get(key, key.replace("/", "_")): np.asarray(value) for key, value in inputs.items()})


@pytest.mark.parametrize("model", [Model(scorer="linear"), Model(hidden=(8, 4), normalisation="batch")])
def test_the_tflite_interpreter_gives_the_networks_scores(model, tmp_path):
    network = network_with_random_weights(model)
    path = tmp_path / tflite.TFLITE_IN_ARTIFACT
    assert tflite.write(network, LISTS, path) < 1e-5
    other = {**LISTS, "row_lengths": tf.constant([1, 0, 3], tf.int64), "context/numeric": tf.zeros([3, 2])}
    for lists in (LISTS, other):  # any number of lists of any length, with one conversion
        scores = interpreter_scores(path, lists)["scores"]
        assert scores.shape == (4,)
        np.testing.assert_allclose(scores, network(lists, training=False), rtol=1e-5, atol=1e-5)
    assert len(set(scores.tolist())) == 4


class Unconvertible(keras.Model):
    """Calls Python for the scores, which no converter supports."""

    def call(self, inputs, training=False):
        numbers = inputs["items/numeric"]
        return tf.ensure_shape(tf.numpy_function(lambda x: x.sum(1), [numbers], tf.float32), [None])


def test_a_scorer_that_tflite_cannot_run_is_refused_with_advice(tmp_path):
    inputs = {name: LISTS[name] for name in ("items/numeric", "row_lengths")}
    with pytest.raises(RankingError, match=r"serving.tflite: TFLite cannot run this scorer \(.*Remove serving.tflite"):
        tflite.write(Unconvertible(), inputs, tmp_path / "ranker.tflite")
    assert not (tmp_path / "ranker.tflite").exists()
