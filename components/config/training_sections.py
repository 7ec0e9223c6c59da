"""The config's sections `transform`, `model` and `training`: from features to a trained scorer.

Enters: the sections' keys.  Leaves: frozen dataclasses that cannot hold a contradiction.
"""

import dataclasses
from typing import Literal

from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.choice_fields import LossName, MetricText, ScorerName
from tfx_ranking.components.config.data_section import Data
from tfx_ranking.components.config.refusals import STRICT, unless_cut
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
    """Preprocessing: derived from the features, or the user's own function."""

    __pydantic_config__ = STRICT
    preprocessing_fn: str | None = None
    """Dotted path of your own `f(inputs, custom_config)`, in place of what the features say; derived from them when
    left out."""

    @unless_cut
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
    """Sizes of `dnn`'s dense layers, each 1 or more; [] makes it linear."""
    activation: Activation = "relu"
    """After each dense layer of `dnn`, by Keras' name."""
    dropout: float = 0.0
    """Fraction in [0, 1) of each dense layer's units that a training step leaves out."""
    normalisation: Literal["none", "batch", "layer"] = "none"
    """Of the inputs, and of each dense layer before its activation."""
    loss: LossName = "softmax"
    """The function that training minimises."""

    @unless_cut
    def __post_init__(self) -> None:
        if not 0 <= self.dropout < 1:
            raise Refused("dropout", f"expected a fraction in [0, 1); got {self.dropout}")
        if any(size < 1 for size in self.hidden):
            raise Refused("hidden", f"expected layer sizes of at least 1; got {list(self.hidden)}")

    @property
    def own_scorer(self) -> str | None:
        """The dotted path of a function of the user's own; None for a scorer of ours."""
        return self.scorer if "." in self.scorer else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class EarlyStopping:
    """Stop when the validation split's metric has not risen for `patience` epochs; the best weights stay."""

    __pydantic_config__ = STRICT
    metric: MetricText = "ndcg@10"
    """Metric of the validation split, computed by the convention of `evaluation`."""
    patience: int = 5
    """Epochs without a better value after which training stops."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PowerPropensity:
    """The position at rank k is looked at with probability k ** -power."""

    __pydantic_config__ = STRICT
    power: float
    """1.0 is 1 / rank; 0 corrects nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class InitializeFrom:
    """Layers that start from an exported model's weights, by their names in its `weights.npz`."""

    __pydantic_config__ = STRICT
    model: str
    """Local folder of an exported or pushed model, or of versions (the one that serves)."""
    layers: tuple[str, ...] = ()
    """Names of layers, or patterns with *, that start from its weights; every layer that both have when left out."""
    freeze: tuple[str, ...] = ()
    """Names of layers, or patterns with *, that training leaves as they are; none when left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How the scorer is trained."""

    __pydantic_config__ = STRICT
    epochs: int = 30
    """Passes over the training lists at most, 1 or more."""
    batch_lists: int = 64
    """Lists in a training step, 1 or more."""
    optimizer: Optimizer = "adam"
    """By Keras' name, with Keras' defaults but for the two keys below."""
    learning_rate: float = 0.001
    """The optimizer's, above 0."""
    clip_norm: float | None = None
    """Global norm that gradients are scaled down to; they stay as they are when left out."""
    early_stopping: EarlyStopping | None = EarlyStopping()
    """Stops when validation gets no better, on when left out; null trains all epochs and keeps the last
    weights."""
    propensity: PowerPropensity | tuple[float, ...] | None = None
    """Chance that a position is looked at, {power: p} or a list from position 1 on (the last holds beyond it): a
    clicked item (label above 0) weighs 1 / the chance; needs `data.position`; no correction when left out."""
    initialize_from: InitializeFrom | None = None
    """An exported model whose layers are the start; fresh weights when left out."""
    warm_start: bool = False
    """Whether to begin from the model that `push.base` serves: layers by name, embeddings by value, inputs by
    feature."""
    seed: int = 1
    """Of initial weights, dropout and shuffling: the same seed and data give the same model."""

    @unless_cut
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
            raise Refused("warm_start", "a ranker begins from one model: the live one, or initialize_from's")

    def check_with(self, data: Data, push: object | None) -> None:
        """Raises Refused when a key of this section needs one of `data` or `push` that is not set."""
        if self.warm_start and push is None:
            raise Refused("warm_start", "the live model is the one that push.base serves; set push.base")
        if self.propensity is not None and data.position is None:
            raise Refused("propensity", "propensities are by position: name the column in data.position")
