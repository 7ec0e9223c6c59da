"""Losses that look at each item by itself.

Input: scores, labels and weights, float `[list, item]`, and the mask, bool `[list, item]`; False is padding.
Output: a float scalar, the sum over the items divided by lists x items of the longest list.

One list of two items:

>>> import tensorflow as tf
>>> float(mean_squared([[1.0, 3.0]], [[1.0, 1.0]], mask=[[True, True]]))  # (0 + 4) / 2
2.0

A batch of two lists; the second one has one item, so its second place is padding, whatever stands there:

>>> scores = tf.constant([[1.0, 3.0], [2.0, float("nan")]])
>>> labels, mask = [[1.0, 1.0], [0.0, 0.0]], [[True, True], [True, False]]
>>> float(mean_squared(scores, labels, mask=mask))  # (0 + 4 + 4) / (2 lists x 2 items)
2.0

A gradient, which is 0 in padding:

>>> with tf.GradientTape() as tape:
...     tape.watch(scores)
...     loss = mean_squared(scores, labels, mask=mask)
>>> tape.gradient(loss, scores).numpy()
array([[0., 1.],
       [1., 0.]], dtype=float32)
"""

import tensorflow as tf

from tfx_ranking.components.losses.masked import Tensor, clean, mean_over_slots


def sigmoid_cross_entropy(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross entropy between each item's label and the sigmoid of its score; `weights` multiply the items' losses.

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.  Returns a float scalar.
    Labels are probabilities.  A label above 1 is used as it is, as in TF-Ranking; the loss then has no lower bound.

    >>> round(float(sigmoid_cross_entropy([[0.0]], [[1.0]], mask=[[True]])), 4)  # log(2)
    0.6931
    """
    scores, labels, mask, weights = clean(scores, labels, mask, weights)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=scores)
    return mean_over_slots(tf.reduce_sum(tf.where(mask, losses * weights, 0.0)), mask)


def mean_squared(scores: Tensor, labels: Tensor, *, mask: Tensor, weights: Tensor | None = None) -> Tensor:
    """Squared difference of score and label; `weights` multiply the items' losses.

    scores, labels, weights: float [list, item].  mask: bool, same shape; False is padding.  Returns a float scalar.

    >>> float(mean_squared([[1.0, 3.0]], [[1.0, 1.0]], mask=[[True, True]]))  # (0 + 4) / 2
    2.0
    """
    scores, labels, mask, weights = clean(scores, labels, mask, weights)
    losses = tf.math.squared_difference(scores, labels)
    return mean_over_slots(tf.reduce_sum(tf.where(mask, losses * weights, 0.0)), mask)
