"""Weights that travel: written, read, set and frozen by their layers' names."""

import doctest
import pathlib

import keras
import numpy as np
import pytest

from tfx_ranking.components import scorers, serving_versions, weights
from tfx_ranking.components.config import InitializeFrom, Model
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.scorers import Input

INPUTS = (Input("items/numeric", "numeric", 3), Input("items/brand", "category", 4, 2))


def network(hidden=(4, 2), normalisation="batch", inputs=INPUTS, seed=1):
    keras.utils.set_random_seed(seed)
    return scorers.build(inputs, Model(hidden=hidden, normalisation=normalisation, dropout=0.1))


def exported(folder: pathlib.Path, ranker) -> pathlib.Path:
    """What `weights` needs of an exported model."""
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    weights.write(ranker, folder / serving_versions.WEIGHTS_IN_MODEL)
    return folder


def state(ranker):
    return [value.copy() for value in ranker.get_weights()]


def test_what_is_written_is_what_the_network_holds(tmp_path):
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


def test_all_layers_of_both_are_set(tmp_path):
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


def test_what_does_not_fit_is_refused_and_sets_nothing(tmp_path):
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


def test_which_model_is_meant(tmp_path):
    ranker = network()
    alone = exported(tmp_path / "alone", ranker)
    exported(tmp_path / "artifact" / "Format-Serving", ranker)
    for version in (3, 12):
        exported(tmp_path / "versions" / str(version), ranker)
    (tmp_path / "versions" / "13").mkdir()  # broken: TensorFlow Serving would not serve it, nor do we start from it

    def found(folder):
        return weights.model_directory(InitializeFrom(model=str(folder)))

    assert found(alone) == alone
    assert found(tmp_path / "artifact") == tmp_path / "artifact" / "Format-Serving"
    assert found(tmp_path / "versions") == tmp_path / "versions" / "12"
    assert found(tmp_path / "versions" / "3") == tmp_path / "versions" / "3"
    with pytest.raises(ConfigError, match=r"initialize_from\.model: expected an exported or .*nowhere is not there"):
        found(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"or a folder of versions; .*empty holds none"):
        found(tmp_path / "empty")
    with pytest.raises(ConfigError, match="expected a local folder; got gs://models/shop"):
        found("gs://models/shop")
    (alone / serving_versions.WEIGHTS_IN_MODEL).unlink()
    with pytest.raises(ConfigError, match=r"alone has no assets\.extra/tfx_ranking/weights\.npz.*export it again"):
        found(alone)


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


def test_layers_inside_layers_are_called_by_their_way_there(tmp_path):
    ranker = Towers(name="towers")
    folder = exported(tmp_path / "model", ranker)
    stored = weights.read(folder / serving_versions.WEIGHTS_IN_MODEL)
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


def test_what_is_no_file_of_weights(tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"weights\.npz: expected a ranker's weights\.npz"):
        weights.read(tmp_path / "weights.npz")
    with pytest.raises(DataError, match="No such file"):
        weights.read(tmp_path / "none.npz")


def test_docstrings():
    assert doctest.testmod(weights).failed == 0
