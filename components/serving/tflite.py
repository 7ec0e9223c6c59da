"""Converts the ranker's network to a TFLite model, for programs that cannot run TensorFlow.

Input: a network and inputs for it.  Output: `ranker.tflite`, and the largest difference between its scores and the
network's.

The TFLite model has only the network.  The caller does the preprocessing; the `transform` signature shows its results.
"""

import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfx_ranking.components.choices.signatures import tensor_name
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.scorers import networks

TFLITE_IN_ARTIFACT = "Format-TFLite/ranker.tflite"


def write(network: keras.Model, inputs: Mapping[str, tf.Tensor], path: pathlib.Path) -> float:
    """Converts the network, writes it to `path`, and returns the largest difference between the two models' scores.

    inputs: the network's inputs (`network_inputs`) for any number of lists, on which the scores are compared.
    The TFLite model's inputs have the same names in the form that tensors allow (`tensor_name`), and their first
    dimension has any length; its output is `scores`, float32 [item].
    Raises RankingError, with the converter's message, when the network has an op that TFLite lacks, or when the scores
    differ.
    """
    module = tf.__internal__.tracking.AutoTrackable()
    module.network = network
    module.variables = [
        variable.value for variable in network.variables
    ]  # without them the converter kills the whole process
    names = {tensor_name(name): name for name in inputs}
    specs = {
        tensor: tf.TensorSpec([None, *inputs[name].shape[1:]], inputs[name].dtype, name=tensor)
        for tensor, name in names.items()
    }

    @tf.function(autograph=False)
    def score(**tensors):
        scores = networks.scores_of(network({names[key]: value for key, value in tensors.items()}, training=False))
        return {"scores": tf.cast(scores, tf.float32)}

    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=score.get_concrete_function(**specs))
        try:
            converted = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        except Exception as error:  # the converter's exception types differ from version to version
            raise RankingError(
                f"serving.tflite: TFLite cannot run this scorer ({str(error).splitlines()[0]}). "
                "Remove serving.tflite, or choose another model.scorer."
            ) from None
    runner = tf.lite.Interpreter(model_content=converted).get_signature_runner()
    scores = runner(**{tensor: np.asarray(inputs[name]) for tensor, name in names.items()})["scores"]
    expected = np.asarray(networks.scores_of(network(inputs, training=False)), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(converted)
    return _difference(expected, scores)


def _difference(expected: Any, scores: Any) -> float:
    """The largest difference.  Raises RankingError when it is above the tolerance of the parity report."""
    from tfx_ranking.components.serving.parity import compare

    figure = compare(expected, scores)
    if not figure.agrees:
        raise RankingError(
            f"serving.tflite: TFLite gives item {figure.item} the score {scores[figure.item]:.9g}, "
            f"expected the network's {expected[figure.item]:.9g}; remove serving.tflite."
        )
    return figure.difference
