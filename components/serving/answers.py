"""Builds the outputs of each kind of answer, and reads them again for the proof.

Input: a ranker and a batch of raw features, in the TensorFlow graph; for the proof, the outputs of a call as NumPy
arrays.  Output: the output tensors by name; for the proof, what training expects beside what the model answered.

The rows of `choices.signatures.ANSWERS` name these functions.  `build_…` and `…_pairs` of one kind stand together,
because a change of one is a change of the other.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfx_ranking.components.choices.signatures import REQUESTS
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens
from tfx_ranking.components.lists.ragged import as_ragged
from tfx_ranking.components.serving import client_requests

PADDING = float(np.finfo(np.float32).min)  # after the end of a list: finite, because JSON has no infinity
TF_RANKING_PADDING = math.log(1e-10)
Outputs = Mapping[str, npt.NDArray[Any]]
Lists = Sequence[npt.NDArray[Any]]
Pairs = list[tuple[Any, Any]]  # for each list (what training expects, what the model answered), of equal shape


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedLists:
    """The lists of one call as training has them, with which the answer is compared.

    scores: training's scores, float32 [item] for each list.  list_examples: the lists as they were sent, b"" for an
    empty one.  transformed: the materialised Example of each list that has items, read by `specs`.
    ranker: the `ServingRanker`.  `scores` is enough for answers that have only scores.
    """

    scores: Lists
    list_examples: Sequence[bytes] = ()
    transformed: Sequence[bytes] = ()
    specs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ranker: Any = None


def padded(values: tf.Tensor, row_splits: tf.Tensor, padding: Any = PADDING) -> tf.Tensor:
    """Turns [item, …] into [list, item, …]."""
    return tf.RaggedTensor.from_row_splits(values, row_splits, validate=False).to_tensor(padding)


def build_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """`scores` float32 [list, item], the network's other outputs by their names, and `sizes` int64 [list]."""
    outputs = ranker.outputs(batch)
    return {**{name: padded(each, batch.row_splits) for name, each in outputs.items()}, "sizes": _sizes(batch)}


def scores_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """Raises ValueError for wrong sizes, a wrong shape or wrong padding."""
    return _padded_pairs(outputs, trained.scores, "scores", PADDING)


def build_item_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """`outputs` float32 [item], the one output that TensorFlow Serving's Regress takes."""
    return {"outputs": ranker.outputs(batch)["scores"]}


def item_scores_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """Raises ValueError for a wrong number of scores."""
    _check_equal("shape of outputs", outputs["outputs"].shape, (sum(map(len, trained.scores)),))
    ends = np.cumsum([len(each) for each in trained.scores])
    return list(zip(trained.scores, np.split(outputs["outputs"], ends)))


