"""The ranker's network as a TFLite model, for where TensorFlow itself is too much.

Enters: a network and what it is fed.  Leaves: `ranker.tflite`, and how far its scores are from the network's.  The one
idea: only the dense scoring part travels; preprocessing is the caller's, who has the `transform` signature to look at.
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
    """Converts, asks TFLite's interpreter for the scores of `inputs`, and gives the largest difference.

    inputs: what the network is fed (`network_inputs`), any number of lists.  The model's inputs have their
    names as tensors may have them, of any length; its output is `scores`, float32 [item].
    Raises RankingError with the converter's words when the network has an op that TFLite lacks.
    """
    module = tf.__internal__.tracking.AutoTrackable()
    module.network = network
    module.variables = [variable.value for variable in network.variables]  # else the converter ends the whole process
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
        except Exception as error:  # the converter raises types of its own, by version
            raise RankingError(
                f"serving.tflite: TFLite cannot hold this scorer ({str(error).splitlines()[0]}). "
                "Take serving.tflite out, or another model.scorer."
            ) from None
    runner = tf.lite.Interpreter(model_content=converted).get_signature_runner()
    came = runner(**{tensor: np.asarray(inputs[name]) for tensor, name in names.items()})["scores"]
    expected = np.asarray(networks.scores_of(network(inputs, training=False)), np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(converted)
    return _difference(expected, came)


def _difference(expected: Any, came: Any) -> float:
    from tfx_ranking.components.serving.parity import compare

    figure = compare(expected, came)
    if not figure.agrees:
        raise RankingError(
            f"serving.tflite: TFLite scores item {figure.item} {came[figure.item]:.9g}, the network "
            f"{expected[figure.item]:.9g}; take serving.tflite out."
        )
    return figure.difference
