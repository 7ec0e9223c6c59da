"""Publication: what a push and a rollback share, from the lock to the last old version that is deleted.

Enters: a model's files, a base, how it is kept.  Leaves: a version that serves.  The one idea: whatever can fail is
done before the one step that makes the version appear; label and pruning come after it and can be done again.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError, RankingError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.exported.model_files import FileDigest
from tfx_ranking.components.push import labels as version_labels
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push import lock, staging
from tfx_ranking.components.push import versions as serving_versions
from tfx_ranking.components.push.labels import STABLE, Labels
from tfx_ranking.components.push.ledger import Entry, Ledger

STEPS = (
    *("locked", "cleared", "staged", "copying", "copied", "verified", "checked", "recorded", "publishing", "published"),
    *("labelled", "pruning", "pruned"),
)
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


DEFAULTS = Terms()


@dataclasses.dataclass
class Held:
    """A destination whose lock is held."""

    base: pathlib.Path
    terms: Terms
    kept: Labels | None  # where its labels are; None where none are kept
    ledger: Ledger  # as it was when the lock was taken, and what is to be written next
    check: Check
    alive: Callable[[], None]  # to be called now and then in a long copy
    step: OnStep


@contextlib.contextmanager
def held(base: pathlib.Path, terms: Terms, check: Check, on_step: OnStep) -> Iterator[Held]:
    """Takes the lock, makes the base where there is none, and clears what killed pushes left."""
    storage.make_folder(base)
    with lock.hold(base) as alive:

        def step(name: str) -> None:
            alive()
            on_step(name)

        step("locked")
        ledger = push_ledger.read(base)
        staging.clear_debris(base, ledger)
        step("cleared")
        yield Held(base, terms, labels(base, terms), ledger, check, alive, step)


def publish(at: Held, source: pathlib.Path, files: Mapping[str, FileDigest], entry: Entry) -> Pushed:
    """Makes a model the highest version: copied, compared, tried, remembered, and only then to be seen."""
    version = _next_version(at)
    try:
        staged = staging.stage(source, files, at.base, at.alive, at.step)
        at.step("verified")
        checked = _checked(at, staged)
        at.step("checked")
        # Before the version appears: a number that was seen once is not given again, whoever dies when.
        at.ledger = at.ledger.having(dataclasses.replace(entry, version=version, pushed_at=push_ledger.now()))
        _remember(at)
        at.step("recorded")
        staging.publish(staged, files, at.base / str(version), at.step)
    except BaseException:
        with contextlib.suppress(OSError):
            staging.clear_debris(at.base, at.ledger)
        raise
    at.step("published")
    return Pushed(version, at.base / str(version), entry.digest, checked=checked)


def put_back(at: Held, version: int, digest: str) -> Pushed:
    """Tries a version that stands there already, which is to serve by its label."""
    directory = at.base / named(at.base, version)
    checked = _checked(at, directory)
    at.step("checked")
    at.ledger = at.ledger.having(dataclasses.replace(at.ledger.entry(version), digest=digest, rolled_back_at=""))
    _remember(at)
    at.step("recorded")
    return Pushed(version, directory, digest, checked=checked)


def finish(at: Held, done: Pushed) -> Pushed:
    """Label and pruning: the version is whole by now, and is not taken back when these fail."""
    before = None
    if at.kept:
        there = serving_versions.version_directories(at.base)
        try:
            before = version_labels.move(at.kept, at.terms.label, done.version, at.base, there)
        except OSError as error:
            raise PushError(
                f"{at.kept.file}: {error.strerror or error}; version {done.version} stands under {at.base} without the "
                f"label {at.terms.label}, and what served before still serves. Push again."
            ) from error
        done = dataclasses.replace(done, label=at.terms.label)
        at.step("labelled")
    if at.terms.keep is not None:
        try:
            pruned = staging.prune(at.base, at.ledger, at.terms.keep, before, at.step)
            done = dataclasses.replace(done, pruned=pruned)
        except OSError as error:
            why = f"old versions could not be deleted: {error.filename or at.base}: {error.strerror or error}"
            done = dataclasses.replace(done, problem=why)
        at.step("pruned")
    return done


def labels(base: pathlib.Path, terms: Terms) -> Labels | None:
    """Where labels are kept, or are to be."""
    return terms.labels or serving_versions.kept_labels(base)


def named(base: pathlib.Path, version: int) -> str:
    """A version's directory under a base; its name may have zeros in front."""
    return serving_versions.version_directories(base)[version].name


def digests(base: pathlib.Path, ledger: Ledger) -> dict[int, str]:
    """Of each version that can be loaded what it holds, or held when it was pushed."""
    versions = serving_versions.version_directories(base)
    return {
        number: ledger.entry(number).digest or model_files.digest(directory)
        for number, directory in versions.items()
        if model_files.is_loadable(directory)
    }


@contextlib.contextmanager
def readable_errors(source: pathlib.Path, base: pathlib.Path) -> Iterator[None]:
    """What the operating system or an object store refuses, as a PushError."""
    try:
        yield
    except RankingError:
        raise
    except Exception as error:
        if not isinstance(error, OSError) and storage.is_local(base):
            raise  # a store's package has errors of its own
        where, what = getattr(error, "filename", None) or base, getattr(error, "strerror", None) or error
        raise PushError(
            f"{where}: {what}, while pushing {source} to {base}. Nothing was pushed; what served before still serves."
        ) from error


def _remember(at: Held) -> None:
    if at.kept:
        at.ledger = dataclasses.replace(at.ledger, models_config=at.kept.file, model=at.kept.model)
    push_ledger.write(at.base, at.ledger)


def _checked(at: Held, model: pathlib.Path) -> str:
    """Tries a model where it lies; of an object store what comes back from there, since a loader wants a folder."""
    if storage.is_local(model):
        return at.check(model)
    with tempfile.TemporaryDirectory() as folder:
        back = pathlib.Path(folder, "model")
        for path, file in storage.files_in(model).items():
            storage.copy_file(file, back / path, at.alive)
        return at.check(back)


def _next_version(at: Held) -> int:
    highest = max(at.ledger.highest, at.terms.above, *serving_versions.version_directories(at.base), 0)
    version = highest + 1 if at.terms.version == "next" else max(int(time.time()), highest + 1)
    if serving_versions.parse_version(str(version)) is None:
        raise PushError(f"{at.base}/{highest}: no version number is left above it; move that directory away.")
    return version
