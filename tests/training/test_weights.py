"""Weights in files: written, read, set and frozen by their layers' names."""

import json
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from tfx_ranking.components.config.training_sections import InitializeFrom, Model
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import Input
from tfx_ranking.components.training import weights

INPUTS = (Input("items/numeric", "numeric", 3), Input("items/brand", "category", 4, 2))


def network(hidden=(4, 2), normalisation="batch", inputs=INPUTS, seed=1):
    keras.utils.set_random_seed(seed)
    return networks.build(inputs, Model(hidden=hidden, normalisation=normalisation, dropout=0.1))


def exported(folder: pathlib.Path, ranker) -> pathlib.Path:
    """The files of an exported model that `weights` reads."""
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    weights.write(ranker, folder / model_files.WEIGHTS_IN_MODEL)
    return folder


def state(ranker):
    return [value.copy() for value in ranker.get_weights()]


def test_the_file_has_the_networks_weights(tmp_path):
    ranker = network()
    weights.write(ranker, tmp_path / "weights.npz")
    stored = weights.read(tmp_path / "weights.npz")
    batch = ("gamma", "beta", "moving_mean", "moving_variance")
    assert set(stored) == {
        *(f"normalisation_{i}/{name}" for i in ("inputs", 0, 1) for name in batch),
        *(f"{layer}/{name}" for layer in ("dense_0", "dense_1", "score") for name in ("kernel", "bias")),
        "items_brand_embedding/embeddings",
    }
    assert sum(values.size for values in stored.values()) == ranker.count_params()
    np.testing.assert_array_equal(stored["dense_0/kernel"], ranker.get_layer("dense_0").get_weights()[0])
    weights.write(ranker, tmp_path / "again.npz")
    assert (tmp_path / "again.npz").read_bytes() == (tmp_path / "weights.npz").read_bytes()


def test_all_layers_that_both_have_are_set(tmp_path):
    source, new = network(seed=1), network(seed=2)
    source.set_weights([value + 0.5 for value in source.get_weights()])
    folder = exported(tmp_path / "model", source)
    names = weights.initialize(new, InitializeFrom(model=str(folder)))
    assert sorted(names) == sorted(each.name for each in source.layers if each.weights)
    for ours, theirs in zip(new.get_weights(), source.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_layers_that_only_one_has_keep_their_own_weights(tmp_path):
    folder = exported(tmp_path / "model", network(hidden=(4,), normalisation="none"))
    new = network(hidden=(4, 2), normalisation="none", seed=2)
    before = new.get_layer("dense_1").get_weights()[0].copy()
    start = InitializeFrom(model=str(folder), layers=("dense_*", "items_brand_embedding"))
    assert sorted(weights.initialize(new, start)) == ["dense_0", "items_brand_embedding"]
    np.testing.assert_array_equal(new.get_layer("dense_1").get_weights()[0], before)


def refused(ranker, message, folder, **start):
    before = state(ranker)
    with pytest.raises(ConfigError, match=message):
        weights.initialize(ranker, InitializeFrom(model=str(folder), **start))
    for was, now in zip(before, state(ranker), strict=True):
        np.testing.assert_array_equal(was, now)  # nothing was set


def test_layers_that_do_not_fit_are_refused_and_none_is_set(tmp_path):
    folder = exported(tmp_path / "model", network(hidden=(4, 2)))
    new = network(hidden=(4, 2), seed=2)
    refused(
        new,
        r"initialize_from\.layers: no layer 'dense_7' in the model and in the new ranker .*Layers of both: .*dense_0",
        folder,
        layers=("dense_0", "dense_7"),
    )
    refused(new, r"no layer 'tower_\*' in the model and in the new ranker", folder, layers=("tower_*",))
    refused(network(hidden=(4,), seed=2), r"no layer 'dense_1' in the new ranker \(", folder, layers=("dense_1",))
    refused(network(hidden=(4, 2, 2), seed=2), r"no layer 'dense_2' in the model \(", folder, layers=("dense_2",))
    refused(
        network(hidden=(4, 3), seed=2),
        r"layer dense_1 has a kernel of shape \[4, 3\] here and \[4, 2\] in the model\. Give .* same inputs and model "
        r"section as .*, or set training\.initialize_from\.layers to those that fit \(.*dense_0.*\)",
        folder,
    )
    refused(
        network(hidden=(4, 2), normalisation="layer", seed=2),
        r"layer normalisation_inputs has the variables gamma, beta here and gamma, .*moving_mean.* in the model",
        folder,
        layers=("normalisation_*",),
    )
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="mine")], name="own")
    refused(other, r"no layer in common\. The model has .*dense_0.*; the new ranker has mine", folder)


