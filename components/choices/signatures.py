"""Lists the signatures that `serving.signatures` can name: what clients can call on an exported model.

A signature is a kind of request (a row of `REQUESTS`) and a kind of answer (a row of `ANSWERS`).  All signatures of a
model share one graph and one set of weights.

To add a signature:
1. Choose a row of `REQUESTS`.  If none fits, write two functions and add a row that names them:
   - `make(list_examples, config, extra_items)` builds a request as a client sends it: a list of serialized protos, or,
     for a row with `tensors`, the arrays of `parsing.tensor_specs` by name.
   - `parse(request, table)` reads that request in the TensorFlow graph: a string tensor of protos, or the tensors by
     name, and the columns by name; it returns a `ListBatch`.
2. Choose a row of `ANSWERS`.  If none fits, write two functions and add a row that names them:
   - `build(ranker, batch)` returns the output tensors by name, from a `ServingRanker` and a `ListBatch`.
   - `pairs(outputs, trained)` gets the outputs of a call as NumPy arrays by name, and its lists as an
     `answers.TrainedLists`.  For each list it returns two arrays of equal shape: what training expects and what the
     model answered.  It raises ValueError for a malformed answer.
3. Add a row to `SIGNATURES`.  The config, its JSON schema, the exporter, its proof and the commands
   that make requests read this table.
4. Run `python -m tfx_ranking.components.config.reference > docs/config.md`, the page of the config's keys.  Add a row
   to the table in docs/serving.md too.

From outside the package, add the rows at run time, as in `SIGNATURES["mine"] = Signature(...)`, before the config is
loaded.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from tfx_ranking.components.choices.functions import load_function
from tfx_ranking.components.errors import ConfigError, Refused

PREDICT, REGRESS = "tensorflow/serving/predict", "tensorflow/serving/regress"  # TensorFlow Serving's method names
_SERVING = "tfx_ranking.components.serving"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestKind:
    """A row of `REQUESTS`."""

    sentence: str  # for the docs
    make: str  # dotted name
    parse: str  # dotted name
    tensors: bool = False  # a named tensor for each feature, not one string tensor of protos
    item_by_item: bool = False  # a request has no lists: each item is scored by itself
    training_names: bool = False  # features have their names in training, not those of `serving.rename`

    def load_make(self) -> Callable[..., Any]:
        """The function `make`.  Raises ConfigError when it cannot be imported."""
        return load_function(self.make, "the kind of request")

    def load_parse(self) -> Callable[..., Any]:
        """The function `parse`.  Raises ConfigError when it cannot be imported."""
        return load_function(self.parse, "the kind of request")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerKind:
    """A row of `ANSWERS`."""

    sentence: str  # for the docs
    build: str  # dotted name
    pairs: str  # dotted name
    ordered: bool = True  # its pairs hold one number for each item, so the order of the items is compared, too
    carries_item_ids: bool = False  # a request also has the column `data.item_id`, for the answer to return it
    promised: bool = True  # a change of its outputs breaks clients

    def load_build(self) -> Callable[..., Any]:
        """The function `build`.  Raises ConfigError when it cannot be imported."""
        return load_function(self.build, "the kind of answer")

    def load_pairs(self) -> Callable[..., Any]:
        """The function `pairs`.  Raises ConfigError when it cannot be imported."""
        return load_function(self.pairs, "the kind of answer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signature:
    """A row of `SIGNATURES`."""

    sentence: str  # for the docs
    request: str  # a name in `REQUESTS`
    answer: str  # a name in `ANSWERS`
    input: str = "inputs"  # name of the string tensor of protos
    method: str = PREDICT

    @property
    def request_kind(self) -> RequestKind:
        """Raises ConfigError for a name that is not in `REQUESTS`."""
        return _kind(REQUESTS, self.request, "request")

    @property
    def answer_kind(self) -> AnswerKind:
        """Raises ConfigError for a name that is not in `ANSWERS`."""
        return _kind(ANSWERS, self.answer, "answer")

    @property
    def details(self) -> str:
        """More sentences for the docs."""
        return f"Request: {self.request_kind.sentence}. Answer: {self.answer_kind.sentence}."


REQUESTS: dict[str, RequestKind] = {
    "elwc": RequestKind(
        sentence="an `ExampleListWithContext` for each list",
        make=f"{_SERVING}.client_requests.to_elwcs",
        parse=f"{_SERVING}.parsing.parse_elwc",
    ),
    "sequence_example": RequestKind(
        sentence="a `SequenceExample` for each list, with one `Feature` for each item or one for all items",
        make=f"{_SERVING}.client_requests.to_sequence_examples",
        parse=f"{_SERVING}.parsing.parse_sequence_examples",
    ),
    "list_example": RequestKind(
        sentence="a list example (one `tf.train.Example`) for each list",
        make=f"{_SERVING}.client_requests.to_list_examples",
        parse=f"{_SERVING}.parsing.parse_list_examples",
        training_names=True,  # list examples are the pipeline's own records
    ),
    "example": RequestKind(
        sentence="a `tf.train.Example` for each item, with the context features of its list",
        make=f"{_SERVING}.client_requests.to_item_examples",
        parse=f"{_SERVING}.parsing.parse_examples",
        item_by_item=True,
    ),
    "tensors": RequestKind(
        sentence="a named tensor for each feature, `[list]` or `[list, item]`, and `sizes`",
        make=f"{_SERVING}.client_requests.to_tensors",
        parse=f"{_SERVING}.parsing.parse_tensors",
        tensors=True,
    ),
}

ANSWERS: dict[str, AnswerKind] = {
    "scores": AnswerKind(
        sentence="`scores [list, item]` and `sizes [list]`",
        build=f"{_SERVING}.answers.build_scores",
        pairs=f"{_SERVING}.answers.scores_pairs",
    ),
    "item_scores": AnswerKind(
        sentence="`outputs [item]`",
        build=f"{_SERVING}.answers.build_item_scores",
        pairs=f"{_SERVING}.answers.item_scores_pairs",
    ),
    "ranked": AnswerKind(
        sentence="`indices [list, k]`, `scores`, `sizes` and `item_ids`",
        build=f"{_SERVING}.answers.build_ranked",
        pairs=f"{_SERVING}.answers.ranked_pairs",
        carries_item_ids=True,
    ),
    "probabilities": AnswerKind(
        sentence="`probabilities [list, item]` (a softmax over the list) and `sizes [list]`",
        build=f"{_SERVING}.answers.build_probabilities",
        pairs=f"{_SERVING}.answers.probabilities_pairs",
    ),
    "transformed": AnswerKind(
        sentence="a tensor for each feature that the network reads, and `sizes [list]`",
        build=f"{_SERVING}.answers.build_transformed",
        pairs=f"{_SERVING}.answers.transformed_pairs",
        ordered=False,
        promised=False,  # it is there to find errors, and changes with every feature
    ),
    "postprocessed": AnswerKind(
        sentence="the outputs of the function that `serving.postprocessing` names",
        build=f"{_SERVING}.answers.build_postprocessed",
        pairs=f"{_SERVING}.answers.postprocessed_pairs",
        ordered=False,
    ),
    "tf_ranking_scores": AnswerKind(
        sentence="`outputs [list, item]`, padded as TF-Ranking does",
        build=f"{_SERVING}.answers.build_tf_ranking_scores",
        pairs=f"{_SERVING}.answers.tf_ranking_scores_pairs",
    ),
    "ml4ir_scores": AnswerKind(
        sentence="`ranking_score [list, item]`, a softmax over the list",
        build=f"{_SERVING}.answers.build_ml4ir_scores",
        pairs=f"{_SERVING}.answers.ml4ir_scores_pairs",
    ),
}

SIGNATURES: dict[str, Signature] = {
    "predict": Signature(
        sentence="Scores lists in TensorFlow Ranking's format.",
        request="elwc",
        answer="scores",
    ),
    "sequence_example": Signature(
        sentence="Scores lists in the format of TensorFlow's sequences and of ml4ir.",
        request="sequence_example",
        answer="scores",
    ),
    "list_example": Signature(
        sentence="Scores the pipeline's own list examples; it is always exported.",
        request="list_example",
        answer="scores",
    ),
    "regress": Signature(
        sentence="Scores single items, for TensorFlow Serving's Regress.",
        request="example",
        answer="item_scores",
        method=REGRESS,
    ),
    "features": Signature(
        sentence="Scores lists that are sent without protos.",
        request="tensors",
        answer="scores",
    ),
    "rank": Signature(
        sentence="Returns the best items of each list first.",
        request="elwc",
        answer="ranked",
    ),
    "rank_list_example": Signature(
        sentence="Returns the best items of each list example first.",
        request="list_example",
        answer="ranked",
    ),
    "probabilities": Signature(
        sentence="Returns the probability of each item within its list.",
        request="elwc",
        answer="probabilities",
    ),
    "transform": Signature(
        sentence="Returns the features after preprocessing.",
        request="list_example",
        answer="transformed",
    ),
}

# The signatures that clients of other systems call, with the names and the padding of those systems.
COMPATIBILITY: dict[str, dict[str, Signature]] = {
    "tf_ranking": {
        PREDICT: Signature(
            sentence="TF-Ranking's Predict.",
            request="elwc",
            answer="tf_ranking_scores",
        ),
        REGRESS: Signature(
            sentence="TF-Ranking's Regress.",
            request="example",
            answer="item_scores",
            method=REGRESS,
        ),
    },
    "ml4ir": {
        "serving_tfrecord": Signature(
            sentence="ml4ir's signature for SequenceExamples.",
            request="sequence_example",
            answer="ml4ir_scores",
            input="protos",
        ),
    },
}


def rows_to_export(
    names: Sequence[str], compatibility: Sequence[str] = (), postprocessing: str | None = None
) -> dict[str, Signature]:
    """The rows to export, by name, in the table's order; `list_example` is always among them, for the evaluator.

    The arguments are the config's keys `serving.signatures`, `.compatibility` and `.postprocessing`.
    Raises Refused, with the key below `serving`, for an unknown name or one that would be exported twice.

    >>> list(rows_to_export(["predict"], compatibility=["ml4ir"]))
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
        rows[name] = Signature(sentence="Your own function.", request="elwc", answer="postprocessed")
    return rows


