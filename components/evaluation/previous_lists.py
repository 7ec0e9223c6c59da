"""Gets the lists that the live model was blessed on, so that a candidate is also evaluated on them.

Input: the live model, and how many spans to go back.  Output: files of list examples, or the reason why there are none.
New labels may be wrong; a model that learned them still has to rank the earlier lists well.  The live model's receipt
names its examples, so no metadata store is needed.  The hash of the group id decides the split, so a query is in the
same split every time, and neither model was trained on these lists.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfx_ranking.components import storage
from tfx_ranking.components.exported import model_files, receipt
from tfx_ranking.components.lists.list_examples import SPANS_OF_SHARDS


class Previous(NamedTuple):
    """The files of the lists, or why there are none.

    absent: why the live model has no known lists; the candidate passes.  refused: why known lists cannot be read; the
    candidate does not pass.  At most one of the two is not "".
    """

    files: tuple[str, ...] = ()
    spans: tuple[int, ...] = ()  # () for an input without spans
    uri: str = ""
    absent: str = ""
    refused: str = ""


def of_live(model: str, spans: int, split: str, label: str, folder: pathlib.Path) -> Previous:
    """The lists of a split that `model`, a SavedModel's directory, was blessed on.

    spans: how many of the last spans to take; an input without spans is taken whole.  label: the column that the
    candidate is evaluated by.  folder: files that TensorFlow cannot read at their location are copied to it.
    """
    named = (receipt.read(model) or {}).get("artifacts", {}).get("examples")
    if not named:
        return Previous(absent="the live model does not say what it was evaluated on")
    uri = named[0]["uri"]
    file = pathlib.Path(model, model_files.CONFIG_IN_MODEL)
    config: dict[str, Any] = json.loads(file.read_bytes()) if file.exists() else {}
    learnt = config.get("data", {}).get("label", "label")
    if learnt != label:
        refused = f"the live model's label was {learnt!r}, this one's is {label!r}: they have no common lists"
        return Previous(uri=uri, refused=refused)
    try:
        files, kept = _files(uri, split, spans)
        read = tuple(_readable(file, folder) for file in files)
    except Exception as error:  # each store's package raises its own exceptions
        message = (str(error).splitlines() or [type(error).__name__])[0]
        return Previous(uri=uri, refused=f"the lists that the live model was blessed on are out of reach ({message})")
    if not files:
        return Previous(
            uri=uri, refused=f"the lists that the live model was blessed on are gone ({uri}, split {split})"
        )
    return Previous(read, kept, uri)


def _files(uri: str, split: str, spans: int) -> tuple[Sequence[str], tuple[int, ...]]:
    """The files of the last `spans` spans, and the numbers of these spans; () for an input without spans."""
    files = sorted(storage.matching_files(f"{uri}/Split-{split}/*"))
    by_shard = f"{uri}/{SPANS_OF_SHARDS}"
    if not files or not storage.matching_files(by_shard):
        return files, ()
    with storage.open_file(by_shard) as opened:
        span_of = json.loads(opened.read())[split]
    kept = tuple(sorted(set(span_of.values()))[-spans:])
    return [file for file in files if span_of[file.rpartition("/")[2]] in kept], kept


def _readable(file: str, folder: pathlib.Path) -> str:
    """A path that TensorFlow can read: a copy of the file, unless it is on this machine or in Google's store."""
    if "://" not in file or file.startswith("gs://"):
        return file
    copy = folder / file.rpartition("/")[2]
    storage.copy_file(storage.to_path(file), copy)
    return str(copy)
