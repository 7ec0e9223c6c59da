"""The scorers: networks that give each item of a list its score.

Input: the flat dict of tensors that `inputs` describes.  Output: float32 [item].

You can write a scorer of your own: a function `build(inputs: Sequence[Input], model: Model) -> keras.Model`, whose
dotted path you put into `model.scorer`.  Its network

* returns float32 [item], or a dict of them: training and ranking use the output `scores`, and the signatures serve the
  other outputs beside it under their names;
* declares what it looks at, by class attributes: set `list_wise = True` when an item's score depends on the other items
  of its list (the export then refuses a signature that scores items one by one), and `uses_order = True` when it
  depends on the order of the items (the parity check before an export then keeps the order);
* gives its layers names of their own, if other rankers are to start from their weights (`training.initialize_from`):
  Keras' default names count up within a process.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.training_sections import Model
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS
from tfx_ranking.components.scorers.inputs import Input

EMBEDDING_LAYER = "_embedding"  # ending of an embedding layer's name
NORMALISATION_MOMENTUM = 0.9  # of batch normalisation; Keras' 0.99 needs more steps than training on a small log has


def build(inputs: Sequence[Input], model: Model) -> keras.Model:
    """The network of `model.scorer`, which is a name in `choices.scorers.SCORERS` or a dotted path.

    Raises ConfigError when the function cannot be imported.
    """
    if model.own_scorer:
        return own_code.load("model.scorer", model.own_scorer)(inputs, model)
    return SCORERS[model.scorer].load()(inputs, model)


def scores_of(outputs: Any) -> Any:
    """The scores among a network's outputs, which are one tensor or a dict with `scores` in it.

    Raises ConfigError for a dict without `scores`, and for a list or tuple.

    >>> scores_of({"scores": [0.5], "relevance": [0.1]})
    [0.5]
    """
    if isinstance(outputs, Mapping) and "scores" in outputs:
        return outputs["scores"]
    if isinstance(outputs, (Mapping, list, tuple)):
        received = f"a dict of {sorted(outputs)}" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
        raise ConfigError(
            "model.scorer: expected the network to give one tensor, or a dict by the outputs' names with 'scores' to "
            f"rank by among them; got {received}."
        )
    return outputs


def linear(inputs: Sequence[Input], model: Model) -> keras.Model:
    """One weight for each number and each category.  Of `model` it reads nothing."""
    weights = [dataclasses.replace(each, embedding=None if each.kind == "numeric" else 1) for each in inputs]
    return FlatScorer([dataclasses.asdict(each) for each in weights], hidden=())


def dnn(inputs: Sequence[Input], model: Model) -> keras.Model:
    """Dense layers on each item's numbers, embeddings and its list's context."""
    return FlatScorer(
        [dataclasses.asdict(each) for each in inputs],
        hidden=model.hidden,
        activation=model.activation,
        dropout=model.dropout,
        normalisation=model.normalisation,
    )


NORMALISATIONS: dict[str, Callable[[str], keras.layers.Layer] | None] = {  # by a layer's name
    "none": None,
    "batch": lambda name: keras.layers.BatchNormalization(momentum=NORMALISATION_MOMENTUM, name=name),
    "layer": lambda name: keras.layers.LayerNormalization(name=name),
}


@keras.saving.register_keras_serializable(package="tfx_ranking")
class FlatScorer(keras.Model):
    """Scores each item by itself: dense layers on the item's inputs and its list's context, side by side.

    inputs: `Input`s as dicts.  In the first layer's rows, item inputs come before context inputs, and within each of
    the two numeric matrices before embeddings, both by name.
    hidden: sizes of the dense layers; () makes a linear model.  normalisation: of the inputs and of every layer before
    its activation.  All ids outside 0 to size - 1 share one more embedding.  The tokens of an item become the mean of
    their embeddings, and zeros when it has no tokens.

    Layers have the same names in every process: `<input>_embedding`, `normalisation_inputs`, then `dense_0`,
    `normalisation_0`, `dense_1` and so on, and `score`.
    """

    list_wise = False
    uses_order = False

    def __init__(
        self,
        inputs: Sequence[Mapping[str, Any]],
        hidden: Sequence[int] = (),
        activation: str = "relu",
        dropout: float = 0.0,
        normalisation: str = "none",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        specs = sorted((Input(**each) for each in inputs), key=lambda each: (each.kind != "numeric", each.name))
        self.input_specs = tuple(specs)
        self.settings = {
            "inputs": [dataclasses.asdict(each) for each in specs],
            "hidden": list(hidden),
            "activation": activation,
            "dropout": dropout,
            "normalisation": normalisation,
        }
        self.embeddings = [_embedding(each) for each in specs if each.kind != "numeric"]
        # Built here and not at the first call, because a loaded model must have its weights at once.
        width = sum(each.size if each.kind == "numeric" else each.embedding or 0 for each in specs)
        self.stack: list[keras.layers.Layer] = []
        normalise = NORMALISATIONS[normalisation]
        if normalise and hidden:
            self._add(normalise("normalisation_inputs"), width)
        for i, size in enumerate(hidden):
            self._add(keras.layers.Dense(size, name=f"dense_{i}"), width)
            width = size
            if normalise:
                self._add(normalise(f"normalisation_{i}"), width)
            self._add(keras.layers.Activation(activation, name=f"activation_{i}"), width)
            if dropout:
                self._add(keras.layers.Dropout(dropout, name=f"dropout_{i}"), width)
        self._add(keras.layers.Dense(1, name="score"), width)
        self.built = True

    def _add(self, layer: keras.layers.Layer, width: int) -> None:
        layer.build((None, width))
        self.stack.append(layer)

    def call(self, inputs: Mapping[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """inputs: a dict as `network_inputs` returns it.  Returns float32 [item]."""
        embeddings = iter(self.embeddings)
        columns: list[tuple[Input, tf.Tensor]] = []
        for each in self.input_specs:
            values = inputs[each.name]
            if each.kind == "numeric":
                columns.append((each, tf.reshape(values, [-1, each.size])))
                continue
            known = (values >= 0) & (values < each.size)
            rows = next(embeddings)(tf.where(known, values + 1, 0))
            if each.kind == "tokens":
                rows = _mean_by_row(rows, inputs[each.name + ROW_LENGTHS])
            columns.append((each, rows))
        item = [value for each, value in columns if each.per_item]
        context = [value for each, value in columns if not each.per_item]
        if context:  # put together once per list, then repeated for each of its items
            item.append(tf.repeat(tf.concat(context, axis=1), inputs["row_lengths"], axis=0))
        hidden = item[0] if len(item) == 1 else tf.concat(item, axis=1)
        for layer in self.stack:
            hidden = layer(hidden, training=training) if _acts_differently(layer) else layer(hidden)
        return tf.cast(tf.squeeze(hidden, axis=1), tf.float32)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self.settings}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "FlatScorer":
        return cls(**config)


def embedding_layer(name: str) -> str:
    """The name of the layer that embeds an input.

    >>> embedding_layer("items/brand")
    'items_brand_embedding'
    """
    return name.replace("/", "_") + EMBEDDING_LAYER


def _embedding(each: Input) -> keras.layers.Layer:
    layer = keras.layers.Embedding(each.size + 1, each.embedding, name=embedding_layer(each.name))
    layer.build((None,))
    return layer


def _mean_by_row(values: tf.Tensor, row_lengths: tf.Tensor) -> tf.Tensor:
    """[token, width] to [row, width]; zeros for a row without tokens."""
    rows = tf.shape(row_lengths, tf.int64)[0]
    row_of = tf.repeat(tf.range(rows), row_lengths)
    total = tf.math.unsorted_segment_sum(values, row_of, rows)
    return tf.math.divide_no_nan(total, tf.cast(row_lengths, values.dtype)[:, None])


def _acts_differently(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, (keras.layers.Dropout, keras.layers.BatchNormalization))
