"""Ranking losses: each takes the scores and labels of padded lists and returns one float scalar.

`listwise` has those that look at whole lists, `pairwise` at pairs of items, `pointwise` at single items; `masked` has
what they share.  The table `choices.losses.LOSSES` lists all of them.

The mask is an argument, so padding needs no special label.  Whatever stands in padding, NaN included, changes neither
a loss nor its gradient.  Labels are 0 or more, and more is better.

The values equal those of TensorFlow Ranking 0.5.5's Keras losses with default arguments (reduction
`SUM_OVER_BATCH_SIZE`), so you can keep a learning rate that you tuned there:

* the listwise losses are a mean over the lists,
* the others are a sum over items, or pairs, divided by lists x items of the longest list,
* a list counts when it has at least one item; a batch without any list has the loss 0.0,
* `weights` are per item; each loss documents how it uses them.
"""
