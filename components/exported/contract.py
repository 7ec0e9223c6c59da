"""Describes the serving contract of an exported model, and compares two contracts.

Input: a SavedModel's signatures and the config's features.  Output: a contract for JSON, or the differences of two.  A
contract says what a client may send to a model and what it gets back: names, dtypes, shapes and defaults.  It does not
depend on anything that a client cannot see (graph tensors, weights, preprocessing).  Nothing here imports TensorFlow.
"""

import collections
import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from tfx_ranking.components import storage
from tfx_ranking.components.choices.signatures import ANSWERS
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.exported.model_files import CONTRACT_IN_MODEL
from tfx_ranking.components.exported.saved_model import Tensor, signature_definitions
from tfx_ranking.components.storage import PathLike

VERDICTS = ("same", "compatible", "breaking", "no contract", "first model")


class Change(NamedTuple):
    """One difference between two contracts, and a sentence that describes it."""

    breaks: bool  # whether it breaks a client of the live model
    what: Literal["signature", "input", "output", "feature", "default"]
    became: Literal["new", "gone", "changed"]
    sentence: str


class ContractComparison(NamedTuple):
    """How a candidate's contract differs for the clients of the live model."""

    verdict: str  # one of VERDICTS
    differences: list[str]  # one sentence each, the breaking ones first
    summary: str  # a few words; "" if nothing differs


FIRST = ContractComparison("first model", [], "")


def describe(directory: PathLike, config: RankingConfig, reads: Collection[str] | None = None) -> dict[str, Any]:
    """The contract of the SavedModel in `directory`, exported with `config`.

    reads: the features that the model reads from requests, by their names in training; by default all in the config.
    Returns `{"signatures": {name: {"method", "inputs": {tensor: {"dtype", "shape"}}, "outputs"}}, "features": {serving
    name: {"level", "dtype", "shape", "tokens", "default"}}}`; a signature of the table also has `request` and
    `answer`, its kinds: two signatures that both take strings may read different bytes.
    """
    rows = config.serving.rows
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
    return {"signatures": described, "features": features(config, reads)}


def features(config: RankingConfig, reads: Collection[str] | None = None) -> dict[str, Any]:
    """The part of `describe` that depends only on the config: the features that a request may contain."""
    names = config.serving.rename
    table = {
        names.get(name, name): {
            "level": "context" if name in config.context else "items",
            "dtype": feature.dtype,
            "shape": list(feature.shape),
            "tokens": feature.tokens is not None,
            "default": feature.missing,
        }
        for name, feature in config.features.items()
        if reads is None or name in reads
    }
    ids = config.data.item_id
    if ids and any(row.answer_kind.carries_item_ids for row in config.serving.rows.values()):
        table[ids] = {"level": "items", "dtype": "string", "shape": [], "tokens": False, "default": ""}
    return table


def read(directory: PathLike) -> dict[str, Any] | None:
    """The contract that is stored in a model's directory; None for a model without one."""
    file = storage.to_path(directory) / CONTRACT_IN_MODEL
    contract: dict[str, Any] | None = json.loads(file.read_text()) if file.is_file() else None
    return contract


