"""A training that starts from another model's weights, on NumPy data and on real clicks."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from trainer_files import run_component, write_transformed
from training_lists import config_of, exported, lists_of

from tfx_ranking.components import trainer
from tfx_ranking.components.config.training_sections import InitializeFrom
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.training import training_data, weights


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder like an exported model's, from a trained ranker; and the ranker."""
    model = {"normalisation": "batch", "dropout": 0.1}
    ranker, _ = trainer.train(lists_of(200, 1), lists_of(60, 2), config_of(model=model, training={"epochs": 8}))
    return exported(tmp_path_factory.mktemp("source") / "1", ranker), ranker


def start(folder, **training):
    model = {"normalisation": "batch", "dropout": 0.1}
    initialize_from = {"model": str(folder), **training.pop("initialize_from", {})}
    return config_of(model=model, training={"initialize_from": initialize_from, **training})


def values(ranker, layer):
    return [weight.copy() for weight in ranker.get_layer(layer).get_weights()]


def test_a_ranker_that_starts_from_a_model_begins_with_a_lower_loss(source):
    data, validation = lists_of(100, 3), lists_of(30, 4)
    _, fresh = trainer.train(data, validation, config_of(model={"normalisation": "batch", "dropout": 0.1}))
    _, warm = trainer.train(data, validation, start(source[0]))
    assert warm["epochs"][0]["loss"] < fresh["epochs"][0]["loss"]
    assert "initialized" not in fresh
    expected = {
        "model": {"directory": str(source[0]), "digest": model_files.digest(source[0])},
        "layers": [each.name for each in source[1].layers if each.weights],
        "frozen": [],
    }
    assert {**warm["initialized"], "layers": sorted(warm["initialized"]["layers"])} == {
        **expected,
        "layers": sorted(expected["layers"]),
    }


def test_frozen_layers_do_not_move_and_the_others_do(source):
    folder, ranker = source
    freeze = ["*_embedding", "normalisation_*", "dense_0"]
    warm, history = trainer.train(lists_of(60, 3), lists_of(30, 4), start(folder, initialize_from={"freeze": freeze}))
    frozen = history["initialized"]["frozen"]
    assert sorted(frozen) == [
        *("context_wish_embedding", "dense_0", "items_brand_embedding", "items_tags_embedding"),
        *("normalisation_0", "normalisation_1", "normalisation_inputs"),
    ]
    for layer in frozen:  # batch normalisation's moving statistics are among its weights
        for before, after in zip(values(ranker, layer), values(warm, layer), strict=True):
            np.testing.assert_array_equal(before, after, layer)
    for layer in ("dense_1", "score"):
        assert not np.array_equal(values(ranker, layer)[0], values(warm, layer)[0])


def test_only_the_named_layers_start_from_the_model(source):
    folder, ranker = source
    config = start(folder, initialize_from={"layers": ["dense_*"]}, learning_rate=1e-12, epochs=1)
    warm, history = trainer.train(lists_of(20, 3), lists_of(10, 4), config)
    assert history["initialized"]["layers"] == ["dense_0", "dense_1"]
    np.testing.assert_allclose(values(warm, "dense_0")[0], values(ranker, "dense_0")[0], atol=1e-6)
    assert not np.allclose(values(warm, "score")[0], values(ranker, "score")[0], atol=1e-3)


def test_a_ranker_of_real_clicks_starts_from_the_one_that_serves(real_run):
    run = real_run("ml4ir-csv")
    transformed = str(run.uri("Transform", "transformed_examples"))
    layout = training_data.read_layout(str(run.uri("Transform", "transform_graph")))
    data, validation = (training_data.read_split(transformed, split, layout)[0] for split in ("train", "validation"))
    frozen = ["dense_0", "*_embedding"]
    initialize_from = InitializeFrom(model=run.config.push.base, freeze=frozen)
    training = dataclasses.replace(run.config.training, initialize_from=initialize_from)
    _, fresh = trainer.train(data, validation, run.config, layout.sizes)
    config = dataclasses.replace(run.config, training=training)
    ranker, warm = trainer.train(data, validation, config, layout.sizes)
    assert warm["epochs"][0]["loss"] < fresh["epochs"][0]["loss"]
    assert warm["initialized"]["model"]["digest"] == model_files.digest(run.served)
    served = weights.read(run.served / model_files.WEIGHTS_IN_MODEL)
    for layer in warm["initialized"]["frozen"]:
        for name, variable in weights.variables(ranker)[layer].items():
            np.testing.assert_array_equal(variable.numpy(), served[f"{layer}/{name}"])
    assert not np.array_equal(ranker.get_layer("score").get_weights()[0], served["score/kernel"])


def test_a_model_that_does_not_fit_is_refused(source):
    model = {"normalisation": "batch", "hidden": [16, 9]}
    config = config_of(model=model, training={"initialize_from": {"model": str(source[0])}})
    with pytest.raises(ConfigError, match=r"layer dense_1 has a kernel of shape \[16, 9\] here and \[16, 8\] in the m"):
        trainer.train(lists_of(20, 3), lists_of(10, 4), config)


def test_the_component_records_which_model_it_started_from(tmp_path, source):
    """The component reads `initialize_from`, and records the model's digest for the lineage."""
    # `source` was trained on sizes that were counted in its data, so its embeddings are smaller than these files'.
    write_transformed(tmp_path, train=lists_of(40, 1), validation=lists_of(20, 2))
    layers = ["dense_*", "score"]
    config = start(source[0], epochs=1, initialize_from={"layers": layers, "freeze": ["dense_0"]})
    model, run = run_component(tmp_path, config)
    history = json.loads((tmp_path / "model_run" / "history.json").read_text())
    assert history["initialized"]["layers"] == ["dense_0", "dense_1", "score"]
    assert history["initialized"]["frozen"] == ["dense_0"]
    for artifact in (model, run):
        assert artifact.get_string_custom_property("initialized_from") == model_files.digest(source[0])
    ranker = keras.saving.load_model(tmp_path / "model" / "Format-Keras" / "ranker.keras")
    for before, after in zip(values(source[1], "dense_0"), values(ranker, "dense_0"), strict=True):
        np.testing.assert_array_equal(before, after)
