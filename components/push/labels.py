"""Reads and moves version labels in TensorFlow Serving's `models.config`: which version is `stable`, which `canary`.

Input: the file (a ModelServerConfig as text) and a model's name.  Output: the model's labels, or a new file.  The file
is replaced in one step and makes the server load every version, labelled or not: the server reads the labels first and
rejects a label that moves to a version that is not loaded.  Nothing here imports TensorFlow.
"""

import dataclasses
import fcntl
import pathlib
from collections.abc import Collection
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError

STABLE, CANARY = "stable", "canary"


@dataclasses.dataclass(frozen=True)
class Labels:
    """The models.config with the labels of one model."""

    file: str
    model: str  # its name in the file


def read(labels: Labels) -> dict[str, int]:
    """Label → version of a model; {} when the file does not exist or does not list the model."""
    model = _model(_parsed(labels.file), labels.model)
    return {} if model is None else {str(label): int(version) for label, version in model.version_labels.items()}


def move(labels: Labels, label: str, version: int, base: str, existing: Collection[int]) -> int | None:
    """Moves `label` to a version, in one step; returns the version that had it, which serves until the server has read
    the file.  Creates the file, or the model's entry in it, when missing.

    base: the base path for a new entry; an existing entry keeps its own, which may be the path inside the server's
    container.  existing: the versions under the base.  Labels of other versions are removed, because TensorFlow Serving
    rejects all labels of a file when one of them has no version.  Other models, the comment at the top of the file and
    a policy with a number of latest versions stay.
    """
    file = storage.to_path(labels.file)
    storage.make_folder(file.parent)
    with _only_writer(file):
        config = _parsed(labels.file)
        model = _model(config, labels.model)
        if model is None:
            model = config.model_config_list.config.add(name=labels.model, base_path=base)
            model.model_platform = "tensorflow"
        before = int(model.version_labels[label]) if label in model.version_labels else None
        model.version_labels[label] = version
        for other in [each for each, of in model.version_labels.items() if of not in existing]:
            del model.version_labels[other]
        if not model.model_version_policy.HasField("latest"):
            model.model_version_policy.all.SetInParent()
        storage.replace_file(file, (_comment(file) + _text(config)).encode())
        return before


def _parsed(file: str) -> Any:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = model_server_config_pb2.ModelServerConfig()
    try:
        text = storage.to_path(file).read_text()
    except FileNotFoundError:
        return config
    try:
        return text_format.Parse(text, config)
    except text_format.ParseError as error:
        raise PushError(f"{file}: not TensorFlow Serving's models.config (a ModelServerConfig): {error}.") from error


def _model(config: Any, name: str) -> Any:
    return next((each for each in config.model_config_list.config if each.name == name), None)


def _text(config: Any) -> str:
    from google.protobuf import text_format

    return str(text_format.MessageToString(config))


def _comment(file: pathlib.Path) -> str:
    if not file.is_file():
        return (
            "# TensorFlow Serving: --model_config_file=<this file> --model_config_file_poll_wait_seconds=30\n"
            "#   --allow_version_labels_for_unavailable_models=true (when it starts, no version is loaded yet)\n"
        )
    lines = file.read_text().splitlines(keepends=True)
    count = next((at for at, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    return "".join(lines[:count])


class _only_writer:
    """Lets one process at a time write the file, which two pushes of different models may share.

    An object store has no such lock; there the last writer wins.
    """

    def __init__(self, file: pathlib.Path) -> None:
        self._lock = file.with_name(f".{file.name}.lock") if storage.is_local(file) else None
        self._opened: Any = None

    def __enter__(self) -> None:
        if self._lock is not None:
            self._opened = open(self._lock, "a")
            fcntl.flock(self._opened, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._opened is not None:
            self._opened.close()
