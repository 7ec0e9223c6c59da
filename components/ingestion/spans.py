"""Lists the spans that match a pattern with {SPAN}, or with {YYYY}, {MM} and {DD}, and chooses those of a window.

Input: patterns, and the files that exist.  Output: span numbers, and patterns with the marks filled in.  The marks are
those of TFX's ExampleGen; a date's span number is its number of days since 1970-01-01.  A span is available when every
pattern has a file of it; its newest version is used.
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
    """One span that is there."""

    number: int
    version: int | None  # the newest; None where the pattern has no {VERSION}
    patterns: Patterns  # its marks filled in


class Chosen(NamedTuple):
    """The spans of a window, oldest first, and those within it that nobody has delivered."""

    spans: list[int]
    missing: list[int]


def has_marks(pattern: str) -> bool:
    """Whether a pattern names spans.

    >>> has_marks("logs/{YYYY}-{MM}-{DD}.csv"), has_marks("logs/*.csv")
    (True, False)
    """
    return _MARK.search(pattern) is not None


def above(patterns: Sequence[str]) -> str:
    """The folder that the files of every span lie below, whichever spans are taken.

    >>> above(["logs/may/day-{SPAN}/train*", "logs/may/day-{SPAN}/test*"])
    'logs/may'
    """
    literal = [re.split(r"[*?\[{]", pattern)[0] for pattern in patterns]
    # Not commonpath, which makes gs:/ of gs://; dirname cuts a half name off.
    return os.path.dirname(os.path.commonprefix(literal))  # noqa: RUF071


def available(patterns: Patterns, list_files: Callable[[str], list[str]]) -> dict[int, Span]:
    """Every span that all patterns have a file of, by number.

    Raises DataError for a pattern whose marks do not go together.
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


def window(there: Sequence[int], newest: int, count: int | None, since: Sequence[int] | None) -> Chosen:
    """The spans up to `newest` that a window takes of those that are there.

    count: the last so many numbers, present or not.  since: those after the newest of these, or these again where none
    came after; an empty sequence for all there are.  Neither: `newest` alone.  What lies before the first span that is
    there is not missing.

    >>> window([3, 5, 6], 6, 3, None)
    Chosen(spans=[5, 6], missing=[4])
    >>> window([3, 5, 6], 6, None, [3])
    Chosen(spans=[5, 6], missing=[4])
    >>> window([3, 5, 6], 6, None, [5, 6])
    Chosen(spans=[5, 6], missing=[])
    """
    up_to = sorted(each for each in there if each <= newest)
    if since is not None:
        after = [each for each in up_to if each > max(since, default=-1)]
        if since and not after:
            return Chosen([each for each in up_to if each in since], [])
        first = max(since) + 1 if since else min(up_to, default=newest)
    else:
        first = newest - (count or 1) + 1
    taken = [each for each in up_to if each >= first]
    expected = range(max(first, min(there, default=first)), newest + 1)
    return Chosen(taken, [each for each in expected if each not in taken])


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
    """(span, version) to the pattern with the marks filled in as the file names have them."""
    _check(pattern)
    matcher = re.compile(_regex(pattern))
    filled = {}
    for path in list_files(_MARK.sub("*", pattern)):
        match = matcher.fullmatch(path)
        if match is None:  # e.g. a name where the glob's star took something else than a number
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
            f"{{VERSION}}; got {', '.join(marks) or 'none'}. All patterns have spans or none."
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
    except ValueError:  # a file whose name holds no date
        return None


def _filled(pattern: str, tokens: Mapping[str, str]) -> str:
    return _MARK.sub(lambda mark: tokens[mark[1]], pattern)
