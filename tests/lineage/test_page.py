"""The pages of lineage: their content and the layout of their drawings."""

import dataclasses
import datetime
import itertools
import json
import re
import xml.etree.ElementTree as xml

import hypothesis
import pytest
from hypothesis import strategies as st
from lineage_examples import HISTORY, LIVE, NOW, STEPS, model, pipeline_runs, retrained, step

from tfx_ranking.components.exported import contract
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.lineage.diff import ChangedValue, Diff, FeatureShift, VocabularyChange
from tfx_ranking.pipelines.lineage.diff_sides import Side
from tfx_ranking.pipelines.lineage.values import (
    AffectedModel,
    Artifact,
    Execution,
    Impact,
    Lineage,
    Link,
    LiveVersion,
    PushEvent,
    Run,
    ServingPeriod,
)
from tfx_ranking.pipelines.lineage.views import bands, diff_views, graph, origin_views, plot, served_views

DRAWN = {"wide": bands.wide, "tall": graph.tall}


@st.composite
def lineages(draw):
    """Any steps, with inputs that are outputs of earlier steps or of no step."""
    executions, artifacts = [], {}
    for number in range(1, draw(st.integers(0, 9)) + 1):
        known = sorted(artifacts)
        taken = draw(st.sets(st.sampled_from(known), max_size=4)) if known else set()
        fresh = [len(artifacts) + 1 + i for i in range(draw(st.integers(0, 4)))]
        from_elsewhere = draw(st.integers(0, len(fresh)))
        artifacts |= {i: Artifact(i, draw(st.sampled_from(["Model", "Examples"])), "/", NOW, {}) for i in fresh}
        inputs = [Link("in", i) for i in sorted(taken | set(fresh[:from_elsewhere]))]
        run = draw(st.sampled_from(["", "one", "two"]))
        executions.append(step(number, "Step", inputs, [Link("out", i) for i in fresh[from_elsewhere:]], run))
    return Lineage("any", False, (), tuple(reversed(executions)), artifacts)


def events(lineage):
    steps = lineage.executions
    took = {(f"artifact-{link.artifact}", f"step-{each.id}") for each in steps for link in each.inputs}
    return took | {(f"step-{each.id}", f"artifact-{link.artifact}") for each in steps for link in each.outputs}


def points(path):
    return [tuple(map(float, pair)) for pair in re.findall(r"([-\d.]+),([-\d.]+)", path)]


def crosses(start, end, box):
    """Whether a horizontal or vertical line goes through the inside of a box."""
    (left, right), (top, bottom) = sorted((start[0], end[0])), sorted((start[1], end[1]))
    return left < box.x + box.width - 1 and right > box.x + 1 and top < box.y + box.height - 1 and bottom > box.y + 1


def check_drawing(drawing, lineage):
    keys = [f"step-{each.id}" for each in lineage.executions] + [f"artifact-{i}" for i in lineage.artifacts]
    assert sorted(box.key for box in drawing.boxes) == sorted(keys)
    lines = [(link.start, link.end) for link in drawing.lines if link.kind != "same"]
    assert sorted(lines) == sorted(events(lineage))
    for one, other in itertools.combinations(drawing.boxes, 2):
        apart = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert apart or one.y + one.height <= other.y or other.y + other.height <= one.y
    for box in drawing.boxes:
        assert 0 <= box.x <= box.x + box.width <= drawing.width
        assert 0 <= box.y <= box.y + box.height <= drawing.height
    for link in drawing.lines:
        way = points(link.path)
        assert all(0 <= x <= drawing.width and 0 <= y <= drawing.height for x, y in way)
        crossed = {box.key for box in drawing.boxes for a, b in itertools.pairwise(way) if crosses(a, b, box)}
        assert crossed <= {link.start, link.end}, link


@pytest.mark.parametrize("size", DRAWN)
@pytest.mark.parametrize(("runs", "extra"), [(1, 0), (3, 0), (7, 15)])
def test_nothing_in_a_drawing_overlaps(size, runs, extra):
    lineage = pipeline_runs(runs, extra)
    check_drawing(DRAWN[size](lineage), lineage)


@pytest.mark.parametrize("size", DRAWN)
@hypothesis.given(lineage=lineages())
def test_any_lineage_can_be_drawn(size, lineage):
    check_drawing(DRAWN[size](lineage), lineage)


def test_a_copy_is_connected_with_its_original():
    lineage = pipeline_runs(2)
    pushed, copy = (
        next(a.id for a in lineage.artifacts.values() if a.uri == uri) for uri in ("/0/pushed_model", "/1/live")
    )
    for draw in DRAWN.values():
        same = [(link.start, link.end) for link in draw(lineage).lines if link.kind == "same"]
        assert same == [(f"artifact-{pushed}", f"artifact-{copy}")]


