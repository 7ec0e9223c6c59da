"""Reads the versions under a base directory as TensorFlow Serving sees them, and finds the live one.

Input: a base directory, local or in an object store.  Output: version numbers, directories and digests.

>>> parse_version("0012"), parse_version(".pushing-7"), parse_version("-1"), parse_version("²")
(12, None, None, None)
"""

import dataclasses
import pathlib
import re
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.exported import receipt
from tfx_ranking.components.exported.model_files import FORMAT_SERVING, digest, is_loadable
from tfx_ranking.components.push import labels as version_labels
from tfx_ranking.components.push import ledger as push_ledger
from tfx_ranking.components.storage import PathLike


def parse_version(name: str) -> int | None:
    """The version that TensorFlow Serving reads from a directory's name; None for a name that it ignores."""
    # The rule of its ParseVersionNumber: surrounding blanks and leading zeros do not count, a sign is not allowed.
    if not re.fullmatch(r"\s*[0-9]+\s*", name, re.ASCII) or int(name) >= 1 << 63:
        return None
    return int(name)


@dataclasses.dataclass(frozen=True)
class ServingBase:
    """A base directory: the folder that TensorFlow Serving watches for versions of one model.

    Create it where a path or a URL enters the program.  Each method reads the folder again, because other processes
    push there too.

    >>> ServingBase("serving/shop").folder
    PosixPath('serving/shop')
    """

    path: dataclasses.InitVar[PathLike]
    folder: pathlib.Path = dataclasses.field(init=False)  # in an object store a UPath, which has the same methods

    def __post_init__(self, path: PathLike) -> None:
        object.__setattr__(self, "folder", storage.to_path(path))

    @property
    def absolute(self) -> str:
        """The path as ML Metadata records it."""
        return storage.absolute(self.folder)

    def directories(self) -> dict[int, pathlib.Path]:
        """Every child whose name is a version, complete or broken, lowest version first; {} without a folder."""
        numbered = [(parse_version(child.name), child) for child in storage.children(self.folder)]
        return dict(sorted((number, child) for number, child in numbered if number is not None))

    def directory(self, version: int) -> pathlib.Path:
        """An existing version's directory, whose name may have leading zeros.  Raises KeyError without one."""
        return self.directories()[version]

    def ledger(self) -> push_ledger.Ledger:
        """The record of earlier pushes; empty without one.  Raises PushError when the file cannot be read."""
        return push_ledger.read(self.folder)

    def labels_file(self) -> version_labels.Labels | None:
        """The models.config that holds the labels; None when this base has no labels."""
        ledger = self.ledger()
        if not ledger.models_config or not storage.to_path(ledger.models_config).is_file():
            return None
        return version_labels.Labels(ledger.models_config, ledger.model)

    def labels(self) -> dict[str, int]:
        """Label → version, from models.config; {} when this base has no labels."""
        file = self.labels_file()
        return version_labels.read(file) if file else {}

    def live_version(self) -> int | None:
        """The version that serves: the one labelled stable, else the highest loadable one; None when nothing serves.

        TensorFlow Serving answers a client that names no version with the highest one.  When the labelled version is
        missing or broken, nothing is live: a client that uses the label gets an error.
        """
        directories, stable = self.directories(), self.labels().get(version_labels.STABLE)
        if stable is not None:
            return stable if stable in directories and is_loadable(directories[stable]) else None
        return next((number for number in reversed(directories) if is_loadable(directories[number])), None)

    def digests(self, ledger: push_ledger.Ledger) -> dict[int, str]:
        """Version → digest of every loadable version: from the ledger, else computed from the files."""
        return {
            number: ledger.entry(number).digest or digest(directory)
            for number, directory in self.directories().items()
            if is_loadable(directory)
        }

    def state(self) -> dict[str, Any]:
        """The live version as JSON: `{"base", "version", "digest"}`; version and digest are "" when nothing serves.

        The pipeline passes it to the steps that depend on the base, so that TFX runs them again when it changes.
        """
        version = self.live_version()
        if version is None:
            return {"base": self.absolute, "version": "", "digest": ""}
        return {"base": self.absolute, "version": str(version), "digest": digest(self.directory(version))}

    def live_spans(self) -> list[int]:
        """The spans that the live model was trained on; see `receipt.live_spans`."""
        version = self.live_version()
        return receipt.live_spans(None if version is None else self.directory(version))


def model_directory(path: PathLike) -> pathlib.Path | None:
    """The SavedModel that a path names; None if there is none.

    The path is a SavedModel, an exporter's artifact with one, or a base, whose live version is meant.
    """
    base = ServingBase(path)
    for directory in (base.folder, base.folder / FORMAT_SERVING):
        if is_loadable(directory):
            return directory
    version = base.live_version() if base.folder.is_dir() else None
    return None if version is None else base.directory(version)
