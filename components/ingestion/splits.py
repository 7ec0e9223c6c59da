"""Chooses the split of each list: by the hash of its group id, by time, or by its file.

Input: group ids or times.  Output: the name of a split for each list.  The split depends on the list (and, by time, on
the times of the other lists), never on the order of reading.  A list is never divided, and each query is in one split.
"""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np

from tfx_ranking.components.config.data_section import SPLIT_NAMES, Splits
from tfx_ranking.components.ingestion.sources import ALL


def shares(splits: Splits, origins: Collection[str]) -> dict[str, float]:
    """Split → its share of the lists in the training files (or in all files), for splits without their own files.

    origins: the splits that have their own files, or {"all"}.

    >>> shares(Splits(validation=0.1, test=0.2), {"train", "test"})
    {'validation': 0.1}
    """
    return {
        name: share
        for name, share in (("validation", splits.validation), ("test", splits.test))
        if share > 0 and name not in origins
    }


def names(splits: Splits, origins: Collection[str]) -> list[str]:
    """The splits that the ingestion writes, in their usual order."""
    cut = {"train", *shares(splits, origins), *(set(origins) - {ALL})}
    return [name for name in SPLIT_NAMES if name in cut]


def unit_hash(group_ids: Sequence[bytes]) -> np.ndarray:
    """float64 [list]: a hash of each group id in [0, 1), the same on every machine.

    >>> unit_hash([b"a", b"b"]).round(3)
    array([0.254, 0.517])
    """
    digests = b"".join(hashlib.blake2b(group, digest_size=8).digest() for group in group_ids)
    return (np.frombuffer(digests, ">u8") >> np.uint64(11)).astype(np.float64) / 2.0**53


def by_hash(group_ids: Sequence[bytes], cut: dict[str, float]) -> np.ndarray:
    """object [list]: the split of each list; the lists outside of all shares are in train.

    cut: split → share, as `shares` returns it.
    """
    drawn = unit_hash(group_ids)
    out = np.full(len(drawn), "train", object)
    low = 0.0
    for name, share in sorted(cut.items()):
        out[(drawn >= low) & (drawn < low + share)] = name
        low += share
    return out


def time_bounds(times: np.ndarray, cut: dict[str, float]) -> dict[str, float]:
    """Split → its earliest time: the latest lists are for testing, the lists before them for validation.

    times: float64 [list].  Lists with the same time are in the same split, so a split may be larger than its share.

    >>> time_bounds(np.arange(10.0), {"validation": 0.2, "test": 0.1})
    {'test': 9.0, 'validation': 7.0}
    """
    rest = np.sort(times)
    bounds: dict[str, float] = {}
    for name in ("test", "validation"):
        if name in cut and len(rest):
            wanted = min(max(1, round(cut[name] * len(times))), len(rest))
            bounds[name] = float(rest[-wanted])
            rest = rest[rest < bounds[name]]
    return bounds


def by_time(times: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """object [list]: the split of each list; bounds: split → its earliest time."""
    out = np.full(len(times), "train", object)
    for name in ("validation", "test"):
        if name in bounds:
            out[times >= bounds[name]] = name
    return out
