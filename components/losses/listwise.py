"""Losses that look at all items of a list at once.

Input: scores, labels and weights, float `[list, item]`, and the mask, bool `[list, item]`; False is padding.
Output: a float scalar, the mean over the lists.  A list without a relevant item adds 0 and still counts as a list.

One list of three items, the first of them relevant:

>>> import tensorflow as tf
>>> loss = softmax([[2.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]], mask=[[True, True, True]])
>>> round(float(loss), 4)
0.4076

A batch of two lists; the second one has two items, so its third place is padding, whatever stands there:

>>> scores = tf.constant([[2.0, 1.0, 0.0], [1.0, 3.0, float("nan")]])
>>> labels = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
>>> mask = [[True, True, True], [True, True, False]]
>>> round(float(softmax(scores, labels, mask=mask)), 4)
0.2673

A gradient, which is 0 in padding:

>>> with tf.GradientTape() as tape:
...     tape.watch(scores)
...     loss = softmax(scores, labels, mask=mask)
>>> tape.gradient(loss, scores).numpy().round(3) + 0.0
array([[-0.167,  0.122,  0.045],
       [ 0.06 , -0.06 ,  0.   ]], dtype=float32)
"""

import tensorflow as tf

from tfx_ranking.components.losses.masked import Tensor, clean, mean_over_lists

APPROX_TEMPERATURE = 0.1  # TensorFlow Ranking's default for the approximated ranks


def softmax(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy between the labels and the softmax of the scores (ListNet; Cao et al., 2007).

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.
    The loss of a list is the sum of its labels times the cross entropy; `weights` multiply the labels.
    Returns a float scalar.

    >>> round(float(softmax([[0.0, 0.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # log(2)
    0.6931
    """
    scores, labels, mask, weights = clean(scores, labels, mask, weights)
    targets = labels * weights
    # Below every real score, so that exp() of it is 0 after the best score of the list is subtracted.
    lowest = tf.where(mask, scores, scores.dtype.min)
    best = tf.stop_gradient(tf.reduce_max(lowest, axis=1, keepdims=True))
    shifted = tf.where(mask, scores - tf.where(tf.reduce_any(mask, axis=1, keepdims=True), best, 0.0), 0.0)
    exp_sum = tf.reduce_sum(tf.where(mask, tf.exp(shifted), 0.0), axis=1, keepdims=True)
    log_sum = tf.math.log(tf.where(exp_sum > 0, exp_sum, 1.0))
    per_list = tf.reduce_sum(targets * (log_sum - shifted), axis=1)
    return mean_over_lists(tf.where(tf.reduce_sum(targets, axis=1) > 0, per_list, 0.0), mask)


def approx_ndcg(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Minus NDCG with ranks that have a gradient (Qin, Liu & Li, 2010; Bruch et al., 2019), exponential gain.

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.
    A rank is 1 plus the sum over the other items of sigmoid((their score - its score) / 0.1).
    The weight of a list is the mean of its items' `weights`, weighted by their labels.  Returns a float scalar.

    >>> round(float(approx_ndcg([[9.0, 0.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # in the right order
    -1.0
    """
    scores, labels, mask, weights = clean(scores, labels, mask, weights)
    above = tf.sigmoid((scores[:, None, :] - scores[:, :, None]) / APPROX_TEMPERATURE)
    ranks = tf.reduce_sum(above * tf.cast(mask, scores.dtype)[:, None, :], axis=2) + 0.5  # the sum has 0.5 of itself
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
    return -mean_over_lists(ndcg * list_weights, mask)
