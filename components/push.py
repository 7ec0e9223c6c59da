"""Push: a SavedModel becomes a version of a base directory, whole or not at all; and rollback, which is the way back.

Enters: a SavedModel's directory and the base.  Leaves: `<base>/<version>/`, or a label that has moved.  The one idea:
everything is tried where TensorFlow Serving does not look, and one step makes the version appear.  What tries a model
is an argument, so nothing here imports TensorFlow or TFX.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Literal

from tfx_ranking.components import places, push_ledger, push_lock, serving_versions, staging, version_labels
from tfx_ranking.components.errors import PushError, PushRefused, RankingError
from tfx_ranking.components.push_ledger import Entry, Ledger
from tfx_ranking.components.version_labels import STABLE, Labels

STEPS = (
    *("locked", "cleared", "staged", "copying", "copied", "verified", "checked", "recorded", "publishing", "published"),
    *("labelled", "pruning", "pruned"),
)
LOCK = push_lock.LOCK

Path = places.Path
Check = Callable[[pathlib.Path], str]  # tries a SavedModel: what was found, in a few words; raises PushRefused
OnStep = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Pushed:
    """Where the bytes serve."""

    version: int
    directory: pathlib.Path
    digest: str
    unchanged: bool = False  # they did already, nothing was written
    label: str = ""  # that was given to the version; "" where no labels are kept
    checked: str = ""  # what trying the model came to
    pruned: tuple[int, ...] = ()  # versions that were deleted
    problem: str = ""  # what went wrong afterwards
    rollback_of: int | None = None  # the version that serves no longer
    restores: int | None = None  # the version whose bytes these are


@dataclasses.dataclass(frozen=True)
class Terms:
    """How a destination is kept."""

    version: Literal["unix_time", "next"] = "unix_time"
    keep: int | None = None  # versions; None: all
    labels: Labels | None = None  # None: as the base's ledger says
    label: str = STABLE  # that a push moves, where labels are kept
    above: int = 0  # a version that is known to have been given out, whatever the ledger says
    allow_breaking: bool = False  # a contract that breaks the live model's clients
    force: bool = False  # a model that was rolled back, or breaks clients


def push(
    source: Path,
    base: Path,
    terms: Terms = Terms(),
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
    model, at = places.place(source), places.place(base)
    with _readable_errors(model, at):
        if not serving_versions.is_loadable(model):
            raise PushRefused(
                f"{model}: expected a SavedModel (saved_model.pb and variables/); export the model first.", "no model"
            )
        files = serving_versions.file_digests(model)
        digest = serving_versions.combine(files)
        if not staging.has_debris(at) and (already := _serves(at, digest, terms)):
            return already  # asked before the lock, which a read-only base could not hold
        with _locked(at, on_step) as (ledger, alive, step):
            if already := _serves(at, digest, terms):
                return already
            _refuse_rolled_back(at, ledger, digest, terms)
            _refuse_breaking(at, model, terms)
            entry = push_ledger.made_by(dataclasses.replace(about or Entry(0), digest=digest), model)
            kept = _labels(at, terms)
            same = [version for version, of in _digests(at, ledger).items() if of == digest] if kept else []
            if kept and same:  # it needs a label and no second copy
                done = _put_back(at, ledger, kept, max(same), digest)
            else:
                done = _publish(model, files, at, ledger, entry, terms, check, alive, step)
            return _finish(at, done, terms, kept, step)


def roll_back(
    base: Path,
    to: int | None = None,
    terms: Terms = Terms(),
    *,
    check: Check,
    on_step: OnStep = lambda step: None,
) -> Pushed:
    """What served before serves again: its bytes under a new, higher version, or the label `stable` moved to it.

    to: the version to go back to; when left out, the newest below the live one that has other bytes and was not rolled
    back itself.  What served until now is remembered as rolled back.
    Raises PushError where there is nothing to go back to, and whatever `push` does.
    """
    at = places.place(base)
    with _readable_errors(at, at):
        if serving_versions.live_version(at) is None and to is None:
            raise PushError(f"{at}: nothing serves there, so nothing can be rolled back; push a model.")
        with _locked(at, on_step) as (ledger, alive, step):
            live, target, kept = serving_versions.live_version(at), to, _labels(at, terms)
            digests = _digests(at, ledger)
            if target is None:
                target = _before(at, live, ledger, digests)
            elif target not in digests:
                raise PushError(
                    f"{at}/{target}: no version that can be loaded; there are {_numbers(list(digests))}. "
                    "`tfx-ranking versions` lists them."
                )
            source, digest = at / _named(at, target), digests[target]
            if live is not None and digests[live] == digest and (target == live or not kept):
                return Pushed(live, at / _named(at, live), digest, unchanged=True)
            files = serving_versions.file_digests(source)
            if serving_versions.combine(files) != digest:
                raise PushError(f"{source}: its files have changed since it was pushed; name another with --to.")
            if live is not None:
                gone = dataclasses.replace(ledger.entry(live), digest=digests[live], rolled_back_at=push_ledger.now())
                ledger = ledger.having(gone)
            if kept:
                done = _put_back(at, ledger, kept, target, digest)
            else:
                old = ledger.entry(target)
                entry = Entry(0, digest, blessing=old.blessing, metric=old.metric, rollback_of=live, restores=target)
                entry = push_ledger.made_by(entry, source)
                done = _publish(source, files, at, ledger, entry, terms, check, alive, step)
            done = dataclasses.replace(done, rollback_of=live, restores=target)
            return _finish(at, done, dataclasses.replace(terms, label=STABLE), kept, step)


def _publish(
    source: pathlib.Path,
    files: dict[str, serving_versions.FileDigest],
    base: pathlib.Path,
    ledger: Ledger,
    entry: Entry,
    terms: Terms,
    check: Check,
    alive: Callable[[], None],
    step: OnStep,
) -> Pushed:
    version = _next_version(base, ledger, terms)
    try:
        staged = staging.stage(source, files, base, alive, step)
        step("verified")
        checked = _checked(staged, check)
        step("checked")
        entry = dataclasses.replace(entry, version=version, pushed_at=push_ledger.now())
        # Before the version appears: a number that was seen once is not given again, whoever dies when.
        kept = _labels(base, terms)
        ledger = (
            dataclasses.replace(ledger.having(entry), models_config=kept.file, model=kept.model)
            if kept
            else (ledger.having(entry))
        )
        push_ledger.write(base, ledger)
        step("recorded")
        staging.publish(staged, files, base / str(version), step)
    except BaseException:
        with contextlib.suppress(OSError):
            staging.clear_debris(base, ledger)
        raise
    step("published")
    return Pushed(version, base / str(version), entry.digest, checked=checked)


def _finish(base: pathlib.Path, done: Pushed, terms: Terms, kept: Labels | None, step: OnStep) -> Pushed:
    """Label and prune: the version is whole by now, and is not taken back when these fail."""
    before = None
    if kept:
        there = serving_versions.version_directories(base)
        try:
            before = version_labels.move(kept, terms.label, done.version, base, there)
        except OSError as error:
            raise PushError(
                f"{kept.file}: {error.strerror or error}; version {done.version} stands under {base} without the "
                f"label {terms.label}, and what served before still serves. Push again."
            ) from error
        done = dataclasses.replace(done, label=terms.label)
        step("labelled")
    if terms.keep is not None:
        try:
            pruned = staging.prune(base, push_ledger.read(base), terms.keep, before, step)
            done = dataclasses.replace(done, pruned=pruned)
        except OSError as error:
            why = f"old versions could not be deleted: {error.filename or base}: {error.strerror or error}"
            done = dataclasses.replace(done, problem=why)
        step("pruned")
    return done


def _put_back(base: pathlib.Path, ledger: Ledger, kept: Labels, version: int, digest: str) -> Pushed:
    """A version that stands there already, which is to serve by its label."""
    ledger = ledger.having(dataclasses.replace(ledger.entry(version), digest=digest, rolled_back_at=""))
    push_ledger.write(base, dataclasses.replace(ledger, models_config=kept.file, model=kept.model))
    return Pushed(version, base / _named(base, version), digest, checked="its bytes stand there already")


def _checked(staged: pathlib.Path, check: Check) -> str:
    """Tries what was staged; of an object store what comes back from there, since a loader wants a folder."""
    if places.is_local(staged):
        return check(staged)
    with tempfile.TemporaryDirectory() as folder:
        back = pathlib.Path(folder, "model")
        for path, file in places.files(staged).items():
            places.copy(file, back / path)
        return check(back)


def _next_version(base: pathlib.Path, ledger: Ledger, terms: Terms) -> int:
    highest = max(ledger.highest, terms.above, *serving_versions.version_directories(base), 0)
    version = highest + 1 if terms.version == "next" else max(int(time.time()), highest + 1)
    if serving_versions.parse_version(str(version)) is None:
        raise PushError(f"{base}/{highest}: no version number is left above it; move that directory away.")
    return version


def _serves(base: pathlib.Path, digest: str, terms: Terms) -> Pushed | None:
    """The version of these bytes that serves already, or has the label that is asked for."""
    kept = _labels(base, terms)
    version = version_labels.read(kept).get(terms.label) if kept else serving_versions.live_version(base)
    directory = serving_versions.version_directories(base).get(version) if version is not None else None
    if version is None or directory is None or serving_versions.digest(directory) != digest:
        return None
    return Pushed(version, directory, digest, unchanged=True)


def _labels(base: pathlib.Path, terms: Terms) -> Labels | None:
    return terms.labels or serving_versions.kept_labels(base)


def _named(base: pathlib.Path, version: int) -> str:
    return serving_versions.version_directories(base)[version].name


def _digests(base: pathlib.Path, ledger: Ledger) -> dict[int, str]:
    """Of each version that can be loaded what it holds, or held when it was pushed."""
    versions = serving_versions.version_directories(base)
    return {
        number: ledger.entry(number).digest or serving_versions.digest(directory)
        for number, directory in versions.items()
        if serving_versions.is_loadable(directory)
    }


def _before(base: pathlib.Path, live: int | None, ledger: Ledger, digests: dict[int, str]) -> int:
    """The version that a rollback without a target goes to."""
    for version in sorted(digests, reverse=True):
        below = live is not None and version < live and digests[version] != digests[live]
        if below and not ledger.rolled_back(digests[version]):
            return version
    raise PushError(
        f"{base}: no version to go back to: below {live}, which serves, there is none with other bytes that was not "
        f"rolled back itself (there are {_numbers(list(digests))}). Name one with --to, or push a model."
    )


def _refuse_rolled_back(base: pathlib.Path, ledger: Ledger, digest: str, terms: Terms) -> None:
    back = ledger.rolled_back(digest)
    if back and not terms.force:
        raise PushRefused(
            f"these bytes were rolled back (version {back.version}, {_clock(back.rolled_back_at)}); "
            f"`tfx-ranking push MODEL {base} --force` pushes them all the same",
            "rolled back",
        )


def _refuse_breaking(base: pathlib.Path, model: pathlib.Path, terms: Terms) -> None:
    live = serving_versions.live_version(base)
    if live is None or terms.force or terms.allow_breaking:
        return
    from tfx_ranking.components import contract  # half a second, where nothing serves yet it is not needed

    compared = contract.compare_models(serving_versions.version_directories(base)[live], model)
    if compared.verdict == "breaking":
        what = f"{compared.summary} with the clients of version {live}: {'; '.join(compared.differences)}"
        raise PushRefused(what, "contract")


@contextlib.contextmanager
def _locked(base: pathlib.Path, on_step: OnStep) -> Iterator[tuple[Ledger, Callable[[], None], OnStep]]:
    places.make(base)
    with push_lock.hold(base) as alive:

        def step(name: str) -> None:
            alive()
            on_step(name)

        step("locked")
        ledger = push_ledger.read(base)
        staging.clear_debris(base, ledger)
        step("cleared")
        yield ledger, alive, step


def _numbers(versions: list[int]) -> str:
    return ", ".join(map(str, versions)) or "none"


def _clock(moment: str) -> str:
    return moment[:16].replace("T", " ") + " UTC"


@contextlib.contextmanager
def _readable_errors(source: pathlib.Path, base: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except RankingError:
        raise
    except OSError as error:
        raise PushError(
            f"{error.filename or base}: {error.strerror or error}, while pushing {source} to {base}. "
            "Nothing was pushed; what served before still serves."
        ) from error
