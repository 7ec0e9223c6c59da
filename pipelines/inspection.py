"""What an exported or pushed model holds: versions, signatures, inputs, outputs, features.

Enters: a SavedModel, or a folder of versions.  Leaves: an immutable `Inspected`, and its text.
"""

import dataclasses
import json
import pathlib

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.serving_versions import digest, live_version


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output: dtype and shape as TensorFlow names them, -1 for any size."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Signature:
    name: str
    method: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Inspected:
    """One model, and the versions that stand beside it."""

    directory: pathlib.Path
    versions: tuple[int, ...]  # all integer-named neighbours, oldest first; empty for a model outside a serving folder
    digest: str
    signatures: tuple[Signature, ...]
    features: tuple[tuple[str, str, str], ...]  # level, name, dtype; as the proto signatures read them


def inspect(directory: pathlib.Path) -> Inspected:
    """The model in `directory`; of a folder of versions, the one that serves.  Raises RankingError where none is."""
    directory = directory.absolute()
    if not _is_model(directory):
        version = live_version(str(directory)) if directory.is_dir() else 0
        if not version and _is_model(directory / "Format-Serving"):  # an artifact of the exporter
            directory = directory / "Format-Serving"
        elif not version:
            found = (
                ", ".join(sorted(child.name for child in directory.iterdir())) if directory.is_dir() else "no folder"
            )
            raise RankingError(
                f"{directory}: expected a SavedModel (saved_model.pb) or a folder of versions; "
                f"found {found or 'nothing'}."
            )
        else:
            directory = directory / str(version)
    neighbours = [int(child.name) for child in directory.parent.iterdir() if child.name.isdigit()]
    return Inspected(
        directory,
        tuple(sorted(neighbours)) if directory.name.isdigit() else (),
        digest(str(directory)),
        _signatures(directory),
        _features(directory),
    )


def render(model: Inspected) -> str:
    """The text that `tfx-ranking inspect` prints."""
    lines = [f"{model.directory}", f"digest    {model.digest}"]
    if model.versions:
        lines.append(f"versions  {', '.join(map(str, model.versions))}")
    for signature in model.signatures:
        lines += ["", f"{signature.name}  ({signature.method})"]
        for heading, tensors in (("in ", signature.inputs), ("out", signature.outputs)):
            lines += [f"  {heading} {each.name:<12} {each.dtype:<8} {_shape(each.shape)}" for each in tensors]
    if model.features:
        lines += ["", "features"]
        lines += [f"  {level:<8} {name:<24} {dtype}" for level, name, dtype in model.features]
    return "\n".join(lines)


def _is_model(directory: pathlib.Path) -> bool:
    return any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.cpb"))


def _signatures(directory: pathlib.Path) -> tuple[Signature, ...]:
    from tensorflow.core.framework import types_pb2
    from tensorflow.python.tools import saved_model_utils

    graph = saved_model_utils.get_meta_graph_def(str(directory), "serve")

    def tensors(infos: object) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(name, types_pb2.DataType.Name(info.dtype)[3:].lower(), tuple(d.size for d in info.tensor_shape.dim))
            for name, info in sorted(infos.items())  # type: ignore[attr-defined]
        )

    return tuple(
        Signature(name, definition.method_name, tensors(definition.inputs), tensors(definition.outputs))
        for name, definition in sorted(graph.signature_def.items())
        if name != "__saved_model_init_op"
    )


def _features(directory: pathlib.Path) -> tuple[tuple[str, str, str], ...]:
    file = directory / "assets.extra" / "tfx_ranking" / "features.json"
    if not file.is_file():
        return ()
    return tuple((each["level"], each["name"], each["dtype"]) for each in json.loads(file.read_text()))


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("?" if size < 0 else str(size) for size in shape) + "]"