def test_frozen_layers(tmp_path):
    folder, new = exported(tmp_path / "model", network()), network(seed=2)
    start = InitializeFrom(model=str(folder), freeze=("dense_*", "normalisation_0"))
    assert sorted(weights.freeze(new, start)) == ["dense_0", "dense_1", "normalisation_0"]
    assert {each.name for each in new.layers if each.weights and each.trainable} == {
        *("normalisation_inputs", "normalisation_1", "items_brand_embedding", "score")
    }
    with pytest.raises(ConfigError, match=r"freeze: no layer 'dense_9' in the new ranker\. It has .*dense_0"):
        weights.freeze(new, InitializeFrom(model=str(folder), freeze=("dense_9",)))
    with pytest.raises(ConfigError, match=r"freeze: \['\*'\] leaves no layer to train; name fewer"):
        weights.freeze(network(), InitializeFrom(model=str(folder), freeze=("*",)))
    assert weights.freeze(network(), InitializeFrom(model=str(folder))) == []


def test_the_folder_of_the_model(tmp_path):
    ranker = network()
    alone = exported(tmp_path / "alone", ranker)
    exported(tmp_path / "artifact" / "Format-Serving", ranker)
    for version in (3, 12):
        exported(tmp_path / "versions" / str(version), ranker)
    (
        tmp_path / "versions" / "13"
    ).mkdir()  # incomplete: TensorFlow Serving would not serve it, and we do not start from it

    def directory_of(folder):
        return weights.model_directory(InitializeFrom(model=str(folder)))

    assert directory_of(alone) == alone
    assert directory_of(tmp_path / "artifact") == tmp_path / "artifact" / "Format-Serving"
    assert directory_of(tmp_path / "versions") == tmp_path / "versions" / "12"
    assert directory_of(tmp_path / "versions" / "3") == tmp_path / "versions" / "3"
    with pytest.raises(ConfigError, match=r"initialize_from\.model: expected an exported or .*nowhere is not there"):
        directory_of(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"or a folder of versions; .*empty has none"):
        directory_of(tmp_path / "empty")
    with pytest.raises(ConfigError, match="expected a local folder; got gs://models/shop"):
        directory_of("gs://models/shop")
    (alone / model_files.WEIGHTS_IN_MODEL).unlink()
    with pytest.raises(ConfigError, match=r"alone has no assets\.extra/tfx_ranking/weights\.npz.*export it again"):
        directory_of(alone)


@keras.saving.register_keras_serializable(package="test_weights")
class Towers(keras.Model):
    """A network of a user's own: layers inside layers, a layer used twice, a weight of the network itself."""

    def __init__(self, names=("left", "right"), **kwargs):
        super().__init__(**kwargs)
        self.shared = keras.layers.Dense(2, name="shared")
        self.towers = [
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="first"), self.shared], name=name)
            for name in names
        ]
        self.bias = self.add_weight(shape=(), name="bias")


def test_inner_layers_have_the_outer_name_as_prefix(tmp_path):
    ranker = Towers(name="towers")
    folder = exported(tmp_path / "model", ranker)
    stored = weights.read(folder / model_files.WEIGHTS_IN_MODEL)
    assert {key.rpartition("/")[0] for key in stored} == {"towers", "shared", "left/first", "right/first"}
    new = Towers(name="towers")
    start = InitializeFrom(model=str(folder), layers=("left", "*red"), freeze=("right",))
    assert sorted(weights.initialize(new, start)) == ["left/first", "shared"]
    for a, b in zip(new.towers[0].get_weights(), ranker.towers[0].get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert "right/first" in weights.freeze(new, start)
    assert not new.towers[1].layers[0].trainable


def test_two_layers_of_one_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"two layers are called 'left'.* give each a name of its own"):
        weights.write(Towers(names=("left", "left")), tmp_path / "weights.npz")


def test_files_without_weights_are_refused(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"weights\.npz: expected a ranker's weights\.npz"):
        weights.read(tmp_path / "weights.npz")
    with pytest.raises(DataError, match="No such file"):
        weights.read(tmp_path / "none.npz")


# --- Training an exported model further, with TensorFlow alone


@keras.saving.register_keras_serializable(package="test_weights")
class Regularised(keras.Model):
    """Layers that act differently in training, a penalty of a weight and a penalty of a call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        penalty = keras.regularizers.L2(0.01)
        self.hidden = keras.layers.Dense(4, activation="relu", kernel_regularizer=penalty, name="hidden")
        self.normalisation = keras.layers.BatchNormalization(name="normalisation")
        self.dropout = keras.layers.Dropout(0.2, name="dropout")
        self.score = keras.layers.Dense(1, name="score")
        for layer, width in ((self.hidden, 2), (self.normalisation, 4), (self.dropout, 4), (self.score, 4)):
            layer.build((None, width))
        self.built = True

    def call(self, inputs, training=False):
        hidden = self.normalisation(self.hidden(inputs["items/numeric"]), training=training)
        self.add_loss(keras.ops.mean(keras.ops.square(hidden)))
        return self.score(self.dropout(hidden, training=training))[:, 0]


def regularised(inputs, model):
    return Regularised()


FINE_TUNE = """
import json, sys
import numpy as np
import tensorflow as tf

