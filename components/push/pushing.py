"""Decides what a push and a rollback do; `publication` carries it out.

Input: a SavedModel's directory and a base directory.  Output: `<base>/<version>/`, or a label that moved.  A push
refuses a model before any server can see it.  The check of a model is an argument, so nothing here imports TensorFlow
or TFX.

    from tfx_ranking.components.push import pushing
    pushing.push("exported/Format-Serving", "serving/shop", check=samples.check)
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, PushRefused, RankingError
from tfx_ranking.components.exported.model_files import combine, digest, file_digests, is_loadable
from tfx_ranking.components.push import labels as version_labels
from tfx_ranking.components.push import ledger, publication, version_files
from tfx_ranking.components.push.labels import STABLE
from tfx_ranking.components.push.ledger import Entry
from tfx_ranking.components.push.publication import STEPS, Check, LockedBase, OnStep, Pushed, Terms
from tfx_ranking.components.push.versions import ServingBase
from tfx_ranking.components.storage import PathLike

__all__ = ["STEPS", "Check", "Pushed", "Terms", "push", "roll_back"]

_DEFAULTS = Terms()


def push(
    source: PathLike,
    base: PathLike,
    terms: Terms = _DEFAULTS,
    *,
    check: Check,
    about: Entry | None = None,
    on_step: OnStep = lambda step: None,
) -> Pushed:
    """Makes the SavedModel in `source` the highest version under `base`, and moves the label where labels are used.

    The version is the time in seconds or the next integer, always above every earlier one.  A model whose digest serves
    already is not pushed again.  Only `force` pushes a model that was rolled back, or whose contract breaks the live
    model's clients.
    about: what the ledger records about the evaluation.  on_step: called after each of STEPS (copying, publishing:
    after each file; pruning: before each version).  The next push deletes what a killed push left.

    Raises PushError: another push is running, no permission, no space, a copy that differs.  Raises PushRefused: not a
    model, was rolled back, breaks clients, does not load, or answers differently than when it was exported.
    At every moment `base` shows the old versions, or the old ones and the complete new one.
    """
    model, to = storage.to_path(source), ServingBase(base)
    with _readable_errors(model, to):
        if not is_loadable(model):
            raise PushRefused(
                f"{model}: expected a SavedModel (saved_model.pb and variables/); export the model first.", "no model"
            )
        files = file_digests(model)
        digest_of_model = combine(files)
        # Asked before the lock, which needs write access.
        if not version_files.has_debris(to) and (serving := _serving(to, digest_of_model, terms)):
            return serving
        with publication.locked(to, terms, check, on_step) as locked:
            if serving := _serving(to, digest_of_model, terms):
                return serving
            _refuse_rolled_back(locked, digest_of_model)
            _refuse_breaking(locked, model)
            existing = _existing_version(locked, digest_of_model) if locked.labels else None
            if existing is not None:  # the version needs the label, not a second copy
                pushed = locked.restore(existing, digest_of_model)
            else:
                entry = dataclasses.replace(about or Entry(0), digest=digest_of_model)
                pushed = locked.publish(model, files, ledger.made_by(entry, model))
            return locked.finish(pushed)


def roll_back(
    base: PathLike,
    to: int | None = None,
    terms: Terms = _DEFAULTS,
    *,
    check: Check,
    on_step: OnStep = lambda step: None,
) -> Pushed:
    """Serves an earlier version again: copies its bytes to a new, higher version, or moves the label `stable` to it.

    to: the version to go back to; the default is the newest one below the live version that has other bytes and was
    not rolled back itself.  The ledger marks the live version as rolled back.
    Raises PushError when there is no version to go back to, and the errors of `push`.
    """
    folder = ServingBase(base)
    with _readable_errors(folder.folder, folder):
        if folder.live_version() is None and to is None:
            raise PushError(f"{folder.folder}: nothing serves there, so nothing can be rolled back; push a model.")
        with publication.locked(folder, dataclasses.replace(terms, label=STABLE), check, on_step) as locked:
            live, digests = folder.live_version(), folder.digests(locked.ledger)
            target = _version_before(locked, live, digests) if to is None else to
            if target not in digests:
                raise PushError(
                    f"{folder.folder}/{target}: no version that can be loaded; there are {_numbers(digests)}. "
                    "`tfx-ranking versions` lists them."
                )
            source, wanted = folder.directory(target), digests[target]
            if live is not None and digests[live] == wanted and (target == live or not locked.labels):
                return Pushed(live, folder.directory(live), wanted, unchanged=True)
            files = file_digests(source)
            if combine(files) != wanted:
                raise PushError(f"{source}: its files have changed since it was pushed; name another with --to.")
            old = locked.ledger.entry(target)
            if live is not None:
                stopped = dataclasses.replace(
                    locked.ledger.entry(live), digest=digests[live], rolled_back_at=ledger.now()
                )
                locked.ledger = locked.ledger.having(stopped)
            if locked.labels:
                pushed = locked.restore(target, wanted)
            else:
                entry = Entry(0, wanted, blessing=old.blessing, metric=old.metric, rollback_of=live, restores=target)
                pushed = locked.publish(source, files, ledger.made_by(entry, source))
            return locked.finish(dataclasses.replace(pushed, rollback_of=live, restores=target))


def _serving(base: ServingBase, wanted: str, terms: Terms) -> Pushed | None:
    """The version with the digest `wanted` that serves already, or that has the label already; None for another."""
    labels = terms.labels_of(base)
    version = version_labels.read(labels).get(terms.label) if labels else base.live_version()
    directory = base.directories().get(version) if version is not None else None
    if version is None or directory is None or digest(directory) != wanted:
        return None
    return Pushed(version, directory, wanted, unchanged=True)


def _existing_version(locked: LockedBase, wanted: str) -> int | None:
    """The newest version with the digest `wanted`; the files are read, since they may differ from the ledger."""
    directories = locked.base.directories()
    same = [version for version, recorded in locked.base.digests(locked.ledger).items() if recorded == wanted]
    return next((version for version in reversed(same) if digest(directories[version]) == wanted), None)


def _version_before(locked: LockedBase, live: int | None, digests: dict[int, str]) -> int:
    """The version that a rollback without a target goes to."""
    for version in sorted(digests, reverse=True):
        is_below = live is not None and version < live and digests[version] != digests[live]
        if is_below and not locked.ledger.rolled_back(digests[version]):
            return version
    raise PushError(
        f"{locked.base.folder}: no version to go back to: every version below the live one ({live}) has the same bytes "
        f"or was rolled back itself (there are {_numbers(digests)}). Name one with --to, or push a model."
    )


def _refuse_rolled_back(locked: LockedBase, wanted: str) -> None:
    entry = locked.ledger.rolled_back(wanted)
    if entry and not locked.terms.force:
        when = entry.rolled_back_at[:16].replace("T", " ")
        raise PushRefused(
            f"these bytes were rolled back (version {entry.version}, {when} UTC); "
            f"`tfx-ranking push MODEL {locked.base.folder} --force` pushes them anyway",
            "rolled back",
        )


def _refuse_breaking(locked: LockedBase, model: pathlib.Path) -> None:
    live = locked.base.live_version()
    if live is None or locked.terms.force or locked.terms.allow_breaking:
        return
    from tfx_ranking.components.exported import contract  # its import takes half a second; a first push needs none

    compared = contract.compare_models(locked.base.directory(live), model)
    if compared.verdict == "breaking":
        differences = "; ".join(compared.differences)
        raise PushRefused(f"{compared.summary} with the clients of version {live}: {differences}", "contract")


@contextlib.contextmanager
def _readable_errors(source: pathlib.Path, base: ServingBase) -> Iterator[None]:
    """Turns an error of the operating system or of an object store into a PushError."""
    try:
        yield
    except RankingError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and storage.is_local(base.folder):
            raise  # only an object store's package has errors of its own
        where, what = getattr(error, "filename", None) or base.folder, getattr(error, "strerror", None) or error
        raise PushError(
            f"{where}: {what}, while pushing {source} to {base.folder}. Nothing was pushed; what served before still "
            "serves."
        ) from error


def _numbers(versions: Iterable[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
