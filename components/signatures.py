"""The table of signatures: what a client may call on an exported ranker.

Enters: a Keras ranker, the transform graph, the config.  Leaves: one concrete function per signature, proto bytes to
scores.  The one idea: a signature is a parser, then the training's own preprocessing and network on flat values, then
a shape for the answer; one set of weights serves them all.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfx_ranking.components import parsing, scorers
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.components.list_examples import ROW_LENGTHS, Column, ListBatch, columns

INPUTS = "inputs"  # every proto signature's input
PADDING = float(np.finfo(np.float32).min)  # of `scores`, behind a list's end: finite, so that REST's JSON can carry it


class ServingRanker:
    """A ranker as it serves: raw lists in, a score an item out.

    network: called on `scorers.network_inputs`, gives float32 [item].
    transform_fn: the folder of the transform graph's SavedModel.  Raises RankingError when what the network is fed
    depends on a column that no request has (the label, the position and so on).
    """

    def __init__(self, network: keras.Model, transform_fn: str, config: RankingConfig):
        self.network = network
        self.config = config
        self.inputs = parsing.inputs(config)
        loaded = tf.saved_model.load(transform_fn)
        # The function that Transform saved has one signature; older TFT versions saved it as a tf.function.
        function = loaded.transform_fn
        self._transform = function.concrete_functions[0] if hasattr(function, "concrete_functions") else function
        self._columns = columns(config)
        self._refuse_leaks()
        self.module = tf.Module()  # what is saved: tables and weights must be tracked, or they are not there at serving
        self.module.transform_graph = loaded
        self.module.network = network
        # Keras tracks its own wrappers of the variables.  Without the raw ones TensorFlow's C++ loader, which is what
        # TensorFlow Serving runs, answers the first request with "Could not find variable".
        self.module.network_variables = [variable.value for variable in network.variables]

    @tf.autograph.experimental.do_not_convert
    def transform(self, batch: ListBatch) -> dict[str, Any]:
        """What the network is fed, before it is flattened: the transform graph's `items/…` and `context/…`."""
        specs = self._specs()
        raw = {name: _raw_input(name, spec, batch, self._columns) for name, spec in specs.items()}
        transformed = self._transform(*tf.nest.flatten(raw, expand_composites=True))
        return {name: value for name, value in transformed.items() if _is_fed(name)}

    def score(self, batch: ListBatch) -> tf.Tensor:
        """float32 [item], all items of the batch in their order."""
        scores = self.network(scorers.network_inputs(self.transform(batch)), training=False)
        return tf.ensure_shape(tf.cast(scores, tf.float32), [None])

    def _specs(self) -> dict[str, tf.TypeSpec]:
        return self._transform.structured_input_signature[0][0]

    def _refuse_leaks(self) -> None:
        sources = _sources(self._transform)
        for output in filter(_is_fed, sorted(sources)):
            leaked = sorted(sources[output] - {key for name in self.inputs for key in (name, name + ROW_LENGTHS)})
            if leaked:
                raise RankingError(
                    f"transform output {output!r} is computed from {', '.join(map(repr, leaked))}, which no request "
                    f"carries; a request has the config's features alone. Take it out of the preprocessing_fn's output."
                )


def build_signatures(ranker: ServingRanker, names: Iterable[str]) -> dict[str, Any]:
    """The chosen signatures and `serving_default`, as `tf.saved_model.save` takes them.

    `list_example` is always among them.  Raises ConfigError, with the table's names, for one that is not in the table.
    """
    chosen = chosen_signatures(names)
    built = {name: SIGNATURES[name](ranker) for name in chosen}
    # On purpose and not the first one, as Keras' own export has it: a client that names no signature gets this.
    return {**built, "serving_default": built[ranker.config.serving.default]}


def chosen_signatures(names: Iterable[str]) -> list[str]:
    """The names in the table's order, with `list_example`: the evaluator scores through it.

    >>> chosen_signatures(["predict"])
    ['predict', 'list_example']
    """
    wanted = {*names, "list_example"}
    unknown = sorted(wanted - set(SIGNATURES))
    if unknown:
        raise ConfigError(f"serving.signatures: unknown {', '.join(unknown)}; choose from {', '.join(SIGNATURES)}.")
    return [name for name in SIGNATURES if name in wanted]


