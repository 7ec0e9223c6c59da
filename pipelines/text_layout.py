"""How facts are laid out on lines of text.

Enters: texts.  Leaves: lines.
"""

import datetime
import itertools
from collections.abc import Sequence

WIDTH = 110  # columns of the text


def clock(when: datetime.datetime) -> str:
    """Local time, with its zone."""
    return f"{when.astimezone():%Y-%m-%d %H:%M:%S %Z}"


def duration(seconds: float) -> str:
    """How long something took.

    >>> [duration(each) for each in (1.23, 75, 3700)]
    ['1.2 s', '1 min 15 s', '1 h 01 min']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def wrapped(heading: str, facts: Sequence[str]) -> list[str]:
    """The facts behind their heading, each one whole, on as many lines as they need."""
    lines = [heading]
    for i, fact in enumerate(facts):
        text = fact + ("" if i + 1 == len(facts) else ", ")
        if i and len(lines[-1] + text.rstrip()) > WIDTH:
            lines.append(" " * len(heading))
        lines[-1] += text
    return [line.rstrip() for line in lines]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of cells, each column as wide as its widest cell; a row may end early; [] without rows.

    >>> columns([["run", "state"], ["7", "done"]])
    ['run  state', '7    done']
    """
    widths = [max(map(len, column)) for column in itertools.zip_longest(*rows, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
