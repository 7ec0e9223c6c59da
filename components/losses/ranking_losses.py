"""Ranking losses: scores and labels of padded lists in, one scalar out.

Enters: `[list, item]` tensors and the mask that says which items exist.  Leaves: the loss that training lowers.
The one idea: the mask is an argument, so padding never needs a magic label, and every loss is one function, a row of
`choices.losses.LOSSES`.

The values are those of TensorFlow Ranking 0.5.5's Keras losses with their default arguments (its `SUM_OVER_BATCH_SIZE`
reduction), so that a learning rate found there can be kept.  In particular:

* listwise losses (`softmax`, `approx_ndcg`) are the mean over the lists; a list without a relevant item adds 0 to the
  sum and still counts as a list,
* the others divide the sum over items, or pairs, by lists x items of the longest list,
* `weights` are per item; how each loss uses them is in its docstring.

A list counts when it has at least one item; no list at all gives 0.0.  Labels are expected to be 0 or more, and more is
better.  What stands in padded places (NaN included) has no effect, neither on a loss nor on its gradient.
"""

from typing import Any

import tensorflow as tf

Tensor = Any  # tf.Tensor; TensorFlow ships no types that mypy could check
APPROX_TEMPERATURE = 0.1  # TensorFlow Ranking's default for the approximated ranks


def softmax(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy between the labels and the softmax of the scores (ListNet; Cao et al., 2007).

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.
    A list's loss is its labels' sum times the cross entropy; `weights` multiply the labels.  Returns a float scalar.

    >>> round(float(softmax([[0.0, 0.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # log(2)
    0.6931
    """
    scores, labels, mask, weights = _clean(scores, labels, mask, weights)
    targets = labels * weights
    # Below every real score, so that exp() of it is 0 after the shift by the list's best score.
    lowest = tf.where(mask, scores, scores.dtype.min)
    best = tf.stop_gradient(tf.reduce_max(lowest, axis=1, keepdims=True))
    shifted = tf.where(mask, scores - tf.where(tf.reduce_any(mask, axis=1, keepdims=True), best, 0.0), 0.0)
    exp_sum = tf.reduce_sum(tf.where(mask, tf.exp(shifted), 0.0), axis=1, keepdims=True)
    log_sum = tf.math.log(tf.where(exp_sum > 0, exp_sum, 1.0))
    per_list = tf.reduce_sum(targets * (log_sum - shifted), axis=1)
    per_list = tf.where(tf.reduce_sum(targets, axis=1) > 0, per_list, 0.0)
    return tf.math.divide_no_nan(tf.reduce_sum(per_list), _lists(mask, scores.dtype))


def approx_ndcg(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Minus NDCG with ranks that have a gradient (Qin, Liu & Li, 2010; Bruch et al., 2019), exponential gain.

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.
    A rank is 1 plus the sum over the other items of sigmoid((their score - its score) / 0.1).
    A list's weight is the mean of its items' `weights`, weighted by their labels.  Returns a float scalar.

    >>> round(float(approx_ndcg([[9.0, 0.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # in the right order
    -1.0
    """
    scores, labels, mask, weights = _clean(scores, labels, mask, weights)
    above = tf.sigmoid((scores[:, None, :] - scores[:, :, None]) / APPROX_TEMPERATURE)
    ranks = tf.reduce_sum(above * tf.cast(mask, scores.dtype)[:, None, :], axis=2) + 0.5  # 0.5 of itself is in the sum
    # NDCG is a ratio of gains: 2**(y - top) - 2**-top stays finite where 2**y would not.
    top = tf.reduce_max(labels, axis=1, keepdims=True)
    gains = tf.where(mask, tf.pow(2.0, labels - top) - tf.pow(2.0, -top), 0.0)
    dcg = tf.reduce_sum(gains / tf.math.log1p(ranks), axis=1)
    ideal_ranks = tf.range(1, tf.shape(scores)[1] + 1)
    ideal_gains = tf.sort(gains, axis=1, direction="DESCENDING")
    ideal = tf.reduce_sum(ideal_gains / tf.math.log1p(tf.cast(ideal_ranks, scores.dtype)), axis=1)
    relevance = tf.reduce_sum(labels, axis=1)
    list_weights = tf.math.divide_no_nan(tf.reduce_sum(labels * weights, axis=1), relevance)
    ndcg = tf.where(relevance > 0, tf.math.divide_no_nan(dcg, ideal), 0.0)
    return -tf.math.divide_no_nan(tf.reduce_sum(ndcg * list_weights), _lists(mask, scores.dtype))


def pairwise_logistic(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Logistic loss of the score difference of every pair with different labels (RankNet; Burges et al., 2005).

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.
    A pair's weight is that of its better item.  Memory grows with items².  Returns a float scalar.

    >>> round(float(pairwise_logistic([[0.0, 0.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # log(2) / 2 places
    0.3466
    """
    scores, labels, mask, weights = _clean(scores, labels, mask, weights)
    better = labels[:, :, None] > labels[:, None, :]
    pairs = better & mask[:, :, None] & mask[:, None, :]
    losses = tf.math.softplus(scores[:, None, :] - scores[:, :, None])
    total = tf.reduce_sum(tf.where(pairs, losses * weights[:, :, None], 0.0))
    return tf.math.divide_no_nan(total, _places(mask, scores.dtype))


def sigmoid_cross_entropy(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy of each item's label with the sigmoid of its score; `weights` multiply the items' losses.

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.  Returns a float scalar.
    Labels are probabilities; one above 1 is taken as it is, as in TF-Ranking: the loss then has no lower bound.

    >>> round(float(sigmoid_cross_entropy([[0.0]], [[1.0]], mask=[[True]])), 4)  # log(2)
    0.6931
    """
    scores, labels, mask, weights = _clean(scores, labels, mask, weights)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask, losses * weights, 0.0)), _places(mask, scores.dtype))


def mean_squared(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared difference of score and label; `weights` multiply the items' losses.

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.  Returns a float scalar.

    >>> round(float(mean_squared([[1.0, 3.0]], [[1.0, 1.0]], mask=[[True, True]])), 4)  # (0 + 4) / 2
    2.0
    """
    scores, labels, mask, weights = _clean(scores, labels, mask, weights)
    losses = tf.math.squared_difference(scores, labels)
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(mask, losses * weights, 0.0)), _places(mask, scores.dtype))


def _clean(scores: Tensor, labels: Tensor, mask: Tensor, weights: Tensor | None) -> tuple[Tensor, ...]:
    """Tensors of one dtype, 0 in padded places: a NaN there would poison even a gradient that is multiplied by 0."""
    mask = tf.cast(mask, tf.bool)
    scores = tf.convert_to_tensor(scores)
    labels = tf.cast(labels, scores.dtype)
    weights = tf.ones_like(scores) if weights is None else tf.cast(weights, scores.dtype)
    return (tf.where(mask, scores, 0.0), tf.where(mask, labels, 0.0), mask, tf.where(mask, weights, 0.0))


def _lists(mask: Tensor, dtype: Any) -> Tensor:
    return tf.reduce_sum(tf.cast(tf.reduce_any(mask, axis=1), dtype))


def _places(mask: Tensor, dtype: Any) -> Tensor:
    """Lists x items of the longest list: what TF-Ranking divides by, whatever padding comes on top."""
    longest = tf.reduce_max(tf.reduce_sum(tf.cast(mask, tf.int32), axis=1))
    return _lists(mask, dtype) * tf.cast(tf.maximum(longest, 0), dtype)