def _padded_scores(parser: str, ranker: ServingRanker) -> Any:
    """Protos to `scores` float32 [list, item], padded with the smallest finite float32, and `sizes` int64 [list]."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name=INPUTS)])
    def signature(inputs):
        batch = parsing.PARSERS[parser](inputs, ranker.inputs)
        scores = tf.RaggedTensor.from_row_splits(ranker.score(batch), batch.row_splits, validate=False)
        return {"scores": scores.to_tensor(PADDING), "sizes": scores.row_lengths()}

    return signature.get_concrete_function()


SIGNATURES: dict[str, Callable[[ServingRanker], Any]] = {
    "predict": functools.partial(_padded_scores, "elwc"),
    "list_example": functools.partial(_padded_scores, "list_example"),
}
# Which protos a signature takes: the parity check and the tests make requests by it.
PROTOS: dict[str, str] = {"predict": "elwc", "list_example": "list_example"}


def _is_fed(output: str) -> bool:
    return output.startswith(("items/", "context/"))


def _raw_input(name: str, spec: tf.TypeSpec, batch: ListBatch, table: Mapping[str, Column]) -> Any:
    """One input of the transform graph, in the layout that the schema gave it.

    What no request has (the label and so on, which the scores do not depend on) is blank, in the list's shape.
    """
    lists = tf.shape(batch.row_splits, tf.int64)[0] - 1
    feature = name.removesuffix(ROW_LENGTHS)
    if name != feature and name not in table:  # how many tokens each item has
        inner = batch.items[feature].row_splits
        values, rows = inner[1:] - inner[:-1], batch.row_splits
    elif feature in batch.items:
        values, rows, column = batch.items[feature], batch.row_splits, table[feature]
        if column.tokens:
            values, rows = values.values, tf.gather(values.row_splits, rows)
        elif column.width > 1:
            values, rows = tf.reshape(values, [-1]), rows * column.width
    elif feature in batch.context:
        values, rows = batch.context[feature], None
        if table[feature].tokens:
            values, rows = values.values, values.row_splits
    elif feature in table and table[feature].level == "items":
        rows = batch.row_splits
        values = tf.fill([rows[-1]], tf.zeros([], spec.dtype))
    else:
        rows = None
        values = tf.fill([lists], tf.zeros([], spec.dtype))
    if isinstance(spec, tf.TensorSpec):
        return tf.reshape(values, [lists, *spec.shape[1:]])
    if rows is None:
        rows = tf.range(lists + 1) * (tf.size(values, tf.int64) // tf.maximum(lists, 1))
    if isinstance(spec, tf.SparseTensorSpec):  # a curated schema without ragged representation
        return tf.RaggedTensor.from_row_splits(values, rows, validate=False).to_sparse()
    return tf.RaggedTensor.from_row_splits(values, tf.cast(rows, spec.row_splits_dtype), validate=False)


def _sources(function: Any) -> dict[str, set[str]]:
    """Output name → names of the inputs whose values it is computed from.

    Row splits do not count: they are the list's sizes, which a request has.
    """
    specs = function.structured_input_signature[0][0]
    placeholders = iter(function.graph.inputs)
    owner = {}
    for name in sorted(specs):  # tf.nest flattens dicts in the order of their keys
        for at, _ in enumerate(tf.nest.flatten(specs[name], expand_composites=True)):
            placeholder = next(placeholders)
            is_partition = isinstance(specs[name], tf.RaggedTensorSpec) and at > 0
            owner[placeholder.op.name] = None if is_partition else name
    outputs = iter(function.graph.outputs)
    sources: dict[str, set[str]] = {}
    for name in sorted(function.structured_outputs):
        components = tf.nest.flatten(function.structured_outputs[name], expand_composites=True)
        seen, queue = set(), [next(outputs).op for _ in components]
        while queue:
            op = queue.pop()
            if op.name not in seen:
                seen.add(op.name)
                queue.extend(tensor.op for tensor in op.inputs)
        sources[name] = {source for op in seen if (source := owner.get(op)) is not None}
    return sources