def test_one_run_fits_a_wide_window_with_its_generations_from_left_to_right():
    lineage = pipeline_runs(1)
    drawing = bands.wide(lineage)
    assert drawing.width <= 1280 - 2 * (20 + 1 + 12)
    at = {box.item.node: box.x for box in drawing.boxes if isinstance(box.item, Execution)}
    chain = [node for node, *_ in STEPS if node not in ("LiveModel", "ExampleValidator")]
    assert [at[node] for node in chain] == sorted({at[node] for node in chain})
    assert at["ExampleValidator"] == at["Transform"]  # of one generation
    assert at["LiveModel"] == at["Transform"]  # directly before the first step that uses its output


def read(page):
    """The page's elements; a page is valid XML, so an unclosed tag or an unescaped text fails."""
    root = xml.fromstring(page)
    ids = [each.get("id") for each in root.iter() if each.get("id")]
    assert len(ids) == len(set(ids))
    targets = {each.get("href") for each in root.iter() if each.get("href")}
    assert targets <= {f"#{each}" for each in ids} | {"#closed"}  # no link leaves the page, and every link has a target
    assert not [each.tag for each in root.iter() if each.get("src") or each.tag in ("link", "iframe", "img")]
    assert set(re.findall(r"url\((.)", page)) <= {"#"}
    assert page.startswith("<!DOCTYPE html>\n")
    return root


def rows(root, title):
    section = next(each for each in root.iter("section") if each.find("h2").text == title)
    return [[" ".join("".join(cell.itertext()).split()) for cell in row] for row in section.iter("tr")]


def test_a_page_shows_the_whole_lineage():
    lineage = pipeline_runs(2)
    root = read(origin_views.lineage_page(lineage))
    keys = {f"step-{each.id}" for each in lineage.executions} | {f"artifact-{i}" for i in lineage.artifacts}
    drawings = list(root.iter("svg"))
    assert len(drawings) == 2
    for drawing in drawings:
        assert {each.get("data-key") for each in drawing.iter("a")} == keys
        links = {
            (each.get("data-start"), each.get("data-end")) for each in drawing.iter("path") if each.get("data-end")
        }
        assert links >= events(lineage)
    assert {each.get("id") for each in root.iter("aside")} == keys
    heading, newest, *_ = rows(root, "Steps, latest first")
    assert heading == ["run", "step", "state", "started", "took", "inputs", "outputs", "summary"]
    assert newest[:3] == ["run-1", "RankingPusher", "failed"]
    assert newest[-3:] == ["#25 #26", "#28", "no space"]  # 14 artifacts a run: model, blessing, push
    assert len(rows(root, "Steps, latest first")) == 1 + 20


def test_a_page_shows_files_and_config(tmp_path):
    source = {"files": {"all": [{"path": "/logs/1.csv", "size": 2217415, "digest": "abc"}]}}
    generated = step(1, "RankingExampleGen", source=source, config={"name": "shop", "model": {"hidden": [64, 32]}})
    root = read(origin_views.lineage_page(Lineage("one", False, (), (generated,), {})))
    assert rows(root, "Files read in run one")[1] == ["/logs/1.csv", "all", "2,217,415", "abc"]
    (text,) = (each.find("pre").text for each in root.iter("details") if each.find("summary").text.startswith("run"))
    assert text == "name: shop\nmodel:\n  hidden: [64, 32]\n"


RUN = Run(
    id="7", pipeline="shop", state="done", reason="", started=NOW, seconds=1.0, steps=1, cached=0, span=None, spans=(),
    metric="mrr", value=0.5, blessed=True, pushed="1", unchanged=False,
)  # fmt: skip
EVIL = '<script>alert("1")</script>\'"><img src=x onerror=alert(1)>&amp;'


def test_every_value_is_escaped():
    made = Artifact(1, EVIL, EVIL, NOW, {"digest": EVIL, "summary": EVIL, EVIL: EVIL})
    evil = step(1, EVIL, outputs=[Link(EVIL, 1)], run=EVIL, state=EVIL, pipeline=EVIL, **{EVIL: {EVIL: EVIL}})
    evil = dataclasses.replace(evil, reason=EVIL)
    page = origin_views.lineage_page(Lineage(EVIL, False, (made,), (evil,), {1: made}))
    root = read(page)
    assert len(list(root.iter("script"))) == page.count("<script") == 1
    assert "<img" not in page
    assert rows(root, "Artifacts of the query")[1][1] == " ".join(EVIL.split())
    run = dataclasses.replace(RUN, id=EVIL, pipeline=EVIL, state=EVIL, reason=EVIL, metric=EVIL, pushed=EVIL)
    assert len(list(read(origin_views.runs_page([run])).iter("script"))) == 1
    texts = {field.name: EVIL for field in dataclasses.fields(PushEvent) if field.name not in ("id", "at")}
    push = PushEvent(id=1, at=NOW, **texts)
    of = model(EVIL, 0.5)
    for text in (
        served_views.models_page([(push, of)], [LiveVersion(EVIL, EVIL, EVIL, True)]),
        served_views.served_page([ServingPeriod(since=NOW, until=None, push=push, model=of, files=())], EVIL),
        served_views.impact_page(Impact(EVIL, (made,), (AffectedModel(of, "trained", (push,), (EVIL,)),), ())),
    ):
        assert len(list(read(text).iter("script"))) == text.count("<script") == 1


