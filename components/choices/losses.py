"""Lists the losses that `model.loss` can name.

To add a loss:
1. Write the function `f(scores, labels, *, mask, weights=None)` in `losses/listwise.py`, `pairwise.py` or
   `pointwise.py`, or in a file of yours: float [list, item] scores, labels and weights, bool [list, item] mask (False
   is padding); it returns a float scalar.
2. Add a row to `LOSSES`.  The config, its JSON schema and the trainer read this table.
3. Run `python -m tfx_ranking.components.config.reference > docs/config.md`, the page of the config's keys.

From outside the package, do step 2 with `LOSSES["mine"] = Loss(...)` before the config is loaded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

from tfx_ranking.components.choices.functions import load_function

_LOSSES = "tfx_ranking.components.losses"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """A row of `LOSSES`."""

    sentence: str  # for the docs
    compares: Literal["list", "pair", "item"]  # what one term of the loss looks at
    function: str  # dotted name

    @property
    def details(self) -> str:
        """A second sentence for the docs."""
        return {"list": "Listwise.", "pair": "Pairwise.", "item": "Pointwise."}[self.compares]

    def load(self) -> Callable[..., Any]:
        """The function.  Raises ConfigError when it cannot be imported."""
        return load_function(self.function, "the loss")


LOSSES: dict[str, Loss] = {
    "softmax": Loss(
        sentence="Cross entropy between the labels and the softmax of the list's scores (ListNet).",
        compares="list",
        function=f"{_LOSSES}.listwise.softmax",
    ),
    "approx_ndcg": Loss(
        sentence="Minus NDCG, with a smooth approximation of the ranks.",
        compares="list",
        function=f"{_LOSSES}.listwise.approx_ndcg",
    ),
    "pairwise_logistic": Loss(
        sentence="Logistic loss of the score difference of each pair of items with different labels (RankNet).",
        compares="pair",
        function=f"{_LOSSES}.pairwise.pairwise_logistic",
    ),
    "sigmoid_cross_entropy": Loss(
        sentence="Cross entropy between each item's label and the sigmoid of its score; labels from 0 to 1.",
        compares="item",
        function=f"{_LOSSES}.pointwise.sigmoid_cross_entropy",
    ),
    "mean_squared": Loss(
        sentence="Squared difference between each item's score and its label.",
        compares="item",
        function=f"{_LOSSES}.pointwise.mean_squared",
    ),
}
