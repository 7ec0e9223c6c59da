"""Decides whether a retraining is worth it, runs it, and reports its outcome: `tfx-ranking retrain`.

Input: `ranking.yaml` and ML Metadata.  Output: an `Outcome` with an exit code.

Nothing is stored beside ML Metadata.  A file is new when the live model's run, found by the model's digest, did not
read it.  So after a run that was killed, or a span that was refused, the next call looks at the same files again.

New data are checked by the pipeline's own first steps, over the new files alone and one span at a time.  Only the new
files are read twice, each check is an ordinary execution, and TFX's cache answers for the files of earlier checks.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.components.ingestion import sources, spans
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.pipelines.lineage.live_run import LiveRun, live_run
from tfx_ranking.pipelines.lineage.store import Store
from tfx_ranking.pipelines.lineage.values import Artifact
from tfx_ranking.pipelines.metadata.connection import config_connection
from tfx_ranking.pipelines.retraining.exit_codes import Exit

NO_PUSH = "push.base: retraining compares new data with the model that serves; set push.base to its directory."
WOULD_TRAIN = "would train"  # the outcome of a dry run, instead of "pushed"


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of checking the new files of one span, or all new files when the input has no spans."""

    span: int | None
    files: tuple[str, ...]
    lists: int = 0
    refused: str = ""  # why the files must not be trained on; "" when they may
    moved: tuple[str, ...] = ()  # the drifts that are a reason to train, one sentence each
    drift: Mapping[str, float] = dataclasses.field(default_factory=dict)  # of every feature and of the label

    @property
    def name(self) -> str:
        """The checked files in messages: "span 7" or "2 new files"."""
        files = f"{len(self.files)} new file{'s' * (len(self.files) != 1)}"
        return files if self.span is None else f"span {self.span}"


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether to train, on which files, and why.  `exit` is None when there is a reason to train."""

    config: RankingConfig
    live: LiveRun | None
    source: Mapping[str, Any]  # the files to train on: the window without refused files
    checks: tuple[Check, ...] = ()
    reasons: tuple[str, ...] = ()  # for training
    against: tuple[str, ...] = ()  # why not to train, or not yet
    exit: Exit | None = None

    @property
    def refused(self) -> tuple[Check, ...]:
        return tuple(each for each in self.checks if each.refused)


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs of the pipeline, or of its first steps, in one process: one run for each set of files."""

    sources: tuple[Mapping[str, Any], ...]
    check: Mapping[str, str] | None = (
        None  # the live model's `statistics` and `schema` by uri; None: the whole pipeline
    )


