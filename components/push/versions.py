"""The versions under a base directory as TensorFlow Serving sees them, and which of them is live.

Enters: a directory.  Leaves: numbers, digests.  The one idea: a model is its bytes, so one digest over the sorted
paths and bytes of its directory is its identity, wherever it is copied to.  Nothing here imports TensorFlow or TFX.

>>> parse_version("0012"), parse_version(".pushing-7"), parse_version("-1")
(12, None, None)
"""

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
    """The version that TensorFlow Serving takes a directory's name for; None for a name that it ignores."""
    # As its ParseVersionNumber does: blanks around are skipped, leading zeros count nothing, negative ones are ignored.
    if not re.fullmatch(r"\s*[0-9]+\s*", name, re.ASCII) or int(name) >= 1 << 63:
        return None
    return int(name)


def version_directories(base: PathLike) -> dict[int, pathlib.Path]:
    """Every integer-named child of `base`, whole or broken, lowest version first; none where `base` is not there."""
    numbered = [(parse_version(child.name), child) for child in storage.children(storage.to_path(base))]
    return dict(sorted((number, child) for number, child in numbered if number is not None))


def labels(base: PathLike) -> dict[str, int]:
    """Label → version, as the models.config says in which the labels of `base` are kept; {} where none are."""
    kept = kept_labels(base)
    return version_labels.read(kept) if kept else {}


def kept_labels(base: PathLike) -> version_labels.Labels | None:
    """Where the labels of `base` are kept; None where they are not."""
    ledger = push_ledger.read(base)
    if not ledger.models_config or not storage.to_path(ledger.models_config).is_file():
        return None
    return version_labels.Labels(ledger.models_config, ledger.model)


def live_version(base: PathLike) -> int | None:
    """The version that serves: the one labelled stable, else the highest that is loadable; None when nothing does.

    TensorFlow Serving serves the highest to whoever names no version.  A labelled version that is gone or broken is
    none: whoever asks for the label gets an error.
    """
    versions, stable = version_directories(base), labels(base).get(version_labels.STABLE)
    if stable is not None:
        return stable if stable in versions and is_loadable(versions[stable]) else None
    return next((number for number in reversed(versions) if is_loadable(versions[number])), None)


def model_directory(path: PathLike) -> pathlib.Path | None:
    """The SavedModel that `path` means: itself, the one in an exporter's artifact, or the one that serves from a base;
    None where there is none."""
    root = storage.to_path(path)
    for directory in (root, root / FORMAT_SERVING):
        if is_loadable(directory):
            return directory
    version = live_version(root) if root.is_dir() else None
    return None if version is None else version_directories(root)[version]


def live_spans(base: PathLike) -> list[int]:
    """The spans that the model which serves under `base` was trained on; see `receipt.live_spans`."""
    return receipt.live_spans(model_directory(base))


def state(base: PathLike) -> dict[str, Any]:
    """What lives under `base`, JSON-able: `{"base", "version", "digest"}`; both "" when nothing lives.

    Taken when the pipeline is put together, it makes the cache of whatever depends on the destination tell the truth.
    """
    version = live_version(base)
    absolute = storage.absolute(base)
    if version is None:
        return {"base": absolute, "version": "", "digest": ""}
    return {"base": absolute, "version": str(version), "digest": digest(version_directories(base)[version])}
