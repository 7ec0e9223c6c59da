"""Scorers against NumPy's arithmetic; saved and loaded by Keras, and saved as TensorFlow Serving needs them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.config.training_sections import Model
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import Input

INPUTS = (
    Input("items/numeric", "numeric", 2),
    Input("items/brand", "category", 3, 4),
    Input("items/tags", "tokens", 5, 2),
    Input("context/numeric", "numeric", 1),
    Input("context/country", "category", 2, 2),
    Input("context/text", "tokens", 4, 3),
)
# Two lists, of two items and one.
FED = {
    "items/numeric": np.float32([[1, 2], [3, 4], [5, 6]]),
    "items/brand": np.int64([0, 2, -1]),
    "items/tags": np.int64([4, 0, 1]),
    "items/tags/row_lengths": np.int64([2, 0, 1]),
    "context/numeric": np.float32([[7], [8]]),
    "context/country": np.int64([1, 9]),
    "context/text": np.int64([3]),
    "context/text/row_lengths": np.int64([0, 1]),
    "row_lengths": np.int64([2, 1]),
}


def tensors(fed=None):
    return {name: tf.constant(value) for name, value in (fed or FED).items()}


def by_hand(ranker, fed):
    """The scorer's arithmetic, item by item."""
    table = {layer.name.removesuffix("_embedding"): layer.get_weights()[0] for layer in ranker.embeddings}
    list_of = np.repeat(np.arange(len(fed["row_lengths"])), fed["row_lengths"])

    def embed(name, size):
        ids = fed[name]
        rows = table[name.replace("/", "_")][np.where((ids >= 0) & (ids < size), ids + 1, 0)]
        if name + "/row_lengths" not in fed:
            return rows
        ends = np.cumsum(fed[name + "/row_lengths"])
        starts = ends - fed[name + "/row_lengths"]
        zeros = np.zeros(rows.shape[1], np.float32)
        return np.stack([rows[a:b].mean(axis=0) if b > a else zeros for a, b in zip(starts, ends)])

    context = [fed["context/numeric"], embed("context/country", 2), embed("context/text", 4)]
    x = np.hstack([fed["items/numeric"], embed("items/brand", 3), embed("items/tags", 5), np.hstack(context)[list_of]])
    dense = [layer.get_weights() for layer in ranker.stack if isinstance(layer, keras.layers.Dense)]
    for kernel, bias in dense[:-1]:
        x = np.maximum(x @ kernel + bias, 0)
    return (x @ dense[-1][0] + dense[-1][1])[:, 0]


@pytest.mark.parametrize("name", SCORERS)
def test_scores_by_hand(name):
    ranker = networks.build(INPUTS, Model(scorer=name, hidden=(8, 4)))
    scores = ranker(tensors())
    assert scores.dtype == tf.float32
    np.testing.assert_allclose(scores, by_hand(ranker, FED), rtol=1e-5)


def test_the_linear_scorer_has_one_weight_per_number_and_category():
    ranker = networks.build(INPUTS, Model(scorer="linear"))
    rows = 1 + 3 + 1 + 5 + 1 + 2 + 1 + 4  # each embedding has one more row, for unknown ids
    numbers = 2 + 1
    categories = 4  # the score's own weight of each embedding of width 1
    assert ranker.count_params() == rows + numbers + categories + 1


def test_ids_outside_the_range_share_one_embedding():
    ranker = networks.build(INPUTS, Model(hidden=(8,)))
    scores = [
        ranker(tensors({**FED, "items/brand": np.int64([0, 2, unknown])})).numpy()[2] for unknown in (-1, 3, 10**12)
    ]
    assert scores[0] == scores[1] == scores[2]


