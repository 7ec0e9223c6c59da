"""Joins a trained ranker and its preprocessing into one graph, and saves it with the config's signatures.

Input: a Keras ranker, the transform graph and the config.  Output: a `ServingRanker`, and its SavedModel.
Each signature parses its kind of request, runs training's own preprocessing and network on flat values, and builds its
kind of answer.  All signatures share one set of weights.
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tfx_ranking.components.choices.signatures import (
    PREDICT,
    REQUESTS,
    RequestKind,
    Signature,
    refuse_item_by_item,
)
from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.config.refusals import below
from tfx_ranking.components.errors import ConfigError, RankingError
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS, Column, ListBatch, columns
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import network_inputs
from tfx_ranking.components.serving import answers, client_requests, parsing


class ServingRanker:
    """A ranker that takes raw lists and scores each item.

    network: takes `network_inputs` and returns float32 [item], or a dict of outputs, one of which is `scores`.
    transform_fn: the folder of the transform graph's SavedModel.
    Raises RankingError when the network's input depends on a column that no request has, as on the label.
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
        """The network's input before it is flattened: the transform graph's outputs `items/…` and `context/…`."""
        specs = self._transform.structured_input_signature[0][0]
        raw = {name: _raw_input(name, spec, batch, self._columns) for name, spec in specs.items()}
        transformed = self._transform(*tf.nest.flatten(raw, expand_composites=True))
        return {name: value for name, value in transformed.items() if _is_fed(name)}

    def outputs(self, batch: ListBatch) -> dict[str, tf.Tensor]:
        """The network's outputs by name, `scores` first; each float32 [item], all items of the batch in their order."""
        items = {name: value for name, value in batch.items.items() if name in self.inputs}
        return self._outputs(ListBatch(dict(batch.context), items, batch.row_splits))

    def compute(self, batch: ListBatch, training: bool = False) -> dict[str, tf.Tensor]:
        """The same as `outputs`, traced by the caller; `training` as in Keras."""
        outputs = self.network(network_inputs(self.transform(batch)), training=training)
        if not isinstance(outputs, Mapping):
            outputs = {"scores": outputs}
        scores = networks.scores_of(outputs)
        return {"scores": _flat(scores), **{name: _flat(each) for name, each in outputs.items() if name != "scores"}}

    def postprocess(self, scores: tf.RaggedTensor, features: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """The outputs of the function that `serving.postprocessing` names; ragged ones are padded with 0 or "".

        scores: float32 [list, (item)].  features: the raw features, from `answers.raw_features`.
        Raises ConfigError when the function cannot be imported or does not return a dict of tensors.
        """
        path = self.config.serving.postprocessing
        assert path is not None  # without the key there is no signature that calls this
        outputs = own_code.load("serving.postprocessing", path)(scores, features)
        if not isinstance(outputs, Mapping) or not outputs:
            raise ConfigError(f"serving.postprocessing: expected {path} to return a dict of tensors; got {outputs!r}.")
        return {
            key: value.to_tensor() if isinstance(value, tf.RaggedTensor) else tf.convert_to_tensor(value)
            for key, value in outputs.items()
        }

    def parse(self, kind: RequestKind, request: Any, extra: Mapping[str, Column] | None = None) -> ListBatch:
        """The raw features of a request, by their names in training.

        request: a string tensor of protos; for a kind with `tensors`, the tensors of `tensor_specs` by name.
        extra: columns to read besides the config's features.
        """
        parser, table = kind.load_parse(), {**self.inputs, **(extra or {})}
        if kind.training_names:
            return parser(request, table)
        return self._by_training_names(parser(request, self._as_requested(table)))

    def tensor_specs(self, extra: Mapping[str, Column] | None = None) -> dict[str, tf.TensorSpec]:
        """The tensors of a request without protos, by name.  Raises ConfigError when two would have the same name."""
        return parsing.tensor_specs(self._as_requested({**self.inputs, **(extra or {})}))

    def extra_columns(self, row: Signature) -> dict[str, Column]:
        """The columns that a signature's requests have besides the config's features."""
        names = client_requests.extra_item_columns(row.answer_kind, self.config)
        return {name: self._columns[name] for name in names}

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
                    f"has; a request has only the config's features. Take it out of the preprocessing_fn's output."
                )


def rows_of(ranker: ServingRanker) -> dict[str, Signature]:
    """The signatures to export, by name.  Raises ConfigError for one that this ranker cannot answer.

    A network that looks at whole lists has the attribute `list_wise = True`, as our scorers do.
    """
    rows = ranker.config.serving.rows
    reason = ranker.config.list_wise
    if getattr(ranker.network, "list_wise", False):
        reason = f"the scorer {ranker.config.model.scorer} looks at the whole list"
    with below("serving"):
        return refuse_item_by_item(rows, reason) if reason else rows


