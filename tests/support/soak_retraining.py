"""Simulates weeks of retraining with the real pipeline, to show that bad data never make the live model worse.

    python tests/support/soak_retraining.py --days 60 --folder soak

A shop's log has one file a day.  Some files are missing, late, delivered twice, malformed, or poisoned: with inverted
labels, which changes the labels' distribution, or with shuffled labels, which does not.  Each day ends with `retrain`;
one run is killed in its trainer.  `soak` returns what happened on each day; `check` verifies it with ML Metadata and
the models.  All runs are made in one process, which imports TFX once.
"""

import argparse
import dataclasses
import datetime
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ingested
import numpy as np
import pyarrow as pa
import pyarrow.csv

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.ingestion import spans
from tfx_ranking.components.lists import list_examples
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.push import versions
from tfx_ranking.pipelines import search_logs
from tfx_ranking.pipelines.lineage import served as lineage_serving
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.metadata import run_records
from tfx_ranking.pipelines.metadata.connection import config_connection
from tfx_ranking.pipelines.retraining import decision as retraining
from tfx_ranking.pipelines.retraining.exit_codes import Exit
from tfx_ranking.pipelines.running import process

GOOD, MISSING, LATE, TWICE, MALFORMED, INVERTED, SHUFFLED, KILLED = (
    *("good", "missing", "late", "twice", "malformed", "inverted", "shuffled", "killed"),
)
# The days before the shuffled labels cannot be trained on, so the shuffled day is the whole window: beside good days it
# would hardly make a model worse.
WEEK = (GOOD, TWICE, LATE, INVERTED, MALFORMED, SHUFFLED, KILLED)
FORTNIGHT = (  # repeated after the first week
    *(GOOD, GOOD, GOOD, LATE, GOOD, TWICE, GOOD),
    *(MISSING, INVERTED, SHUFFLED, GOOD, MALFORMED, GOOD, GOOD),
)
DELAY = 2  # days that a late log is late
WINDOW, PREVIOUS = 3, 3  # spans
LISTS = 500  # a day
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
        "bless": {"min_improvement": 0.0, "previous_spans": PREVIOUS},
    },
    "push": {"base": "serving/shop", "version": "next", "keep": 100},
    "retrain": {"refuse": {"label": 0.1}},
}


@dataclasses.dataclass
class Day:
    """What was delivered on a day, and the outcome of `retrain`."""

    number: int
    kind: str
    exit: str = ""
    message: str = ""
    run: str = ""  # of the training
    window: tuple[int, ...] = ()  # the spans to train on, by the calendar
    refused: tuple[int, ...] = ()
    version: str = ""  # the version that serves in the evening
    quality: float = float("nan")  # its NDCG@10 on the reference lists
    candidate: float = float("nan")  # NDCG@10 of the model that was trained today
    evening: str = ""  # by the machine's clock, which ML Metadata uses, too
    seconds: float = 0.0


def calendar(days: int) -> list[str]:
    """What is delivered on each day, from day 1."""
    again = [FORTNIGHT[i % len(FORTNIGHT)] for i in range(max(0, days - len(WEEK)))]
    return [*WEEK, *again][:days]


def soak(folder: pathlib.Path, days: int) -> list[Day]:
    """Simulates the days, with all files in `folder`; `days.jsonl` has a line for each day.

    A soak that was killed continues after its last complete day.
    """
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    file = folder / "ranking.yaml"
    file.write_text(json.dumps(CONFIG))
    simulation = search_logs.Simulation(
        queries=LISTS * (days + 2), days=days + 2, products=300, min_items=5, max_items=8
    )
    *logs, one, other = (table for _, table in search_logs.simulate_days(simulation))
    reference = Reference(folder, pa.concat_tables([one, other]))
    kinds, run = calendar(days), runner(file, folder)
    past = read_days(folder) if (folder / "days.jsonl").exists() else []
    for number, kind in list(enumerate(kinds, 1))[len(past) :]:
        deliver(folder, number, kinds, logs)
        expected = training_spans(kinds, number)
        day = Day(number, kind, window=tuple(expected))
        began = time.monotonic()
        now = FIRST_DAY + datetime.timedelta(days=number)
        if kind == KILLED:
            kill_a_run(file, folder, retraining.decide(file, folder, run, now))
        outcome = retraining.retrain(file, folder, run, now=now)
        day.seconds = round(time.monotonic() - began, 1)
        day.exit, day.message, day.run = outcome.exit.name, outcome.message, outcome.run_id
        day.refused = tuple(each.span for each in outcome.decision.refused if each.span is not None)
        day.version = str(versions.ServingBase(folder / "serving" / "shop").state()["version"])
        day.quality = reference.quality(folder / "serving" / "shop" / day.version) if day.version else day.quality
        day.candidate = reference.quality(exported(file, folder, day.run)) if day.run else day.candidate
        day.evening = datetime.datetime.now(datetime.timezone.utc).isoformat()
        past.append(day)
        with (folder / "days.jsonl").open("a") as output:
            output.write(json.dumps(dataclasses.asdict(day)) + "\n")
        served = f"version {day.version:3} ndcg@10 {day.quality:.4f} (trained {day.candidate:.4f})"
        print(f"day {number:2} {kind:9} {day.exit:13} {served} {day.seconds:5.1f} s  {day.message}", flush=True)
    return past


