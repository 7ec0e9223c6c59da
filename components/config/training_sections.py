"""The config's sections `transform`, `model` and `training`: from features to a trained scorer.

Input: the sections' keys.  Output: frozen dataclasses that reject contradictory values.
"""

import dataclasses
from typing import Literal

from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.choice_fields import LossName, MetricText, ScorerName
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.config.refusals import STRICT, unless_selection
from tfx_ranking.components.errors import Refused

# The optimizers that every supported version of Keras has; Keras also has wrappers of optimizers, and newer ones.
Optimizer = Literal[
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "nadam", "rmsprop", "sgd"
]  # fmt: skip
# Without glu, which halves the width of a layer, and threshold, which needs arguments.
Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus",
    "swish", "tanh", "tanh_shrink",
]  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transform:
    """How features are preprocessed: as their keys say, or by your own function."""

    __pydantic_config__ = STRICT
    preprocessing_fn: str | None = None
    """Dotted path of your own `f(inputs, custom_config)`, a TensorFlow Transform preprocessing_fn. When left out, the
    features' keys decide."""

    @unless_selection
    def __post_init__(self) -> None:
        if self.preprocessing_fn is not None:
            own_code.check_form("preprocessing_fn", self.preprocessing_fn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """The scorer and its loss."""

    __pydantic_config__ = STRICT
    scorer: ScorerName = "dnn"
    """The network that scores the items, or the dotted path of your own `f(inputs, model)`, which returns a Keras
    model."""
    hidden: tuple[int, ...] = (256, 128, 64)
    """Sizes of `dnn`'s dense layers, each 1 or more; [] makes a linear model."""
    activation: Activation = "relu"
    """Keras activation after each dense layer of `dnn`."""
    dropout: float = 0.0
    """Fraction in [0, 1) of each dense layer's units that a training step sets to 0."""
    normalisation: Literal["none", "batch", "layer"] = "none"
    """Normalisation of the inputs, and of each dense layer before its activation."""
    loss: LossName = "softmax"
    """The function that training minimises."""

    @unless_selection
    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise Refused("dropout", f"expected a fraction in [0, 1); got {self.dropout}")
        if any(size < 1 for size in self.hidden):
            raise Refused("hidden", f"expected layer sizes of at least 1; got {list(self.hidden)}")

    @property
    def own_scorer(self) -> str | None:
        """The dotted path of the user's own function; None when `scorer` names one of the table."""
        return self.scorer if "." in self.scorer else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stops training when the metric has not risen for `patience` epochs, and keeps the best weights."""

    __pydantic_config__ = STRICT
    metric: MetricText = "ndcg@10"
    """Metric of the validation split, computed by the convention of `evaluation`."""
    patience: int = 5
    """Number of epochs without a better value after which training stops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerPropensity:
    """A user looks at position k with probability k ** -power."""

    __pydantic_config__ = STRICT
    power: float
    """1.0 means 1 / k; 0 corrects nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitializeFrom:
    """Layers that start from an exported model's weights, matched by their names in its `weights.npz`."""

    __pydantic_config__ = STRICT
    model: str
    """Local folder of an exported or pushed model, or a folder of versions, of which the live one is taken."""
    layers: tuple[str, ...] = ()
    """Names of layers, or patterns with *, that start from its weights; all layers that both models have when left
    out."""
    freeze: tuple[str, ...] = ()
    """Names of layers, or patterns with *, that training does not change."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the scorer is trained."""

    __pydantic_config__ = STRICT
    epochs: int = 30
    """Highest number of passes over the training lists, 1 or more."""
    batch_lists: int = 64
    """Number of lists in a training step, 1 or more."""
    optimizer: Optimizer = "adam"
    """Keras optimizer; `learning_rate` and `clip_norm` are set, its other parameters have Keras' defaults."""
    learning_rate: float = 0.001
    """Learning rate of the optimizer, above 0."""
    clip_norm: float | None = None
    """Highest global norm of the gradients; larger ones are scaled down to it. Not limited when left out."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """Stops training early; on when left out. null: trains all epochs and keeps the last weights."""
    propensity: PowerPropensity | tuple[float, ...] | None = None
    """Probability that a user looks at a position: {power: p}, or a list from position 1 on, whose last value also
    holds for all later positions. A clicked item (label above 0) gets the weight 1 / probability. Needs
    `data.position`; no correction when left out."""
    initialize_from: InitializeFrom | None = None
    """Starts from an exported model's layers; from random weights when left out."""
    warm_start: bool = False
    """`true`: starts from the model that `push.base` serves. Layers are matched by name, embeddings by their values,
    inputs by their features."""
    seed: int = 1
    """Seed of initial weights, dropout and shuffling; the same seed and data give the same model."""

    @unless_selection
    def __post_init__(self) -> None:
        for key in ("epochs", "batch_lists"):
            if getattr(self, key) < 1:
                raise Refused(key, f"expected at least 1; got {getattr(self, key)}")
        if self.learning_rate <= 0:
            raise Refused("learning_rate", f"expected a number above 0; got {self.learning_rate}")
        if isinstance(self.propensity, tuple) and not all(0 < p <= 1 for p in self.propensity):
            raise Refused(
                "propensity", f"expected probabilities in (0, 1], first position first; got {self.propensity}"
            )
        if self.warm_start and self.initialize_from:
            raise Refused(
                "warm_start", "training starts from one model: the live one, or that of initialize_from; set only one"
            )

    def check_with(self, data: Data, push: object | None) -> None:
        """Raises Refused when a key of this section needs one of `data` or `push` that is not set."""
        if self.warm_start and push is None:
            raise Refused("warm_start", "the live model is the one that push.base serves; set push.base")
        if self.propensity is not None and data.position is None:
            raise Refused("propensity", "propensities are by position: name the column in data.position")
