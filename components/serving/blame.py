"""Which feature makes a served list differ from its training data.

Enters: a list of the sample and the signature that scored it otherwise.  Leaves: a sentence for the error message.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import Signature
from tfx_ranking.components.features.feature_columns import column_name
from tfx_ranking.components.serving import client_requests
from tfx_ranking.components.serving.parity_sample import Sample


def blame(ranker: Any, row: Signature, sample: Sample, at: int, order: npt.NDArray[np.int64]) -> str:
    """A sentence that names the feature by which a list differs most between its request and its training data."""
    import tensorflow as tf

    if at < 0:
        return "The list is empty."
    asked = client_requests.reordered(sample.list_examples[at], order, ranker.config)
    feed = client_requests.feed(row, [asked], ranker.config)
    if row.request == "tensors":
        batch = ranker.parse_tensors({name: tf.constant(value) for name, value in feed.items()})
    else:
        batch = ranker.parse(row, tf.constant(feed[row.input].tolist(), tf.string))
    served = ranker.transform(batch)
    trained = tf.io.parse_example([sample.transformed[at]], sample.specs)
    back = np.argsort(order)
    worst, sentence = 0.0, ""
    for name in served:
        ours, theirs = (_rows(each[name]) for each in (served, trained))
        if name.startswith("items/") and len(ours) == len(back):
            ours = ours[back]
        elif row.of_items and name.startswith("context/"):
            ours = ours[:1]
        if ours.shape != theirs.shape:
            return f"Feature {name!r} has shape {ours.shape} when served and {theirs.shape} in training."
        if not ours.size:
            continue
        apart = ours != theirs if ours.dtype.kind not in "fc" else np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
        place = np.unravel_index(np.argmax(apart), apart.shape)
        if apart[place] > worst:
            worst = float(apart[place])
            column = ""
            if ours.ndim > 1:
                number = int(place[-1])
                column = f" ({column_name(ranker.config, name, number, ours.shape[-1]) or f'column {number}'})"
            sentence = (
                f"The feature that differs most is {name}{column}: {theirs[place]} in training, {ours[place]} served."
            )
    return sentence or (
        "No transformed feature differs when it is computed here: the saved graph itself differs, by its tables or "
        "its weights."
    )


def _rows(value: Any) -> npt.NDArray[Any]:
    """[list or item, …]; tokens as all ids of a row side by side."""
    import tensorflow as tf

    from tfx_ranking.components.lists.ragged import as_ragged

    value = as_ragged(value)
    if isinstance(value, tf.RaggedTensor):
        value = value.values
        if isinstance(value, tf.RaggedTensor):
            value = value.to_tensor(-1)
    return np.asarray(value)