def refuse_item_by_item(rows: Mapping[str, Signature], reason: str) -> dict[str, Signature]:
    """The rows that fit a ranker that looks at the whole list: without TF-Ranking's regress.

    reason: why the ranker needs the list, for the message.  Raises Refused, with the key below `serving`, when a row of
    `SIGNATURES` scores each item by itself.
    """
    aliases: Collection[str] = COMPATIBILITY["tf_ranking"]
    refused = [name for name, row in rows.items() if row.request_kind.item_by_item and name not in aliases]
    if refused:
        raise Refused(
            "signatures",
            f"{refused[0]!r} scores each item by itself, but {reason}; "
            f"take {refused[0]!r} out, and let clients call a signature that is sent whole lists",
        )
    return {name: row for name, row in rows.items() if not row.request_kind.item_by_item}


def tensor_name(feature: str) -> str:
    """A valid tensor name for a feature: letters, digits and _ only, and no digit first.

    >>> tensor_name("price-eur"), tensor_name("2nd")
    ('price_eur', '_2nd')
    """
    return re.sub(r"^(?=\d)|\W", "_", feature, flags=re.ASCII)


_Kind = TypeVar("_Kind", RequestKind, AnswerKind)


def _kind(table: Mapping[str, _Kind], name: str, what: str) -> _Kind:
    if name not in table:
        raise ConfigError(f"unknown kind of {what} {name!r} in a signature; choose from {', '.join(table)}.")
    return table[name]
