"""Proof before export: the signatures score proto bytes as the training path scores materialised features.

Enters: the test split as raw list examples and as materialised transformed examples, a ranker, its SavedModel.
Leaves: a report with the largest differences, or a ParityError that names signature, list and feature.  The one idea:
the SavedModel is asked in a process that imports TensorFlow alone, by the loader that TensorFlow Serving runs.
"""

import dataclasses
import itertools
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components import serving_process
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.list_examples import ROW_LENGTHS, columns, read_records

TOLERANCE = 1e-5  # of max(1, |score|, spread of the list's scores)
Floats = npt.NDArray[np.float32]


class ParityError(RankingError):
    """An exported signature scores otherwise than training; `report` holds the figures."""

    def __init__(self, message: str, report: dict[str, Any]):
        super().__init__(message)
        self.report = report


@dataclasses.dataclass(frozen=True)
class Sample:
    """Lists of the test split: group ids, raw list examples, and the training path's features and scores.

    transformed: the materialised Example of each list, read by `specs`.  scores: float32 [item] of each list.
    """

    group_ids: Sequence[bytes]
    list_examples: Sequence[bytes]
    transformed: Sequence[bytes]
    scores: Sequence[Floats]
    specs: Mapping[str, Any]


def prove(ranker: Any, model: str, sample: Sample, signatures: Sequence[str]) -> dict[str, Any]:
    """Scores the sample's bytes through each signature and compares.  Returns the report.

    ranker: the `signatures.ServingRanker` that was saved to `model`; it is asked which feature differs when one does.
    Raises ParityError at a difference above the tolerance or another order; RankingError when the model cannot be
    loaded or asked.
    """
    from tfx_ranking.components.signatures import PROTOS

    as_protos = {"list_example": list(sample.list_examples)}
    if "elwc" in {PROTOS[name] for name in signatures}:
        as_protos["elwc"] = [to_elwc(one, ranker.config) for one in sample.list_examples]
    # An empty list goes along with the real ones: it has no score by training and none by serving.
    requests = {name: [*as_protos[PROTOS[name]], b""] for name in signatures}
    with tempfile.TemporaryDirectory() as folder:
        answers = serving_process.score(model, requests, pathlib.Path(folder))
    sizes = [len(scores) for scores in sample.scores]
    report: dict[str, Any] = {
        "lists": len(sizes),
        "items": sum(sizes),
        "list_sizes": [min(sizes), max(sizes)],
        "tolerance": TOLERANCE,
        "signatures": {},
    }
    for name, (flat, served_sizes) in answers.items():
        if served_sizes.tolist() != [*sizes, 0]:
            at = int(np.flatnonzero(served_sizes != [*sizes, 0])[0])
            group_id = [*sample.group_ids, b""][at]
            message = (
                f"signature {name!r}, list {_text(group_id)}: expected {[*sizes, 0][at]} items, as training has them; "
                f"the exported model counts {served_sizes[at]}."
            )
            raise ParityError(message, report)
        served = np.split(flat, np.cumsum(sizes))[: len(sizes)]
        figures = [compare(expected, came) for expected, came in zip(sample.scores, served, strict=True)]
        report["signatures"][name] = {
            "max_difference": max(figure.difference for figure in figures),
            "max_share_of_tolerance": max(figure.share for figure in figures),
            "lists_in_another_order": sum(figure.reordered for figure in figures),
        }
        bad = [at for at, figure in enumerate(figures) if not figure.agrees]
        if bad:
            at = max(bad, key=lambda each: figures[each].share)
            item, expected, came = figures[at].item, sample.scores[at], served[at]
            report["failure"] = {
                "signature": name,
                "list": _text(sample.group_ids[at]),
                "lists": len(bad),
                "item": item,
                "trained": float(expected[item]),
                "served": float(came[item]),
                "feature": blame(
                    ranker, PROTOS[name], as_protos[PROTOS[name]][at], sample.transformed[at], sample.specs
                ),
            }
            message = (
                f"signature {name!r} scores otherwise than training on {len(bad)} of {len(sizes)} lists; worst is "
                f"list {_text(sample.group_ids[at])}, item {item}: {expected[item]:.9g} in training, "
                f"{came[item]:.9g} served. "
                f"{report['failure']['feature']}"
            )
            raise ParityError(message, report)
    return report


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


