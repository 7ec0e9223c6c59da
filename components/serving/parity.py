"""Proof before export: the signatures score requests as the training path scores materialised features.

Enters: the test split as raw list examples and as materialised transformed examples, a ranker, its SavedModel.
Leaves: a report with the largest differences, or a ParityError that names signature, list, item and feature.  The one
idea: the SavedModel is asked in a process that imports TensorFlow alone, by the loader that TensorFlow Serving runs,
and every way of asking for a list (with others, alone, in another order, with more padding) gives training's scores.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.choices.signatures import Signature, tensor_name
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.serving import client_requests, serving_process
from tfx_ranking.components.serving.blame import blame
from tfx_ranking.components.serving.client_requests import Feed
from tfx_ranking.components.serving.parity_sample import Floats, Sample, choose

TOLERANCE = 1e-5  # of max(1, |score|, spread of the list's scores)
BATCH = 32  # lists a call
ALONE = 16  # lists that are asked for in other ways as well


class ParityError(RankingError):
    """An exported signature scores otherwise than training; `report` holds the figures."""

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


def prove(
    ranker: Any, model: str, sample: Sample, rows: Mapping[str, Signature], also: Mapping[str, Feed]
) -> tuple[dict[str, Any], dict[str, Feed]]:
    """Asks each signature for the sample's lists in every way of WAYS and compares.

    ranker: the `serving_ranker.ServingRanker` that was saved to `model`; it is asked which feature differs when one
    does.  also: one more call of a signature.  Returns the report, and the answers to those calls.
    Raises ParityError at a difference above the tolerance or another order; RankingError when the model cannot be
    loaded or asked.
    """
    some = choose(np.array([len(scores) for scores in sample.scores]), ALONE).tolist()
    calls = {name: {way: make(row, sample, some, ranker) for way, make in WAYS.items()} for name, row in rows.items()}
    asked = {}
    for name, row in rows.items():
        asked[name] = [
            client_requests.feed(row, call.lists, ranker.config) | (call.feed or {})
            for call in itertools.chain(*calls[name].values())
        ]
    for name, feed in also.items():
        asked[name].append(feed)
    answers = serving_process.ask(model, asked)
    sizes = [len(scores) for scores in sample.scores]
    report: dict[str, Any] = {
        "lists": len(sizes),
        "items": sum(sizes),
        "list_sizes": [min(sizes), max(sizes)],
        "tolerance": TOLERANCE,
        "signatures": {},
    }
    for name, row in rows.items():
        came, report["signatures"][name] = iter(answers[name]), {}
        for way, made in calls[name].items():
            figures = [
                figure for call in made for figure in _compare_call(ranker, name, row, call, next(came), sample, report)
            ]
            if figures:
                report["signatures"][name][way] = _summary(figures)
            bad = [figure for figure in figures if not figure.comparison.agrees]
            if bad:
                _fail(ranker, name, row, way, bad, len(figures), sample, report)
    return report, {name: answers[name][-1] for name in also}


class Call(NamedTuple):
    """One call: the lists of it, by their place in the sample (-1: an empty list), and the order of their items."""

    at: Sequence[int]
    lists: Sequence[bytes]
    orders: Sequence[npt.NDArray[np.int64]]
    feed: Feed | None = None  # in place of what is made of the lists


class Figure(NamedTuple):
    """What one list came to."""

    at: int
    order: npt.NDArray[np.int64]
    expected: npt.NDArray[Any]
    came: npt.NDArray[Any]
    comparison: "Comparison"


def _in_batches(row: Signature, sample: Sample, some: Sequence[int], ranker: Any) -> list[Call]:
    """All lists, BATCH a call; an empty one goes along: it has no score by training and none by serving."""
    calls = []
    for start in range(0, len(sample.scores), BATCH):
        at = list(range(start, min(start + BATCH, len(sample.scores))))
        calls.append(_call(sample, [*at, -1] if start == 0 and row.request != "example" else at))
    return calls


def _alone(row: Signature, sample: Sample, some: Sequence[int], ranker: Any) -> list[Call]:
    return [_call(sample, [at]) for at in some]


def _reordered(row: Signature, sample: Sample, some: Sequence[int], ranker: Any) -> list[Call]:
    """Items in another order; for a scorer that uses their order there is nothing to prove."""
    if getattr(ranker.network, "uses_order", False) or row.answer in ("transformed", "postprocessed"):
        return []
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(sample.scores[at])) for at in some]
    lists = [
        client_requests.reordered(sample.list_examples[at], order, ranker.config)
        for at, order in zip(some, orders, strict=True)
    ]
    return [Call(some, lists, orders)]


def _padded(row: Signature, sample: Sample, some: Sequence[int], ranker: Any) -> list[Call]:
    """More padding, of values that would show in the scores."""
    if row.request != "tensors":
        return []
    call = _call(sample, some)
    feed, noisy = client_requests.feed(row, call.lists, ranker.config), {}
    for name, column in client_requests.requested(ranker.config).items():
        if column.level == "items":
            value = feed[tensor_name(name)]
            noise = np.full((len(value), 3, *value.shape[2:]), b"noise" if value.dtype == object else 99, value.dtype)
            noisy[tensor_name(name)] = np.concatenate([value, noise], axis=1)
    return [call._replace(feed=noisy)]


WAYS: dict[str, Callable[[Signature, "Sample", Sequence[int], Any], list[Call]]] = {
    "in batches": _in_batches,
    "alone": _alone,
    "in another order": _reordered,
    "with more padding": _padded,
}


def _call(sample: Sample, at: Sequence[int]) -> Call:
    lists = [sample.list_examples[each] if each >= 0 else b"" for each in at]
    return Call(at, lists, [np.arange(len(sample.scores[each]) if each >= 0 else 0) for each in at])


def _compare_call(
    ranker: Any, name: str, row: Signature, call: Call, outputs: Feed, sample: Sample, report: dict[str, Any]
) -> list[Figure]:
    from tfx_ranking.components.serving import answers

    empty = np.empty(0, np.float32)
    scores = [sample.scores[at][order] if at >= 0 else empty for at, order in zip(call.at, call.orders, strict=True)]
    answer = answers.ANSWERS[row.answer]
    try:
        if row.answer == "transformed":
            pairs = _transformed_pairs(outputs, [sample.transformed[at] for at in call.at if at >= 0], sample.specs)
        elif row.answer == "postprocessed":
            pairs = _postprocessed_pairs(ranker, outputs, call.lists, scores)
        else:
            assert answer.read is not None  # the two above are the only ones without
            pairs = answer.read(outputs, scores)
        if "item_ids" in outputs:
            _check_item_ids(outputs, call, ranker.config)
    except ValueError as error:
        raise ParityError(f"signature {name!r}: {error}.", report) from None
    ordered = row.answer not in ("transformed", "postprocessed")
    return [
        Figure(at, order, expected, came, compare(expected, came, ordered))
        for at, order, (expected, came) in zip(call.at, call.orders, pairs)
    ]


def _check_item_ids(outputs: Feed, call: Call, config: RankingConfig) -> None:
    """Raises ValueError where an item's id is not that of the item whose index it stands beside."""
    name = config.data.item_id
    assert name is not None  # else there is no such output
    for at, one in enumerate(call.lists):
        items = client_requests.read(one, config, [name]).items
        ids = [item[name].values[0] if name in item else b"" for item in items]
        places = outputs["indices"][at]
        expected = [ids[place] if place >= 0 else b"" for place in places]
        if outputs["item_ids"][at].tolist() != expected:
            raise ValueError(f"item_ids: expected {expected}, came {outputs['item_ids'][at].tolist()}")


