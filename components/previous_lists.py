"""The lists that the live model was blessed on: what a candidate must also hold on when labels may have gone bad.

Enters: the live model, how many spans back.  Leaves: files of list examples, or why there are none.  The one idea: the
model's own receipt names the examples it came from, so this works wherever a component runs.  Splits by the hash of the
group id put a query into the same split each time, so neither model was trained on these lists.
"""

import json
from typing import Any, NamedTuple

from tfx_ranking.components import list_examples, serving_versions
from tfx_ranking.components.example_gen import SPANS_OF_SHARDS


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


def of_live(model: str, spans: int, split: str, label: str) -> Previous:
    """The split's lists of the last `spans` spans of those that `model` (a SavedModel's directory) was blessed on; of
    an input without spans all of them.  label: the column that the candidate is evaluated by."""
    import tensorflow as tf
    from tfx.dsl.io import fileio

    def told(file: str) -> dict[str, Any]:
        path = f"{model}/{file}"
        if not fileio.exists(path):
            return {}
        with fileio.open(path, "rb") as opened:
            return json.loads(opened.read())

    named = told(serving_versions.LINEAGE_IN_MODEL).get("artifacts", {}).get("examples")
    if not named:
        return Previous(absent="the live model does not say what it was evaluated on")
    uri = named[0]["uri"]
    learnt = told(serving_versions.CONFIG_IN_MODEL).get("data", {}).get("label", "label")
    if learnt != label:
        refused = f"the live model's label was {learnt!r}, this one's is {label!r}: they have no common lists"
        return Previous(uri=uri, refused=refused)
    try:
        files, kept = list_examples.split_files(uri, split), ()
    except (tf.errors.OpError, OSError) as error:  # an object store that TensorFlow does not know
        said = str(error).splitlines()[0]
        return Previous(uri=uri, refused=f"the lists that the live model was blessed on are out of reach ({said})")
    by_shard = f"{uri}/{SPANS_OF_SHARDS}"
    if files and fileio.exists(by_shard):
        with fileio.open(by_shard, "rb") as opened:
            span_of = json.loads(opened.read())[split]
        kept = tuple(sorted(set(span_of.values()))[-spans:])
        files = [file for file in files if span_of[file.rpartition("/")[2]] in kept]
    if not files:
        return Previous(
            uri=uri, refused=f"the lists that the live model was blessed on are gone ({uri}, split {split})"
        )
    return Previous(tuple(files), kept, uri)
