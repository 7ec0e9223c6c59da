"""`tfx-ranking push` and `rollback`: what the pipeline's pusher does, done by hand and recorded like it.

Enters: a model's directory or a version, a base, and where ML Metadata is.  Leaves: what was done, and an execution
in the store.  The one idea: by hand as by the pipeline a model is tried before it is seen, and ML Metadata is told; a
store that cannot be found hinders neither and is said.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any

from ml_metadata import errors

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, PushRefused
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import ledger, versions
from tfx_ranking.components.push import push as pushing
from tfx_ranking.components.push.labels import STABLE, Labels
from tfx_ranking.components.push.ledger import Entry
from tfx_ranking.components.push.push import Check, Pushed, Terms
from tfx_ranking.components.serving import samples
from tfx_ranking.pipelines.metadata import push_records
from tfx_ranking.pipelines.metadata.connection import try_to_write

_UNIX_TIMES = 1_000_000_000  # a version from here on is a time in seconds


@dataclasses.dataclass(frozen=True)
class Done:
    """What was done, and where that is recorded."""

    base: str
    pushed: Pushed
    reason: str
    execution: int | None = None  # in ML Metadata
    not_recorded: str = ""  # why it is not

    @property
    def summary(self) -> str:
        """One line."""
        done = self.pushed
        if done.unchanged:
            return f"nothing changed, version {done.version} serves these bytes"
        if done.restores is None:
            return f"pushed version {done.version}" + f", now {done.label}" * bool(done.label)
        if done.label:
            return f"rolled back: version {done.version} is {done.label} again, {done.rollback_of or 'none'} was"
        gone = f", {done.rollback_of} serves no more" * bool(done.rollback_of)
        return f"rolled back: version {done.version} has the bytes of {done.restores}{gone}"


def push(
    directory: storage.PathLike,
    base: storage.PathLike,
    force: bool = False,
    metadata: str | None = None,
    check: Check = samples.check,
) -> Done:
    """Pushes the model that `directory` means (a SavedModel, an exporter's artifact, a folder of versions).

    Where labels are kept, a version that stands under `base` already becomes the stable one.
    Raises PushRefused, unless `force`: ML Metadata says that it is not blessed, it was rolled back, it breaks clients;
    with or without `force`: it does not load or answers its samples otherwise.  PushError: see `push.push`.
    """
    model = versions.model_directory(directory)
    if model is None:
        raise PushRefused(
            f"{directory}: expected a SavedModel (saved_model.pb and variables/), an exporter's artifact or a folder "
            "of versions; export the model first.",
            "no model",
        )
    store, none = try_to_write(metadata)
    digest = model_files.digest(model)
    about, judged = Entry(0), None
    try:
        if store is not None:
            judged = push_records.judged(store, digest)
            about = Entry(0, blessing=judged.blessing, metric=judged.metric)
            if judged.blessing == "not blessed" and not force and not _serves(base, digest):
                why = f"it was evaluated and not blessed: {judged.reason}; --force pushes it all the same"
                raise PushRefused(why, "not blessed")
        terms = _terms(base, store, force)
        if storage.absolute(model).rpartition("/")[0] == storage.absolute(base):
            terms = dataclasses.replace(terms, label=STABLE)  # a version that stands there is named to serve
        pushed = pushing.push(model, base, terms, check=check, about=about)
    except PushError as error:
        _record_refusal(store, push_records.PUSH, base, digest, error)
        if isinstance(error, PushRefused):
            raise PushRefused(f"{model}: not pushed: {error}", error.kind) from error
        raise
    blessed = judged.blessing if judged and judged.blessing else "pushed by hand, without a blessing"
    return _recorded(store, none, push_records.PUSH, Done(str(base), pushed, blessed + " (forced)" * force))


def roll_back(
    base: storage.PathLike, to: int | None = None, metadata: str | None = None, check: Check = samples.check
) -> Done:
    """What served before serves again; see `push.roll_back`."""
    store, none = try_to_write(metadata)
    try:
        pushed = pushing.roll_back(base, to, _terms(base, store, False), check=check)
    except PushError as error:
        _record_refusal(store, push_records.ROLLBACK, base, "", error)
        if isinstance(error, PushRefused):
            raise PushRefused(f"{base}: not rolled back: {error}", error.kind) from error
        raise
    return _recorded(store, none, push_records.ROLLBACK, Done(str(base), pushed, "rolled back by hand"))


def _terms(base: storage.PathLike, store: Any, force: bool) -> Terms:
    """As ranking.yaml in the current folder says of this base, else as the versions there look."""
    from tfx_ranking.components import config as ranking_config

    above = 0
    if store is not None:
        above = push_records.highest_version(store, base) or 0
    file = pathlib.Path("ranking.yaml")
    config = ranking_config.load(file) if file.is_file() else None
    if config and config.push and storage.absolute(config.push.base) == storage.absolute(base):
        said = config.push
        labels = Labels(said.models_config, config.name) if said.models_config else None
        return Terms(said.version, said.keep, labels, said.label, above, force=force)
    highest = max(ledger.read(base).highest, above, *versions.version_directories(base), 0)
    return Terms("next" if 0 < highest < _UNIX_TIMES else "unix_time", above=above, force=force)


def _serves(base: storage.PathLike, digest: str) -> bool:
    return bool(versions.state(base)["digest"] == digest)


def _recorded(store: Any, none: str, kind: str, done: Done) -> Done:
    if done.pushed.unchanged:
        return done  # nothing happened
    if store is None:
        return dataclasses.replace(done, not_recorded=none)
    try:
        execution = push_records.record(store, kind, done.base, done.pushed, done.reason, done.summary)
        return dataclasses.replace(done, execution=execution)
    except errors.StatusError as error:
        return dataclasses.replace(done, not_recorded=f"ML Metadata could not be written: {error}")


def _record_refusal(store: Any, kind: str, base: storage.PathLike, digest: str, error: PushError) -> None:
    """In ML Metadata as well, as far as it can be written: the error is what the user is to see."""
    if store is not None:
        with contextlib.suppress(errors.StatusError):
            refused = error.kind if isinstance(error, PushRefused) else "failed"
            push_records.record_refusal(store, kind, base, digest, str(error), refused)