def _summary(figures: Sequence[Figure]) -> dict[str, Any]:
    return {
        "lists": len(figures),
        "max_difference": max(figure.comparison.difference for figure in figures),
        "max_share_of_tolerance": max(figure.comparison.share for figure in figures),
        "lists_in_another_order": sum(figure.comparison.reordered for figure in figures),
    }


def _fail(
    ranker: Any,
    name: str,
    row: Signature,
    way: str,
    bad: Sequence[Figure],
    lists: int,
    sample: Sample,
    report: dict[str, Any],
) -> None:
    """Raises ParityError for the worst of the lists."""
    worst = max(bad, key=lambda figure: figure.comparison.share)
    at, item = worst.at, worst.comparison.item
    feature = blame(ranker, row, sample, at, worst.order)
    place = int(worst.order[item]) if item < len(worst.order) else item
    report["failure"] = {
        "signature": name,
        "asked": way,
        "list": _text(sample.group_ids[at]),
        "lists": len(bad),
        "item": place,
        "trained": float(worst.expected.flat[item]),
        "served": float(worst.came.flat[item]),
        "feature": feature,
    }
    if row.of_items and way == "in batches" and feature.startswith("No transformed"):
        feature = "It takes each item by itself: does the scorer look at the whole list (`list_wise = True` says so)?"
    raise ParityError(
        f"signature {name!r}, asked {way}, scores otherwise than training on {len(bad)} of {lists} lists; worst is "
        f"list {_text(sample.group_ids[at])}, item {place}: {worst.expected.flat[item]:.9g} in training, "
        f"{worst.came.flat[item]:.9g} served. {feature}",
        report,
    )


