"""Chooses the lists on which an export is compared with training, and scores them as training does.

Input: the test split as list examples and as the transformed examples that Transform wrote, and a ranker.
Output: a `Sample` with lists of all lengths.

The scores come from the transformed examples and the Keras model, which is exactly what training reads and runs.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import read_records

Floats = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Sample:
    """Lists of the test split: group ids, list examples, and the features and scores of training.

    transformed: each list's transformed Example, to be parsed with `specs`.  scores: float32 [item] of each list.
    """

    group_ids: Sequence[bytes]
    list_examples: Sequence[bytes]
    transformed: Sequence[bytes]
    scores: Sequence[Floats]
    specs: Mapping[str, Any]


def draw(
    ranker: Any, examples: Sequence[str], transformed: Sequence[str], specs: Mapping[str, Any], lists: int
) -> Sample:
    """Draws up to `lists` lists of all lengths, the shortest and the longest included, and scores them.

    ranker: a `ServingRanker`.  examples, transformed: the split's TFRecord files.  specs: the feature specs by which
    training reads transformed examples.  Raises DataError when no list is in both.
    """
    import tensorflow as tf

    from tfx_ranking.components.scorers import networks

    data = ranker.config.data
    sizes, group_ids = _sizes_and_ids(examples, data.label, data.group_id)
    ids, counts = np.unique(group_ids, return_counts=True) if len(group_ids) else (group_ids, np.empty(0))
    unique = np.isin(group_ids, ids[counts == 1])  # a list whose id occurs twice cannot be matched
    at = np.flatnonzero(unique)[choose(sizes[unique], lists)] if unique.any() else np.empty(0, np.int64)
    chosen = {group_ids[i]: record for i, record in _at(read_records(examples), at)}
    matched = {}
    for batch in _batches(read_records(transformed), 1000):
        batch_ids = tf.io.parse_example(batch, {"group_id": specs["group_id"]})["group_id"].numpy().reshape(-1)
        matched.update({key: record for key, record in zip(batch_ids, batch, strict=True) if key in chosen})
    if not matched:
        raise DataError(
            f"the test split has {len(group_ids)} lists, {len(chosen)} of them were chosen by their unique ids, and "
            "none is in the transformed examples' test split, so the export cannot be compared with training. Give the "
            "test split a share of the lists (data.splits.test), and let Transform materialise it."
        )
    keys = [key for key in chosen if key in matched]
    input_specs = {name: spec for name, spec in specs.items() if name.startswith(("items/", "context/"))}
    sample = Sample(keys, [chosen[key] for key in keys], [matched[key] for key in keys], [], input_specs)
    scores: list[Floats] = []
    for start in range(0, len(keys), 64):
        inputs = training_inputs(sample, range(start, min(start + 64, len(keys))))
        flat = np.asarray(networks.scores_of(ranker.network(inputs, training=False)), np.float32)
        scores.extend(np.split(flat, np.cumsum(inputs["row_lengths"]))[: len(inputs["row_lengths"])])
    return dataclasses.replace(sample, scores=scores)


def training_inputs(sample: Sample, at: Sequence[int]) -> dict[str, Any]:
    """The network's inputs in training for the sample's lists at these positions."""
    import tensorflow as tf

    from tfx_ranking.components.scorers.inputs import network_inputs

    return network_inputs(tf.io.parse_example([sample.transformed[i] for i in at], sample.specs))


def choose(sizes: npt.NDArray[np.int64], lists: int) -> npt.NDArray[np.int64]:
    """Chooses up to `lists` positions in `sizes`, at even steps from the shortest list to the longest.

    >>> choose(np.array([5, 1, 9, 7, 3]), 3)
    array([1, 0, 2])
    """
    by_size = np.argsort(sizes, kind="stable")
    steps = np.linspace(0, len(sizes) - 1, min(lists, len(sizes))).round().astype(np.int64)
    return by_size[np.unique(steps)]


def _sizes_and_ids(files: Sequence[str], label: str, group_id: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
    """Reads the number of items and the group id of each list, in the files' order."""
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
    """Yields (position, record) of the chosen positions, in ascending order."""
    chosen = set(map(int, positions))
    return ((at, record) for at, record in enumerate(records) if at in chosen)