def build(ranker: ServingRanker) -> dict[str, Any]:
    """The config's signatures and `serving_default`, as `tf.saved_model.save` takes them."""
    rows = rows_of(ranker)
    default = ranker.config.serving.default
    if default not in rows:
        raise ConfigError(f"serving.default: expected one of the signatures {list(rows)}; got {default!r}.")
    built = {name: _traced(ranker, row) for name, row in rows.items()}
    # A client that names no signature gets this one.  It is a choice; Keras' own export takes the first.
    return {**built, "serving_default": built[default]}


def save(ranker: ServingRanker, to: str) -> None:
    """Writes the SavedModel: signatures, method names and the interface for fine-tuning.

    TensorFlow saves a graph of more than 2 GB, protobuf's limit, in parts (`saved_model.cpb`); TensorFlow 2.16 cannot
    and raises its own error.
    """
    tf.saved_model.save(savable(ranker), to, signatures=build(ranker), options=_options())
    changed = {name: row.method for name, row in rows_of(ranker).items() if row.method != PREDICT}
    if changed and os.path.exists(f"{to}/saved_model.pb"):
        # TensorFlow writes Predict's method name for every signature; TensorFlow Serving's Regress needs its own.
        updater = tf.compat.v1.saved_model.signature_def_utils.MethodNameUpdater(to)
        for name, method in changed.items():
            updater.replace_method_name(name, method)
        updater.save()


def _options() -> tf.saved_model.SaveOptions:
    try:
        return tf.saved_model.SaveOptions(experimental_image_format=True)  # splits only a graph that is too large
    except ValueError:  # "disabled in OSS": TensorFlow 2.16
        return tf.saved_model.SaveOptions()


def savable(ranker: ServingRanker) -> Any:
    """The object that is saved; `tf.saved_model.load` returns it for fine-tuning.

    `__call__(features, training=False)` takes the tensors of the `features` signature and returns float32 [list, item];
    `variables`, `trainable_variables` and `regularization_losses` are TensorFlow's "reusable SavedModel" interface.
    """
    module = tf.__internal__.tracking.AutoTrackable()  # tables and weights that are not tracked are not saved
    network = ranker.network
    module.transform_graph = ranker.loaded
    module.network = network
    # Keras tracks its own wrappers of the variables.  Without the raw variables TensorFlow's C++ loader, which
    # TensorFlow Serving uses, answers the first request with "Could not find variable".
    module.variables = [variable.value for variable in network.variables]
    module.trainable_variables = [variable.value for variable in network.trainable_variables]

    @tf.function(autograph=False)
    def call(features, training=False):
        batch = ranker.parse(REQUESTS["tensors"], features)
        scores = ranker.compute(batch, training)["scores"]
        return answers.padded(scores, batch.row_splits)

    specs = ranker.tensor_specs()
    for training in (False, True):
        call.get_concrete_function(specs, training=training)
    module.__call__ = call
    # Not `network.losses`: the losses that a call adds (add_loss) belong to the graph of that call.
    regularised = [variable for variable in network.trainable_weights if variable.regularizer is not None]
    module.regularization_losses = [_penalty(variable) for variable in regularised]
    return module


def _penalty(variable: Any) -> Any:
    return tf.function(lambda: variable.regularizer(variable), input_signature=[])


def _traced(ranker: ServingRanker, row: Signature) -> Any:
    kind, extra, build_answer = row.request_kind, ranker.extra_columns(row), row.answer_kind.load_build()
    if kind.tensors:

        @tf.function(autograph=False)
        def of_tensors(**tensors):
            return build_answer(ranker, ranker.parse(kind, tensors, extra))

        return of_tensors.get_concrete_function(**ranker.tensor_specs(extra))

    def of_protos(protos):
        return build_answer(ranker, ranker.parse(kind, protos, extra))

    spec = tf.TensorSpec([None], tf.string, name=row.input)
    return tf.function(of_protos, input_signature=[spec], autograph=False).get_concrete_function()


def _flat(output: Any) -> tf.Tensor:
    return tf.ensure_shape(tf.cast(output, tf.float32), [None])


def _is_fed(output: str) -> bool:
    return output.startswith(("items/", "context/"))


def _raw_input(name: str, spec: tf.TypeSpec, batch: ListBatch, table: Mapping[str, Column]) -> Any:
    """One input of the transform graph, in the layout that the schema defines for it.

    A column that no request has, as the label, is blank and has the list's shape; the scores do not depend on it.
    """
    lists = tf.shape(batch.row_splits, tf.int64)[0] - 1
    feature = name.removesuffix(ROW_LENGTHS)
    if name != feature and name not in table and feature in batch.items:  # the number of tokens of each item
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
    """Output name → the names of the inputs whose values it is computed from.

    Row splits do not count: they are the sizes of the lists, which every request has.
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
