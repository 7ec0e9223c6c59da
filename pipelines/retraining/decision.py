"""Is a retraining worth it, may its data be trained on, and what came of it: one shot, for whatever keeps time to call.

Enters: `ranking.yaml`.  Leaves: an exit code, and what a person wants to know.  The one idea: nothing is remembered
beside ML Metadata.  New is what the live model's run, found by its digest, did not read; so a run that was killed, or a
span that was refused, is simply looked at again.

New data are checked by the pipeline's own first steps over the new files alone, one span at a time: only they are read
twice, each check is an execution like any other, and TFX's cache answers for those of yesterday.
"""

import dataclasses
import datetime
import enum
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError, DataError, RankingError
from tfx_ranking.components.ingestion import sources, spans
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.pipelines.lineage.live_run import LiveRun, live_run
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact
from tfx_ranking.pipelines.metadata.connection import config_connection


class Exit(enum.IntEnum):
    """The exit codes of `tfx-ranking retrain`, for scripts to rely on."""

    PUSHED = 0
    FAILED = 1  # a step of the pipeline failed, or a command of another kind
    WRONG_USAGE = 2  # argparse's
    NOTHING_TO_DO = 10  # no new data, or no reason to train on them yet, or the same bytes came out
    NOT_BLESSED = 11  # trained, and the live model stays
    DATA_REFUSED = 12  # nothing was trained, since the new data must not be trained on
    INTERRUPTED = 130  # the same command goes on from what was done

    @property
    def said(self) -> str:
        return self.name.lower().replace("_", " ")


WOULD_TRAIN = "would train"  # a dry run's outcome in place of "pushed"


@dataclasses.dataclass(frozen=True)
class Check:
    """What was found in the new files of one span, or in all of them where the input has no spans."""

    span: int | None
    files: tuple[str, ...]
    lists: int = 0
    refused: str = ""  # why nothing may be trained on them; "" when it may
    moved: tuple[str, ...] = ()  # what is a reason to train
    drift: Mapping[str, float] = dataclasses.field(default_factory=dict)  # every feature and the label

    @property
    def what(self) -> str:
        files = f"{len(self.files)} new file{'s' * (len(self.files) != 1)}"
        return files if self.span is None else f"span {self.span}"


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether to train, on what, and why; `exit` None: train."""

    config: RankingConfig
    live: LiveRun | None
    source: Mapping[str, Any]  # what would be trained on: the window without what was refused
    checks: tuple[Check, ...] = ()
    reasons: tuple[str, ...] = ()  # to train
    against: tuple[str, ...] = ()  # why not, or not yet
    exit: Exit | None = None

    @property
    def refused(self) -> tuple[Check, ...]:
        return tuple(each for each in self.checks if each.refused)


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs of the pipeline, or of its first steps, one for each set of files, in one process."""

    sources: tuple[Mapping[str, Any], ...]
    check: Mapping[str, str] | None = None  # uris `statistics` and `schema`; None: the whole pipeline


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a run ended; `failure` "" when it went well."""

    run_id: str
    failure: str = ""
    of_the_data: bool = False  # it failed because of its input


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of it all."""

    exit: Exit
    said: str  # one line
    decision: Decision
    run_id: str = ""  # of the training; "" where nothing was trained, as in a dry run

    @property
    def what(self) -> str:
        """The outcome in a word or two."""
        return WOULD_TRAIN if self.exit == Exit.PUSHED and not self.run_id else self.exit.said

    @property
    def line(self) -> str:
        """The outcome and what was said of it, which may begin with it."""
        return self.said if self.said.startswith(self.what) else f"{self.what}: {self.said}"


Runner = Callable[[Job], Sequence[Ended]]  # one for each source


