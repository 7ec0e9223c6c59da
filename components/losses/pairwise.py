"""Losses that look at pairs of items of one list.

Input: scores, labels and weights, float `[list, item]`, and the mask, bool `[list, item]`; False is padding.
Output: a float scalar, the sum over the pairs divided by lists x items of the longest list.  Memory grows with items².

One list of two items, the relevant one scored lower:

>>> import tensorflow as tf
>>> round(float(pairwise_logistic([[0.0, 1.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # log(1 + e) / 2
0.6566

A batch of two lists; the second one has one item and no pair, and its second place is padding:

>>> scores = tf.constant([[0.0, 1.0], [5.0, float("nan")]])
>>> labels, mask = [[1.0, 0.0], [1.0, 0.0]], [[True, True], [True, False]]
>>> round(float(pairwise_logistic(scores, labels, mask=mask)), 4)  # log(1 + e) / (2 lists x 2 items)
0.3283

A gradient, which is 0 in padding:

>>> with tf.GradientTape() as tape:
...     tape.watch(scores)
...     loss = pairwise_logistic(scores, labels, mask=mask)
>>> tape.gradient(loss, scores).numpy().round(3) + 0.0
array([[-0.183,  0.183],
       [ 0.   ,  0.   ]], dtype=float32)
"""

import tensorflow as tf

from tfx_ranking.components.losses.masked import Tensor, clean, mean_over_slots


def pairwise_logistic(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Logistic loss of the score difference of each pair with different labels (RankNet; Burges et al., 2005).

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.
    The weight of a pair is the weight of its better item.  Returns a float scalar.

    >>> round(float(pairwise_logistic([[0.0, 0.0]], [[1.0, 0.0]], mask=[[True, True]])), 4)  # log(2) / 2 items
    0.3466
    """
    scores, labels, mask, weights = clean(scores, labels, mask, weights)
    better = labels[:, :, None] > labels[:, None, :]
    pairs = better & mask[:, :, None] & mask[:, None, :]
    losses = tf.math.softplus(scores[:, None, :] - scores[:, :, None])
    return mean_over_slots(tf.reduce_sum(tf.where(pairs, losses * weights[:, :, None], 0.0)), mask)
