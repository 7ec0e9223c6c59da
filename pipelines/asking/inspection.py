"""Reads what an exported or pushed model contains: versions, signatures, features, origin, samples and weights.

Input: a SavedModel, or a folder of versions.  Output: an immutable `Inspected`, and its text.
"""

import dataclasses
import itertools
import json
import pathlib
import struct
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from tfx_ranking.components.config import from_selection
from tfx_ranking.components.config.feature_sections import by_number
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import contract, model_files, receipt
from tfx_ranking.components.exported.contract import feature_type, tensor_text
from tfx_ranking.components.exported.model_files import (
    CONFIG_IN_MODEL,
    WEIGHTS_IN_MODEL,
    digest,
    sample_file,
)
from tfx_ranking.components.exported.saved_model import SignatureDefinition, signature_definitions
from tfx_ranking.components.push.versions import ServingBase, model_directory, parse_version
from tfx_ranking.components.serving.warmup import WARMUP_IN_MODEL
from tfx_ranking.pipelines.text_layout import wrapped


@dataclasses.dataclass(frozen=True)
class RequestFeature:
    """One feature, with its name and type in requests."""

    name: str
    trained_as: str  # its name in training
    level: str  # "context" or "items"
    type: str  # e.g. "float [128]", "string tokens"
    default: float | int | str  # the value that a missing one is replaced by


@dataclasses.dataclass(frozen=True)
class InspectedSignature:
    """One signature: its tensors, and the kinds of its requests and answers (see `choices.signatures`)."""

    signature: SignatureDefinition
    request: str = ""  # "" if the contract does not have it
    answer: str = ""


@dataclasses.dataclass(frozen=True)
class InspectedReceipt:
    """Where a model was made, from its lineage receipt; "" and () for entries that the receipt does not have."""

    pipeline: str
    run: str
    exported_at: str
    data: tuple[tuple[str, str], ...]  # e.g. ("span", "3"), ("fingerprint", "…")
    artifacts: tuple[tuple[str, str], ...]  # (input of the export, the artifact)
    packages: tuple[tuple[str, str], ...]  # name, version


@dataclasses.dataclass(frozen=True)
class Inspected:
    """One model, and the versions beside it in the same folder."""

    directory: pathlib.Path
    versions: tuple[int, ...]  # oldest first; empty for a model outside a serving folder
    digest: str
    calls: tuple[InspectedSignature, ...]  # by name, `serving_default` last
    features: tuple[RequestFeature, ...]  # of the proto signatures; empty if tfx-ranking did not export the model
    receipt: InspectedReceipt | None
    warm_up: int  # number of requests that TensorFlow Serving replays before it serves
    samples: tuple[str, ...]  # signatures that have a sample request and its expected answer
    layers: tuple[str, ...]  # layers whose weights a new ranker can start from


def inspect(directory: pathlib.Path) -> Inspected:
    """Reads the model in `directory`, or the serving version of a folder.  Raises RankingError if there is none."""
    directory = _model_in(directory.absolute())
    promised = contract.read(directory) or {}
    calls = _calls(directory, promised)
    is_version = parse_version(directory.name) is not None
    return Inspected(
        directory=directory,
        versions=tuple(ServingBase(directory.parent).directories()) if is_version else (),
        digest=digest(str(directory)),
        calls=calls,
        features=_features(directory, promised),
        receipt=_receipt(directory),
        warm_up=_count_records(directory / WARMUP_IN_MODEL),
        samples=tuple(call.signature.name for call in calls if sample_file(directory, call.signature.name).is_file()),
        layers=_layers(directory / WEIGHTS_IN_MODEL),
    )


def render(model: Inspected) -> str:
    """The text that `tfx-ranking inspect` prints."""
    first, *others = model.layers or ("",)
    lines = [
        f"{model.directory}",
        *_entry("digest", [model.digest]),
        *_entry("versions", [str(version) for version in model.versions]),
        *_entry("warm-up", [f"{model.warm_up} request{'s' * (model.warm_up != 1)}" if model.warm_up else "none"]),
        *_entry("samples", model.samples),
        *_entry("weights", [f"{len(model.layers)} layers: {first}", *others] if first else []),
    ]
    lines += _receipt_lines(model.receipt) if model.receipt else []
    shown: dict[Any, str] = {}
    for call in model.calls:
        lines += _call_lines(call, shown)
    if model.features:
        lines += ["", f"{'features':<28} {'if missing':<12} names in requests"]
        for (level, kind, default), group in itertools.groupby(model.features, _feature_traits):
            names = [each.name + _trained_as(each) for each in group]
            lines += wrapped(f"  {level:<8} {kind:<17} {default:<12} ", names)
    return "\n".join(lines)


def _model_in(directory: pathlib.Path) -> pathlib.Path:
    model = model_directory(directory)
    # A model that cannot serve can still be inspected.
    for loose in (directory, directory / model_files.FORMAT_SERVING):
        model = model or (loose if _is_model(loose) else None)
    if model is None:
        names = ", ".join(sorted(child.name for child in directory.iterdir())) if directory.is_dir() else "no folder"
        raise RankingError(
            f"{directory}: expected a SavedModel (saved_model.pb) or a folder of versions; found {names or 'nothing'}."
        )
    return model