def test_a_long_name_is_cut_and_whole_in_the_tooltip():
    name = "AStepWhoseNameIsMuchLongerThanAnyCardIsWideAndThatHasNoEnd"
    lineage = Lineage("x", False, (), (step(1, name),), {})
    (box,) = bands.wide(lineage).boxes
    assert [len(line) <= 13 for line in box.lines[:-1]] == [True, True]
    assert box.lines[1].endswith("…")
    root = read(origin_views.lineage_page(lineage))
    assert {each.find("title").text for each in root.iter("a") if each.get("data-key")} == {f"{name}\ndone"}


@pytest.mark.parametrize("down", [False, True])
def test_pages_without_records(down):
    alone = Artifact(1, "Model", "/elsewhere", NOW, {})
    note = "no step used it" if down else "no step that produced it is known"
    assert note in origin_views.lineage_page(Lineage("1", down, (alone,), (), {1: alone}))
    read(origin_views.lineage_page(Lineage("1", down, (), (), {})))
    assert "no runs yet" in origin_views.runs_page([])
    assert "no model was pushed yet" in served_views.models_page([], [])


def test_an_empty_column_is_left_out():
    bare = ["run", "state", "started", "took", "steps", "metric", "blessed", "pushed"]
    assert rows(read(origin_views.runs_page([RUN])), "Runs")[0] == bare
    failed = dataclasses.replace(RUN, state="failed", reason="no memory")
    assert rows(read(origin_views.runs_page([RUN, failed])), "Runs")[0] == [*bare, "reason"]


def test_models_over_versions():
    root = read(served_views.models_page(HISTORY, LIVE))
    for drawing in root.iter("svg"):
        marks = [each.find("g").get("class") for each in drawing.iter("a")]
        assert marks == ["mark pushed", "mark pushed", "mark rolled-back", "mark live"]
        assert [each.get("href") for each in drawing.iter("a")] == [f"#push-{i}" for i in (1, 2, 3, 4)]
    heading, newest, live, rolled_back, *_ = rows(root, "Versions at /serving/shop")
    assert heading[:3] == ["version", "now", "pushed"]
    assert [newest[0], newest[1]] == ["5", "pushed"]
    assert [live[0], live[1], live[-1]] == ["4", "live", "rollback of 3 to 2: blessed"]
    assert [rolled_back[0], rolled_back[1], rolled_back[-2]] == ["3", "rolled back", "no"]
    notes = [each.text for each in root.iter("p")]
    assert notes == ["Not shown: 1 version without a value."]


def test_the_marks_of_a_plot_have_the_height_of_their_values():
    values = [0.60, 0.64, 0.58]
    marks = [plot.Point(value, "pushed", "day", "", "") for value in values]
    chart = plot.chart(marks, 400, 264)
    assert [label.text for label in chart.across] == ["0.58", "0.60", "0.62", "0.64"]
    low, high = (264 - plot.BOTTOM), plot.TOP  # pixels, of 0.58 and 0.64
    assert [mark.y for mark in chart.marks] == [round(low + (high - low) * (v - 0.58) / 0.06, 1) for v in values]
    first, second, third = (mark.x for mark in chart.marks)
    assert second - first == pytest.approx(third - second, abs=0.2)
    (alone,) = plot.chart(marks[:1], 400, 264).marks
    assert 0 < alone.x < 400
    assert high <= alone.y <= low


