"""Weeks of retraining in simulated time, by the real pipeline: bad data never make what serves worse.

    python tests/soak_retraining.py --days 60 --folder soak

A shop's log comes in one file a day, of which some are missing, late, delivered twice, malformed, or poisoned: labels
inverted, which moves their distribution, or shuffled, which does not.  Each day ends with `retrain`; one run is killed
in its trainer.  `soak` gives what happened, day by day; `check` asks ML Metadata and the models whether it was right.
All runs are made in one process, which imports TFX once.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import ingested
import numpy as np
import pyarrow as pa
import pyarrow.csv

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import list_examples, metrics, serving_versions, spans
from tfx_ranking.pipelines import lineage_serving, retraining, runs, search_logs
from tfx_ranking.pipelines.lineage_store import Store
from tfx_ranking.pipelines.retraining import Exit

GOOD, MISSING, LATE, TWICE, MALFORMED, INVERTED, SHUFFLED, KILLED = (
    *("good", "missing", "late", "twice", "malformed", "inverted", "shuffled", "killed"),
)
# Before shuffled labels come days that cannot be trained on, so that they are the whole window: with good days beside
# them a model is hardly the worse for them.
WEEK = (GOOD, TWICE, LATE, INVERTED, MALFORMED, SHUFFLED, KILLED)
FORTNIGHT = (  # again and again after the first week
    *(GOOD, GOOD, GOOD, LATE, GOOD, TWICE, GOOD),
    *(MISSING, INVERTED, SHUFFLED, GOOD, MALFORMED, GOOD, GOOD),
)
DELAY = 2  # days that a late log is late
WINDOW, PREVIOUS = 3, 3  # spans
SLACK = 0.006  # of NDCG@10 on the test lists: two trainings on good data differ by as much
WORSE = 0.01  # of NDCG@10 on the reference lists: a model this much below an earlier one is worse
FIRST_DAY = datetime.datetime(2026, 11, 1, tzinfo=datetime.timezone.utc)
CONFIG: dict[str, Any] = {
    "name": "shop",
    "data": {
        "input": "logs/day-{SPAN}*.csv",
        "format": "csv",
        "group_id": "query_id",
        "label": "relevance",
        "label_range": [0, 4],
        "window": {"spans": WINDOW},
        "splits": {"validation": 0.2, "test": 0.3},
    },
    "items": {
        "price": {"transform": ["log1p", "z_score"]},
        "text_match": {"transform": ["z_score"]},
        "rating": {"default": 3.5, "transform": ["z_score"]},
    },
    "model": {"scorer": "linear"},
    "training": {"epochs": 25, "batch_lists": 16, "learning_rate": 0.03},
    "serving": {"signatures": ["list_example"], "default": "list_example", "parity_lists": 8},
    "evaluation": {
        "metrics": ["ndcg@10"],
        "bless": {"min_improvement": -SLACK, "previous_spans": PREVIOUS},
    },
    "push": {"base": "serving/shop", "version": "next", "keep": 100},
    "retrain": {"refuse": {"label": 0.1}},
}


@dataclasses.dataclass
class Day:
    """What was delivered on a day, and what `retrain` made of it."""

    number: int
    kind: str
    exit: str = ""
    said: str = ""
    run: str = ""  # of the training
    window: tuple[int, ...] = ()  # what it was to be trained on, by the calendar
    refused: tuple[int, ...] = ()
    version: str = ""  # that serves in the evening
    quality: float = float("nan")  # its NDCG@10 on the reference lists
    candidate: float = float("nan")  # that of the model which was trained today
    evening: str = ""  # of the machine's clock, which ML Metadata goes by
    seconds: float = 0.0


def calendar(days: int) -> list[str]:
    """What is delivered on each day, from day 1."""
    again = [FORTNIGHT[i % len(FORTNIGHT)] for i in range(max(0, days - len(WEEK)))]
    return [*WEEK, *again][:days]


def soak(folder: pathlib.Path, days: int) -> list[Day]:
    """Lives through the days; `folder` holds everything afterwards, `days.jsonl` and `metric.svg` too."""
    (folder / "logs").mkdir(parents=True)
    file = folder / "ranking.yaml"
    file.write_text(json.dumps(CONFIG))
    simulation = search_logs.Simulation(queries=300 * (days + 2), days=days + 2, products=300, min_items=5, max_items=8)
    *logs, one, other = (table for _, table in search_logs.simulate_days(simulation))
    reference = Reference(folder, pa.concat_tables([one, other]))
    kinds, run = calendar(days), retraining.runner_here(file, folder, "local")
    lived = []
    for number, kind in enumerate(kinds, 1):
        deliver(folder, number, kinds, logs)
        expected = training_spans(kinds, number)
        day = Day(number, kind, window=tuple(expected))
        began = time.monotonic()
        now = FIRST_DAY + datetime.timedelta(days=number)
        if kind == KILLED:
            kill_a_run(file, folder, retraining.decide(file, folder, run, now))
        outcome = retraining.retrain(file, folder, run, now=now)
        day.seconds = round(time.monotonic() - began, 1)
        day.exit, day.said, day.run = outcome.exit.name, outcome.said, outcome.run_id
        day.refused = tuple(each.span for each in outcome.decision.refused if each.span is not None)
        day.version = str(serving_versions.state(folder / "serving" / "shop")["version"])
        day.quality = reference.quality(folder / "serving" / "shop" / day.version) if day.version else day.quality
        day.candidate = reference.quality(exported(file, folder, day.run)) if day.run else day.candidate
        day.evening = datetime.datetime.now(datetime.timezone.utc).isoformat()
        lived.append(day)
        with (folder / "days.jsonl").open("a") as output:
            output.write(json.dumps(dataclasses.asdict(day)) + "\n")
        served = f"version {day.version:3} ndcg@10 {day.quality:.4f} (trained {day.candidate:.4f})"
        print(f"day {number:2} {kind:9} {day.exit:13} {served} {day.seconds:5.1f} s  {day.said}", flush=True)
    (folder / "metric.svg").write_text(plot(lived))
    return lived


def deliver(folder: pathlib.Path, today: int, kinds: Sequence[str], logs: Sequence[pa.Table]) -> None:
    """Writes the files that arrive today."""
    for number in range(1, today + 1):
        kind, log = kinds[number - 1], logs[number - 1]
        if delivered_on(number, kind) != today:
            continue
        file = folder / "logs" / f"day-{number:03d}.csv"
        labels = log["relevance"].to_numpy()
        if kind == INVERTED:
            labels = 4 - labels
        if kind == SHUFFLED:
            labels = np.random.default_rng(number).permutation(labels)
        changed = log.set_column(log.column_names.index("relevance"), "relevance", pa.array(labels))
        pyarrow.csv.write_csv(changed, str(file))
        if kind == TWICE:
            (folder / "logs" / f"day-{number:03d}-again.csv").write_bytes(file.read_bytes())
        if kind == MALFORMED:
            file.write_text(file.read_text().replace(",", ";"))


def delivered_on(number: int, kind: str) -> int | None:
    """The day on which a day's log arrives; None for never."""
    return None if kind == MISSING else number + DELAY if kind == LATE else number


