"""Imports functions by their dotted names.

Input: a dotted name, as in "tfx_ranking.components.losses.listwise.softmax".  Output: the function.
The tables hold dotted names because the functions load TensorFlow, which takes seconds, and most users of the tables
(the config's checks, the docs, `--help`) need only the names.
"""

import importlib
from collections.abc import Callable
from typing import Any

from tfx_ranking.components.errors import ConfigError


def load_function(dotted: str, what: str) -> Callable[..., Any]:
    """The function behind a dotted name.

    what: the beginning of the error message, as in "model.scorer" or "the loss".
    Raises ConfigError when the module cannot be imported or has no such name.

    >>> load_function("os.path.basename", "the loss")("a/b")
    'b'
    """
    module, _, name = dotted.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{what}: {dotted!r} cannot be imported ({error}). Expected package.module.function; "
            "put the module's folder on PYTHONPATH, or install it."
        ) from error
