"""Finds the spans that match patterns with {SPAN}, or with {YYYY}, {MM} and {DD}, and chooses the spans of a window.

Input: patterns, and the files that exist.  Output: span numbers, and patterns with the marks filled in.  The marks are
the same as in TFX's ExampleGen; the span number of a date is the number of days since 1970-01-01.  A span is available
when every pattern matches a file of it; its newest version is used.
"""

import datetime
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tfx_ranking.components.errors import DataError

Patterns = dict[str, list[str]]  # by split, or under "all"

_MARK = re.compile(r"\{(SPAN|VERSION|YYYY|MM|DD)(?::(\d+))?\}")
_WIDTHS = {"YYYY": "4", "MM": "2", "DD": "2"}
_EPOCH = datetime.date(1970, 1, 1)


class Span(NamedTuple):
    """One available span."""

    number: int
    version: int | None  # the newest version; None where the pattern has no {VERSION}
    patterns: Patterns  # with the marks filled in


class ChosenSpans(NamedTuple):
    """The available spans of a window, oldest first, and the numbers in it without files."""

    spans: list[int]
    missing: list[int]


def has_marks(pattern: str) -> bool:
    """Whether a pattern has marks for spans.

    >>> has_marks("logs/{YYYY}-{MM}-{DD}.csv"), has_marks("logs/*.csv")
    (True, False)
    """
    return _MARK.search(pattern) is not None


def common_folder(patterns: Sequence[str]) -> str:
    """The folder that contains the files of every span, also of spans outside the window.

    >>> common_folder(["logs/may/day-{SPAN}/train*", "logs/may/day-{SPAN}/test*"])
    'logs/may'
    """
    literal = [re.split(r"[*?\[{]", pattern)[0] for pattern in patterns]
    # Not commonpath, which changes gs:// to gs:/.  dirname removes a part of a name at the end.
    return os.path.dirname(os.path.commonprefix(literal))  # noqa: RUF071


def available(patterns: Patterns, list_files: Callable[[str], list[str]]) -> dict[int, Span]:
    """The spans for which every pattern matches a file, by number.

    Raises DataError for a pattern with a wrong combination of marks.
    """
    filled: dict[tuple[str, int], dict[tuple[int, int | None], str]] = {}
    for split, several in patterns.items():
        for i, pattern in enumerate(several):
            filled[split, i] = _of_pattern(pattern, list_files)
    common = set.intersection(*(set(each) for each in filled.values()))
    newest: dict[int, int | None] = {}
    for number, version in sorted(common, key=lambda each: (each[0], each[1] or 0)):
        newest[number] = version
    return {
        number: Span(
            number,
            version,
            {
                split: [filled[split, i][number, version] for i in range(len(several))]
                for split, several in patterns.items()
            },
        )
        for number, version in newest.items()
    }


def window(present: Sequence[int], newest: int, count: int | None, since: Sequence[int] | None) -> ChosenSpans:
    """The spans of a window that ends with `newest`.

    present: the spans that have files.  count: the window is the last `count` numbers, present or not.  since: the
    window is the spans after the newest of these, or these spans again where none came later; all spans where it is
    empty.  Without count and since, the window is `newest` alone.  Numbers before the first present span are not
    missing.

    >>> window([3, 5, 6], 6, 3, None)
    ChosenSpans(spans=[5, 6], missing=[4])
    >>> window([3, 5, 6], 6, None, [3])
    ChosenSpans(spans=[5, 6], missing=[4])
    >>> window([3, 5, 6], 6, None, [5, 6])
    ChosenSpans(spans=[5, 6], missing=[])
    """
    up_to = sorted(each for each in present if each <= newest)
    if since is not None:
        after = [each for each in up_to if each > max(since, default=-1)]
        if since and not after:
            return ChosenSpans([each for each in up_to if each in since], [])
        first = max(since) + 1 if since else min(up_to, default=newest)
    else:
        first = newest - (count or 1) + 1
    spans = [each for each in up_to if each >= first]
    expected = range(max(first, min(present, default=first)), newest + 1)
    return ChosenSpans(spans, [each for each in expected if each not in spans])


def text(numbers: Sequence[int]) -> str:
    """Span numbers as text, with consecutive numbers as a range.

    >>> text([3, 4, 5, 9])
    '3-5, 9'
    """
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _of_pattern(pattern: str, list_files: Callable[[str], list[str]]) -> dict[tuple[int, int | None], str]:
    """(span, version) → the pattern, with its marks filled in from the file names."""
    _check(pattern)
    matcher = re.compile(_regex(pattern))
    filled = {}
    for path in list_files(_MARK.sub("*", pattern)):
        match = matcher.fullmatch(path)
        if match is None:  # the `*` of the glob matched something that is not a number
            continue
        tokens = match.groupdict()
        number = _number(tokens)
        if number is not None:
            version = int(tokens["VERSION"]) if "VERSION" in tokens else None
            filled[number, version] = _filled(pattern, tokens)
    return filled


def _check(pattern: str) -> None:
    marks = [mark[0] for mark in _MARK.findall(pattern)]
    named = sorted(mark for mark in marks if mark != "VERSION")
    if named not in (["SPAN"], sorted(_WIDTHS)) or marks.count("VERSION") > 1:
        raise DataError(
            f"data.input: {pattern!r} needs {{SPAN}}, or {{YYYY}}, {{MM}} and {{DD}}, each once, and may have "
            f"{{VERSION}}; got {', '.join(marks) or 'none'}. Use such marks in all patterns, or in none."
        )


def _regex(pattern: str) -> str:
    out, end = "", 0
    for mark in _MARK.finditer(pattern):
        width = mark[2] or _WIDTHS.get(mark[1])
        out += _glob_regex(pattern[end : mark.start()]) + f"(?P<{mark[1]}>\\d{f'{{{width}}}' if width else '+'})"
        end = mark.end()
    return out + _glob_regex(pattern[end:])


def _glob_regex(glob: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])", glob)
    known = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(
        known.get(part) or (part.replace("[!", "[^", 1) if part.startswith("[") and i % 2 else re.escape(part))
        for i, part in enumerate(parts)
    )


def _number(tokens: Mapping[str, str]) -> int | None:
    if "SPAN" in tokens:
        return int(tokens["SPAN"])
    try:
        return (datetime.date(*(int(tokens[each]) for each in _WIDTHS)) - _EPOCH).days
    except ValueError:  # the file's name has no valid date
        return None


def _filled(pattern: str, tokens: Mapping[str, str]) -> str:
    return _MARK.sub(lambda mark: tokens[mark[1]], pattern)