def _transformed_pairs(outputs: Feed, transformed: Sequence[bytes], specs: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    """For each list, all its features' values one after another, as they were materialised and as they came."""
    import tensorflow as tf

    from tfx_ranking.components.lists.ragged import as_ragged

    parsed = tf.io.parse_example(list(transformed), specs)
    parts: list[list[tuple[Any, Any]]] = [[] for _ in transformed]
    for name, value in parsed.items():
        came = outputs[name]
        value = as_ragged(value)
        for at, part in enumerate(parts):
            expected = value[at]
            if isinstance(expected, tf.RaggedTensor):
                expected = expected.to_tensor(0 if expected.dtype.is_floating else -1)
            one = np.asarray(expected)
            here = came[at][tuple(slice(0, size) for size in one.shape)]
            if here.shape != one.shape:
                raise ValueError(f"{name}: expected the shape {one.shape}, came {here.shape}")
            part.append((one.reshape(-1).astype(np.float64), here.reshape(-1).astype(np.float64)))
    return [tuple(np.concatenate(side) for side in zip(*part)) for part in parts]  # type: ignore[misc]


def _postprocessed_pairs(ranker: Any, outputs: Feed, lists: Sequence[bytes], scores: Sequence[Any]) -> list[Any]:
    """What the user's function makes of training's scores, the numbers of all outputs one after another."""
    import tensorflow as tf

    from tfx_ranking.components.choices.signatures import SIGNATURES
    from tfx_ranking.components.serving import answers

    batch = ranker.parse(SIGNATURES["list_example"], tf.constant(list(lists), tf.string))
    flat = np.concatenate([np.empty(0, np.float32), *scores])
    ragged = tf.RaggedTensor.from_row_lengths(flat, [len(each) for each in scores])
    expected = {
        name: np.asarray(each) for name, each in ranker.postprocess(ragged, answers.raw_features(batch)).items()
    }
    numbers = [name for name, each in sorted(expected.items()) if each.dtype.kind in "fiub"]
    for name, each in expected.items():
        if outputs[name].shape != each.shape or (name not in numbers and outputs[name].tolist() != each.tolist()):
            raise ValueError(f"{name}: expected {each.tolist()}, came {outputs[name].tolist()}")
    sides = [[np.ravel(side[name]).astype(np.float64) for name in numbers] for side in (expected, outputs)]
    return [tuple(np.concatenate([np.empty(0), *side]) for side in sides)]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far two paths' scores of one list are apart."""

    difference: float  # the largest absolute one
    share: float  # the largest, as a share of what is tolerated
    item: int  # where that is
    reordered: bool  # two items that training tells apart stand the other way round

    @property
    def agrees(self) -> bool:
        return self.share <= 1 and not self.reordered


def compare(expected: Floats, came: Floats, ordered: bool = True) -> Comparison:
    """One list's scores by training and by serving, float32 [item].  Without `ordered` their order does not count.

    A difference up to 1e-5 · max(1, |score|, spread of the list) is tolerated, and so is another order of items whose
    expected scores are no further apart than that.  Not a number agrees with nothing.

    >>> compare(np.float32([1, 2]), np.float32([1, 2.00001])).agrees
    True
    >>> compare(np.float32([1, 2]), np.float32([1, 2.1])).item
    1
    """
    if not len(expected):
        return Comparison(0.0, 0.0, 0, False)
    a, b = expected.astype(np.float64), came.astype(np.float64)
    tolerated = TOLERANCE * np.maximum(max(1.0, a.max() - a.min()), np.abs(a))
    difference = np.where(np.isfinite(a) & np.isfinite(b), np.abs(a - b), np.inf)
    share = difference / tolerated
    item = int(share.argmax())
    order = np.argsort(a, kind="stable")
    a, b, tolerated = a[order], b[order], tolerated[order]
    # Ascending by training: an item may stand below an earlier one only if they are as good as tied.
    highest = np.maximum.accumulate(b)
    suspects = np.flatnonzero(b < highest)
    reordered = ordered and any(bool(np.any((b[:at] > b[at]) & (a[at] - a[:at] > tolerated[at]))) for at in suspects)
    return Comparison(float(difference.max()), float(share.max()), item, reordered)


def _text(group_id: bytes) -> str:
    return repr(group_id.decode("utf-8", "backslashreplace"))
