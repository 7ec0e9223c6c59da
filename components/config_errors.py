"""Why a config was refused, one line a finding: the key's path, what was expected, what came, the near miss.

Enters: what pydantic and the dataclasses' own checks found.  Leaves: text.
"""

import contextvars
import dataclasses
import difflib
import re
from collections.abc import Callable
from typing import Any

import pydantic

STRICT = pydantic.ConfigDict(extra="forbid")
being_cut = contextvars.ContextVar("being_cut", default=False)  # a selection of a checked config is being read


class Refused(ValueError):
    """A contradiction found inside one dataclass: `key` is the path below it."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def unless_cut(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """A selection lacks keys on purpose; what it was cut from has been checked."""

    def checked(self: Any) -> None:
        if not being_cut.get():
            check(self)

    return checked


def explain(error: pydantic.ValidationError, root: type) -> str:
    """The findings as lines; root: the dataclass that was to be built, which knows the keys."""
    lines: dict[str, str] = {}
    for finding in error.errors():
        path, message = _one(finding, root)
        lines.setdefault(path, message)
    return "\n".join(f"{path}: {message}" if path else message for path, message in lines.items())


def near(word: str, known: list[str]) -> str:
    """The near miss, as the end of a message; empty when nothing is near.

    >>> near("lable", ["label", "weight"])
    "; did you mean 'label'?"
    """
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


_STEPS = ("z_score", "min_max", "log1p", "sign_log1p", "query_normalise")


def _one(finding: Any, root: type) -> tuple[str, str]:
    loc = [part for i, part in enumerate(finding["loc"]) if i < 2 or not _is_union_branch(part)]
    kind, came = finding["type"], finding["input"]
    if loc[2:3] == ["transform"] and len(loc) >= 4:  # one step of a feature; what is beyond it is pydantic's attempts
        hint = near(came, [*_STEPS, "clip", "bucketize"]) if isinstance(came, str) else ""
        expected = f"{', '.join(_STEPS)}, {{clip: [low, high]}} or {{bucketize: n}}"
        return _path(loc[:4]), f"expected one of {expected}; got {came!r}{hint}"
    if kind == "value_error" and isinstance(finding["ctx"]["error"], Refused):
        refused = finding["ctx"]["error"]
        return _path([*loc, *refused.key.split(".")]), f"{refused}."
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_keys(root, loc[:-1])
        hint = near(str(loc[-1]), known)
        return _path(loc), f"unknown key{hint or '; known here: ' + ', '.join(known)}"
    if kind in ("missing", "missing_argument"):
        return _path(loc), "missing; this key has no default"
    return _path(loc), f"{finding['msg'][0].lower()}{finding['msg'][1:]}; got {came!r}"


def _is_union_branch(part: Any) -> bool:
    branch = r"(literal|tuple|dict|lax-or-strict|function|json-or-python|nullable|constrained)\W.*"
    branch += "|str|int|float|Clip|Bucketize|PowerPropensity"
    return isinstance(part, str) and re.fullmatch(branch, part) is not None


def _known_keys(root: type, loc: list[Any]) -> list[str]:
    at: Any = root
    for part in loc:
        if dataclasses.is_dataclass(at):
            at = {field.name: field.type for field in dataclasses.fields(at)}.get(str(part))
            if getattr(at, "__origin__", None) is not dict:
                at = next((arg for arg in (at, *getattr(at, "__args__", ())) if dataclasses.is_dataclass(arg)), at)
        elif getattr(at, "__origin__", None) is dict:
            at = at.__args__[1]
    return [field.name for field in dataclasses.fields(at)] if dataclasses.is_dataclass(at) else []


def _path(parts: list[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