@pytest.mark.parametrize("normalisation", networks.NORMALISATIONS)
@pytest.mark.parametrize("name", SCORERS)
def test_saved_and_loaded_in_safe_mode(tmp_path, name, normalisation):
    model = Model(scorer=name, hidden=(8, 4), normalisation=normalisation, dropout=0.3, activation="gelu")
    ranker = networks.build(INPUTS, model)
    ranker.save(tmp_path / "ranker.keras")
    loaded = keras.saving.load_model(tmp_path / "ranker.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded(tensors()), ranker(tensors()))
    assert loaded.get_config() == ranker.get_config()


@pytest.mark.parametrize("name", SCORERS)
def test_equal_configs_have_equal_layer_names(name):
    """Keras' own names would count up: dense, dense_1, dense_2."""
    model = Model(scorer=name, hidden=(8, 4), normalisation="batch", dropout=0.3)
    first, second = ([each.name for each in networks.build(INPUTS, model).layers] for _ in range(2))
    assert first == second
    embeddings = [f"{each}_embedding" for each in ("context_country", "context_text", "items_brand", "items_tags")]
    hidden = [f"{kind}_{i}" for i in (0, 1) for kind in ("dense", "normalisation", "activation", "dropout")]
    dense = ["normalisation_inputs", *hidden] if name == "dnn" else []
    assert sorted(first) == sorted([*embeddings, *dense, "score"])


def test_a_scorer_says_what_it_looks_at():
    for name in SCORERS:
        ranker = networks.build(INPUTS, Model(scorer=name, hidden=(8,)))
        assert (ranker.list_wise, ranker.uses_order) == (False, False)


def test_the_scores_among_several_outputs():
    assert networks.scores_of({"scores": 1, "relevance": 2}) == 1
    assert networks.scores_of(3) == 3
    with pytest.raises(ConfigError, match=r"with 'scores' to rank by among them; got a dict of \['a', 'b'\]"):
        networks.scores_of({"b": 1, "a": 2})
    with pytest.raises(ConfigError, match="got a tuple"):
        networks.scores_of((1, 2))


def test_dropout_and_batch_normalisation_differ_in_training_only():
    ranker = networks.build(INPUTS, Model(hidden=(32,), normalisation="batch", dropout=0.5))
    np.testing.assert_array_equal(ranker(tensors()), ranker(tensors(), training=False))
    assert not np.allclose(ranker(tensors(), training=True), ranker(tensors()))


def test_no_lists_and_empty_lists():
    ranker = networks.build(INPUTS, Model(hidden=(8,)))
    empty = {name: value[:0] for name, value in FED.items()}
    assert ranker(tensors(empty)).shape == (0,)
    one_empty = {**FED, "row_lengths": np.int64([3, 0])}
    np.testing.assert_allclose(ranker(tensors(one_empty)), by_hand(ranker, one_empty), rtol=1e-5)


def test_served_by_tensorflows_own_loader(tmp_path):
    """Saved inside a tf.Module with its raw variables, as the exporter does; read by the session loader."""
    ranker = networks.build(INPUTS, Model(hidden=(8,)))
    module = tf.Module()
    module.network, module.raw = ranker, [variable.value for variable in ranker.variables]
    specs = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name.replace("/", "_"))
        for name, value in FED.items()
    }

    stored = {name.replace("/", "_"): name for name in FED}  # a signature's inputs have no slashes

    @tf.function(input_signature=[specs])
    def score(inputs):
        return {"scores": ranker(inputs, training=False)}

    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"score": score.get_concrete_function()})
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(tmp_path / "saved"))
        signature = graph.signature_def["score"]
        feed = {info.name: FED[stored[name]] for name, info in signature.inputs.items()}
        served = session.run(signature.outputs["scores"].name, feed)
    np.testing.assert_allclose(served, ranker(tensors()), rtol=1e-6)


def test_a_build_function_that_cannot_be_imported():
    with pytest.raises(ConfigError, match=r"'tests_of\.mine' cannot be imported"):
        networks.build(INPUTS, Model(scorer="tests_of.mine"))


def only_the_first_number(inputs, model):
    return OnlyTheFirstNumber()


@keras.saving.register_keras_serializable(package="test_scorers")
class OnlyTheFirstNumber(keras.Model):
    def call(self, inputs, training=False):
        return inputs["items/numeric"][:, 0]


def test_a_build_function_of_the_users_own(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "own_scorers", sys.modules[__name__])
    ranker = networks.build(INPUTS, Model(scorer="own_scorers.only_the_first_number"))
    np.testing.assert_array_equal(ranker(tensors()), [1, 3, 5])