def _is_model(directory: pathlib.Path) -> bool:
    return any((directory / name).is_file() for name in ("saved_model.pb", "saved_model.cpb"))


def _calls(directory: pathlib.Path, promised: Mapping[str, Any]) -> tuple[InspectedSignature, ...]:
    recorded = promised.get("signatures", {})
    definitions = sorted(signature_definitions(directory), key=lambda signature: signature.name == "serving_default")
    kinds = [recorded.get(signature.name, {}) for signature in definitions]
    return tuple(
        InspectedSignature(signature, kind.get("request", ""), kind.get("answer", ""))
        for signature, kind in zip(definitions, kinds)
    )


def _features(directory: pathlib.Path, promised: Mapping[str, Any]) -> tuple[RequestFeature, ...]:
    file = directory / CONFIG_IN_MODEL
    config = from_selection(file.read_text()) if file.is_file() else None
    if "features" not in promised:  # an older export, or a model of another tool
        promised = {"features": contract.features(config) if config else {}}
    trained_as = {served: name for name, served in config.serving.rename.items()} if config else {}
    return tuple(
        RequestFeature(name, trained_as.get(name, name), each["level"], feature_type(each), each["default"])
        for name, each in promised["features"].items()
    )


def _receipt(model: pathlib.Path) -> InspectedReceipt | None:
    recorded = receipt.read(model)
    if recorded is None:
        return None

    def pairs(key: str) -> tuple[tuple[str, str], ...]:
        return tuple((name, _plain(value)) for name, value in (recorded.get(key) or {}).items())

    artifacts = tuple(
        (name, f"{artifact.get('name') or artifact.get('uri', '')} (id {artifact.get('id', '?')})")
        for name, listed in (recorded.get("artifacts") or {}).items()
        for artifact in listed
    )
    pipeline, run, exported_at = (_plain(recorded.get(key, "")) for key in ("pipeline", "run", "exported_at"))
    return InspectedReceipt(
        pipeline=pipeline,
        run=run,
        exported_at=exported_at,
        data=pairs("data"),
        artifacts=artifacts,
        packages=pairs("packages"),
    )


def _call_lines(call: InspectedSignature, shown: dict[Any, str]) -> list[str]:
    """shown: tensors and kinds → the first signature that was printed with them; this function adds to it."""
    signature = call.signature
    tensors = (signature.inputs, signature.outputs)
    kinds = f"{call.request} → {call.answer}  " if call.request else ""
    lines = ["", f"{signature.name}  {kinds}({signature.method})"]
    same = shown.setdefault((tensors, signature.method, kinds), signature.name)
    if same != signature.name:
        return [*lines, f"  the same as {same}"]
    alike = shown.setdefault(tensors, signature.name)
    if alike != signature.name:
        return [*lines, f"  tensors as of {alike}"]
    for heading, group in zip(("in ", "out"), tensors):
        by_type: dict[str, list[str]] = {}
        for tensor in group:
            by_type.setdefault(tensor_text({"dtype": tensor.dtype, "shape": tensor.shape}), []).append(tensor.name)
        for text, names in by_type.items():
            lines += wrapped(f"  {heading} {text:<18} ", sorted(names, key=by_number))
    return lines


def _receipt_lines(receipt: InspectedReceipt) -> list[str]:
    run = f"{receipt.pipeline}, run {receipt.run}" if receipt.run else receipt.pipeline
    return [
        "",
        *_entry("made by", [run] if run else []),
        *_entry("exported", [receipt.exported_at] if receipt.exported_at else []),
        *_entry("data", [f"{name} {value}" for name, value in receipt.data]),
        *itertools.chain(*(_entry("from", [f"{name}: {which}"]) for name, which in receipt.artifacts)),
        *_entry("packages", [f"{name} {version}" for name, version in receipt.packages]),
    ]


def _count_records(file: pathlib.Path) -> int:
    """The number of records in a TFRecord file, 0 without one.  Each: length (8), checksum (4), bytes, checksum (4)."""
    if not file.is_file():
        return 0
    count, position, size = 0, 0, file.stat().st_size
    with file.open("rb") as records:
        while position < size:
            records.seek(position)
            head = records.read(12)
            position += 16 + (struct.unpack("<Q", head[:8])[0] if len(head) == 12 else size)
            if position > size:
                raise RankingError(
                    f"{file}: record {count} is cut off, and TensorFlow Serving will not load the model; export it "
                    "again, or remove the file."
                )
            count += 1
    return count


def _layers(file: pathlib.Path) -> tuple[str, ...]:
    """The names of the layers in `weights.npz`; its members are called `<layer>/<variable>.npy`."""
    if not file.is_file():
        return ()
    with zipfile.ZipFile(file) as stored:
        return tuple(dict.fromkeys(name.rpartition("/")[0] for name in stored.namelist()))


def _entry(heading: str, facts: Sequence[str]) -> list[str]:
    return wrapped(f"{heading:<9} ", facts) if facts else []


def _feature_traits(feature: RequestFeature) -> tuple[str, str, str]:
    nothing = feature.default == "" and feature.type.endswith("tokens")
    return feature.level, feature.type, "no tokens" if nothing else json.dumps(feature.default)


def _trained_as(feature: RequestFeature) -> str:
    return f" ({feature.trained_as} in training)" if feature.trained_as != feature.name else ""


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
