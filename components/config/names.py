"""What the config may call by name: metrics, scorers, optimizers, activations, functions of the user's own.

Enters: a name and its key.  Leaves: nothing, or a refusal.  The one idea: the names stand here, where neither
TensorFlow nor NumPy is imported for them, so a misspelt one is found when the config is loaded; a test holds them
against Keras and against the tables that they stand for.
"""

import re
from typing import Literal

from tfx_ranking.components.config.refusals import Refused, near

METRICS = {"ndcg": False, "mrr": False, "map": False, "precision": True, "recall": True}  # whether it needs a cutoff
SCORERS = ("linear", "dnn")
# Those that every line of TFX has; Keras also knows wrappers of others, and more in newer versions.
Optimizer = Literal[
    "adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "ftrl", "lion", "nadam", "rmsprop", "sgd"
]  # fmt: skip
# glu is not among them, which halves the width of a layer, nor threshold, which wants arguments.
Activation = Literal[
    "celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu", "hard_swish", "hard_tanh",
    "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6", "selu", "sigmoid", "silu",
    "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus", "sparse_sigmoid", "sparsemax", "squareplus",
    "swish", "tanh", "tanh_shrink",
]  # fmt: skip


def why_no_metric(name: str) -> str:
    """Why `name` is no metric; "" when it is one.

    >>> why_no_metric("ndcg@10"), why_no_metric("precision")
    ('', "expected a cutoff, as in precision@10; got 'precision'")
    """
    match = re.fullmatch(r"([a-z_]+)(?:@([0-9]+))?", name)
    if match is None or match[1] not in METRICS:
        word, at, k = name.partition("@")
        hint = near(word, list(METRICS), at + k if k.isdigit() else "")
        return f"expected one of {', '.join(METRICS)}, with a cutoff as in ndcg@10; got {name!r}{hint}"
    if match[2] is None and METRICS[match[1]]:
        return f"expected a cutoff, as in {name}@10; got {name!r}"
    if match[2] is not None and int(match[2]) < 1:
        return f"expected a cutoff of at least 1; got {name!r}"
    return ""


def check_metric(key: str, name: str) -> None:
    why = why_no_metric(name)
    if why:
        raise Refused(key, why)


def check_scorer(key: str, name: str) -> None:
    if "." in name:
        check_dotted(key, name)
    elif name not in SCORERS:
        own = "or the dotted path of a build function"
        raise Refused(key, f"expected one of {', '.join(SCORERS)}, {own}; got {name!r}{near(name, list(SCORERS))}")


def check_dotted(key: str, path: str) -> None:
    """Of its form alone: nothing is imported."""
    parts = path.split(".")
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise Refused(key, f"expected the dotted path of a function, as in package.module.function; got {path!r}")