def runner(file: pathlib.Path, folder: pathlib.Path) -> retraining.Runner:
    """Runs jobs in this process, one after the other, so that TFX is imported once for all of them."""

    def run_one(source: Mapping[str, Any], check: Mapping[str, str] | None) -> retraining.RunResult:
        try:
            run_id = process.run_here(file, folder, "local", job={"source": source, "check": check})
        except Exception as error:
            data_error = isinstance(run_records.first_cause(error), DataError)
            return retraining.RunResult("", run_records.failure_text(error), data_error)
        return retraining.RunResult(run_id)

    return lambda job: [run_one(source, job.check) for source in job.sources]


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
    """The day on which a day's log arrives; None when it never does."""
    return None if kind == MISSING else number + DELAY if kind == LATE else number


def training_spans(kinds: Sequence[str], today: int) -> list[int]:
    """The spans that a training of today must read: those in the window that have arrived and may be trained on."""
    arrived = [n for n in range(1, today + 1) if (delivered_on(n, kinds[n - 1]) or today + 1) <= today]
    newest = max(arrived, default=0)
    bad = (MALFORMED, INVERTED)
    return [n for n in arrived if n > newest - WINDOW and kinds[n - 1] not in bad]


def kill_a_run(file: pathlib.Path, folder: pathlib.Path, decision: retraining.Decision) -> None:
    """Starts the training of the decision, if there is one, and kills it when its trainer writes."""
    if decision.exit is not None:
        return
    job = folder / "killed.job.json"
    job.write_text(json.dumps(dataclasses.asdict(retraining.Job((decision.source,)))))
    script = pathlib.Path(__file__).with_name("killed_run.py")
    command = [sys.executable, str(script), "output", "RankingTrainer", str(file), "--root", str(folder)]
    done = subprocess.run([*command, "--job", str(job)], capture_output=True, check=False)
    assert done.returncode == -9, done.stderr.decode()[-2000:]


class Reference:
    """Two good days that no model was trained on; they measure the live model's quality."""

    def __init__(self, folder: pathlib.Path, log: pa.Table) -> None:
        self.known: dict[str, float] = {}
        pyarrow.csv.write_csv(log, str(folder / "reference.csv"))
        raw = {**CONFIG, "data": {**CONFIG["data"], "input": str(folder / "reference.csv"), "window": None}}
        raw["data"]["splits"] = {"validation": 0.0, "test": 0.0}
        config = ranking_config.parse(raw)
        shutil.rmtree(folder / "reference", ignore_errors=True)
        ingested.run(config, folder / "reference")
        self.records = list(list_examples.read_records(list_examples.split_files(str(folder / "reference"), "train")))
        table = {"relevance": list_examples.columns(config)["relevance"]}
        batch = list_examples.decode(self.records, table)
        self.labels, self.row_splits = batch.items["relevance"], batch.row_splits

    def quality(self, model: pathlib.Path) -> float:
        """NDCG@10 of a SavedModel, through its exported signature."""
        digest = model_files.digest(model)
        if digest not in self.known:
            import tensorflow as tf

            from tfx_ranking.components.evaluation.scores import score_lists

            loaded = tf.saved_model.load(str(model))
            scores = score_lists(loaded.signatures["list_example"], self.records, self.row_splits)
            values = ranking_metrics.per_list(["ndcg@10"], scores, self.labels, self.row_splits)["ndcg@10"]
            self.known[digest] = float(np.nanmean(values))
        return self.known[digest]


def exported(file: pathlib.Path, folder: pathlib.Path, run: str) -> pathlib.Path:
    """The model that a run exported, whether it was pushed or not."""
    store = Store(config_connection(ranking_config.load(file), folder))
    (model,) = (each for each in outputs(store, run) if each.digest and each.type == "Model" and not each.copied)
    return pathlib.Path(model.uri) / "Format-Serving"


def check(folder: pathlib.Path, days: Sequence[Day]) -> None:
    """Raises AssertionError for a day with a wrong outcome."""
    config = ranking_config.load(folder / "ranking.yaml")
    store = Store(config_connection(config, folder))
    best, kinds = 0.0, [day.kind for day in days]
    trained: set[int] = set()
    for day in days:
        assert day.exit in (Exit.PUSHED.name, Exit.NOT_BLESSED.name, Exit.DATA_REFUSED.name, Exit.NOTHING_TO_DO.name), (
            day
        )
        if day.run:  # ML Metadata has exactly the window's spans
            examples = [
                each for each in outputs(store, day.run) if each.type == "Examples" and "spans" in each.properties
            ]
            assert {each.spans for each in examples} == {day.window}, (day, [each.spans for each in examples])
            assert not {MALFORMED, INVERTED} & {kinds[span - 1] for span in day.window}
            trained |= {*day.window}
        if day.kind in (MALFORMED, INVERTED):
            assert day.number in day.refused, day
        if day.kind == SHUFFLED:
            assert day.number not in day.refused, day  # the labels' distribution is unchanged
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
    assert misled, shuffled  # otherwise the soak proves nothing
    assert all("which the live model was blessed on" in day.message for day in misled), misled
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
    """Why a day's data were refused, from ML Metadata."""
    config = ranking_config.load(folder / "ranking.yaml")
    checks = Store(config_connection(config, folder)).of_type("ExampleAnomalies")
    reasons = [str(each.properties["refused"]) for each in checks if each.properties.get("refused")]
    return "; ".join(reasons) if day.number in day.refused else ""