model, features, to = sys.argv[1:]
features = {name: tf.constant(value) for name, value in np.load(features).items()}
loaded = tf.saved_model.load(model)
real = tf.sequence_mask(features["sizes"], tf.shape(features["price"])[1])
wanted = tf.boolean_mask(features["price"], real) / 10

def distance(scores):
    return tf.reduce_mean(tf.square(tf.boolean_mask(scores, real) - wanted))

def served(model):
    return tf.boolean_mask(model.signatures["features"](**features)["scores"], real).numpy().tolist()

before = loaded(features)
with tf.GradientTape() as tape:
    penalties = [penalty() for penalty in loaded.regularization_losses]
    loss = distance(loaded(features, training=True)) + tf.add_n(penalties)
gradients = tape.gradient(loss, loaded.trainable_variables)
state = [variable.numpy() for variable in loaded.variables]
for variable, gradient in zip(loaded.trainable_variables, gradients, strict=True):
    variable.assign_sub(0.01 * gradient)
after = loaded(features, training=False)
tf.saved_model.save(loaded, to, signatures=dict(loaded.signatures))
print(json.dumps({
    "variables": [len(loaded.variables), len(loaded.trainable_variables)],
    "penalties": [float(penalty) for penalty in penalties],
    "without_gradient": sum(gradient is None for gradient in gradients),
    "before": tf.boolean_mask(before, real).numpy().tolist(),
    "distance": [float(distance(before)), float(distance(after))],
    "after": tf.boolean_mask(after, real).numpy().tolist(),
    "served": served(loaded),
    "saved_again": served(tf.saved_model.load(to)),
    "ours": sorted({name.partition(".")[0] for name in sys.modules} & {"tfx_ranking", "tfx", "tensorflow_transform"}),
}))
"""


@pytest.fixture(scope="module")
def exported_model(tmp_path_factory):
    """An exported model's folder, a file of features in the form of the signature `features`, and the network."""
    import small_rankers

    from tfx_ranking.components import config, signature_exporter
    from tfx_ranking.components.serving import client_requests

    settings = config.parse({
        "name": "shop",
        "data": {"input": "x", "format": "csv", "group_id": "query_id"},
        "items": {
            "price": {"transform": ["z_score"]},
            "sales": {"transform": ["log1p"]},
            "brand": {"dtype": "string", "vocabulary": {}},
        },
        "model": {"scorer": f"{__name__}.regularised"},
        "serving": {"signatures": ["features"], "default": "features"},
    })  # fmt: skip
    folder = tmp_path_factory.mktemp("fine_tuning")
    lists = small_rankers.random_lists(settings, [3, 1, 6, 2, 5] * 4, seed=1, missing=0.0)
    paths = small_rankers.make(folder, settings, lists, lists)
    signature_exporter.export(paths, settings, folder / "model", folder / "parity.json")
    tensors = client_requests.to_tensors(lists, settings)
    strings = {name: each.astype(bytes) for name, each in tensors.items() if each.dtype == object}
    np.savez(folder / "features.npz", **{**tensors, **strings})
    network = keras.saving.load_model(paths.keras_model)
    return folder / "model" / "Format-Serving", folder / "features.npz", network


def test_a_loaded_model_can_be_trained_further_with_tensorflow_alone(exported_model, tmp_path):
    model, features, network = exported_model
    arguments = [sys.executable, "-c", FINE_TUNE, str(model), str(features), str(tmp_path / "tuned")]
    ran = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    result = json.loads(ran.stdout.splitlines()[-1])
    assert result["variables"] == [len(network.variables), len(network.trainable_variables)]
    kernel = network.get_layer("hidden").get_weights()[0]
    np.testing.assert_allclose(result["penalties"], [0.01 * np.square(kernel).sum()], rtol=1e-5)
    assert result["without_gradient"] == 0
    assert result["distance"][1] < result["distance"][0]
    assert not np.allclose(result["after"], result["before"], atol=1e-4)
    np.testing.assert_allclose(result["served"], result["after"], rtol=1e-5)  # the signatures have the same weights
    np.testing.assert_allclose(result["saved_again"], result["after"], rtol=1e-5)
    assert result["ours"] == []


def test_a_new_ranker_starts_from_an_exported_model(exported_model):
    model, _, network = exported_model
    new = Regularised()
    start = InitializeFrom(model=str(model), layers=("hidden", "normalisation"))
    assert weights.initialize(new, start) == ["hidden", "normalisation"]
    for layer in ("hidden", "normalisation"):
        for ours, theirs in zip(new.get_layer(layer).get_weights(), network.get_layer(layer).get_weights()):
            np.testing.assert_array_equal(ours, theirs)