def build_ranked(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """The best item first: `indices` int32 [list, k] into the request's list, `scores`, `sizes`.

    With `data.item_id` in the config, `item_ids` string [list, k] too.
    """
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


def ranked_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """The scores in the request's order.  Items outside the top k are left out of both sides.

    Raises ValueError for wrong sizes, padding, indices or ids, and for items in a wrong order.
    """
    sizes = np.array([len(each) for each in trained.scores], np.int64)
    _check_equal("sizes", outputs["sizes"].tolist(), sizes.tolist())
    pairs = []
    for at, expected in enumerate(trained.scores):
        indices, scores = outputs["indices"][at], outputs["scores"][at]
        count = min(len(expected), len(indices))
        if not (np.all(indices[count:] == -1) and np.all(scores[count:] == np.float32(PADDING))):
            raise ValueError(f"list {at}: expected index -1 after the end of the list; got {indices}")
        indices, scores = indices[:count], scores[:count]
        if len({*indices.tolist()} & {*range(len(expected))}) != count:
            raise ValueError(f"list {at}: expected {count} different indices below {len(expected)}; got {indices}")
        step = np.diff(scores)
        if np.any(step > 0) or np.any((step == 0) & (np.diff(indices) < 0)):
            raise ValueError(
                f"list {at}: expected falling scores, and equal scores in the request's order; "
                f"got {scores} at {indices}"
            )
        left_out = np.delete(expected, indices)
        if count and len(left_out) and left_out.max() > scores[-1] + 1e-5 * max(1.0, float(np.abs(expected).max())):
            raise ValueError(f"list {at}: an item that scores {left_out.max()} is missing among the best {count}")
        pairs.append((expected[np.sort(indices)], scores[np.argsort(indices)]))
    if "item_ids" in outputs and trained.ranker is not None:
        _check_item_ids(outputs, trained)
    return pairs


def _check_item_ids(outputs: Outputs, trained: TrainedLists) -> None:
    """Raises ValueError when an id does not belong to the item at the index beside it."""
    config = trained.ranker.config
    name = config.data.item_id
    for at, list_example in enumerate(trained.list_examples):
        items = client_requests.read(list_example, config, [name]).items
        ids = [item[name].values[0] if name in item else b"" for item in items]
        expected = [ids[index] if index >= 0 else b"" for index in outputs["indices"][at]]
        _check_equal("item_ids", outputs["item_ids"][at].tolist(), expected)


def build_probabilities(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """`probabilities` float32 [list, item], a softmax over each list and 0 after its end; `sizes` int64 [list]."""
    return {"probabilities": _softmax(ranker, batch), "sizes": _sizes(batch)}


def probabilities_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """Raises ValueError for wrong sizes, a wrong shape or wrong padding."""
    return _padded_pairs(outputs, trained.scores, "probabilities", 0.0, softmax)


def build_transformed(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """The network's input: the transform graph's outputs by name, numbers padded with 0 and ids with -1; `sizes`."""
    answer = {}
    for name, value in ranker.transform(batch).items():
        blank = tf.constant(0 if value.dtype.is_floating else -1, value.dtype)
        answer[name] = value.to_tensor(blank) if isinstance(value, tf.RaggedTensor) else value
    return {**answer, "sizes": _sizes(batch)}


def transformed_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """For each list with items: the values of all features one after another, materialised and answered.

    Raises ValueError when a feature has a wrong shape.
    """
    parsed = tf.io.parse_example(list(trained.transformed), trained.specs)
    parts: list[Pairs] = [[] for _ in trained.transformed]
    for name, value in parsed.items():
        value = as_ragged(value)
        for at, part in enumerate(parts):
            row = value[at]
            if isinstance(row, tf.RaggedTensor):
                row = row.to_tensor(0 if row.dtype.is_floating else -1)
            expected = np.asarray(row)
            answered = outputs[name][at][tuple(slice(0, size) for size in expected.shape)]
            _check_equal(f"shape of {name}", answered.shape, expected.shape)
            part.append((expected.reshape(-1).astype(np.float64), answered.reshape(-1).astype(np.float64)))
    return [tuple(np.concatenate(side) for side in zip(*part)) for part in parts]  # type: ignore[misc]


def build_postprocessed(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """The outputs of the function that `serving.postprocessing` names."""
    scores = tf.RaggedTensor.from_row_splits(ranker.outputs(batch)["scores"], batch.row_splits, validate=False)
    return ranker.postprocess(scores, raw_features(batch))


def postprocessed_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """One pair for the whole call: the numbers of all outputs one after another, from training's scores and answered.

    Raises ValueError when an output has a wrong shape, or when values that are not numbers differ.
    """
    ranker = trained.ranker
    batch = ranker.parse(REQUESTS["list_example"], tf.constant(list(trained.list_examples), tf.string))
    flat = np.concatenate([np.empty(0, np.float32), *trained.scores])
    ragged = tf.RaggedTensor.from_row_lengths(flat, [len(each) for each in trained.scores])
    expected = {name: np.asarray(each) for name, each in ranker.postprocess(ragged, raw_features(batch)).items()}
    numbers = [name for name, each in sorted(expected.items()) if each.dtype.kind in "fiub"]
    for name, each in expected.items():
        _check_equal(f"shape of {name}", outputs[name].shape, each.shape)
        if name not in numbers:
            _check_equal(name, outputs[name].tolist(), each.tolist())
    sides = [[np.ravel(side[name]).astype(np.float64) for name in numbers] for side in (expected, outputs)]
    return [tuple(np.concatenate([np.empty(0), *side]) for side in sides)]  # type: ignore[list-item]


def raw_features(batch: ListBatch) -> dict[str, Any]:
    """The raw features by name: context [list, …], items ragged [list, (item), …], tokens ragged by one more."""
    features = {}
    for level, splits in ((batch.context, None), (batch.items, batch.row_splits)):
        for name, value in level.items():
            if isinstance(value, Tokens):
                value = tf.RaggedTensor.from_row_splits(value.values, value.row_splits, validate=False)
            features[name] = value if splits is None else tf.RaggedTensor.from_row_splits(value, splits, validate=False)
    return features


def build_tf_ranking_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """TF-Ranking's Predict: `outputs` [list, item], with TF-Ranking's padding after the end of a list."""
    return {"outputs": padded(ranker.outputs(batch)["scores"], batch.row_splits, TF_RANKING_PADDING)}


def tf_ranking_scores_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """Raises ValueError for a wrong shape or wrong padding."""
    return _padded_pairs(outputs, trained.scores, "outputs", TF_RANKING_PADDING)


def build_ml4ir_scores(ranker: Any, batch: ListBatch) -> dict[str, tf.Tensor]:
    """ml4ir's `ranking_score` [list, item]: a softmax over each list, 0 after its end."""
    return {"ranking_score": _softmax(ranker, batch)}


def ml4ir_scores_pairs(outputs: Outputs, trained: TrainedLists) -> Pairs:
    """Raises ValueError for a wrong shape or wrong padding."""
    return _padded_pairs(outputs, trained.scores, "ranking_score", 0.0, softmax)


def softmax(scores: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Over one list, float64 [item].

    >>> softmax(np.array([1.0, 1.0]))
    array([0.5, 0.5])
    """
    powers = np.exp(scores.astype(np.float64) - scores.max(initial=-np.inf))
    share: npt.NDArray[Any] = powers / powers.sum()
    return share


def _softmax(ranker: Any, batch: ListBatch) -> tf.Tensor:
    scores = padded(ranker.outputs(batch)["scores"], batch.row_splits)
    return tf.where(tf.sequence_mask(_sizes(batch), tf.shape(scores)[1]), tf.nn.softmax(scores), 0.0)


def _sizes(batch: ListBatch) -> tf.Tensor:
    return batch.row_splits[1:] - batch.row_splits[:-1]


def _padded_pairs(
    outputs: Outputs,
    scores: Lists,
    name: str,
    padding: float,
    expect: Callable[[Any], Any] = lambda scores: scores,
) -> Pairs:
    """The pairs of the output `name` [list, item].

    expect: turns training's scores of a list into the expected values.
    """
    values, sizes = outputs[name], np.array([len(each) for each in scores], np.int64)
    _check_equal("sizes", outputs.get("sizes", sizes).tolist(), sizes.tolist())
    _check_equal(f"shape of {name}", values.shape, (len(sizes), max(sizes.tolist(), default=0)))
    behind = values[np.arange(values.shape[1]) >= sizes[:, None]]
    if not np.all(behind == np.float32(padding)):
        raise ValueError(f"{name}: expected {padding} after the end of a list; got {behind}")
    return [(expect(each), row[: len(each)]) for each, row in zip(scores, values, strict=True)]


def _check_equal(what: str, answered: Any, expected: Any) -> None:
    if answered != expected:
        raise ValueError(f"{what}: expected {expected}; got {answered}")
