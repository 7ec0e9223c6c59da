"""Finds the feature that makes a served list differ from its training data.

Input: a list of the sample and the signature that scores it differently.  Output: a sentence for the error message.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import Signature
from tfx_ranking.components.features.feature_columns import column_name
from tfx_ranking.components.serving import client_requests
from tfx_ranking.components.serving.parity_sample import Sample


def blame(ranker: Any, row: Signature, sample: Sample, at: int, order: npt.NDArray[np.int64]) -> str:
    """A sentence that names the feature with the largest difference between a list's request and its training data.

    ranker: a `ServingRanker`.  at: the list's position in the sample, below 0 for an empty list.  order: the position
    in the sample's list of each item of the request.
    """
    import tensorflow as tf

    if at < 0:
        return "The list is empty."
    list_example = client_requests.reordered(sample.list_examples[at], order, ranker.config)
    feed = client_requests.feed(row, [list_example], ranker.config)
    tensors = {name: tf.constant(value) for name, value in feed.items()}
    kind = row.request_kind
    served = ranker.transform(ranker.parse(kind, tensors if kind.tensors else tensors[row.input]))
    trained = tf.io.parse_example([sample.transformed[at]], sample.specs)
    back = np.argsort(order)
    worst, sentence = 0.0, ""
    for name in served:
        in_request, in_training = (_rows(each[name]) for each in (served, trained))
        if name.startswith("items/") and len(in_request) == len(back):
            in_request = in_request[back]
        elif kind.item_by_item and name.startswith("context/"):
            in_request = in_request[:1]  # each item has the context of its list
        if in_request.shape != in_training.shape:
            return f"Feature {name!r} has shape {in_request.shape} when served and {in_training.shape} in training."
        if not in_request.size:
            continue
        if in_request.dtype.kind in "fc":
            difference = np.abs(in_request - in_training) / np.maximum(1, np.abs(in_training))
        else:
            difference = in_request != in_training
        position = np.unravel_index(np.argmax(difference), difference.shape)
        if difference[position] > worst:
            worst = float(difference[position])
            column = ""
            if in_request.ndim > 1:
                number = int(position[-1])
                width = in_request.shape[-1]
                column = f" ({column_name(ranker.config, name, number, width) or f'column {number}'})"
            sentence = (
                f"The feature that differs most is {name}{column}: {in_training[position]} in training, "
                f"{in_request[position]} served."
            )
    return sentence or (
        "No transformed feature differs when it is computed here: the saved graph itself differs, by its tables or "
        "its weights."
    )


def _rows(value: Any) -> npt.NDArray[Any]:
    """[list or item, …]; for tokens, all ids of a row side by side."""
    import tensorflow as tf

    from tfx_ranking.components.lists.ragged import as_ragged

    value = as_ragged(value)
    if isinstance(value, tf.RaggedTensor):
        value = value.values
        if isinstance(value, tf.RaggedTensor):
            value = value.to_tensor(-1)
    return np.asarray(value)