def compare(expected: Floats, came: Floats) -> Comparison:
    """One list's scores by training and by serving, float32 [item].

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
    reordered = any(bool(np.any((b[:at] > b[at]) & (a[at] - a[:at] > tolerated[at]))) for at in suspects)
    return Comparison(float(difference.max()), float(share.max()), item, reordered)


def draw(
    ranker: Any, examples: Sequence[str], transformed: Sequence[str], specs: Mapping[str, Any], lists: int
) -> Sample:
    """Lists of the test split, of every length, the shortest and the longest among them, and their training scores.

    examples, transformed: the split's TFRecord files.  specs: the transformed features' specs, by which training reads
    them.  Raises DataError when there is nothing to compare.
    """
    import tensorflow as tf

    from tfx_ranking.components import scorers

    data = ranker.config.data
    sizes, group_ids = _sizes_and_ids(examples, data.label, data.group_id)
    ids, counts = np.unique(group_ids, return_counts=True) if len(group_ids) else (group_ids, np.empty(0))
    alone = np.isin(group_ids, ids[counts == 1])  # an id that stands twice cannot be matched
    at = np.flatnonzero(alone)[choose(sizes[alone], lists)] if alone.any() else np.empty(0, np.int64)
    chosen = {group_ids[i]: record for i, record in _at(read_records(examples), at)}
    matched = {}
    for batch in _batches(read_records(transformed), 1000):
        found = tf.io.parse_example(batch, {"group_id": specs["group_id"]})["group_id"].numpy().reshape(-1)
        matched.update({key: record for key, record in zip(found, batch, strict=True) if key in chosen})
    if not matched:
        raise DataError(
            f"the test split has {len(group_ids)} lists, {len(chosen)} of them with an id of their own, and none is in "
            "the transformed examples' test split: there is nothing to prove the export on. Give the test split a "
            "share of the lists (data.splits.test), and let Transform materialise it."
        )
    keys = [key for key in chosen if key in matched]
    fed = {name: spec for name, spec in specs.items() if name.startswith(("items/", "context/"))}
    scores: list[Floats] = []
    for batch in _batches((matched[key] for key in keys), 64):
        network_inputs = scorers.network_inputs(tf.io.parse_example(batch, fed))
        flat = np.asarray(ranker.network(network_inputs, training=False), np.float32)
        scores.extend(np.split(flat, np.cumsum(network_inputs["row_lengths"]))[: len(batch)])
    return Sample(keys, [chosen[key] for key in keys], [matched[key] for key in keys], scores, fed)


def choose(sizes: npt.NDArray[np.int64], lists: int) -> npt.NDArray[np.int64]:
    """Up to `lists` positions in `sizes`, at even steps from the shortest list to the longest.

    >>> choose(np.array([5, 1, 9, 7, 3]), 3)
    array([1, 0, 2])
    """
    by_size = np.argsort(sizes, kind="stable")
    steps = np.linspace(0, len(sizes) - 1, min(lists, len(sizes))).round().astype(np.int64)
    return by_size[np.unique(steps)]


def blame(ranker: Any, parser: str, proto: bytes, transformed: bytes, specs: Mapping[str, Any]) -> str:
    """A sentence that names the feature by which one list differs most between its request and its training data."""
    import tensorflow as tf

    from tfx_ranking.components import parsing

    served = ranker.transform(parsing.PARSERS[parser](tf.constant([proto]), ranker.inputs))
    trained = tf.io.parse_example([transformed], specs)
    worst, sentence = 0.0, ""
    for name in served:
        ours, theirs = (np.asarray(getattr(each[name], "flat_values", each[name])) for each in (served, trained))
        if ours.shape != theirs.shape:
            return f"Feature {name!r} has shape {ours.shape} when served and {theirs.shape} in training."
        if not ours.size:
            continue
        apart = ours != theirs if ours.dtype.kind not in "fc" else np.abs(ours - theirs) / np.maximum(1, np.abs(theirs))
        at = np.unravel_index(np.argmax(apart), apart.shape)
        if apart[at] > worst:
            worst = float(apart[at])
            column = _column(ranker.config, name, int(at[-1])) if ours.ndim > 1 else ""
            sentence = f"The feature that differs most is {name}{column}: {theirs[at]} in training, {ours[at]} served."
    return sentence or (
        "No transformed feature differs when it is computed here: the saved graph itself differs, by its tables or "
        "its weights."
    )


def to_elwc(list_example: bytes, config: RankingConfig, extra_items: Sequence[str] = ()) -> bytes:
    """One list example as an `ExampleListWithContext`, one Example an item, as a client of TensorFlow Ranking has it.

    Only the config's features go in (and `extra_items`, scalar features of each item); values that are missing are
    left out, so that the parser's own defaults are used.  A list without items gives an empty list.
    """
    from tensorflow.core.example import example_pb2

    source = example_pb2.Example.FromString(list_example).features.feature
    table = {name: column for name, column in columns(config).items() if name in config.features}

    def flat(name: str) -> Any:
        kind = source[name].WhichOneof("kind") if name in source else None
        return kind, list(getattr(source[name], kind).value) if kind else []

    context = example_pb2.Example()
    rows: list[Any] = []

    def add(row: Any, name: str, kind: str, values: list[Any], missing: Any) -> None:
        if values and not all(value == missing or value != value for value in values):
            getattr(row.features.feature[name], kind).value.extend(values)

    for name, column in table.items():
        kind, values = flat(name)
        if column.level == "context" and kind:
            add(context, name, kind, values, None if column.tokens else column.missing)
    wanted = {name: column for name, column in table.items() if column.level == "items"}
    per_item = {name: flat(name + ROW_LENGTHS if column.tokens else name) for name, column in wanted.items()}
    items = max((len(per_item[name][1]) // column.width for name, column in wanted.items()), default=0)
    rows = [example_pb2.Example() for _ in range(items)]
    for name, column in wanted.items():
        kind, values = flat(name)
        lengths = per_item[name][1] if column.tokens else [column.width] * items
        ends = np.cumsum([0, *lengths])
        for row, start, end in zip(rows, ends, ends[1:], strict=False):
            if kind:
                add(row, name, kind, values[start:end], None if column.tokens else column.missing)
    for name in extra_items:
        kind, values = flat(name)
        for row, value in zip(rows, values, strict=True):
            add(row, name, kind, [value], None)
    return b"".join(
        [_field(1, row.SerializeToString(deterministic=True)) for row in rows]
        + [_field(2, context.SerializeToString(deterministic=True))]
    )


def _field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field, so that no proto package of TensorFlow Serving's is needed."""
    size, length = len(payload), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + payload


