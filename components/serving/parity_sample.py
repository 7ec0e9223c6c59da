"""The lists that an export is proved on: of every length, as raw records and as training has them.

Enters: the test split as raw list examples and as materialised transformed examples, a ranker.  Leaves: a `Sample`.
The one idea: the training path is what training itself read, the materialised features through the Keras model.
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
    """Lists of the test split: group ids, raw list examples, and the training path's features and scores.

    transformed: the materialised Example of each list, read by `specs`.  scores: float32 [item] of each list.
    """

    group_ids: Sequence[bytes]
    list_examples: Sequence[bytes]
    transformed: Sequence[bytes]
    scores: Sequence[Floats]
    specs: Mapping[str, Any]


def draw(
    ranker: Any, examples: Sequence[str], transformed: Sequence[str], specs: Mapping[str, Any], lists: int
) -> Sample:
    """Lists of the test split, of every length, the shortest and the longest among them, and their training scores.

    examples, transformed: the split's TFRecord files.  specs: the transformed features' specs, by which training reads
    them.  Raises DataError when there is nothing to compare.
    """
    import tensorflow as tf

    from tfx_ranking.components.scorers import networks

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
    fed_specs = {name: spec for name, spec in specs.items() if name.startswith(("items/", "context/"))}
    sample = Sample(keys, [chosen[key] for key in keys], [matched[key] for key in keys], [], fed_specs)
    scores: list[Floats] = []
    for start in range(0, len(keys), 64):
        network_inputs = fed(sample, range(start, min(start + 64, len(keys))))
        flat = np.asarray(networks.scores_of(ranker.network(network_inputs, training=False)), np.float32)
        scores.extend(np.split(flat, np.cumsum(network_inputs["row_lengths"]))[: len(network_inputs["row_lengths"])])
    return dataclasses.replace(sample, scores=scores)


def fed(sample: Sample, at: Sequence[int]) -> dict[str, Any]:
    """What training feeds the network for some of the sample's lists."""
    import tensorflow as tf

    from tfx_ranking.components.scorers.inputs import network_inputs

    return network_inputs(tf.io.parse_example([sample.transformed[i] for i in at], sample.specs))


def choose(sizes: npt.NDArray[np.int64], lists: int) -> npt.NDArray[np.int64]:
    """Up to `lists` positions in `sizes`, at even steps from the shortest list to the longest.

    >>> choose(np.array([5, 1, 9, 7, 3]), 3)
    array([1, 0, 2])
    """
    by_size = np.argsort(sizes, kind="stable")
    steps = np.linspace(0, len(sizes) - 1, min(lists, len(sizes))).round().astype(np.int64)
    return by_size[np.unique(steps)]


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
