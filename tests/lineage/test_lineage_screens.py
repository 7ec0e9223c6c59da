"""The pages of lineage as Chromium shows them, at a desk and on a phone, by day and by night."""

import pytest
from chromium import COMMAND, chromium
from lineage_examples import HISTORY, LIVE, NOW, model, pipeline_runs, push, step

from tfx_ranking.pipelines.lineage import origin_views, served_views
from tfx_ranking.pipelines.lineage.values import Impact, Lineage, Run, Served, Touched

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
# Contrast as WCAG 2 has it, of every text against what lies under it.
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
        Run(f"2026-11-21T03:00:00.{i}", LONG if i == 1 else "shop", state, reason, NOW, 171.0, 9, i, 3, (3,), "ndcg@10",
            0.6021, bool(i % 2), "1795275762", i == 3)
        for i, (state, reason) in enumerate(
            [
                ("done", ""),
                ("failed", f"RankingTrainer: {LONG}"),
                ("running", ""),
                ("dead", "its process died"),
                ("unfinished", "not begun: RankingPusher"),
            ]
        )
    ]  # fmt: skip
    served = [Served(NOW, None, change, made, ()) for change, made in HISTORY]
    touched = tuple(Touched(made, "trained", (change,), ("/serving/shop",)) for change, made in HISTORY)
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
def test_a_page_stays_in_its_window_and_can_be_read(show, name, width, dark):
    page = show(name, width, dark)
    assert page.said == []
    assert len(page.asked) == 1  # the file itself
    assert page.ask("[innerWidth, document.documentElement.scrollWidth]") == [width, width]
    assert page.ask(FAINT) == []
    assert page.ask(NARROW) == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", ["one run", "many runs", "long names"])
def test_the_graph_is_shown_once_and_nothing_lies_on_anything(show, name, width):
    shapes = show(name, width).ask(SHAPES)
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


def test_a_graph_of_one_run_needs_no_scrolling_at_a_desk(show):
    page = show("one run", 1280)
    assert page.ask("[...document.querySelectorAll('.wide')].map(each => each.scrollWidth <= each.clientWidth)") == [
        True
    ]


@pytest.mark.parametrize("width", [1280, 390])
def test_by_keyboard_alone(show, width):
    page = show("one run", width)
    here = "document.activeElement.dataset.key || ''"
    for _ in range(30):
        page.press("Tab")
        if page.ask(here):
            break
    chosen = page.ask(here)
    assert chosen
    assert page.ask("document.querySelectorAll('.lit').length") > 0  # its lines
    page.press("Enter")
    shown = "[...document.querySelectorAll('.sheet')].filter(each => each.checkVisibility()).map(each => each.id)"
    assert page.ask(shown) == [chosen]
    sheet = page.ask(f"JSON.stringify(document.getElementById({chosen!r}).getBoundingClientRect())")
    assert '"left":-' not in sheet
    page.press("Tab")
    assert page.ask("document.activeElement.className") == "shut"
    page.press("Escape")
    assert page.ask(shown) == []
    assert page.ask(here) == chosen


def test_a_mark_of_the_plot_leads_to_its_row(show):
    page = show("models", 1280)
    page.ask("document.querySelector('.wide a').dispatchEvent(new MouseEvent('click', {bubbles: true}))")
    assert page.ask("document.querySelector('tr:target td').textContent") == "1"
