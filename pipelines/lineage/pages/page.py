"""A page of HTML in one file, which needs nothing else: no network, no font, no library.

Enters: a `Page` of plain values: tables, facts, drawings.  Leaves: HTML.  The one idea: one template knows how each
kind of section looks, in a wide and in a narrow window, by day and by night, and escapes every text.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from tfx_ranking.pipelines.lineage.pages.graph import Drawing
from tfx_ranking.pipelines.lineage.pages.plot import Chart


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text with a look (a state, `code`) or a place on the page that it leads to."""

    text: str
    kind: str = ""
    to: str = ""


Held = str | Cell | Sequence[Cell]  # what stands at one place


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table; `key` is its place on the page."""

    cells: Sequence[Held]
    key: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under headings; columns of `numbers` stand right, those of `texts` may wrap."""

    kind: ClassVar[str] = "table"
    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    numbers: Collection[str] = ()
    texts: Collection[str] = ()
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A lineage drawn twice: for a wide window and for a narrow one."""

    kind: ClassVar[str] = "graph"
    title: str
    wide: Drawing
    tall: Drawing
    asked: Collection[str]  # keys of what was asked for
    titles: Mapping[str, str]  # by key: what is shown where the pointer rests
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Plot:
    """A metric over versions, drawn twice."""

    kind: ClassVar[str] = "plot"
    title: str
    wide: Chart
    tall: Chart
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value: one under the other, or `many` short ones side by side."""

    kind: ClassVar[str] = "facts"
    title: str
    facts: Sequence[tuple[str, Held]]
    many: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Texts:
    """Long texts with their names, folded."""

    kind: ClassVar[str] = "texts"
    title: str
    texts: Sequence[tuple[str, str]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """All of one step or artifact; shown when it is chosen."""

    key: str
    title: str
    facts: Sequence[tuple[str, Held]]
    text: str


Section = Table | Graph | Plot | Facts | Texts


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    facts: Sequence[tuple[str, Held]] = ()
    sections: Sequence[Section] = ()
    sheets: Sequence[Sheet] = ()


def render(page: Page) -> str:
    """The page as HTML; every text is escaped."""
    return str(_template().render(page=page))


@functools.cache
def _template() -> Any:
    import jinja2  # only who asks for a page waits for it

    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja")
