"""Proves before the export that the signatures score requests as training scores materialised features.

Input: a ranker, its SavedModel, and lists of the test split, as raw list examples and as materialised transformed
examples.  Output: a report with the largest differences, or a ParityError that names signature, list, item and feature.

The SavedModel is called in a process that imports only TensorFlow, by the loader that TensorFlow Serving uses.  A list
must get training's scores however it is sent: with other lists, alone, with its items in another order, with more
padding.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import Signature, tensor_name
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.serving import client_requests, serving_process
from tfx_ranking.components.serving.blame import blame
from tfx_ranking.components.serving.client_requests import Feed
from tfx_ranking.components.serving.parity_sample import Floats, Sample, choose

TOLERANCE = 1e-5  # of max(1, |score|, spread of the list's scores)
BATCH = 32  # lists in a call
ALONE = 16  # lists that are also sent in other ways than in batches


class ParityError(RankingError):
    """An exported signature scores differently from training; `report` has the figures."""

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignatureProof:
    """The proof of one signature: what it needs, and the report that it adds to.

    ranker: the `serving_ranker.ServingRanker` behind the SavedModel.  some: positions in the sample of the ALONE lists.
    """

    ranker: Any
    name: str
    row: Signature
    sample: Sample
    some: Sequence[int]
    report: dict[str, Any]


class SampleCall(NamedTuple):
    """One call: its lists, their positions in the sample (-1: an empty list), and the order of their items."""

    at: Sequence[int]
    lists: Sequence[bytes]
    orders: Sequence[npt.NDArray[np.int64]]
    feed: Feed | None = None  # these inputs replace those that are made from the lists


class ListFigures(NamedTuple):
    """The comparison of one list."""

    at: int  # position in the sample
    order: npt.NDArray[np.int64]
    trained: npt.NDArray[Any]
    served: npt.NDArray[Any]
    comparison: "ScoreComparison"


def prove(
    ranker: Any, model: str, sample: Sample, rows: Mapping[str, Signature], also: Mapping[str, Feed]
) -> tuple[dict[str, Any], dict[str, Feed]]:
    """Sends the sample's lists to each signature in every way of WAYS, and compares the answers with training.

    ranker: the `serving_ranker.ServingRanker` that was saved to `model`; it shows which feature differs when a score
    does.  also: one more call for each of some signatures.  Returns the report, and the answers to the calls of `also`.
    Raises ParityError for a difference above the tolerance or another order; RankingError when the model cannot be
    loaded or called.
    """
    sizes = [len(scores) for scores in sample.scores]
    report: dict[str, Any] = {
        "lists": len(sizes),
        "items": sum(sizes),
        "list_sizes": [min(sizes), max(sizes)],
        "tolerance": TOLERANCE,
        "signatures": {},
    }
    some = choose(np.array(sizes), ALONE).tolist()
    proofs = [
        SignatureProof(ranker=ranker, name=name, row=row, sample=sample, some=some, report=report)
        for name, row in rows.items()
    ]
    calls = {proof.name: {way: make(proof) for way, make in WAYS.items()} for proof in proofs}
    feeds = {
        proof.name: [_feed(proof, call) for call in itertools.chain(*calls[proof.name].values())] for proof in proofs
    }
    for name, feed in also.items():
        feeds[name].append(feed)
    answered = serving_process.ask(model, feeds)
    for proof in proofs:
        outputs = iter(answered[proof.name])
        ways: dict[str, Any] = {}
        report["signatures"][proof.name] = ways
        for way, of_way in calls[proof.name].items():
            figures = [each for call in of_way for each in _compare_call(proof, call, next(outputs))]
            if figures:
                ways[way] = _summary(figures)
            bad = [each for each in figures if not each.comparison.agrees]
            if bad:
                _fail(proof, way, bad, len(figures))
    return report, {name: answered[name][-1] for name in also}


def _in_batches(proof: SignatureProof) -> list[SampleCall]:
    """All lists, BATCH in each call.  The first call also has an empty list, which has no scores on either side."""
    lists = len(proof.sample.scores)
    calls = []
    for start in range(0, lists, BATCH):
        at = list(range(start, min(start + BATCH, lists)))
        with_empty = start == 0 and not proof.row.request_kind.item_by_item
        calls.append(_call(proof.sample, [*at, -1] if with_empty else at))
    return calls


def _alone(proof: SignatureProof) -> list[SampleCall]:
    return [_call(proof.sample, [at]) for at in proof.some]


def _reordered(proof: SignatureProof) -> list[SampleCall]:
    """The items in another order; no call for a scorer that uses their order."""
    if getattr(proof.ranker.network, "uses_order", False) or not proof.row.answer_kind.ordered:
        return []
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(proof.sample.scores[at])) for at in proof.some]
    lists = [
        client_requests.reordered(proof.sample.list_examples[at], order, proof.ranker.config)
        for at, order in zip(proof.some, orders, strict=True)
    ]
    return [SampleCall(proof.some, lists, orders)]


def _padded(proof: SignatureProof) -> list[SampleCall]:
    """More padding, with values that would change the scores if they were read."""
    if not proof.row.request_kind.tensors:
        return []
    config = proof.ranker.config
    call = _call(proof.sample, proof.some)
    feed, noisy = client_requests.feed(proof.row, call.lists, config), {}
    extra = client_requests.extra_item_columns(proof.row.answer_kind, config)
    for name, column in client_requests.requested(config, extra).items():
        if column.level == "items":
            value = feed[tensor_name(name)]
            noise = np.full((len(value), 3, *value.shape[2:]), b"noise" if value.dtype == object else 99, value.dtype)
            noisy[tensor_name(name)] = np.concatenate([value, noise], axis=1)
    return [call._replace(feed=noisy)]


WAYS: dict[str, Callable[[SignatureProof], list[SampleCall]]] = {
    "in batches": _in_batches,
    "alone": _alone,
    "in another order": _reordered,
    "with more padding": _padded,
}


def _call(sample: Sample, at: Sequence[int]) -> SampleCall:
    lists = [sample.list_examples[each] if each >= 0 else b"" for each in at]
    return SampleCall(at, lists, [np.arange(len(sample.scores[each]) if each >= 0 else 0) for each in at])


def _feed(proof: SignatureProof, call: SampleCall) -> Feed:
    return client_requests.feed(proof.row, call.lists, proof.ranker.config) | (call.feed or {})


def _compare_call(proof: SignatureProof, call: SampleCall, outputs: Feed) -> list[ListFigures]:
    """Raises ParityError for a malformed answer."""
    from tfx_ranking.components.serving.answers import TrainedLists

    sample, kind = proof.sample, proof.row.answer_kind
    empty = np.empty(0, np.float32)
    trained = TrainedLists(
        scores=[sample.scores[at][order] if at >= 0 else empty for at, order in zip(call.at, call.orders, strict=True)],
        list_examples=call.lists,
        transformed=[sample.transformed[at] for at in call.at if at >= 0],
        specs=sample.specs,
        ranker=proof.ranker,
    )
    try:
        pairs = kind.load_pairs()(outputs, trained)
    except ValueError as error:
        raise ParityError(f"signature {proof.name!r}: {error}.", proof.report) from None
    return [
        ListFigures(at, order, expected, served, compare(expected, served, kind.ordered))
        for at, order, (expected, served) in zip(call.at, call.orders, pairs)
    ]


def _summary(figures: Sequence[ListFigures]) -> dict[str, Any]:
    return {
        "lists": len(figures),
        "max_difference": max(each.comparison.difference for each in figures),
        "max_share_of_tolerance": max(each.comparison.share for each in figures),
        "lists_in_another_order": sum(each.comparison.reordered for each in figures),
    }


def _fail(proof: SignatureProof, way: str, bad: Sequence[ListFigures], lists: int) -> None:
    """Raises ParityError for the worst of the lists in `bad`.

    lists: the number of lists that were compared.
    """
    worst = max(bad, key=lambda each: each.comparison.share)
    item = worst.comparison.item
    group_id = repr(proof.sample.group_ids[worst.at].decode("utf-8", "backslashreplace"))
    feature = blame(proof.ranker, proof.row, proof.sample, worst.at, worst.order)
    position = int(worst.order[item]) if item < len(worst.order) else item
    trained, served = float(worst.trained.flat[item]), float(worst.served.flat[item])
    proof.report["failure"] = {
        "signature": proof.name,
        "asked": way,
        "list": group_id,
        "lists": len(bad),
        "item": position,
        "trained": trained,
        "served": served,
        "feature": feature,
    }
    item_by_item = proof.row.request_kind.item_by_item
    if item_by_item and way == "in batches" and feature.startswith("No transformed"):
        feature = (
            "It scores each item by itself. Does the scorer look at the whole list? Then set `list_wise = True` on it."
        )
    raise ParityError(
        f"signature {proof.name!r}, called {way}, scores differently from training on {len(bad)} of {lists} lists; the "
        f"worst is list {group_id}, item {position}: {trained:.9g} in training, {served:.9g} served. {feature}",
        proof.report,
    )


@dataclasses.dataclass(frozen=True)
class ScoreComparison:
    """How much training's and serving's scores of one list differ."""

    difference: float  # the largest absolute difference
    share: float  # the largest difference as a share of the tolerance
    item: int  # the item with that share
    reordered: bool  # two items that are not tied in training have changed places

    @property
    def agrees(self) -> bool:
        return self.share <= 1 and not self.reordered


def compare(expected: Floats, served: Floats, ordered: bool = True) -> ScoreComparison:
    """Compares one list's scores by training and by serving, float32 [item].

    A difference up to 1e-5 · max(1, |score|, spread of the list) is tolerated, and so is another order of items whose
    expected scores are no further apart than that.  NaN agrees with no number.
    ordered: False when the order of the items does not matter.

    >>> compare(np.float32([1, 2]), np.float32([1, 2.00001])).agrees
    True
    >>> compare(np.float32([1, 2]), np.float32([1, 2.1])).item
    1
    """
    if not len(expected):
        return ScoreComparison(0.0, 0.0, 0, False)
    a, b = expected.astype(np.float64), served.astype(np.float64)
    tolerated = TOLERANCE * np.maximum(max(1.0, a.max() - a.min()), np.abs(a))
    difference = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf)
    share = difference / tolerated
    item = int(share.argmax())
    order = np.argsort(a, kind="stable")
    a, b, tolerated = a[order], b[order], tolerated[order]
    # In training's ascending order: an item may score below an earlier one only if the two are nearly tied.
    highest = np.maximum.accumulate(b)
    suspects = np.flatnonzero(b < highest)
    reordered = ordered and any(bool(np.any((b[:at] > b[at]) & (a[at] - a[:at] > tolerated[at]))) for at in suspects)
    return ScoreComparison(float(difference.max()), float(share.max()), item, reordered)