def _column(config: RankingConfig, output: str, at: int) -> str:
    """Which feature stands in a column of a matrix of numbers, as " (price)"; nothing where it is not known."""
    from tfx_ranking.components import preprocessing

    levels: dict[str, preprocessing.Level] = {"items/numeric": "items", "context/numeric": "context"}
    derived = output in levels and not config.transform.preprocessing_fn
    names = preprocessing.numeric_columns(config, levels[output]) if derived else []
    return f" ({names[at]})" if at < len(names) else f" (column {at})"


def _sizes_and_ids(files: Sequence[str], label: str, group_id: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """How many items each list has, and its group id, in the files' order."""
    import tensorflow as tf

    specs = {label: tf.io.RaggedFeature(tf.float32), group_id: tf.io.FixedLenFeature([], tf.string)}
    sizes, ids = [np.empty(0, np.int64)], [np.empty(0, object)]
    for batch in _batches(read_records(files), 1000):
        parsed = tf.io.parse_example(batch, specs)
        sizes.append(parsed[label].row_lengths().numpy().astype(np.int64))
        ids.append(parsed[group_id].numpy())
    return np.concatenate(sizes), np.concatenate(ids)


def _batches(records: Any, size: int) -> Any:
    records = iter(records)
    while batch := list(itertools.islice(records, size)):
        yield batch


def _at(records: Any, positions: npt.NDArray[np.int64]) -> Any:
    """(position, record) of the chosen positions, ascending."""
    wanted = set(map(int, positions))
    return ((at, record) for at, record in enumerate(records) if at in wanted)


def _text(group_id: bytes) -> str:
    return repr(group_id.decode("utf-8", "backslashreplace"))
