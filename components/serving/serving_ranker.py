"""A ranker as it serves: what was trained, in one graph from a request's features to a score an item.

Enters: a Keras ranker, the transform graph, the config.  Leaves: `ServingRanker`, and what `tf.saved_model.save` takes
for a table of signatures.  The one idea: a parser, then the training's own preprocessing and network on flat values,
then a shape for the answer; one set of weights serves them all.
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfx_ranking.components.choices.signatures import PREDICT, Signature, refuse_item_by_item
from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.config.refusals import below
from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, ListBatch, columns
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import network_inputs
from tfx_ranking.components.serving import answers, parsing


class ServingRanker:
    """A ranker as it serves: raw lists in, a score an item out.

    network: called on `network_inputs`, gives float32 [item], or a dict of them with `scores` in it.
    transform_fn: the folder of the transform graph's SavedModel.  Raises RankingError when what the network is fed
    depends on a column that no request has (the label, the position and so on).
    """

    def __init__(self, network: keras.Model, transform_fn: str, config: RankingConfig):
        self.network = network
        self.config = config
        self.inputs = parsing.inputs(config)
        self.loaded = tf.saved_model.load(transform_fn)
        # The function that Transform saved has one signature; older TFT versions saved it as a tf.function.
        function = self.loaded.transform_fn
        self._transform = function.concrete_functions[0] if hasattr(function, "concrete_functions") else function
        self._columns = columns(config)
        sources = _sources(self._transform)
        self._refuse_leaks(sources)
        if config.serving.required_only:
            used = set().union(*(names for output, names in sources.items() if _is_fed(output)))
            used = {name.removesuffix(ROW_LENGTHS) for name in used} | used
            self.inputs = {name: column for name, column in self.inputs.items() if name in used}
        # One function for all signatures: traced once, and once in the saved graph.
        self._outputs = tf.function(self.compute, input_signature=[parsing.batch_specs(self.inputs)], autograph=False)

    @tf.autograph.experimental.do_not_convert
    def transform(self, batch: ListBatch) -> dict[str, Any]:
        """What the network is fed, before it is flattened: the transform graph's `items/…` and `context/…`."""
        specs = self._transform.structured_input_signature[0][0]
        raw = {name: _raw_input(name, spec, batch, self._columns) for name, spec in specs.items()}
        transformed = self._transform(*tf.nest.flatten(raw, expand_composites=True))
        return {name: value for name, value in transformed.items() if _is_fed(name)}

    def outputs(self, batch: ListBatch) -> dict[str, tf.Tensor]:
        """Each of the network's outputs, float32 [item] each, all items of the batch in their order; `scores` first."""
        items = {name: value for name, value in batch.items.items() if name in self.inputs}
        return self._outputs(ListBatch(dict(batch.context), items, batch.row_splits))

    def compute(self, batch: ListBatch, training: bool = False) -> dict[str, tf.Tensor]:
        """The same, traced where it is called; `training` as Keras has it."""
        answered = self.network(network_inputs(self.transform(batch)), training=training)
        outputs = answered if isinstance(answered, Mapping) else {"scores": answered}
        scores = networks.scores_of(outputs)
        return {"scores": _flat(scores), **{name: _flat(each) for name, each in outputs.items() if name != "scores"}}

    def postprocess(self, scores: tf.RaggedTensor, features: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """What the function behind `serving.postprocessing` gives; ragged outputs padded with 0 or "".

        scores: float32 [list, (item)].  features: raw, as `answers.raw_features` has them.  Raises ConfigError.
        """
        path = self.config.serving.postprocessing
        assert path is not None  # no config, no such signature
        outputs = own_code.load("serving.postprocessing", path)(scores, features)
        if not isinstance(outputs, Mapping) or not outputs:
            raise ConfigError(f"serving.postprocessing: expected {path} to give a dict of tensors; got {outputs!r}.")
        return {
            key: value.to_tensor() if isinstance(value, tf.RaggedTensor) else tf.convert_to_tensor(value)
            for key, value in outputs.items()
        }

    def parse(self, row: Signature, protos: tf.Tensor, extra: Mapping[str, Column] | None = None) -> ListBatch:
        """Protos [list] ([item] of a row without lists) as raw features by their names in training.

        extra: columns to read beside the config's features.
        """
        table = {**self.inputs, **(extra or {})}
        if row.training_names:
            return parsing.PARSERS[row.request](protos, table)
        return self._by_training_names(parsing.PARSERS[row.request](protos, self._as_requested(table)))

    def parse_tensors(self, tensors: Mapping[str, tf.Tensor]) -> ListBatch:
        """Named tensors as `tensor_specs` has them, as raw features by their names in training."""
        return self._by_training_names(parsing.parse_tensors(tensors, self._as_requested(self.inputs)))

    def tensor_specs(self) -> dict[str, tf.TensorSpec]:
        """The tensors of a request without protos, by name.  Raises ConfigError where two would have one name."""
        return parsing.tensor_specs(self._as_requested(self.inputs))

    def _as_requested(self, table: Mapping[str, Column]) -> dict[str, Column]:
        names = self.config.serving.rename
        return {names.get(name, name): column for name, column in table.items()}

    def _by_training_names(self, batch: ListBatch) -> ListBatch:
        names = {served: name for name, served in self.config.serving.rename.items()}
        context, items = (
            {names.get(name, name): value for name, value in level.items()} for level in (batch.context, batch.items)
        )
        return ListBatch(context, items, batch.row_splits)

    def _refuse_leaks(self, sources: Mapping[str, set[str]]) -> None:
        for output in filter(_is_fed, sorted(sources)):
            leaked = sorted(sources[output] - {key for name in self.inputs for key in (name, name + ROW_LENGTHS)})
            if leaked:
                raise RankingError(
                    f"transform output {output!r} is computed from {', '.join(map(repr, leaked))}, which no request "
                    f"carries; a request has the config's features alone. Take it out of the preprocessing_fn's output."
                )


def rows_of(ranker: ServingRanker) -> dict[str, Signature]:
    """The signatures to export, by name.  Raises ConfigError for what this ranker cannot answer.

    A network that looks at whole lists says so by `list_wise = True`, as our scorers do.
    """
    rows = ranker.config.serving.rows
    why = ranker.config.list_wise
    if getattr(ranker.network, "list_wise", False):
        why = f"the scorer {ranker.config.model.scorer} looks at the whole list"
    with below("serving"):
        return refuse_item_by_item(rows, why) if why else rows


def build(ranker: ServingRanker) -> dict[str, Any]:
    """The chosen signatures and `serving_default`, as `tf.saved_model.save` takes them."""
    rows = rows_of(ranker)
    default = ranker.config.serving.default
    if default not in rows:
        raise ConfigError(f"serving.default: expected one of the signatures {list(rows)}; got {default!r}.")
    built = {name: _traced(ranker, row) for name, row in rows.items()}
    # On purpose and not the first one, as Keras' own export has it: a client that names no signature gets this.
    return {**built, "serving_default": built[default]}


def save(ranker: ServingRanker, to: str) -> None:
    """Writes the SavedModel: signatures, method names, fine-tuning interface.

    A graph beyond protobuf's 2 GB is saved in parts (`saved_model.cpb`) where TensorFlow can; 2.16 cannot, its own
    error says so.
    """
    tf.saved_model.save(savable(ranker), to, signatures=build(ranker), options=_options())
    changed = {name: row.method for name, row in rows_of(ranker).items() if row.method != PREDICT}
    if changed and os.path.exists(f"{to}/saved_model.pb"):
        # TensorFlow writes Predict's name for every signature; Serving's Regress looks for its own.
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(to)
        for name, method in changed.items():
            updater.replace_method_name(name, method)
        updater.save()


def _options() -> tf.saved_model.SaveOptions:
    try:
        return tf.saved_model.SaveOptions(experimental_image_format=True)  # splits what is too large, nothing else
    except ValueError:  # "disabled in OSS": TensorFlow 2.16
        return tf.saved_model.SaveOptions()


def savable(ranker: ServingRanker) -> Any:
    """What is saved, and what `tf.saved_model.load` gives back for fine-tuning.

    `__call__(features, training=False)` takes what the `features` signature takes and gives float32 [list, item];
    `variables`, `trainable_variables` and `regularization_losses` are TensorFlow's "reusable SavedModel" interface.
    """
    module = tf.__internal__.tracking.AutoTrackable()  # tables and weights must be tracked, or they are not served
    network = ranker.network
    module.transform_graph = ranker.loaded
    module.network = network
    # Keras tracks its own wrappers of the variables.  Without the raw ones TensorFlow's C++ loader, which is what
    # TensorFlow Serving runs, answers the first request with "Could not find variable".
    module.variables = [variable.value for variable in network.variables]
    module.trainable_variables = [variable.value for variable in network.trainable_variables]

    @tf.function(autograph=False)
    def call(features, training=False):
        batch = ranker.parse_tensors(features)
        scores = ranker.compute(batch, training)["scores"]
        return answers.padded(scores, batch.row_splits)

    specs = ranker.tensor_specs()
    for training in (False, True):
        call.get_concrete_function(specs, training=training)
    module.__call__ = call
    # Not `network.losses`: those that a call adds (add_loss) belong to the call's own graph.
    regularised = [variable for variable in network.trainable_weights if variable.regularizer is not None]
    module.regularization_losses = [_penalty(variable) for variable in regularised]
    return module


def _penalty(variable: Any) -> Any:
    return tf.function(lambda: variable.regularizer(variable), input_signature=[])


def _traced(ranker: ServingRanker, row: Signature) -> Any:
    answer = answers.ANSWERS[row.answer]
    if row.request == "tensors":

        @tf.function(autograph=False)
        def of_tensors(**tensors):
            return answer.build(ranker, ranker.parse_tensors(tensors))

        return of_tensors.get_concrete_function(**ranker.tensor_specs())

    def of_protos(protos):
        return answer.build(ranker, ranker.parse(row, protos, answer.extra(ranker.config)))

    spec = tf.TensorSpec([None], tf.string, name=row.input)
    return tf.function(of_protos, input_signature=[spec], autograph=False).get_concrete_function()


def _flat(output: Any) -> tf.Tensor:
    return tf.ensure_shape(tf.cast(output, tf.float32), [None])


def _is_fed(output: str) -> bool:
    return output.startswith(("items/", "context/"))


def _raw_input(name: str, spec: tf.TypeSpec, batch: ListBatch, table: Mapping[str, Column]) -> Any:
    """One input of the transform graph, in the layout that the schema gave it.

    What no request has (the label and so on, which the scores do not depend on) is blank, in the list's shape.
    """
    lists = tf.shape(batch.row_splits, tf.int64)[0] - 1
    feature = name.removesuffix(ROW_LENGTHS)
    if name != feature and name not in table and feature in batch.items:  # how many tokens each item has
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
