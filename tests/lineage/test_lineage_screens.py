"""The pages of lineage as Chromium shows them: wide and narrow windows, light and dark mode."""

import pytest
from chromium import COMMAND, chromium
from lineage_examples import HISTORY, LIVE, NOW, model, pipeline_runs, push, step

from tfx_ranking.pipelines.lineage.values import AffectedModel, Impact, Lineage, Run, ServingPeriod
from tfx_ranking.pipelines.lineage.views import origin_views, served_views

pytestmark = pytest.mark.skipif(COMMAND is None, reason="Chromium is not here (Debian: apt install chromium)")

LONG = "a-name-that-is-far-longer-than-any-window-is-wide-and-has-no-place-to-break" * 3
SHAPES = """
(() => {
  const shown = [...document.querySelectorAll("svg")].filter(each => each.getBoundingClientRect().width > 0);
  const place = node => { const r = node.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
  return {
    drawings: shown.length,
    links: shown.flatMap(svg => [...svg.querySelectorAll("path.link")]).length,
    nodes: shown.flatMap(svg => [...svg.querySelectorAll("a[data-key] rect:not(.bar)")]).map(place),
    texts: shown.flatMap(svg => [...svg.querySelectorAll("a[data-key] text")]).map(
      text => [place(text), place(text.closest("a").querySelector("rect"))]),
  };
})()
"""
# The contrast (WCAG 2) of every text and its background.
FAINT = """
(() => {
  const light = color => {
    const [r, g, b] = color.match(/[\\d.]+/g).map(Number).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const under = node => {
    if (node.tagName === "text") {
      const rect = node.parentNode.querySelector("rect.card, rect.chip");
      if (rect) return getComputedStyle(rect).fill;
    }
    for (let at = node; at; at = at.parentElement) {
      const color = getComputedStyle(at).backgroundColor;
      if (!color.endsWith(", 0)")) return color;
    }
  };
  const faint = [];
  for (const node of document.querySelectorAll("body *:not(script)")) {
    const own = [...node.childNodes].some(each => each.nodeType === 3 && each.data.trim());
    if (!own || !node.checkVisibility() || node.tagName === "title") continue;
    const style = getComputedStyle(node);
    const [one, other] = [light(node.tagName === "text" ? style.fill : style.color), light(under(node))];
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) faint.push([node.textContent, ratio]);
  }
  return faint;
})()
"""

NARROW = """
[...document.querySelectorAll("dl:not(.many) > dd, td.text, td.code")]
  .filter(each => each.checkVisibility() && each.clientWidth < 110).map(each => each.textContent)
"""


def _pages():
    runs = [
        Run(
            id=f"2026-11-21T03:00:00.{i}", pipeline=LONG if i == 1 else "shop", state=state, reason=reason, started=NOW,
            seconds=171.0, steps=9, cached=i, span=3, spans=(3,), metric="ndcg@10", value=0.6021, blessed=bool(i % 2),
            pushed="1795275762", unchanged=i == 3,
        )
        for i, (state, reason) in enumerate(
            [
                ("done", ""),
                ("failed", f"RankingTrainer: {LONG}"),
                ("running", ""),
                ("dead", "its process died"),
                ("unfinished", "not started: RankingPusher"),
            ]
        )
    ]  # fmt: skip
    served = [ServingPeriod(since=NOW, until=None, push=event, model=made, files=()) for event, made in HISTORY]
    touched = tuple(AffectedModel(made, "trained", (event,), ("/serving/shop",)) for event, made in HISTORY)
    long = step(1, LONG, run=LONG, pipeline=LONG, source={"files": {"all": [{"path": f"/{LONG}", "digest": LONG}]}})
    many = [(push(i, str(i)), model(f"d{i}", 0.6 + i % 7 / 50)) for i in range(1, 60)]
    return {
        "one run": origin_views.lineage_page(pipeline_runs(1)),
        "many runs": origin_views.lineage_page(pipeline_runs(7, extra=15)),  # 70 steps, 203 artifacts
        "long names": origin_views.lineage_page(Lineage(LONG, False, (), (long,), {})),
        "runs": origin_views.runs_page(runs),
        "models": served_views.models_page(HISTORY, LIVE),
        "many models": served_views.models_page(many, LIVE),
        "served": served_views.served_page(served, f"/serving/{LONG}"),
        "impact": served_views.impact_page(Impact(LONG, (), touched, tuple(LIVE))),
    }


PAGES = _pages()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def show(browser, tmp_path):
    def shown(name, width, dark=False):
        file = tmp_path / "page.html"
        file.write_text(PAGES[name])
        browser.open(file, width, dark=dark)
        return browser

    return shown


@pytest.mark.parametrize("dark", [False, True], ids=["day", "night"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_window_and_has_enough_contrast(show, name, width, dark):
    page = show(name, width, dark)
    assert page.console == []
    assert len(page.requests) == 1  # the file itself
    assert page.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert page.evaluate(FAINT) == []
    assert page.evaluate(NARROW) == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["one run", "many runs", "long names"])
def test_the_graph_is_shown_once_and_nothing_overlaps(show, name, width):
    shapes = show(name, width).evaluate(SHAPES)
    assert shapes["drawings"] == 1
    nodes = shapes["nodes"]
    steps, artifacts = {"one run": (10, 14), "many runs": (70, 203), "long names": (1, 0)}[name]
    assert len(nodes) == steps + artifacts
    assert bool(shapes["links"]) == (name != "long names")
    for i, (left, top, right, bottom) in enumerate(nodes):
        assert right - left > 40
        assert bottom - top > 15
        assert not [o for o in nodes[:i] if left < o[2] and o[0] < right and top < o[3] and o[1] < bottom]
    for text, box in shapes["texts"]:
        assert box[0] <= text[0] <= text[2] <= box[2]
        assert box[1] - 1 <= text[1] <= text[3] <= box[3] + 1


def test_a_graph_of_one_run_fits_a_wide_window(show):
    page = show("one run", 1280)
    assert page.evaluate(
        "[...document.querySelectorAll('.wide')].map(each => each.scrollWidth <= each.clientWidth)"
    ) == [True]


@pytest.mark.parametrize("width", [1280, 390])
def test_the_graph_works_by_keyboard(show, width):
    page = show("one run", width)
    here = "document.activeElement.dataset.key || ''"
    for _ in range(30):
        page.press("Tab")
        if page.evaluate(here):
            break
    chosen = page.evaluate(here)
    assert chosen
    assert page.evaluate("document.querySelectorAll('.lit').length") > 0  # its lines
    page.press("Enter")
    shown = "[...document.querySelectorAll('.sheet')].filter(each => each.checkVisibility()).map(each => each.id)"
    assert page.evaluate(shown) == [chosen]
    sheet = page.evaluate(f"JSON.stringify(document.getElementById({chosen!r}).getBoundingClientRect())")
    assert '"left":-' not in sheet
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "shut"
    page.press("Escape")
    assert page.evaluate(shown) == []
    assert page.evaluate(here) == chosen


def test_a_mark_of_the_plot_links_to_its_row(show):
    page = show("models", 1280)
    page.evaluate("document.querySelector('.wide a').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert page.evaluate("document.querySelector('tr:target td').textContent") == "1"