def outputs(store: Store, run: str) -> list[Any]:
    """The output artifacts of a run's steps."""
    steps = store.steps([store.run(run)])[0]
    return list(store.artifacts({link.artifact for each in steps for link in each.outputs}).values())


def plot(days: Sequence[Day]) -> str:
    """NDCG@10 on the reference lists over the days, as SVG.

    The line is the live model of each evening; a dot is the model of a day (hollow: not pushed); a tick below is a day
    without a training.
    """
    width, height, left, top, bottom = 900, 320, 60, 30, 260
    known = [value for day in days for value in (day.quality, day.candidate) if not np.isnan(value)]
    low, high = min(known), max(known)
    x = {day.number: left + (width - left - 20) * (day.number - 1) / max(1, len(days) - 1) for day in days}

    def y(value: float) -> float:
        return top + (bottom - top) * (high - value) / max(high - low, 1e-9)

    def mark(day: Day) -> str:
        pushed = day.exit == Exit.PUSHED.name
        about = f"<title>day {day.number}, {day.kind}: {Exit[day.exit].outcome}</title>"
        if np.isnan(day.candidate):
            at = f'x="{x[day.number] - 1:.1f}" y="{bottom + 10}" width="2" height="10"'
            return f'<rect {at} fill="{"#cf222e" if day.exit == Exit.DATA_REFUSED.name else "#8c959f"}">{about}</rect>'
        look = 'fill="#0969da"' if pushed else 'fill="white" stroke="#cf222e" stroke-width="2"'
        return f'<circle cx="{x[day.number]:.1f}" cy="{y(day.candidate):.1f}" r="4" {look}>{about}</circle>'

    line = " ".join(f"{x[day.number]:.1f},{y(day.quality):.1f}" for day in days if not np.isnan(day.quality))
    legend = "line: the live model; dots: each day's model, hollow: not pushed; ticks: data refused, nothing to do"
    texts = [(left, 18, f"NDCG@10 over {len(days)} days"), (left, height - 8, legend)]
    texts += [(8, y(value) + 4, f"{value:.3f}") for value in (low, high)]
    written = "".join(f'<text x="{at:.1f}" y="{down:.1f}">{text}</text>' for at, down, text in texts)
    curve = f'<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="2"/>'
    box = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13"'
    return f"<svg {box}>{written}{curve}{''.join(map(mark, days))}</svg>\n"


def summary(days: Sequence[Day]) -> str:
    """The results of a soak in a few lines."""
    counts = {exit.name: sum(day.exit == exit.name for day in days) for exit in Exit}
    outcomes = ", ".join(f"{count} {name.lower().replace('_', ' ')}" for name, count in counts.items() if count)
    kinds = ", ".join(f"{[d.kind for d in days].count(kind)} {kind}" for kind in dict.fromkeys(d.kind for d in days))
    seconds = [day.seconds for day in days]
    refused = spans.text(sorted({each for day in days for each in day.refused}))
    return (
        f"{len(days)} days ({kinds}): {outcomes}; refused spans {refused or 'none'}\n"
        f"NDCG@10 of the live model: first {days[0].quality:.4f}, last {days[-1].quality:.4f}; "
        f"{np.median(seconds):.0f} s a day (median), {sum(seconds) / 60:.0f} min in all"
    )


def read_days(folder: pathlib.Path) -> list[Day]:
    """The complete days of a soak, which may still be running."""
    documents = [json.loads(line) for line in (folder / "days.jsonl").read_text().splitlines()]
    return [Day(**{**each, "window": (*each["window"],), "refused": (*each["refused"],)}) for each in documents]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=60)
    parser.add_argument("--folder", type=pathlib.Path)
    parser.add_argument(
        "--look", action="store_true", help="only check and plot the complete days of a soak in --folder"
    )
    arguments = parser.parse_args()
    folder = (arguments.folder or pathlib.Path(tempfile.mkdtemp(prefix="soak-"))).absolute()
    print(f"soak: {folder}")
    past = read_days(folder) if arguments.look else soak(folder, arguments.days)
    (folder / "metric.svg").write_text(plot(past))
    print(summary(past))
    check(folder, past)
    print(f"every day had the right outcome; {folder / 'metric.svg'}")


if __name__ == "__main__":
    main()