def retrain(
    config_file: pathlib.Path,
    root: pathlib.Path,
    run: Runner,
    dry_run: bool = False,
    now: datetime.datetime | None = None,
    decided: Callable[[Decision], None] = lambda decision: None,
) -> Outcome:
    """Asks whether a retraining is worth it, runs it with `run` unless `dry_run`, tells what happened.

    now: for the live model's age.  decided: called with the decision before anything is trained.  Raises ConfigError
    for a config that pushes nowhere, DataError for an input that is not there.
    """
    decision = decide(config_file, root, run, now or datetime.datetime.now(datetime.timezone.utc))
    decided(decision)
    if decision.exit is not None:
        return Outcome(decision.exit, "; ".join(decision.against), decision)
    if dry_run:
        back = _rolled_back(decision, root)
        but = f"; the same data gave version {back}, which was rolled back and is not pushed again" if back else ""
        return Outcome(Exit.PUSHED, "; ".join(decision.reasons) + but, decision)
    (ended,) = run(Job((decision.source,)))
    if ended.failure:
        exit = Exit.DATA_REFUSED if ended.of_the_data else Exit.FAILED
        return Outcome(exit, ended.failure, decision, ended.run_id)
    return Outcome(*_came_of(_store(decision.config, root), ended.run_id), decision, ended.run_id)


def decide(config_file: pathlib.Path, root: pathlib.Path, run: Runner, now: datetime.datetime) -> Decision:
    """The reason gate.  Nothing runs where there is nothing new; else the new files are checked with `run`."""
    config = ranking_config.load(config_file)
    if config.push is None:
        raise ConfigError("push.base: retraining goes by the model that serves; say where that is.")
    base = ServingBase(config.push.base)
    state = base.state()
    source = sources.resolve(config.data, base.live_spans)
    if not state["version"]:
        return Decision(config, None, source, reasons=("nothing serves yet: the first training",))
    live = live_run(_store(config, root), str(state["version"]), state["digest"])
    new = [each for entries in source["files"].values() for each in entries if each["digest"] not in live.files]
    if not new:
        return Decision(config, live, source, against=(_nothing_new(live),), exit=Exit.NOTHING_TO_DO)
    if not live.run:
        known = f"lineage knows no run that made version {live.version}: all data are new"
        return Decision(config, live, source, reasons=(known,))
    by_span: dict[int | None, list[str]] = {}
    for each in new:
        by_span.setdefault(each.get("span"), []).append(each["path"])
    in_order = sorted(by_span.items(), key=lambda each: each[0] or 0)
    alone = tuple(_only(source, paths) for _, paths in in_order)
    ended = run(Job(alone, {"statistics": live.statistics, "schema": live.schema}))
    store = _store(config, root)
    checks = [_check(store, span, paths, each) for (span, paths), each in zip(in_order, ended)]
    return judge(config, live, source, checks, now)


def judge(
    config: RankingConfig, live: LiveRun, source: Mapping[str, Any], checks: Sequence[Check], now: datetime.datetime
) -> Decision:
    """Which of the checked data to train on, and whether that is worth it."""
    refused = [each for each in checks if each.refused]
    good = [each for each in checks if not each.refused]
    bad = {path for each in refused for path in each.files}
    left = sources.only(dict(source), lambda entry: entry["path"] not in bad)
    found = Decision(config, live, left, tuple(checks))
    if not good or (refused and refused[0].span is None):
        why = tuple(f"{each.what} refused: {each.refused}" for each in refused)
        return dataclasses.replace(found, against=why, exit=Exit.DATA_REFUSED)
    reasons, against = _reasons(config, live, good, now)
    return dataclasses.replace(
        found,
        reasons=tuple(reasons),
        against=() if reasons else tuple(against),
        exit=None if reasons else Exit.NOTHING_TO_DO,
    )


def runner_here(config_file: pathlib.Path, root: pathlib.Path, orchestrator: str = "beam") -> Runner:
    """Runs jobs in this process, one after the other: TFX is imported once for many."""
    from tfx_ranking.pipelines.running import local

    def run_one(source: Mapping[str, Any], check: Mapping[str, str] | None) -> Ended:
        try:
            return Ended(local.run_here(config_file, root, orchestrator, job={"source": source, "check": check}))
        except Exception as error:
            return Ended("", local.reason(error), isinstance(local.first_cause(error), DataError))

    return lambda job: [run_one(source, job.check) for source in job.sources]


