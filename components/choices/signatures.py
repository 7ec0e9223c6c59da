"""The table of signatures: what a client may call on an exported ranker.

Enters: the config's `serving` section.  Leaves: the rows to export.  The one idea: a signature is a kind of request
and a kind of answer; the graph between them (`serving_ranker`) is one, with one set of weights.  Nothing here imports
TensorFlow.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from tfx_ranking.components.errors import Refused

PREDICT, REGRESS = "tensorflow/serving/predict", "tensorflow/serving/regress"  # TensorFlow Serving's method names


class Signature(NamedTuple):
    """One row.

    request: how a request is read, a row of `parsing.PARSERS`, or "tensors": a named tensor a feature.
    answer: a row of `answers.ANSWERS`.  input: the name of the string tensor of protos.
    """

    request: str
    answer: str
    input: str = "inputs"
    method: str = PREDICT

    @property
    def of_items(self) -> bool:
        """Whether a request has no lists, so that each item is scored by itself."""
        return self.request == "example"

    @property
    def training_names(self) -> bool:
        """Whether features have the names of training: list examples are the pipeline's own records."""
        return self.request == "list_example"


SIGNATURES: dict[str, Signature] = {
    "predict": Signature("elwc", "scores"),
    "sequence_example": Signature("sequence_example", "scores"),
    "list_example": Signature("list_example", "scores"),
    "regress": Signature("example", "item_scores", method=REGRESS),
    "features": Signature("tensors", "scores"),
    "rank": Signature("elwc", "ranked"),
    "rank_list_example": Signature("list_example", "ranked"),
    "probabilities": Signature("elwc", "probabilities"),
    "transform": Signature("list_example", "transformed"),
}

# What clients of other systems call, by their names, with their padding.
COMPATIBILITY: dict[str, dict[str, Signature]] = {
    "tf_ranking": {
        PREDICT: Signature("elwc", "tf_ranking_scores"),
        REGRESS: Signature("example", "item_scores", method=REGRESS),
    },
    "ml4ir": {"serving_tfrecord": Signature("sequence_example", "ml4ir_scores", input="protos")},
}


def chosen(
    names: Sequence[str], compatibility: Sequence[str] = (), postprocessing: str | None = None
) -> dict[str, Signature]:
    """The rows to export, by name, in the table's order; `list_example` is always among them, for the evaluator.

    The arguments are the config's keys `serving.signatures`, `.compatibility` and `.postprocessing`.
    Raises Refused, with the key below `serving`, for an unknown name or one that would be exported twice.

    >>> list(chosen(["predict"], compatibility=["ml4ir"]))
    ['predict', 'list_example', 'serving_tfrecord']
    """
    unknown = sorted(set(names) - set(SIGNATURES))
    if unknown:
        raise Refused("signatures", f"unknown {', '.join(unknown)}; choose from {', '.join(SIGNATURES)}")
    rows = {name: row for name, row in SIGNATURES.items() if name in (*names, "list_example")}
    for system in compatibility:
        rows |= COMPATIBILITY[system]
    if postprocessing:
        name = postprocessing.rpartition(".")[2]
        if name in rows or name in SIGNATURES:
            raise Refused(
                "postprocessing",
                f"the signature takes the function's name, and there is a signature {name!r}; "
                "give the function another name",
            )
        rows[name] = Signature("elwc", "postprocessed")
    return rows


def refuse_item_by_item(rows: Mapping[str, Signature], because: str) -> dict[str, Signature]:
    """The rows for a ranker that looks at the whole list: TF-Ranking's regress is left out, our own is refused.

    because: the reason, for the message.  Raises Refused, with the key below `serving`.
    """
    aliases: Collection[str] = COMPATIBILITY["tf_ranking"]
    ours = [name for name, row in rows.items() if row.of_items and name not in aliases]
    if ours:
        raise Refused(
            "signatures",
            f"{ours[0]!r} scores each item by itself, but {because}; "
            f"take {ours[0]!r} out, and let clients call a signature that is sent whole lists",
        )
    return {name: row for name, row in rows.items() if not row.of_items}


def tensor_name(feature: str) -> str:
    """A valid tensor name for a feature: letters, digits and _ only, and no digit first.

    >>> tensor_name("price-eur"), tensor_name("2nd")
    ('price_eur', '_2nd')
    """
    return re.sub(r"^(?=\d)|\W", "_", feature, flags=re.ASCII)
