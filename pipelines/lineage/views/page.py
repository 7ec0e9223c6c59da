"""Renders a page as one HTML file that needs nothing else: no network, no font, no library.

Input: a `Page` of plain values: tables, facts, drawings.  Output: HTML.  One template lays out each kind of section,
for wide and narrow windows and for light and dark mode, and escapes every text.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

from tfx_ranking.pipelines.lineage.views.graph import Drawing
from tfx_ranking.pipelines.lineage.views.plot import Chart


@dataclasses.dataclass(frozen=True)
class Cell:
    """A text with a style (a state, `code`) or a link to another element of the page."""

    text: str
    kind: str = ""  # the style
    to: str = ""  # the id of the element that it links to


CellContent = str | Cell | Sequence[Cell]


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: Sequence[CellContent]
    key: str = ""  # its id on the page


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under headings."""

    kind: ClassVar[str] = "table"
    title: str
    headings: Sequence[str]
    rows: Sequence[Row]
    numbers: Collection[str] = ()  # headings of the columns that are aligned to the right
    texts: Collection[str] = ()  # headings of the columns that may wrap
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Graph:
    """A lineage, drawn once for a wide and once for a narrow window."""

    kind: ClassVar[str] = "graph"
    title: str
    wide: Drawing
    tall: Drawing
    selected: Collection[str]  # keys of the query's artifacts
    titles: Mapping[str, str]  # by key: the tooltip
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Plot:
    """A metric over versions, drawn once for a wide and once for a narrow window."""

    kind: ClassVar[str] = "plot"
    title: str
    wide: Chart
    tall: Chart
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Facts:
    """Pairs of a name and a value, in one column, or with `many` in several columns."""

    kind: ClassVar[str] = "facts"
    title: str
    facts: Sequence[tuple[str, CellContent]]
    many: bool = False
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Texts:
    """Long texts with names, collapsed at first."""

    kind: ClassVar[str] = "texts"
    title: str
    texts: Sequence[tuple[str, str]]
    note: str = ""


@dataclasses.dataclass(frozen=True)
class Sheet:
    """The details of one step or artifact; shown when it is selected."""

    key: str  # its id on the page
    title: str
    facts: Sequence[tuple[str, CellContent]]
    text: str


Section = Table | Graph | Plot | Facts | Texts


@dataclasses.dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    facts: Sequence[tuple[str, CellContent]] = ()
    sections: Sequence[Section] = ()
    sheets: Sequence[Sheet] = ()


def render(page: Page) -> str:
    """The page as HTML; every text is escaped."""
    return str(_template().render(page=page))


@functools.cache
def _template() -> Any:
    import jinja2  # only pages need it, and it takes a moment to import

    loader = jinja2.FileSystemLoader(pathlib.Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.jinja")
