"""Version labels in TensorFlow Serving's `models.config`: which version is `stable`, which is `canary`.

Enters: the file (a ModelServerConfig as text), a model's name.  Leaves: its labels, or the file anew.  The one idea:
the file is replaced in one step, and the server loads every version that stands there, with a label or without:
it reads a file's labels first and takes none that moves to a version which is not loaded.  No TensorFlow here.
"""

import dataclasses
import fcntl
import pathlib
from collections.abc import Collection
from typing import Any

from tfx_ranking.components import storage
from tfx_ranking.components.errors import PushError

STABLE, CANARY = "stable", "canary"
LABELS = (STABLE, CANARY)


@dataclasses.dataclass(frozen=True)
class Labels:
    """Where the labels of one model are kept."""

    file: str
    model: str  # its name there


def read(labels: Labels) -> dict[str, int]:
    """Label → version of a model; {} where the file is not there or does not name it."""
    model = _model(_parsed(labels.file), labels.model)
    return {} if model is None else {str(label): int(version) for label, version in model.version_labels.items()}


def move(labels: Labels, label: str, version: int, base: storage.PathLike, there: Collection[int]) -> int | None:
    """Gives `label` to a version, in one step; gives the version that it came from, which the server asks until it has
    read the file.  Makes the file, or the model's part of it, where there is none.

    base: what a new part names as the model's base path; one that is there keeps its own, which may be the path that
    the server sees.  there: the versions that are; another label of one that is gone goes too, since TensorFlow Serving
    takes no label at all from a file in which one has no version.  Other models, the comment that the file begins with
    and a policy that names a number of latest versions stay.
    """
    file = storage.to_path(labels.file)
    storage.make_folder(file.parent)
    with _only_writer(file):
        config = _parsed(labels.file)
        model = _model(config, labels.model)
        if model is None:
            model = config.model_config_list.config.add(name=labels.model, base_path=storage.absolute(base))
            model.model_platform = "tensorflow"
        before = int(model.version_labels[label]) if label in model.version_labels else None
        model.version_labels[label] = version
        for other in [each for each, of in model.version_labels.items() if of not in there]:
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
    """Two models of one file may be pushed at once; a store without flock takes the last writer's."""

    def __init__(self, file: pathlib.Path) -> None:
        self._lock = file.with_name(f".{file.name}.lock") if storage.is_local(file) else None
        self._held: Any = None

    def __enter__(self) -> None:
        if self._lock is not None:
            self._held = open(self._lock, "a")
            fcntl.flock(self._held, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()
