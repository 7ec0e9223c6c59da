"""Runs `tfx-ranking push` and `tfx-ranking rollback`, and records them in ML Metadata as RankingPusher does.

Input: a model's directory or a version, a base directory, and a metadata store.  Output: what was done, and an
execution in the store.  The model is checked before it is visible, as in the pipeline.  When no store can be found, the
push still runs and the result says why nothing was recorded.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

from ml_metadata import errors

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, PushRefused
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import pushing, versions
from tfx_ranking.components.push.labels import STABLE
from tfx_ranking.components.push.ledger import Entry
from tfx_ranking.components.push.pushing import Check, Pushed, Terms
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.components.serving import samples
from tfx_ranking.pipelines.metadata import push_records
from tfx_ranking.pipelines.metadata.connection import try_to_write

_UNIX_TIMES = 1_000_000_000  # a version of at least this number is a time in seconds


@dataclasses.dataclass(frozen=True)
class RecordedPush:
    """What a push or a rollback did, and where it is recorded."""

    base: str
    pushed: Pushed
    reason: str
    execution: int | None = None  # in ML Metadata
    not_recorded: str = ""  # why ML Metadata has no execution

    @property
    def summary(self) -> str:
        """One line."""
        pushed = self.pushed
        if pushed.unchanged:
            return f"nothing changed, version {pushed.version} serves these bytes"
        if pushed.restores is None:
            return f"pushed version {pushed.version}" + f", now {pushed.label}" * bool(pushed.label)
        if pushed.label:
            return f"rolled back: version {pushed.version} is {pushed.label} again, {pushed.rollback_of or 'none'} was"
        stopped = f", {pushed.rollback_of} no longer serves" * bool(pushed.rollback_of)
        return f"rolled back: version {pushed.version} has the bytes of {pushed.restores}{stopped}"


def push(
    directory: storage.PathLike,
    base: storage.PathLike,
    force: bool = False,
    metadata: str | None = None,
    check: Check = samples.check,
) -> RecordedPush:
    """Pushes the model in `directory`: a SavedModel, an exporter's artifact, or a folder of versions.

    Where labels are used, a version that is under `base` already becomes the stable one.
    Raises PushRefused, unless `force`: the model is not blessed in ML Metadata, was rolled back, or breaks clients.
    Raises PushRefused, even with `force`: it does not load or does not give its samples' answers.  Raises PushError:
    see `pushing.push`.
    """
    model = versions.model_directory(directory)
    if model is None:
        raise PushRefused(
            f"{directory}: expected a SavedModel (saved_model.pb and variables/), an exporter's artifact or a folder "
            "of versions; export the model first.",
            "no model",
        )
    store, why_no_store = try_to_write(metadata)
    destination = ServingBase(base)
    digest = model_files.digest(model)
    evaluation, judged = Entry(0), None
    try:
        if store is not None:
            judged = push_records.last_evaluation(store, digest)
            evaluation = Entry(0, blessing=judged.blessing, metric=judged.metric)
            if judged.blessing == "not blessed" and not force and destination.state()["digest"] != digest:
                why = f"it was evaluated and not blessed: {judged.reason}; --force pushes it anyway"
                raise PushRefused(why, "not blessed")
        terms = _terms(destination, store, force)
        if storage.absolute(model.parent) == destination.absolute:
            terms = dataclasses.replace(terms, label=STABLE)  # the user names an existing version to serve
        pushed = pushing.push(model, base, terms, check=check, about=evaluation)
    except PushError as error:
        _record_refusal(store, push_records.PUSH, base, digest, error)
        if isinstance(error, PushRefused):
            raise PushRefused(f"{model}: not pushed: {error}", error.kind) from error
        raise
    blessed = judged.blessing if judged and judged.blessing else "pushed by hand, without a blessing"
    done = RecordedPush(str(base), pushed, blessed + " (forced)" * force)
    return _recorded(store, why_no_store, push_records.PUSH, done)


def roll_back(
    base: storage.PathLike, to: int | None = None, metadata: str | None = None, check: Check = samples.check
) -> RecordedPush:
    """Serves the previous version again; see `pushing.roll_back`."""
    store, why_no_store = try_to_write(metadata)
    try:
        pushed = pushing.roll_back(base, to, _terms(ServingBase(base), store, False), check=check)
    except PushError as error:
        _record_refusal(store, push_records.ROLLBACK, base, "", error)
        if isinstance(error, PushRefused):
            raise PushRefused(f"{base}: not rolled back: {error}", error.kind) from error
        raise
    done = RecordedPush(str(base), pushed, "rolled back by hand")
    return _recorded(store, why_no_store, push_records.ROLLBACK, done)


def _terms(base: ServingBase, store: Any, force: bool) -> Terms:
    """The terms of ranking.yaml in the current folder when it pushes to this base, else guessed from the versions."""
    from tfx_ranking.components import config as ranking_config

    above = 0
    if store is not None:
        above = push_records.highest_version(store, base.folder) or 0
    file = pathlib.Path("ranking.yaml")
    config = ranking_config.load(file) if file.is_file() else None
    if config and config.push and ServingBase(config.push.base).absolute == base.absolute:
        return Terms.of(config, above=above, force=force)
    highest = max(base.ledger().highest, above, *base.directories(), 0)
    return Terms("next" if 0 < highest < _UNIX_TIMES else "unix_time", above=above, force=force)


def _recorded(store: Any, why_no_store: str, kind: str, done: RecordedPush) -> RecordedPush:
    if done.pushed.unchanged:
        return done  # nothing happened
    if store is None:
        return dataclasses.replace(done, not_recorded=why_no_store)
    try:
        execution = push_records.record(store, kind, done.base, done.pushed, done.reason, done.summary)
        return dataclasses.replace(done, execution=execution)
    except errors.StatusError as error:
        return dataclasses.replace(done, not_recorded=f"ML Metadata could not be written: {error}")


def _record_refusal(store: Any, kind: str, base: storage.PathLike, digest: str, error: PushError) -> None:
    """Records a refusal in ML Metadata if possible; a failure here must not hide the push's own error."""
    if store is not None:
        with contextlib.suppress(errors.StatusError):
            refused = error.kind if isinstance(error, PushRefused) else "failed"
            push_records.record_refusal(store, kind, base, digest, str(error), refused)
