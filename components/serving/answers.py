"""Answers: what a signature says about the scores of its lists.

Enters: a ranker and a batch of raw features, in the graph.  Leaves: the signature's outputs; and, read back with NumPy,
what they say beside what training says, for the proof.  The one idea: an answer's shape and its check stand together.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.lists.list_examples import Column, ListBatch, Tokens, columns

PADDING = float(np.finfo(np.float32).min)  # behind a list's end: finite, so that REST's JSON can carry it
TF_RANKING_PADDING = math.log(1e-10)
Outputs = Mapping[str, npt.NDArray[Any]]
Lists = Sequence[npt.NDArray[Any]]


class Answer(NamedTuple):
    """One row.

    build: (ranker, raw features) → outputs, in the graph.  read: (outputs of a call, training's scores of its lists) →
    for each list (what training expects, what came), equal in shape; raises ValueError for an answer out of shape.
    extra: columns that a request carries for it beside the features.
    """

    build: Callable[[Any, ListBatch], dict[str, tf.Tensor]]
    read: Callable[[Outputs, Lists], list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]] | None = None
    extra: Callable[[RankingConfig], dict[str, Column]] = lambda config: {}


def padded(values: tf.Tensor, row_splits: tf.Tensor, padding: Any = PADDING) -> tf.Tensor:
    """[item, …] to [list, item, …]."""
    return tf.RaggedTensor.from_row_splits(values, row_splits, validate=False).to_tensor(padding)


def _scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """`scores` float32 [list, item], and whatever else the network gives, by its name; `sizes` int64 [list]."""
    outputs = ranker.outputs(batch)
    return {**{name: padded(each, batch.row_splits) for name, each in outputs.items()}, "sizes": _sizes(batch)}


def _item_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """`outputs` float32 [item], the one output that TensorFlow Serving's Regress takes."""
    return {"outputs": ranker.outputs(batch)["scores"]}


def _ranked(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """Best item first: `indices` int32 [list, k] into the request's list, `scores`, `sizes`, `item_ids` if named."""
    scores = padded(ranker.outputs(batch)["scores"], batch.row_splits)
    longest = tf.shape(scores)[1]
    top_k = ranker.config.serving.top_k
    # Of equal scores top_k takes the lower index first, as documented.
    best, indices = tf.math.top_k(scores, longest if top_k is None else tf.minimum(top_k, longest))
    real = tf.sequence_mask(_sizes(batch), tf.shape(best)[1])
    answer = {"indices": tf.where(real, indices, -1), "scores": tf.where(real, best, PADDING), "sizes": _sizes(batch)}
    if ranker.config.data.item_id:
        ids = padded(batch.items[ranker.config.data.item_id], batch.row_splits, "")
        answer["item_ids"] = tf.where(real, tf.gather(ids, indices, batch_dims=1), "")
    return answer


def _probabilities(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """`probabilities` float32 [list, item]: a softmax over each list, 0 behind its end."""
    return {"probabilities": _softmax(ranker, batch), "sizes": _sizes(batch)}


def _transformed(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """What the network is fed: the transform graph's outputs by name, padded with 0 and, ids, with -1."""
    answer = {}
    for name, value in ranker.transform(batch).items():
        blank = tf.constant(0 if value.dtype.is_floating else -1, value.dtype)
        answer[name] = value.to_tensor(blank) if isinstance(value, tf.RaggedTensor) else value
    return {**answer, "sizes": _sizes(batch)}


def _postprocessed(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """What the function behind `serving.postprocessing` makes of the scores."""
    scores = tf.RaggedTensor.from_row_splits(ranker.outputs(batch)["scores"], batch.row_splits, validate=False)
    return ranker.postprocess(scores, raw_features(batch))


def raw_features(batch: ListBatch) -> dict[str, Any]:
    """The raw features by name: context [list, …], items ragged [list, (item), …], tokens ragged by one more."""
    features = {}
    for level, splits in ((batch.context, None), (batch.items, batch.row_splits)):
        for name, value in level.items():
            if isinstance(value, Tokens):
                value = tf.RaggedTensor.from_row_splits(value.values, value.row_splits, validate=False)
            features[name] = value if splits is None else tf.RaggedTensor.from_row_splits(value, splits, validate=False)
    return features


def _tf_ranking_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """TF-Ranking's Predict: `outputs` [list, item], its padding behind a list's end."""
    return {"outputs": padded(ranker.outputs(batch)["scores"], batch.row_splits, TF_RANKING_PADDING)}


def _ml4ir_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """ml4ir's `ranking_score` [list, item]: a softmax over each list, 0 behind its end."""
    return {"ranking_score": _softmax(ranker, batch)}


def _softmax(ranker: Any, batch: ListBatch) -> tf.Tensor:
    scores = padded(ranker.outputs(batch)["scores"], batch.row_splits)
    return tf.where(tf.sequence_mask(_sizes(batch), tf.shape(scores)[1]), tf.nn.softmax(scores), 0.0)


def _sizes(batch: ListBatch) -> tf.Tensor:
    return batch.row_splits[1:] - batch.row_splits[:-1]


def _read_padded(output: str, padding: float, change: Callable[[Any], Any] = lambda scores: scores) -> Any:
    def read(outputs: Outputs, expected: Lists) -> list[tuple[Any, Any]]:
        came, sizes = outputs[output], np.array([len(each) for each in expected], np.int64)
        _same("sizes", outputs.get("sizes", sizes), sizes)
        _same(f"shape of {output}", np.array(came.shape), np.array([len(sizes), max(sizes, default=0)]))
        behind = came[np.arange(came.shape[1]) >= sizes[:, None]]
        if not np.all(behind == np.float32(padding)):
            raise ValueError(f"{output}: expected {padding} behind a list's end; came {behind}")
        return [(change(one), row[: len(one)]) for one, row in zip(expected, came, strict=True)]

    return read


def _read_items(outputs: Outputs, expected: Lists) -> list[tuple[Any, Any]]:
    _same("shape of outputs", np.array(outputs["outputs"].shape), np.array([sum(map(len, expected))]))
    ends = np.cumsum([len(each) for each in expected])
    return list(zip(expected, np.split(outputs["outputs"], ends)))


def _read_ranked(outputs: Outputs, expected: Lists) -> list[tuple[Any, Any]]:
    """Scores back in the request's order; the items that did not make the top k are left out of both sides."""
    indices, scores = outputs["indices"], outputs["scores"]
    sizes = np.array([len(each) for each in expected], np.int64)
    _same("sizes", outputs["sizes"], sizes)
    pairs = []
    for at, one in enumerate(expected):
        given = min(len(one), indices.shape[1])
        if not (np.all(indices[at, given:] == -1) and np.all(scores[at, given:] == np.float32(PADDING))):
            raise ValueError(f"list {at}: expected index -1 behind a list's end; came {indices[at]}")
        places, came = indices[at, :given], scores[at, :given]
        if sorted({*places.tolist()} & {*range(len(one))}) != sorted(places.tolist()):
            raise ValueError(f"list {at}: expected each of {len(one)} items once; came {places}")
        step = np.diff(came)
        if np.any(step > 0) or np.any((step == 0) & (np.diff(places) < 0)):
            raise ValueError(f"list {at}: expected falling scores, ties in the request's order; came {came}, {places}")
        left_out = np.delete(one, places)
        if given and len(left_out) and left_out.max() > came[-1] + 1e-5 * max(1.0, float(np.abs(one).max())):
            raise ValueError(f"list {at}: an item that scores {left_out.max()} is missing among the best {given}")
        order = np.argsort(places)
        pairs.append((one[np.sort(places)], came[order]))
    return pairs


def _same(what: str, came: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    if came.tolist() != expected.tolist():
        raise ValueError(f"{what}: expected {expected.tolist()}, came {came.tolist()}")


def softmax(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Over one list, float64 [item].

    >>> softmax(np.array([1.0, 1.0]))
    array([0.5, 0.5])
    """
    grown = np.exp(scores.astype(np.float64) - scores.max(initial=-np.inf))
    share: npt.NDArray[Any] = grown / grown.sum()
    return share


def _item_id(config: RankingConfig) -> dict[str, Column]:
    name = config.data.item_id
    return {name: columns(config)[name]} if name else {}


ANSWERS: dict[str, Answer] = {
    "scores": Answer(_scores, _read_padded("scores", PADDING)),
    "item_scores": Answer(_item_scores, _read_items),
    "ranked": Answer(_ranked, _read_ranked, _item_id),
    "probabilities": Answer(_probabilities, _read_padded("probabilities", 0.0, softmax)),
    "transformed": Answer(_transformed),
    "postprocessed": Answer(_postprocessed),
    "tf_ranking_scores": Answer(_tf_ranking_scores, _read_padded("outputs", TF_RANKING_PADDING)),
    "ml4ir_scores": Answer(_ml4ir_scores, _read_padded("ranking_score", 0.0, softmax)),
}
