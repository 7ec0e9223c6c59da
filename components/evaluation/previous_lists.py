"""The lists that the live model was blessed on: what a candidate must also hold on when labels may have gone bad.

Enters: the live model, how many spans back.  Leaves: files of list examples, or why there are none.  The one idea: the
model's own receipt names the examples it came from, so this works wherever a component runs.  Splits by the hash of the
group id put a query into the same split each time, so neither model was trained on these lists.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from tfx_ranking.components import storage
from tfx_ranking.components.exported import model_files, receipt
from tfx_ranking.components.lists.list_examples import SPANS_OF_SHARDS


class Previous(NamedTuple):
    """Where the lists are.

    absent: why nobody can ask for them, and the candidate passes; refused: why they cannot be had although they should,
    and the candidate does not.  At most one of the two is not "".
    """

    files: tuple[str, ...] = ()
    spans: tuple[int, ...] = ()  # () for an input without spans
    uri: str = ""
    absent: str = ""
    refused: str = ""


def of_live(model: str, spans: int, split: str, label: str, folder: pathlib.Path) -> Previous:
    """The split's lists of the last `spans` spans of those that `model` (a SavedModel's directory) was blessed on; of
    an input without spans all of them.

    label: the column that the candidate is evaluated by.  folder: where files come to that TensorFlow cannot read where
    they lie.
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
    except Exception as error:  # each store's package has failures of its own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        return Previous(uri=uri, refused=f"the lists that the live model was blessed on are out of reach ({said})")
    if not files:
        return Previous(
            uri=uri, refused=f"the lists that the live model was blessed on are gone ({uri}, split {split})"
        )
    return Previous(read, kept, uri)


def _files(uri: str, split: str, spans: int) -> tuple[Sequence[str], tuple[int, ...]]:
    """The files of the last spans, and which spans these are; () of an input without spans."""
    files = sorted(storage.matching_files(f"{uri}/Split-{split}/*"))
    by_shard = f"{uri}/{SPANS_OF_SHARDS}"
    if not files or not storage.matching_files(by_shard):
        return files, ()
    with storage.open_file(by_shard) as opened:
        span_of = json.loads(opened.read())[split]
    kept = tuple(sorted(set(span_of.values()))[-spans:])
    return [file for file in files if span_of[file.rpartition("/")[2]] in kept], kept


def _readable(file: str, folder: pathlib.Path) -> str:
    """The file where TensorFlow can read it: copied, unless it lies on this machine or in Google's store."""
    if "://" not in file or file.startswith("gs://"):
        return file
    here = folder / file.rpartition("/")[2]
    storage.copy_file(storage.to_path(file), here)
    return str(here)
