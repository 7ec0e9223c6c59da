"""Lists the scorers that `model.scorer` can name.  A dotted path there names the user's own function instead.

To add a scorer:
1. Write the function `build(inputs, model) -> keras.Model` in `scorers/networks.py` or in a file of yours.
   `scorers/inputs.py` documents what the network receives, `scorers/networks.py` what it returns.
2. Add a row to `SCORERS`.  The config, its JSON schema and the trainer read this table.
3. Run `python -m tfx_ranking.components.config.reference > docs/config.md`, the page of the config's keys.

From outside the package, do step 2 with `SCORERS["mine"] = Scorer(...)` before the config is loaded.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from tfx_ranking.components.choices.functions import load_function

_MODULE = "tfx_ranking.components.scorers.networks"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scorer:
    """A row of `SCORERS`."""

    sentence: str  # for the docs
    function: str  # dotted name
    parameters: tuple[str, ...] = ()  # the keys of the config's section `model` that it reads
    builds_flat_scorer: bool = False  # a `networks.FlatScorer`, whose first layer `training.warm_start` reads by column

    @property
    def details(self) -> str:
        """A second sentence for the docs."""
        return f"Parameters: {', '.join(self.parameters)}." if self.parameters else ""

    def load(self) -> Callable[..., Any]:
        """The function.  Raises ConfigError when it cannot be imported."""
        return load_function(self.function, "the scorer")


SCORERS: dict[str, Scorer] = {
    "linear": Scorer(
        sentence="One weight for each number and each category.",
        function=f"{_MODULE}.linear",
        builds_flat_scorer=True,
    ),
    "dnn": Scorer(
        sentence="Dense layers on each item's numbers and embeddings and on its list's context.",
        function=f"{_MODULE}.dnn",
        parameters=("hidden", "activation", "dropout", "normalisation"),
        builds_flat_scorer=True,
    ),
}