def test_the_pages_of_served_and_impact():
    (first, of_first), (second, of_second), *_ = HISTORY
    until = NOW + datetime.timedelta(days=1)
    periods = [
        ServingPeriod(since=NOW, until=until, push=first, model=of_first, files=()),
        ServingPeriod(since=NOW, until=None, push=second, model=None, files=()),
    ]
    root = read(served_views.served_page(periods, "/serving/shop"))
    facts = [" ".join(" ".join(each.itertext()).split()) for each in root.iter("dl")]
    assert "run of d1 pipeline shop spans 3 metric ndcg@10 0.6000 blessed yes" in facts[0]
    assert "until now" in facts[1]
    touched = (AffectedModel(of_second, "trained", (second,), ("/serving/shop",)),)
    root = read(served_views.impact_page(Impact("span 3", (), touched, tuple(LIVE))))
    facts = " ".join(" ".join(next(root.iter("dl")).itertext()).split())
    assert facts == "result 1 model (1 trained on it), 1 pushed serves now /serving/shop: version 4, trained on it"
    assert rows(root, "Models")[1] == ["d2", "of d2", "trained on it", "3", "ndcg@10 0.6400", "yes", "2", "live"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return retrained(tmp_path_factory.mktemp("store"))


@pytest.mark.parametrize(
    ("command", "title"),
    [
        (["runs"], "Pipeline runs"),
        (["lineage", "101"], "Origin of 101"),
        (["lineage", "night-1", "--down"], "Outputs of night-1"),
        (["served", "/serving/shop"], "Versions served from /serving/shop"),
        (["impact", "--span", "1"], "Models affected by span 1"),
        (["models"], "Models over time"),
        (["diff", "101", "103"], "Differences between 101 and 103"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_every_question_writes_its_page(command, title, store, tmp_path, capsys):
    file = tmp_path / "page.html"
    arguments = [*command, "--metadata", str(store), "--html", str(file)]
    assert command_tree.main(arguments) == 0
    assert capsys.readouterr().out == f"wrote {file}\n"
    root = read(file.read_text())
    assert root.find("head/title").text == root.find("body/main/h1").text == title
    assert command_tree.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)


def test_a_page_that_cannot_be_written(store, tmp_path, capsys):
    assert command_tree.main(["runs", "--metadata", str(store), "--html", str(tmp_path / "nowhere" / "page.html")]) == 1
    assert "nowhere" in capsys.readouterr().err


def test_the_page_of_a_diff(store, tmp_path):
    file = tmp_path / "page.html"
    assert command_tree.main(["diff", "101", "103", "--metadata", str(store), "--html", str(file)]) == 0
    root = read(file.read_text())
    compared = {name: both for name, *both in rows(root, "Compared")}
    assert compared["run"] == ["run night-1", "run night-3"]
    assert compared["model"] == ["digest-1", "digest-3"]
    assert rows(root, "Metrics")[1] == ["ndcg@10", "0.6000", "0.6300", "+0.0300"]
    assert ["spans", "1", "3"] in rows(root, "Data")
    assert ["file /logs/1.csv", "bytes-1", "absent"] in rows(root, "Data")
    assert ["training.epochs", "6", "8"] in rows(root, "Config")
    assert rows(root, "Not compared")[1:]


def test_a_page_shows_the_whole_diff():
    side = Side(query="1", run="one", pipeline="shop", model=None, examples=None, files=())
    diff = Diff(
        before=side,
        after=dataclasses.replace(side, query="2", run="two"),
        metrics=(ChangedValue("ndcg@10", 0.5, 0.75),),
        same_lists=(ChangedValue("ndcg@10", 0.6, 0.7),),
        causes=("the label clicked shifted by 0.300",),
        data=(ChangedValue("items_out", 10000, 20000),),
        features=(
            FeatureShift(
                name="price",
                role="feature",
                distance=0.25,
                moved=True,
                value="",
                before=1.5,
                after=2.5,
                missing_before=0.0,
                missing_after=0.125,
            ),
        ),
        vocabularies=(VocabularyChange("brand", 1000, 1001, 1, 2),),
        config=(ChangedValue("training.epochs", None, 7),),
        code=(ChangedValue("Transform", "a1", "b2"),),
        packages=(ChangedValue("keras", "3.12.3", "3.12.4"),),
        contract=contract.ContractComparison("breaking", ["the signature rank is gone"], ""),
        unknown=("statistics of 1: none",),
    )
    root = read(diff_views.diff_page(diff))
    tables = {each.find("h2").text: rows(root, each.find("h2").text)[1:] for each in root.iter("section")}
    assert tables == {
        "Compared": [
            ["run", "run one", "run two"], ["pipeline", "shop", "shop"],
            ["model", "none", "none"], ["examples", "none", "none"],
        ],
        "Metrics": [["ndcg@10", "0.5000", "0.7500", "+0.2500"]],
        "Both models on the lists of the second": [["ndcg@10", "0.6000", "0.7000", "+0.1000"]],
        "What could explain the change of ndcg@10 (+0.2500), the likeliest first": [
            ["1", "the label clicked shifted by 0.300"]
        ],
        "Data": [["items_out", "10,000", "20,000"]],
        "Features that shifted (train split)": [
            ["price", "feature", "0.250", "mean", "1.5", "2.5", "0.0%", "12.5%"]
        ],
        "Vocabularies": [["brand", "1,000", "1,001", "1", "2"]],
        "Config": [["training.epochs", "not set", "7"]],
        "Code": [["Transform", "a1", "b2"]],
        "Packages": [["keras", "3.12.3", "3.12.4"]],
        "Contract: breaking": [["the signature rank is gone"]],
        "Not compared": [["statistics of 1: none"]],
    }  # fmt: skip
