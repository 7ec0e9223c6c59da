"""The serving contract: what a client may send to an exported model and what it gets back.

Enters: a SavedModel's signatures and the config's features.  Leaves: a JSON-able contract, and how two of them differ.
The one idea: a contract is names, dtypes, shapes and defaults alone, so whatever a client cannot see (graph tensors,
weights, preprocessing) changes nothing in it.  No TensorFlow, unless a model is saved in the split form (`.cpb`).
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tfx_ranking.components import signatures
from tfx_ranking.components.config import Feature, RankingConfig
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.serving_versions import CONTRACT_IN_MODEL

Path = str | os.PathLike[str]
Change = tuple[Literal["compatible", "breaking"], str]  # what it means to a client, and the sentence about it


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One input or output: dtype and shape as TensorFlow names them, -1 for any size, None for any rank."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    name: str
    method: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Verdict(NamedTuple):
    """What a candidate's contract is to the clients of the live model, and every difference as a sentence."""

    verdict: Literal["same", "compatible", "breaking"]
    differences: list[str]  # breaking ones first


def describe(directory: Path, config: RankingConfig, reads: Collection[str] | None = None) -> dict[str, Any]:
    """The contract of the SavedModel in `directory`, exported with `config`.

    reads: the features that requests are searched for, by their names in training; all of the config's when left out.
    Returns `{"signatures": {name: {"method", "inputs": {tensor: {"dtype", "shape"}}, "outputs"}}, "features": {serving
    name: {"level", "dtype", "shape", "tokens", "default"}}}`; a signature of the table also has `request` and
    `answer`, its kinds: two signatures that both take strings may read different bytes.
    """
    rows = signatures.chosen(config.serving)
    if config.serving.default in rows:
        rows["serving_default"] = rows[config.serving.default]
    described = {}
    for signature in signature_definitions(directory):
        described[signature.name] = {
            "method": signature.method,
            **({"request": row.request, "answer": row.answer} if (row := rows.get(signature.name)) else {}),
            "inputs": _tensors(signature.inputs),
            "outputs": _tensors(signature.outputs),
        }
    names = config.serving.rename
    features = {
        names.get(name, name): _feature("context" if name in config.context else "items", feature)
        for name, feature in config.features.items()
        if reads is None or name in reads
    }
    return {"signatures": described, "features": features}


def read(directory: Path) -> dict[str, Any] | None:
    """The contract that travels with a model; None for a model that has none."""
    file = pathlib.Path(directory) / CONTRACT_IN_MODEL
    contract: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return contract