def training_spans(kinds: Sequence[str], today: int) -> list[int]:
    """What a training of today is to be made of: the window's spans that are there and fit to be trained on."""
    there = [n for n in range(1, today + 1) if (delivered_on(n, kinds[n - 1]) or today + 1) <= today]
    newest = max(there, default=0)
    bad = (MALFORMED, INVERTED)
    return [n for n in there if n > newest - WINDOW and kinds[n - 1] not in bad]


def kill_a_run(file: pathlib.Path, folder: pathlib.Path, decision: retraining.Decision) -> None:
    """The training that was decided on, if any, killed when its trainer writes."""
    if decision.exit is not None:
        return
    job = folder / "killed.job.json"
    job.write_text(json.dumps(dataclasses.asdict(retraining.Job(decision.source))))
    script = pathlib.Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), "output", "RankingTrainer", str(file), "--root", str(folder)]
    done = subprocess.run([*command, "--job", str(job)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]


class Reference:
    """Two good days that nothing was trained on: the judge of what serves."""

    def __init__(self, folder: pathlib.Path, log: pa.Table) -> None:
        self.known: dict[str, float] = {}
        pyarrow.csv.write_csv(log, str(folder / "reference.csv"))
        raw = {**CONFIG, "data": {**CONFIG["data"], "input": str(folder / "reference.csv"), "window": None}}
        raw["data"]["splits"] = {"validation": 0.0, "test": 0.0}
        config = ranking_config.parse(raw)
        ingested.run(config, folder / "reference")
        self.records = list(list_examples.read_records(list_examples.split_files(str(folder / "reference"), "train")))
        table = {"relevance": list_examples.columns(config)["relevance"]}
        batch = list_examples.decode(self.records, table)
        self.labels, self.row_splits = batch.items["relevance"], batch.row_splits

    def quality(self, model: pathlib.Path) -> float:
        """NDCG@10 of a SavedModel, through its exported signature."""
        digest = serving_versions.digest(model)
        if digest not in self.known:
            import tensorflow as tf

            from tfx_ranking.components.evaluator import score_lists

            loaded = tf.saved_model.load(str(model))
            scores = score_lists(loaded.signatures["list_example"], self.records, self.row_splits)
            found = metrics.per_list(["ndcg@10"], scores, self.labels, self.row_splits)["ndcg@10"]
            self.known[digest] = float(np.nanmean(found))
        return self.known[digest]


def exported(file: pathlib.Path, folder: pathlib.Path, run: str) -> pathlib.Path:
    """The model that a run exported, good enough to be pushed or not."""
    store = Store(runs.metadata_connection(ranking_config.load(file), folder))
    (model,) = (each for each in given(store, run) if each.digest and each.type == "Model" and not each.copied)
    return pathlib.Path(model.uri) / "Format-Serving"


def check(folder: pathlib.Path, days: Sequence[Day]) -> None:
    """Raises AssertionError where a day was not as it should have been."""
    config = ranking_config.load(folder / "ranking.yaml")
    store = Store(runs.metadata_connection(config, folder))
    best, kinds = 0.0, [day.kind for day in days]
    trained: set[int] = set()
    for day in days:
        assert day.exit in (Exit.PUSHED.name, Exit.NOT_BLESSED.name, Exit.DATA_REFUSED.name, Exit.NOTHING_TO_DO.name), (
            day
        )
        if day.run:  # trained on exactly what the window says, as lineage tells it
            examples = [
                each for each in given(store, day.run) if each.type == "Examples" and "spans" in each.properties
            ]
            assert {each.spans for each in examples} == {day.window}, (day, [each.spans for each in examples])
            assert not {MALFORMED, INVERTED} & {kinds[span - 1] for span in day.window}
            trained |= {*day.window}
        if day.kind in (MALFORMED, INVERTED):
            assert day.number in day.refused, day
        if day.kind == SHUFFLED:
            assert day.number not in day.refused, day  # its distribution tells nothing
        if day.run and day.candidate < best - WORSE:
            assert day.exit != Exit.PUSHED.name, day
        if not np.isnan(day.quality):
            assert day.quality >= best - WORSE, (day, best)
            best = max(best, day.quality)
    fit = {n for n, kind in enumerate(kinds, 1) if kind not in (MALFORMED, INVERTED)}
    fit = {n for n in fit if (delivered_on(n, kinds[n - 1]) or len(days) + 1) <= len(days)}
    assert trained == fit, (trained, fit)
    shuffled = [day for day in days if {kinds[span - 1] for span in day.window} == {SHUFFLED} and day.run]
    misled = [day for day in shuffled if day.candidate < day.quality - WORSE]
    assert misled, shuffled  # or the soak shows nothing
    assert all("which the live model was blessed on" in day.said for day in misled), misled
    inverted = [day for day in days if day.kind == INVERTED]
    assert all("relevance moved by" in reason(folder, day) for day in inverted), inverted
    base = str(folder / "serving" / "shop")
    for day in days:
        if day.version:
            at = datetime.datetime.fromisoformat(day.evening)
            (answer,) = lineage_serving.served(store, base, at, at)
            assert answer.push.version == day.version, (day, answer)
            assert answer.model is not None
            assert set(answer.model.spans) <= fit, (day, answer)


def reason(folder: pathlib.Path, day: Day) -> str:
    """Why the check of a day's own data refused them, from ML Metadata."""
    config = ranking_config.load(folder / "ranking.yaml")
    checks = Store(runs.metadata_connection(config, folder)).of_type("ExampleAnomalies")
    told = [str(each.properties["refused"]) for each in checks if each.properties.get("refused")]
    return "; ".join(told) if day.number in day.refused else ""


def given(store: Store, run: str) -> list[Any]:
    """The artifacts that a run's steps gave."""
    steps = store.steps([store.run(run)])[0]
    return list(store.artifacts({link.artifact for each in steps for link in each.outputs}).values())


def plot(days: Sequence[Day]) -> str:
    """What served each evening by its NDCG@10 on the reference lists, as SVG; pushes are dots, other outcomes ticks."""
    width, height, left, top = 900, 300, 60, 30
    values = [day.quality for day in days if not np.isnan(day.quality)]
    low, high = min(values) - 0.01, max(values) + 0.01
    x = lambda day: left + (width - left - 20) * (day.number - 1) / max(1, len(days) - 1)  # noqa: E731
    y = lambda value: top + (height - 2 * top) * (high - value) / (high - low)  # noqa: E731
    colours = {"PUSHED": "#1a7f37", "NOT_BLESSED": "#bc4c00", "DATA_REFUSED": "#cf222e", "NOTHING_TO_DO": "#8c959f"}
    line = " ".join(f"{x(day):.1f},{y(day.quality):.1f}" for day in days if not np.isnan(day.quality))
    marks = "".join(
        f'<circle cx="{x(d):.1f}" cy="{y(d.quality) if d.exit == "PUSHED" else height - top:.1f}" r="4" '
        f'fill="{colours.get(d.exit, "black")}"><title>day {d.number}, {d.kind}: {d.exit}</title></circle>'
        for d in days
        if not np.isnan(d.quality)
    )
    legend = "".join(
        f'<text x="{left + 150 * i}" y="{height - 4}" fill="{colour}">{name.lower().replace("_", " ")}</text>'
        for i, (name, colour) in enumerate(colours.items())
    )
    scale = "".join(f'<text x="4" y="{y(v):.1f}">{v:.3f}</text>' for v in (low + 0.01, high - 0.01))
    title = f'<text x="{left}" y="16">NDCG@10 of what serves, {len(days)} days</text>'
    style = 'font-family="sans-serif" font-size="12"'
    drawn = f'<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="2"/>'
    box = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" {style}>'
    return f"{box}{title}{scale}{drawn}{marks}{legend}</svg>\n"


def summary(days: Sequence[Day]) -> str:
    """The figures of a soak in a few lines."""
    counts = {exit.name: sum(day.exit == exit.name for day in days) for exit in Exit}
    outcomes = ", ".join(f"{count} {name.lower().replace('_', ' ')}" for name, count in counts.items() if count)
    kinds = ", ".join(f"{[d.kind for d in days].count(kind)} {kind}" for kind in dict.fromkeys(d.kind for d in days))
    seconds = [day.seconds for day in days]
    refused = spans.said(sorted({each for day in days for each in day.refused}))
    return (
        f"{len(days)} days ({kinds}): {outcomes}; refused spans {refused or 'none'}\n"
        f"NDCG@10 of what serves: first {days[0].quality:.4f}, last {days[-1].quality:.4f}; "
        f"{np.median(seconds):.0f} s a day (median), {sum(seconds) / 60:.0f} min in all"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--folder", type=pathlib.Path)
    arguments = parser.parse_args()
    folder = (arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="soak-"))).absolute()
    print(f"soak: {folder}")
    lived = soak(folder, arguments.days)
    print(summary(lived))
    check(folder, lived)
    print(f"every day was as it should be; {folder / 'metric.svg'}")


if __name__ == "__main__":
    main()