def compare(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> ContractComparison:
    """Compares two contracts for the clients of the live model.

    Breaking: something that clients call, send or read is gone or changed, or they must send more.
    Compatible: there is more that clients can call, send or read, or a default has changed.

    >>> scores = {"predict": {"method": "p", "inputs": {}, "outputs": {"scores": {"dtype": "float", "shape": [-1]}}}}
    >>> compare({"signatures": scores, "features": {}}, {"signatures": {}, "features": {}})[:2]
    ('breaking', ['signature predict is gone'])
    >>> compare({"signatures": {}, "features": {}}, {"signatures": scores, "features": {}}).summary
    'contract compatible (+1 signature)'
    """
    changes = [
        *_signature_changes(live.get("signatures", {}), candidate.get("signatures", {})),
        *_feature_changes(live.get("features", {}), candidate.get("features", {})),
    ]
    if not changes:
        return ContractComparison("same", [], "")
    changes.sort(key=lambda change: not change.breaks)
    verdict = "breaking" if changes[0].breaks else "compatible"
    counted = _counts([change for change in changes if change.breaks or verdict == "compatible"])
    return ContractComparison(verdict, [change.sentence for change in changes], f"contract {verdict} ({counted})")


def compare_models(live: PathLike, candidate: PathLike) -> ContractComparison:
    """Compares the contracts in two models' directories; a model without a contract breaks nothing."""
    before, now = read(live), read(candidate)
    if before is None or now is None:
        which = "the live model" if before is None else "this model"
        return ContractComparison(
            "no contract", [f"{which} has no {CONTRACT_IN_MODEL}, so nothing was compared"], "no contract"
        )
    return compare(before, now)


def _tensors(tensors: tuple[Tensor, ...]) -> dict[str, Any]:
    return {one.name: {"dtype": one.dtype, "shape": None if one.shape is None else list(one.shape)} for one in tensors}


def _signature_changes(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield Change(True, "signature", "gone", f"signature {name} is gone")
            continue
        if now["method"] != before["method"]:
            sentence = f"signature {name} has the method {now['method']}, it had {before['method']}"
            yield Change(True, "signature", "changed", sentence)
        for kind, verb, was in (("request", "reads", "read"), ("answer", "answers with", "answered with")):
            if now.get(kind, before.get(kind)) != before.get(kind, now.get(kind)):
                sentence = f"signature {name} {verb} {now[kind]}, it {was} {before[kind]}"
                yield Change(True, "signature", "changed", sentence)
        yield from _input_changes(f"signature {name}: input", before["inputs"], now["inputs"])
        answer_kind = ANSWERS.get(now.get("answer", ""))  # None for an unknown kind: its outputs are promised
        for change in _output_changes(f"signature {name}: output", before["outputs"], now["outputs"]):
            yield change._replace(breaks=change.breaks and (answer_kind is None or answer_kind.promised))
    for name in candidate:
        if name not in live:
            yield Change(False, "signature", "new", f"signature {name} is new")


def _input_changes(what: str, live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield Change(True, "input", "gone", f"{what} {name} is gone")
        elif now != before:
            sentence = f"{what} {name} is {tensor_text(now)}, it was {tensor_text(before)}"
            yield Change(not _takes(now, before), "input", "changed", sentence)
    for name, now in candidate.items():
        if name not in live:
            # TensorFlow Serving refuses a request without one of the inputs, even if the input is not important.
            sentence = f"{what} {name} ({tensor_text(now)}) is new, and a request without it is refused"
            yield Change(True, "input", "new", sentence)


def _output_changes(what: str, live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield Change(True, "output", "gone", f"{what} {name} is gone")
        elif now != before:
            sentence = f"{what} {name} is {tensor_text(now)}, it was {tensor_text(before)}"
            yield Change(True, "output", "changed", sentence)
    for name, now in candidate.items():
        if name not in live:
            yield Change(False, "output", "new", f"{what} {name} ({tensor_text(now)}) is new")


def _takes(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Whether an input still accepts every value that it accepted before."""
    sizes, were = now["shape"], before["shape"]
    if now["dtype"] != before["dtype"] or (sizes is not None and (were is None or len(sizes) != len(were))):
        return False
    return sizes is None or all(size in (-1, was) for size, was in zip(sizes, were))


def _feature_changes(live: Mapping[str, Any], candidate: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in live.items():
        now = candidate.get(name)
        if now is None:
            yield Change(True, "feature", "gone", f"feature {name} is not read any more")
            continue
        if feature_text(now) != feature_text(before):
            sentence = f"feature {name} is {feature_text(now)}, it was {feature_text(before)}"
            yield Change(True, "feature", "changed", sentence)
        if now["default"] != before["default"]:
            sentence = f"feature {name}: a missing value is {now['default']!r}, it was {before['default']!r}"
            yield Change(False, "default", "changed", sentence)
    for name, now in candidate.items():
        if name not in live:
            sentence = f"feature {name} ({feature_text(now)}) is new, {now['default']!r} where a request has none"
            yield Change(False, "feature", "new", sentence)


def _counts(changes: Collection[Change]) -> str:
    """
    >>> _counts([Change(True, "feature", "gone", "")] * 2 + [Change(True, "output", "changed", "")])
    '-2 features, 1 output changed'
    """
    counted = collections.Counter((change.what, change.became) for change in changes)
    texts = []
    for (what, became), count in counted.items():
        noun = what if count == 1 else f"{what}s"
        texts.append({"new": f"+{count} {noun}", "gone": f"-{count} {noun}"}.get(became, f"{count} {noun} changed"))
    return ", ".join(texts)


def tensor_text(tensor: Mapping[str, Any]) -> str:
    """
    >>> tensor_text({"dtype": "string", "shape": [-1, 3]}), tensor_text({"dtype": "float", "shape": None})
    ('string [?, 3]', 'float of any rank')
    """
    if tensor["shape"] is None:
        return f"{tensor['dtype']} of any rank"
    return f"{tensor['dtype']} [{', '.join('?' if size < 0 else str(size) for size in tensor['shape'])}]"


def feature_type(feature: Mapping[str, Any]) -> str:
    """
    >>> feature_type({"dtype": "float", "shape": [128], "tokens": False})
    'float [128]'
    """
    shape = f" {feature['shape']}" if feature["shape"] else ""
    return f"{feature['dtype']}{shape}{' tokens' if feature['tokens'] else ''}"


def feature_text(feature: Mapping[str, Any]) -> str:
    return f"{feature_type(feature)} of {feature['level']}"
