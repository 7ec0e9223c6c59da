"""Words the errors of a config: for each wrong key a line with its path, what was expected, and the value.

Input: the errors of pydantic and of the dataclasses' own checks.  Output: text, with the nearest name for a misspelt
one.
"""

import contextlib
import contextvars
import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

from tfx_ranking.components.errors import Refused, as_sentence, did_you_mean

STRICT = pydantic.ConfigDict(extra="forbid")
# Set while `from_selection` reads a part of a config.
reading_selection = contextvars.ContextVar("reading_selection", default=False)


def unless_selection(check: Callable[[Any], None]) -> Callable[[Any], None]:
    """Skips a dataclass's check in a selection: it lacks keys on purpose, and the whole config has been checked."""

    def checked(self: Any) -> None:
        if not reading_selection.get():
            check(self)

    return checked


@contextlib.contextmanager
def below(section: str) -> Iterator[None]:
    """Puts a section's name before the key of a `Refused` that is raised within."""
    try:
        yield
    except Refused as refused:
        raise Refused(f"{section}.{refused.key}", refused.message) from None


def explain(error: pydantic.ValidationError, root: type) -> str:
    """The message for all errors, a line for each key.  root: the dataclass of the whole config."""
    lines: dict[str, str] = {}
    expected: dict[str, list[str]] = {}  # path → the types that the value may have, when it has another one
    values: dict[str, str] = {}
    for one in error.errors():
        path, message, value = _one(one, root)
        if value:
            expected.setdefault(path, []).append(message)
            values[path] = value
        else:
            lines.setdefault(path, message)
    for path, types in expected.items():
        if not any(other.startswith((f"{path}.", f"{path}[")) for other in (*lines, *expected)):
            *others, last = dict.fromkeys(types)
            choice = f"{', '.join(others)} or {last}" if others else last
            lines.setdefault(path, f"expected {choice}; got {values[path]}")
    return "\n".join(f"{path}: {message}" if path else message for path, message in lines.items())


def _one(error: Any, root: type) -> tuple[str, str, str]:
    """(path, message, ""), or for a value of the wrong type (path, the right type, the value)."""
    loc = [part for i, part in enumerate(error["loc"]) if i < 2 or not _is_union_branch(part)]
    kind, value = error["type"], error["input"]
    if kind == "value_error" and isinstance(error["ctx"]["error"], Refused):
        refused = error["ctx"]["error"]
        return _path([*loc, *filter(None, refused.key.split("."))]), as_sentence(refused.message), ""
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        known = _known_keys(root, loc[:-1])
        hint = did_you_mean(str(loc[-1]), known)
        return _path(loc), f"unknown key{hint or '; known here: ' + ', '.join(known)}", ""
    if kind in ("missing", "missing_argument") and not isinstance(loc[-1], int):
        return _path(loc), "missing; this key has no default", ""
    if kind == "literal_error":
        names = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        hint = did_you_mean(value, names) if isinstance(value, str) else ""
        return _path(loc), f"{'one of ' * (len(names) > 1)}{', '.join(names)}", f"{value!r}{hint}"
    if kind in ("missing", "too_long", "tuple_type"):  # a list with the wrong number of values
        loc = loc[:-1] if kind == "missing" else loc
        return _path(loc), _list(*_type_at(root, loc)), repr(value)
    if kind == "dataclass_type":
        return _path(loc), f"a mapping (keys: {', '.join(_known_keys(root, loc))})", repr(value)
    if kind in _TYPES:
        return _path(loc), _TYPES[kind], repr(value)
    return _path(loc), f"{error['msg'][0].lower()}{error['msg'][1:]}; got {value!r}", ""


_TYPES = {
    "int_type": "an integer",
    "float_type": "a number",
    "string_type": "a text",
    "bool_type": "true or false",
    "dict_type": "a mapping",
}


def _list(of: Any, default: Any) -> str:
    """The description of a list, by its type and its default.

    >>> _list(tuple[int, ...], (256, 128)), _list(tuple[float, float], None)
    ('a list of integers, as in [256, 128]', 'a list of 2 numbers')
    """
    args = next((each.__args__ for each in _branches(of) if getattr(each, "__origin__", None) is tuple), (Any, ...))
    kind = {int: "integers", float: "numbers", str: "texts"}.get(getattr(args[0], "__origin__", args[0]), "values")
    example = f", as in [{', '.join(map(str, default))}]" if default and isinstance(default, tuple) else ""
    return f"a list of {kind if ... in args else f'{len(args)} {kind}'}{example}"


def _branches(of: Any) -> tuple[Any, ...]:
    """A type and, when it is a union, its members."""
    return (of, *(() if getattr(of, "__origin__", None) else getattr(of, "__args__", ())))


def _is_union_branch(part: Any) -> bool:
    branch = r"(literal|tuple|dict|lax-or-strict|function|json-or-python|nullable|constrained)\W.*"
    branch += "|str|int|float|PowerPropensity"
    return isinstance(part, str) and re.fullmatch(branch, part) is not None


def _known_keys(root: type, loc: list[Any]) -> list[str]:
    at = next((each for each in _branches(_type_at(root, loc)[0]) if dataclasses.is_dataclass(each)), None)
    return [field.name for field in dataclasses.fields(at)] if at is not None else []


def _type_at(root: Any, loc: list[Any]) -> tuple[Any, Any]:
    """The type and the default of the key at a path; None when there is no such key."""
    at, default = root, None
    for part in loc:
        for branch in _branches(at):
            if dataclasses.is_dataclass(branch):
                field = next((each for each in dataclasses.fields(branch) if each.name == part), None)
                at, default = (field.type, field.default) if field else (None, None)
                break
            if getattr(branch, "__origin__", None) is dict:
                at, default = branch.__args__[1], None
                break
    return at, default


def _path(parts: list[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