@dataclasses.dataclass(frozen=True)
class RunResult:
    """How a run ended; `failure` is "" for a run that succeeded."""

    run_id: str
    failure: str = ""
    data_error: bool = False  # the run failed because of its input


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a call of `retrain` ended."""

    exit: Exit
    message: str  # one line
    decision: Decision
    run_id: str = ""  # of the training; "" when nothing was trained, as in a dry run

    @property
    def name(self) -> str:
        """The outcome in one or two words, as in "not blessed"."""
        return WOULD_TRAIN if self.exit == Exit.PUSHED and not self.run_id else self.exit.outcome

    @property
    def line(self) -> str:
        """Name and message; the message alone when it begins with the name."""
        return self.message if self.message.startswith(self.name) else f"{self.name}: {self.message}"


Runner = Callable[[Job], Sequence[RunResult]]  # gives one result for each of the job's sources


def retrain(
    config_file: pathlib.Path,
    root: pathlib.Path,
    run: Runner,
    dry_run: bool = False,
    now: datetime.datetime | None = None,
    on_decision: Callable[[Decision], None] = lambda decision: None,
) -> Outcome:
    """Decides whether to retrain, and does so with `run` unless `dry_run`.

    now: the time that the live model's age is measured to; the current time when None.  on_decision: called with the
    decision before anything is trained.  Raises ConfigError for a config without `push`, DataError when the input has
    no files.
    """
    decision = decide(config_file, root, run, now or datetime.datetime.now(datetime.timezone.utc))
    on_decision(decision)
    if decision.exit is not None:
        return Outcome(decision.exit, "; ".join(decision.against), decision)
    if dry_run:
        version = _rolled_back(decision, root)
        note = f"; the same data gave version {version}, which was rolled back and is not pushed again"
        return Outcome(Exit.PUSHED, "; ".join(decision.reasons) + (note if version else ""), decision)
    (result,) = run(Job((decision.source,)))
    if result.failure:
        exit = Exit.DATA_REFUSED if result.data_error else Exit.FAILED
        return Outcome(exit, result.failure, decision, result.run_id)
    exit, message = _training_outcome(_store(decision.config, root), result.run_id)
    return Outcome(exit, message, decision, result.run_id)


def decide(config_file: pathlib.Path, root: pathlib.Path, run: Runner, now: datetime.datetime) -> Decision:
    """Looks for new files, checks them with `run`, and weighs the reasons to train.  Without new files nothing runs."""
    config = ranking_config.load(config_file)
    if config.push is None:
        raise ConfigError(NO_PUSH)
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
        unknown = f"ML Metadata has no run that made version {live.version}: all data count as new"
        return Decision(config, live, source, reasons=(unknown,))
    by_span: dict[int | None, list[str]] = {}
    for each in new:
        by_span.setdefault(each.get("span"), []).append(each["path"])
    in_order = sorted(by_span.items(), key=lambda each: each[0] or 0)
    alone = tuple(_only(source, paths) for _, paths in in_order)
    results = run(Job(alone, {"statistics": live.statistics, "schema": live.schema}))
    store = _store(config, root)
    checks = [_check(store, span, paths, each) for (span, paths), each in zip(in_order, results)]
    return judge(config, live, source, checks, now)


def judge(
    config: RankingConfig, live: LiveRun, source: Mapping[str, Any], checks: Sequence[Check], now: datetime.datetime
) -> Decision:
    """Chooses which of the checked files to train on, and whether there is a reason to."""
    refused = [each for each in checks if each.refused]
    good = [each for each in checks if not each.refused]
    bad = {path for each in refused for path in each.files}
    left = sources.keep_files(dict(source), lambda entry: entry["path"] not in bad)
    decision = Decision(config, live, left, tuple(checks))
    if not good or (refused and refused[0].span is None):
        against = [f"{each.name} refused: {each.refused}" for each in refused]
        return dataclasses.replace(decision, against=tuple(against), exit=Exit.DATA_REFUSED)
    reasons, against = _reasons(config, live, good, now)
    return dataclasses.replace(
        decision,
        reasons=tuple(reasons),
        against=() if reasons else tuple(against),
        exit=None if reasons else Exit.NOTHING_TO_DO,
    )


def _rolled_back(decision: Decision, root: pathlib.Path) -> int | None:
    """The rolled-back version that was trained on exactly these files; the same config would give its bytes again."""
    assert decision.config.push is not None
    ledger = ServingBase(decision.config.push.base).ledger()
    rolled_back = {each.digest: each.version for each in ledger.entries if ledger.rolled_back(each.digest)}
    files = {each["digest"] for entries in decision.source["files"].values() for each in entries}
    if not rolled_back:
        return None
    store = _store(decision.config, root)
    return next((v for digest, v in rolled_back.items() if live_run(store, str(v), digest).files == files), None)


def _nothing_new(live: LiveRun) -> str:
    trained_on = f" (spans {spans.text(live.spans)})" if live.spans else ""
    return f"no new data since version {live.version}{trained_on}"


def _only(source: Mapping[str, Any], paths: Sequence[str]) -> dict[str, Any]:
    return sources.keep_files(dict(source), lambda entry: entry["path"] in paths)


def _check(store: Store, span: int | None, paths: Sequence[str], result: RunResult) -> Check:
    check = Check(span, tuple(paths))
    if result.failure:
        if not result.data_error:
            raise RankingError(f"{check.name} could not be checked: {result.failure}")
        return dataclasses.replace(check, refused=result.failure)
    anomalies = [each.properties for each, _ in _outputs(store, result.run_id) if each.type == "ExampleAnomalies"][-1]
    return dataclasses.replace(
        check,
        lists=anomalies["lists"],
        refused=anomalies["refused"],
        moved=tuple(anomalies["moved"]),
        drift=anomalies["drift"],
    )


def _reasons(
    config: RankingConfig, live: LiveRun, good: Sequence[Check], now: datetime.datetime
) -> tuple[list[str], list[str]]:
    """(reasons to train, what is not enough to be one)"""
    limits = config.retrain
    numbers = [each.span for each in good if each.span is not None]
    name = f"span{'s' * (len(numbers) > 1)} {spans.text(numbers)}" if numbers else good[0].name
    lists = sum(each.lists for each in good)
    new = f"{lists:,} new lists in {name}"
    if limits.min_lists is None and limits.max_age is None and limits.drift is None:
        return [new], []
    reasons: list[str] = []
    against: list[str] = []
    if limits.min_lists is not None:
        enough = lists >= limits.min_lists
        (reasons if enough else against).append(f"{new}, retrain.min_lists is {limits.min_lists:,}")
    if limits.drift is not None:
        moved = [f"{each.name}: {drift}" for each in good for drift in each.moved]
        reasons += moved
        against += [] if moved else [f"{name}: nothing drifted beyond retrain.drift"]
    if limits.max_age is not None and live.made is not None:
        days = (now - live.made).total_seconds() / 86400
        age = f"version {live.version} is {days:.1f} days old, retrain.max_age is {limits.max_age:g}"
        (reasons if days > limits.max_age else against).append(age)
    return reasons, against


def _training_outcome(store: Store, run_id: str) -> tuple[Exit, str]:
    """Exit code and message of a finished training."""
    by_type = {artifact.type: (artifact, state) for artifact, state in _outputs(store, run_id)}
    pushed, _ = by_type["PushedModel"]
    if pushed.properties.get("pushed"):
        return (Exit.NOTHING_TO_DO if pushed.properties.get("unchanged") else Exit.PUSHED), pushed.summary
    if pushed.properties.get("refused") == "not blessed":
        _, evaluated = by_type["ModelBlessing"]
        if evaluated == "cached":
            same = "the same data, config and live model as before, and the same result: "
            return Exit.NOTHING_TO_DO, same + pushed.summary
        return Exit.NOT_BLESSED, pushed.summary
    # Rolled back by hand: until other data arrive, training gives the same model again.
    rolled_back = pushed.properties.get("refused") == "rolled back"
    return (Exit.NOTHING_TO_DO if rolled_back else Exit.FAILED), pushed.summary


def _outputs(store: Store, run_id: str) -> list[tuple[Artifact, str]]:
    """The artifacts of a run, each with the state of its step: "cached" when TFX's cache gave it."""
    steps = store.steps([store.run(run_id)])[0]
    artifacts = store.artifacts({link.artifact for each in steps for link in each.outputs})
    return [(artifacts[link.artifact], each.state) for each in steps for link in each.outputs]


def _store(config: RankingConfig, root: pathlib.Path) -> Store:
    return Store(config_connection(config, root))
