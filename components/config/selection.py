"""Selects the keys of a config that one component reads, so that TFX reruns it only when one of them changes.

Input: a config and key paths.  Output: plain values.
"""

import dataclasses
import fnmatch
from typing import Any

from tfx_ranking.components.choices.transform_steps import StepWithParameter

_NOTHING = object()


def pick(config: Any, keys: tuple[str, ...]) -> dict[str, Any]:
    """The fields of a dataclass that `keys` name (`*` for any name), without values that equal their default.

    Fields without a default are always included.

    >>> from tfx_ranking.components.config.training_sections import Training
    >>> pick(Training(epochs=3, seed=7), ("seed", "optimizer"))
    {'seed': 7}
    """
    picked: dict[str, Any] = _pick(config, keys, ())
    return picked


def _pick(value: Any, keys: tuple[str, ...], at: tuple[str, ...], chosen: bool = False, needed: bool = True) -> Any:
    """The part of `value`, which is at the path `at`, that `keys` name; _NOTHING when they name no part of it."""
    named = [tuple(key.split(".")) for key in keys]
    named = [key for key in named if all(map(fnmatch.fnmatchcase, at, key))]  # paths to `value`, or to a part of it
    chosen = chosen or any(len(key) <= len(at) for key in named)
    if dataclasses.is_dataclass(value) and not isinstance(value, StepWithParameter):
        picked = {}
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
            default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
            if required or inner != default:
                part = _pick(inner, keys, (*at, field.name), chosen, required)
                if part is _NOTHING and required:
                    part = {} if isinstance(inner, dict) else inner
                if part is not _NOTHING and (part != {} or not dataclasses.is_dataclass(default)):
                    picked[field.name] = part
        return picked if named or chosen or needed else _NOTHING
    if isinstance(value, StepWithParameter):
        return value.as_written() if chosen else _NOTHING
    if isinstance(value, dict):
        if not named and not chosen:
            return _NOTHING
        parts = {name: _pick(each, keys, (*at, name), chosen, False) for name, each in value.items()}
        return {name: {} if part is _NOTHING else part for name, part in parts.items()}
    if isinstance(value, tuple) and chosen:
        return [_pick(each, keys, at, chosen, False) for each in value]
    return value if chosen else _NOTHING