def _rolled_back(decision: Decision, root: pathlib.Path) -> int | None:
    """The version that was trained on just these files and rolled back: with the same config they give its bytes."""
    assert decision.config.push is not None
    ledger = ServingBase(decision.config.push.base).ledger()
    back = {each.digest: each.version for each in ledger.entries if ledger.rolled_back(each.digest)}
    files = {each["digest"] for entries in decision.source["files"].values() for each in entries}
    if not back:
        return None
    store = _store(decision.config, root)
    return next((v for digest, v in back.items() if live_run(store, str(v), digest).files == files), None)


def _nothing_new(live: LiveRun) -> str:
    of = f" (spans {spans.said(live.spans)})" if live.spans else ""
    return f"no new data since version {live.version}{of}"


def _only(source: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    return sources.only(dict(source), lambda entry: entry["path"] in paths)


def _check(store: Store, span: int | None, paths: Sequence[str], ended: Ended) -> Check:
    found = Check(span, tuple(paths))
    if ended.failure:
        if not ended.of_the_data:
            raise RankingError(f"{found.what} could not be checked: {ended.failure}")
        return dataclasses.replace(found, refused=ended.failure)
    told = [each.properties for each, _ in _given(store, ended.run_id) if each.type == "ExampleAnomalies"][-1]
    return dataclasses.replace(
        found, lists=told["lists"], refused=told["refused"], moved=tuple(told["moved"]), drift=told["drift"]
    )


def _reasons(
    config: RankingConfig, live: LiveRun, good: Sequence[Check], now: datetime.datetime
) -> tuple[list[str], list[str]]:
    """(reasons to train, what falls short of one)"""
    asked = config.retrain
    numbers = [each.span for each in good if each.span is not None]
    what = f"span{'s' * (len(numbers) > 1)} {spans.said(numbers)}" if numbers else good[0].what
    lists = sum(each.lists for each in good)
    new = f"{lists:,} new lists in {what}"
    if asked.min_lists is None and asked.max_age is None and asked.drift is None:
        return [new], []
    reasons: list[str] = []
    against: list[str] = []
    if asked.min_lists is not None:
        enough = lists >= asked.min_lists
        (reasons if enough else against).append(f"{new}, {asked.min_lists:,} asked for")
    if asked.drift is not None:
        moved = [f"{each.what}: {one}" for each in good for one in each.moved]
        reasons += moved
        against += [] if moved else [f"{what}: nothing moved beyond retrain.drift"]
    if asked.max_age is not None and live.made is not None:
        days = (now - live.made).total_seconds() / 86400
        old = f"version {live.version} is {days:.1f} days old, retrain.max_age is {asked.max_age:g}"
        (reasons if days > asked.max_age else against).append(old)
    return reasons, against


def _came_of(store: Store, run_id: str) -> tuple[Exit, str]:
    kinds = {artifact.type: (artifact, state) for artifact, state in _given(store, run_id)}
    pushed, _ = kinds["PushedModel"]
    if pushed.properties.get("pushed"):
        return (Exit.NOTHING_TO_DO if pushed.properties.get("unchanged") else Exit.PUSHED), pushed.summary
    if pushed.properties.get("refused") == "not blessed":
        _, judged = kinds["ModelBlessing"]
        again = "the same data, config and live model as before, and the same answer: "
        return (
            (Exit.NOTHING_TO_DO, again + pushed.summary) if judged == "cached" else (Exit.NOT_BLESSED, pushed.summary)
        )
    # Rolled back by hand: training on the same data again gives the same model, until other data come.
    rolled_back = pushed.properties.get("refused") == "rolled back"
    return (Exit.NOTHING_TO_DO if rolled_back else Exit.FAILED), pushed.summary


def _given(store: Store, run_id: str) -> list[tuple[Artifact, str]]:
    """What a run's steps gave, each with its step's state, since the cache may have given it."""
    steps = store.steps([store.run(run_id)])[0]
    given = store.artifacts({link.artifact for each in steps for link in each.outputs})
    return [(given[link.artifact], each.state) for each in steps for link in each.outputs]


def _store(config: RankingConfig, root: pathlib.Path) -> Store:
    return Store(config_connection(config, root))