def compare(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Verdict:
    """What the live model's clients would find changed.

    Breaking: whatever they send or read is gone or has another type, or they would have to send more.  Compatible:
    there is more to call or to read, a default is another.

    >>> scores = {"predict": {"method": "p", "inputs": {}, "outputs": {"scores": {"dtype": "float", "shape": [-1]}}}}
    >>> compare({"signatures": {}, "features": {}}, {"signatures": scores, "features": {}})
    Verdict(verdict='compatible', differences=['signature predict is new'])
    """
    changes = [
        *_signature_changes(live.get("signatures", {}), candidate.get("signatures", {})),
        *_feature_changes(live.get("features", {}), candidate.get("features", {})),
    ]
    breaking = [sentence for kind, sentence in changes if kind == "breaking"]
    compatible = [sentence for kind, sentence in changes if kind == "compatible"]
    if breaking:
        return Verdict("breaking", breaking + compatible)
    return Verdict("compatible" if compatible else "same", compatible)


def signature_definitions(directory: Path) -> tuple[Signature, ...]:
    """A SavedModel's signatures, by name.  Raises RankingError where there is no SavedModel."""
    # TensorBoard carries TensorFlow's protos without TensorFlow, whose import takes seconds.
    from tensorboard.compat.proto import meta_graph_pb2, types_pb2

    def tensors(infos: Mapping[str, Any]) -> tuple[Tensor, ...]:
        return tuple(
            Tensor(
                name,
                types_pb2.DataType.Name(info.dtype)[3:].lower(),
                None if info.tensor_shape.unknown_rank else tuple(d.size for d in info.tensor_shape.dim),
            )
            for name, info in sorted(infos.items())
        )

    file = pathlib.Path(directory) / "saved_model.pb"
    if not file.is_file():
        raise RankingError(f"{directory}: expected saved_model.pb; it holds another form of SavedModel.")
    (serialized,) = _saved_model()(file.read_bytes()).meta_graphs
    graph = meta_graph_pb2.MetaGraphDef.FromString(serialized)
    return tuple(
        Signature(name, definition.method_name, tensors(definition.inputs), tensors(definition.outputs))
        for name, definition in sorted(graph.signature_def.items())
        if name != "__saved_model_init_op"
    )


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


def _tensors(tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    return {
        each.name: {"dtype": each.dtype, "shape": None if each.shape is None else list(each.shape)} for each in tensors
    }


def _feature(level: str, feature: Feature) -> dict[str, Any]:
    return {
        "level": level,
        "dtype": feature.dtype,
        "shape": list(feature.shape),
        "tokens": feature.tokens is not None,
        "default": feature.missing,
    }


def _signature_changes(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield "breaking", f"signature {name} is gone"
            continue
        if now["method"] != before["method"]:
            yield "breaking", f"signature {name} is called by {now['method']}, it was {before['method']}"
        for kind, verb, was in (("request", "reads", "read"), ("answer", "answers", "answered")):
            if now.get(kind, before.get(kind)) != before.get(kind, now.get(kind)):
                yield "breaking", f"signature {name} {verb} {now[kind]}, it {was} {before[kind]}"
        yield from _tensor_changes(f"signature {name}: input", before["inputs"], now["inputs"])
        yield from _tensor_changes(f"signature {name}: output", before["outputs"], now["outputs"])
    for name in candidate:
        if name not in live:
            yield "compatible", f"signature {name} is new"


def _tensor_changes(prefix: str, live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    is_input = prefix.endswith("input")
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield "breaking", f"{prefix} {name} is gone"
        elif now != before:
            takes_more = is_input and now["dtype"] == before["dtype"] and _takes(now["shape"], before["shape"])
            yield (
                "compatible" if takes_more else "breaking",
                f"{prefix} {name} is {tensor_text(now)}, it was {tensor_text(before)}",
            )
    for name in candidate:
        if name not in live and is_input:
            # TensorFlow Serving wants every input of a signature, whatever the request is about.
            yield "breaking", f"{prefix} {name} is new, and requests without it are refused"
        elif name not in live:
            yield "compatible", f"{prefix} {name} is new"


def _takes(now: list[int] | None, before: list[int] | None) -> bool:
    """Whether every shape that was taken still is."""
    if now is None:
        return True
    return before is not None and len(now) == len(before) and all(n in (-1, b) for n, b in zip(now, before))


def _feature_changes(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield "breaking", f"feature {name} is not read any more"
            continue
        if feature_text(now) != feature_text(before):
            yield "breaking", f"feature {name} is {feature_text(now)}, it was {feature_text(before)}"
        if now["default"] != before["default"]:
            yield (
                "compatible",
                f"feature {name}: a missing value counts as {now['default']!r}, it was {before['default']!r}",
            )
    for name, now in candidate.items():
        if name not in live:
            yield "compatible", f"feature {name} ({feature_text(now)}) is new, {now['default']!r} where it is missing"


def tensor_text(tensor: Mapping[str, Any]) -> str:
    """
    >>> tensor_text({"dtype": "string", "shape": [-1, 3]}), tensor_text({"dtype": "float", "shape": None})
    ('string [?, 3]', 'float of any rank')
    """
    if tensor["shape"] is None:
        return f"{tensor['dtype']} of any rank"
    return f"{tensor['dtype']} [{', '.join('?' if size < 0 else str(size) for size in tensor['shape'])}]"


def feature_text(feature: Mapping[str, Any]) -> str:
    """
    >>> feature_text({"level": "items", "dtype": "float", "shape": [128], "tokens": False})
    'float [128] of items'
    """
    shape = f" {feature['shape']}" if feature["shape"] else ""
    return f"{feature['dtype']}{shape}{' tokens' if feature['tokens'] else ''} of {feature['level']}"
