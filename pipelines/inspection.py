"""What an exported or pushed model holds: versions, signatures, inputs, outputs, features.

Enters: a SavedModel, or a folder of versions.  Leaves: an immutable `Inspected`, and its text.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfx_ranking.components.config import from_selection
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.list_examples import Column, columns
from tfx_ranking.components.serving_versions import CONFIG_IN_MODEL, digest, live_version


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
    # TensorBoard carries TensorFlow's protos without TensorFlow, whose import takes seconds.
    from tensorboard.compat.proto import meta_graph_pb2, types_pb2

    def tensors(infos: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(name, types_pb2.DataType.Name(info.dtype)[3:].lower(), tuple(d.size for d in info.tensor_shape.dim))
            for name, info in sorted(infos.items())
        )

    (serialized,) = _saved_model()(_read(directory / "saved_model.pb")).meta_graphs
    graph = meta_graph_pb2.MetaGraphDef.FromString(serialized)
    return tuple(
        Signature(name, definition.method_name, tensors(definition.inputs), tensors(definition.outputs))
        for name, definition in sorted(graph.signature_def.items())
        if name != "__saved_model_init_op"
    )


def _read(file: pathlib.Path) -> bytes:
    if not file.is_file():
        raise RankingError(f"{file.parent}: expected saved_model.pb; it holds another form of SavedModel.")
    return file.read_bytes()


def _saved_model() -> Callable[[bytes], Any]:
    """Reads `SavedModel`, the one message around the graphs, which TensorBoard leaves out."""
    field = descriptor_pb2.FieldDescriptorProto
    graphs = field(name="meta_graphs", number=2, label=field.LABEL_REPEATED, type=field.TYPE_BYTES)
    message = descriptor_pb2.DescriptorProto(name="SavedModel", field=[graphs])
    file = descriptor_pb2.FileDescriptorProto(name="saved_model.proto", package="tfx_ranking", message_type=[message])
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    descriptor = pool.FindMessageTypeByName("tfx_ranking.SavedModel")
    newer = getattr(message_factory, "GetMessageClass", None)  # protobuf 4.22 on; 3.20 has the other alone
    made = newer(descriptor) if newer else message_factory.MessageFactory(pool).GetPrototype(descriptor)
    parse: Callable[[bytes], Any] = made.FromString
    return parse


def _features(directory: pathlib.Path) -> tuple[tuple[str, str, str], ...]:
    file = directory / CONFIG_IN_MODEL
    if not file.is_file():  # not one of ours
        return ()
    config = from_selection(json.loads(file.read_text()))
    table = columns(config)
    return tuple((table[name].level, name, _dtype(table[name])) for name in config.features)


def _dtype(column: Column) -> str:
    return (
        f"{column.dtype} tokens" if column.tokens else column.dtype + (f" [{column.width}]" if column.width > 1 else "")
    )


def _shape(shape: tuple[int, ...]) -> str:
    return "[" + ", ".join("?" if size < 0 else str(size) for size in shape) + "]"
