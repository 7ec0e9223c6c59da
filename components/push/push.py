"""Push: a SavedModel becomes a version of a base directory, whole or not at all; and rollback, which is the way back.

Enters: a SavedModel's directory and the base.  Leaves: `<base>/<version>/`, or a label that has moved.  The one idea:
everything is tried where TensorFlow Serving does not look, and one step makes the version appear.  What tries a model
is an argument, so nothing here imports TensorFlow or TFX.
"""

import dataclasses
import pathlib
from collections.abc import Iterable

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, PushRefused
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.push import labels as version_labels
from tfx_ranking.components.push import ledger, staging
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.labels import STABLE
from tfx_ranking.components.push.ledger import Entry
from tfx_ranking.components.push.publication import (
    DEFAULTS,
    STEPS,
    Check,
    Held,
    OnStep,
    Pushed,
    Terms,
    digests,
    finish,
    held,
    labels,
    named,
    publish,
    put_back,
    readable_errors,
)
from tfx_ranking.components.storage import PathLike

__all__ = ["STEPS", "Check", "Pushed", "Terms", "push", "roll_back"]


def push(
    source: PathLike,
    base: PathLike,
    terms: Terms = DEFAULTS,
    *,
    check: Check,
    about: Entry | None = None,
    on_step: OnStep = lambda step: None,
) -> Pushed:
    """Makes the SavedModel in `source` the highest version under `base`, where labels are kept the labelled one.

    The version is the time in seconds or the next integer, always above every one that was ever given out.  A model
    whose digest serves already is not pushed again; one that was rolled back, or breaks the contract with the clients
    of what serves, only with `force`.  about: what the ledger is to remember.  on_step is called with each of STEPS
    once it is done (copying, publishing: once a file; pruning: before each version).  What a killed push left behind is
    cleared by the next one.
    Raises PushError: another push is going on, no permission, no space, a copy that differs; PushRefused: the model
    is none, was rolled back, breaks clients, is not loaded, or answers otherwise than it did when it was exported.
    Whatever happens, `base` shows the old versions or these and the new one, whole.
    """
    model, to = storage.to_path(source), storage.to_path(base)
    with readable_errors(model, to):
        if not model_files.is_loadable(model):
            raise PushRefused(
                f"{model}: expected a SavedModel (saved_model.pb and variables/); export the model first.", "no model"
            )
        files = model_files.file_digests(model)
        digest = model_files.combine(files)
        if not staging.has_debris(to) and (already := _serves(to, digest, terms)):
            return already  # asked before the lock, which a read-only base could not hold
        with held(to, terms, check, on_step) as at:
            if already := _serves(to, digest, terms):
                return already
            _refuse_rolled_back(at, digest)
            _refuse_breaking(at, model)
            same = _standing(at, digest) if at.kept else None
            if same is not None:  # it needs a label and no second copy
                return finish(at, put_back(at, same, digest))
            entry = ledger.made_by(dataclasses.replace(about or Entry(0), digest=digest), model)
            return finish(at, publish(at, model, files, entry))


def roll_back(
    base: PathLike,
    to: int | None = None,
    terms: Terms = DEFAULTS,
    *,
    check: Check,
    on_step: OnStep = lambda step: None,
) -> Pushed:
    """What served before serves again: its bytes under a new, higher version, or the label `stable` moved to it.

    to: the version to go back to; when left out, the newest below the live one that has other bytes and was not rolled
    back itself.  What served until now is remembered as rolled back.
    Raises PushError where there is nothing to go back to, and whatever `push` does.
    """
    folder = storage.to_path(base)
    with readable_errors(folder, folder):
        if serving_versions.live_version(folder) is None and to is None:
            raise PushError(f"{folder}: nothing serves there, so nothing can be rolled back; push a model.")
        with held(folder, dataclasses.replace(terms, label=STABLE), check, on_step) as at:
            live, holds = serving_versions.live_version(folder), digests(folder, at.ledger)
            target = _before(at, live, holds) if to is None else to
            if target not in holds:
                raise PushError(
                    f"{folder}/{target}: no version that can be loaded; there are {_numbers(holds)}. "
                    "`tfx-ranking versions` lists them."
                )
            source, digest = folder / named(folder, target), holds[target]
            if live is not None and holds[live] == digest and (target == live or not at.kept):
                return Pushed(live, folder / named(folder, live), digest, unchanged=True)
            files = model_files.file_digests(source)
            if model_files.combine(files) != digest:
                raise PushError(f"{source}: its files have changed since it was pushed; name another with --to.")
            old = at.ledger.entry(target)
            if live is not None:
                gone = at.ledger.entry(live)
                gone = dataclasses.replace(gone, digest=holds[live], rolled_back_at=ledger.now())
                at.ledger = at.ledger.having(gone)
            if at.kept:
                done = put_back(at, target, digest)
            else:
                entry = Entry(0, digest, blessing=old.blessing, metric=old.metric, rollback_of=live, restores=target)
                done = publish(at, source, files, ledger.made_by(entry, source))
            return finish(at, dataclasses.replace(done, rollback_of=live, restores=target))


def _serves(base: pathlib.Path, digest: str, terms: Terms) -> Pushed | None:
    """The version of these bytes that serves already, or has the label that is asked for."""
    kept = labels(base, terms)
    version = version_labels.read(kept).get(terms.label) if kept else serving_versions.live_version(base)
    directory = serving_versions.version_directories(base).get(version) if version is not None else None
    if version is None or directory is None or model_files.digest(directory) != digest:
        return None
    return Pushed(version, directory, digest, unchanged=True)


def _standing(at: Held, digest: str) -> int | None:
    """The newest version of these bytes; what the ledger says of it is compared with its files."""
    versions = serving_versions.version_directories(at.base)
    same = [version for version, of in digests(at.base, at.ledger).items() if of == digest]
    return next((each for each in reversed(same) if model_files.digest(versions[each]) == digest), None)


def _before(at: Held, live: int | None, holds: dict[int, str]) -> int:
    """The version that a rollback without a target goes to."""
    for version in sorted(holds, reverse=True):
        below = live is not None and version < live and holds[version] != holds[live]
        if below and not at.ledger.rolled_back(holds[version]):
            return version
    raise PushError(
        f"{at.base}: no version to go back to: below {live}, which serves, there is none with other bytes that was not "
        f"rolled back itself (there are {_numbers(holds)}). Name one with --to, or push a model."
    )


def _refuse_rolled_back(at: Held, digest: str) -> None:
    back = at.ledger.rolled_back(digest)
    if back and not at.terms.force:
        when = back.rolled_back_at[:16].replace("T", " ")
        raise PushRefused(
            f"these bytes were rolled back (version {back.version}, {when} UTC); "
            f"`tfx-ranking push MODEL {at.base} --force` pushes them all the same",
            "rolled back",
        )


def _refuse_breaking(at: Held, model: pathlib.Path) -> None:
    live = serving_versions.live_version(at.base)
    if live is None or at.terms.force or at.terms.allow_breaking:
        return
    from tfx_ranking.components.exported import contract  # half a second, where nothing serves yet it is not needed

    compared = contract.compare_models(at.base / named(at.base, live), model)
    if compared.verdict == "breaking":
        what = f"{compared.summary} with the clients of version {live}: {'; '.join(compared.differences)}"
        raise PushRefused(what, "contract")


def _numbers(versions: Iterable[int]) -> str:
    return ", ".join(map(str, versions)) or "none"
