"""Carries out a push or a rollback on a locked base: publish a model, label it, prune old versions.

Input: a locked base and a model's files.  Output: a version that serves.  Everything that can fail happens before the
one step that makes the version visible.  Labelling and pruning come after it, and a later push can repeat them.
"""

import contextlib
import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Literal

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError
from tfx_ranking.components.exported.model_files import FileDigest
from tfx_ranking.components.push import labels as version_labels
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.push import lock, version_files
from tfx_ranking.components.push.labels import STABLE, Labels
from tfx_ranking.components.push.ledger import Entry, Ledger
from tfx_ranking.components.push.versions import ServingBase, parse_version

if TYPE_CHECKING:
    from tfx_ranking.components.config import RankingConfig

STEPS = (
    *("locked", "cleared", "staged", "copying", "copied", "verified", "checked", "recorded", "publishing", "published"),
    *("labelled", "pruning", "pruned"),
)
Check = Callable[[pathlib.Path], str]  # loads a SavedModel and returns a short summary; raises PushRefused
OnStep = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Pushed:
    """The version that serves the model, and what the push did."""

    version: int
    directory: pathlib.Path
    digest: str
    _: dataclasses.KW_ONLY
    unchanged: bool = False  # the version served already; nothing was written
    label: str = ""  # the label that moved to the version; "" without labels
    checked: str = ""  # summary of the check
    pruned: tuple[int, ...] = ()  # versions that were deleted
    problem: str = ""  # a failure after the version became visible
    rollback_of: int | None = None  # the version that no longer serves
    restores: int | None = None  # the version that has the same bytes


@dataclasses.dataclass(frozen=True)
class Terms:
    """The rules of a base: how versions are numbered, kept, labelled, and what `force` allows."""

    version: Literal["unix_time", "next"] = "unix_time"
    _: dataclasses.KW_ONLY
    keep: int | None = None  # number of versions; None: all
    labels: Labels | None = None  # None: the models.config that the base's ledger names
    label: str = STABLE  # the label that a push moves
    above: int = 0  # a version known to be in use, for a base that lost its ledger
    allow_breaking: bool = False  # push a model whose contract breaks the live model's clients
    force: bool = False  # push a model that was rolled back, or that breaks clients

    @classmethod
    def of(cls, config: "RankingConfig", above: int = 0, allow_breaking: bool = False, force: bool = False) -> "Terms":
        """The terms of the config's `push` section; the defaults without one."""
        push = config.push
        if push is None:
            return cls()
        return cls(
            push.version,
            keep=push.keep,
            labels=Labels(push.models_config, config.name) if push.models_config else None,
            label=push.label,
            above=above,
            allow_breaking=allow_breaking,
            force=force,
        )

    def labels_of(self, base: ServingBase) -> Labels | None:
        """The models.config for the labels of `base`; None when the base has no labels."""
        return self.labels or base.labels_file()


@dataclasses.dataclass
class LockedBase:
    """A base whose lock this process holds; the methods are the steps of a push and of a rollback."""

    base: ServingBase
    terms: Terms
    labels: Labels | None  # None when the base has no labels
    ledger: Ledger  # as read under the lock, plus the entries of this push
    check: Check
    alive: Callable[[], None]  # call it now and then during a long copy, to keep the lock
    step: OnStep

    def publish(self, source: pathlib.Path, files: Mapping[str, FileDigest], entry: Entry) -> Pushed:
        """Makes a model the highest version: copy, compare, check and record it, and only then make it visible."""
        version = self._next_version()
        directory = self.base.folder / str(version)
        try:
            staging = version_files.stage(source, files, self.base, self.alive, self.step)
            self.step("verified")
            checked = self._checked(staging)
            self.step("checked")
            # Recorded before the version is visible, so that a number that a server saw is never used again, even when
            # this process is killed in between.
            self._record(dataclasses.replace(entry, version=version, pushed_at=push_ledger.now()))
            version_files.make_visible(staging, files, directory, self.step)
        except BaseException:
            with contextlib.suppress(OSError):
                version_files.clear_debris(self.base, self.ledger)
            raise
        self.step("published")
        return Pushed(version, directory, entry.digest, checked=checked)

    def restore(self, version: int, digest: str) -> Pushed:
        """Checks an existing version, so that `finish` can move the label to it."""
        directory = self.base.directory(version)
        checked = self._checked(directory)
        self.step("checked")
        self._record(dataclasses.replace(self.ledger.entry(version), digest=digest, rolled_back_at=""))
        return Pushed(version, directory, digest, checked=checked)

    def finish(self, pushed: Pushed) -> Pushed:
        """Moves the label and prunes.  The version is complete by now; when these fail, it stays."""
        labelled_before = None
        if self.labels:
            try:
                labelled_before = version_labels.move(
                    self.labels, self.terms.label, pushed.version, self.base.absolute, self.base.directories()
                )
            except OSError as error:
                raise PushError(
                    f"{self.labels.file}: {error.strerror or error}; version {pushed.version} is under "
                    f"{self.base.folder} without the label {self.terms.label}, and what served before still serves. "
                    "Push again."
                ) from error
            pushed = dataclasses.replace(pushed, label=self.terms.label)
            self.step("labelled")
        if self.terms.keep is not None:
            try:
                pruned = version_files.prune(self.base, self.ledger, self.terms.keep, labelled_before, self.step)
                pushed = dataclasses.replace(pushed, pruned=pruned)
            except OSError as error:
                file = error.filename or self.base.folder
                problem = f"old versions could not be deleted: {file}: {error.strerror or error}"
                pushed = dataclasses.replace(pushed, problem=problem)
            self.step("pruned")
        return pushed

    def _record(self, entry: Entry) -> None:
        self.ledger = self.ledger.having(entry)
        if self.labels:
            self.ledger = dataclasses.replace(self.ledger, models_config=self.labels.file, model=self.labels.model)
        push_ledger.write(self.base.folder, self.ledger)
        self.step("recorded")

    def _checked(self, model: pathlib.Path) -> str:
        """Checks a model where it is.  From an object store it is downloaded first, because a loader needs a folder."""
        if storage.is_local(model):
            return self.check(model)
        with tempfile.TemporaryDirectory() as folder:
            download = pathlib.Path(folder, "model")
            for path, file in storage.files_in(model).items():
                storage.copy_file(file, download / path, self.alive)
            return self.check(download)

    def _next_version(self) -> int:
        highest = max(self.ledger.highest, self.terms.above, *self.base.directories(), 0)
        version = highest + 1 if self.terms.version == "next" else max(int(time.time()), highest + 1)
        if parse_version(str(version)) is None:
            raise PushError(
                f"{self.base.folder}/{highest}: no version number is left above it; move that directory away."
            )
        return version


@contextlib.contextmanager
def locked(base: ServingBase, terms: Terms, check: Check, on_step: OnStep) -> Iterator[LockedBase]:
    """Takes the base's lock, creates the folder if needed, and deletes what killed pushes left."""
    storage.make_folder(base.folder)
    with lock.hold(base.folder) as alive:

        def step(name: str) -> None:
            alive()
            on_step(name)

        step("locked")
        ledger = base.ledger()
        version_files.clear_debris(base, ledger)
        step("cleared")
        yield LockedBase(
            base=base, terms=terms, labels=terms.labels_of(base), ledger=ledger, check=check, alive=alive, step=step
        )
