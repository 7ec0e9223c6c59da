"""Scorers: the network that gives each item of a list its score.

Enters: a flat dict of tensors (`network_inputs`).  Leaves: float32 [item].  The one idea: a scorer that looks at one
item at a time runs on flat values, all items of all lists one after another, so no padding is ever computed.

What the network is fed, by the transform graph's output names:

* `items/<name>`: float32 [item, width], or int64 [item] ids of a category,
* `context/<name>`: the same per [list],
* tokens: all ids flat under the name, and `<name>/row_lengths` int64 [item] or [list],
* `row_lengths`: int64 [list], items per list.

A build function of your own, `build(inputs: Sequence[Input], model: Model) -> keras.Model`, is named by its
dotted path in `model.scorer`.  Its network

* gives float32 [item], or a dict of such outputs: the one called `scores` is trained and ranked by, the others are
  served beside it under their names;
* says what it looks at, by class attributes: `list_wise = True` where an item's score depends on its list's other items
  (a signature that scores items by themselves is then refused), `uses_order = True` where it depends on the order in
  which they come (the proof before an export then leaves the order alone);
* names its layers, where others are to start from their weights (`training.initialize_from`): Keras' own names count up
  within a process.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.config import own_code
from tfx_ranking.components.config.training_sections import Model
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.lists.list_examples import ROW_LENGTHS
from tfx_ranking.components.lists.ragged import as_ragged

DEFAULT_EMBEDDING = 16  # width of an embedding that the config leaves open, where the category has as many values
EMBEDDING_LAYER = "_embedding"  # the end of an embedding layer's name
NORMALISATION_MOMENTUM = 0.9  # of batch normalisation: 0.99 needs more steps than a small log has in a training


@dataclasses.dataclass(frozen=True)
class Input:
    """One tensor that the network is fed."""

    name: str  # items/… or context/…
    kind: str  # numeric, category or tokens
    size: int  # numeric: width; else the number of ids, 0 to size - 1
    embedding: int | None = None  # width, of a category or tokens

    @property
    def per_item(self) -> bool:
        return self.name.startswith("items/")


def network_inputs(transformed: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """The transform graph's outputs as the network's inputs; label, weight, position and group id are left out.

    transformed: `items/<name>` ragged [list, (item)], [list, (item), width] or, tokens, [list, (item), (token)];
    `context/<name>` dense [list] or [list, width] or, tokens, ragged [list, (token)].
    Raises DataError when there is no item feature, or one is not ragged.
    """
    inputs: dict[str, tf.Tensor] = {}
    row_lengths = None
    for name in sorted(transformed):
        value = as_ragged(transformed[name])
        if name.startswith("items/"):
            if not isinstance(value, tf.RaggedTensor):
                raise DataError(f"{name}: expected a ragged tensor [list, (item)]; got one of shape {value.shape}.")
            row_lengths = tf.cast(value.row_lengths(), tf.int64) if row_lengths is None else row_lengths
            value = value.values
            if isinstance(value, tf.RaggedTensor) and value.uniform_row_length is not None:
                value = tf.reshape(value.flat_values, [-1, *value.shape[1:].as_list()])
        elif not name.startswith("context/"):
            continue
        if isinstance(value, tf.RaggedTensor):
            inputs[name + ROW_LENGTHS] = tf.cast(value.row_lengths(), tf.int64)
            value = value.flat_values
        inputs[name] = tf.cast(value, tf.float32 if value.dtype.is_floating else tf.int64)
    if row_lengths is None:
        raise DataError(f"the transform graph gives no items/… output to score by; it gives {sorted(transformed)}.")
    return {**inputs, "row_lengths": row_lengths}


def build(inputs: Sequence[Input], model: Model) -> keras.Model:
    """The scorer that `model.scorer` names, in the table or by a dotted path.  Raises ConfigError."""
    if model.own_scorer:
        return own_code.load("model.scorer", model.own_scorer)(inputs, model)
    return SCORERS[model.scorer].load()(inputs, model)


def scores_of(outputs: Any) -> Any:
    """The scores among what a network gives: float32 [item], or a dict of outputs with `scores` in it.

    Raises ConfigError for several outputs of which none is called `scores`.

    >>> scores_of({"scores": [0.5], "relevance": [0.1]})
    [0.5]
    """
    if isinstance(outputs, Mapping) and "scores" in outputs:
        return outputs["scores"]
    if isinstance(outputs, (Mapping, list, tuple)):
        came = f"a dict of {sorted(outputs)}" if isinstance(outputs, Mapping) else f"a {type(outputs).__name__}"
        raise ConfigError(
            "model.scorer: expected the network to give one tensor, or a dict by the outputs' names with 'scores' to "
            f"rank by among them; got {came}."
        )
    return outputs


def linear(inputs: Sequence[Input], model: Model) -> keras.Model:
    """One weight per number and per category; `model.hidden` and the rest have no meaning here."""
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
    """Scores each item by itself: item values and its list's context, side by side, through dense layers.

    inputs: `Input`s as dicts; numeric matrices come first in the network's first layer, each group by name.
    hidden: sizes of the dense layers; none makes a linear model.  normalisation: of the inputs and of every layer
    before its activation.  An id outside 0 to size - 1 has an embedding of its own, for the unknown; the tokens of an
    item count by the mean of their embeddings, no tokens as zeros.

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
        # Built here and not at the first call: the sizes are known, and a loaded model must have its weights at once.
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
        """inputs: as `network_inputs` gives them.  Returns float32 [item]."""
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
        if context:  # once a list, then to each of its items
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
