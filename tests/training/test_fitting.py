"""The trainer on NumPy data: it learns, equal inputs give equal weights, bad data are refused."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_lists import config_of, lists_of, scores_of

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import trainer
from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.config.training_sections import Model, PowerPropensity, Training
from tfx_ranking.components.errors import ConfigError, DataError, RankingError
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.training import training_data


@pytest.mark.parametrize("scorer", SCORERS)
def test_training_learns(scorer):
    data, validation = lists_of(200, 1), lists_of(60, 2)
    ranker, history = trainer.train(data, validation, config_of(model={"scorer": scorer}, training={"epochs": 12}))
    values = ranking_metrics.per_list(
        ["ndcg@10"], scores_of(ranker, validation), validation.items["label"], validation.row_splits
    )
    # The weights in the ranker are those of the best epoch.
    assert ranking_metrics.mean(values["ndcg@10"]) == pytest.approx(history["best_value"])
    assert history["best_value"] == max(each["ndcg@10"] for each in history["epochs"])
    assert history["best_value"] > {"linear": 0.75, "dnn": 0.85}[scorer]
    assert history["metric"] == "ndcg@10(gain=exponential, no_relevant=drop, ties=averaged)"
    json.dumps(history)


@pytest.mark.parametrize(
    "loss", ["softmax", "approx_ndcg", "pairwise_logistic", "sigmoid_cross_entropy", "mean_squared"]
)
def test_every_loss_trains(loss):
    model = {"loss": loss, "normalisation": "batch", "dropout": 0.1}
    _, history = trainer.train(lists_of(60, 1), lists_of(20, 2), config_of(model=model, training={"epochs": 2}))
    assert history["epochs"][-1]["loss"] < history["epochs"][0]["loss"]


def test_equal_data_and_seed_give_bit_equal_weights():
    data, validation = lists_of(50, 1), lists_of(20, 2)
    config = config_of(model={"dropout": 0.2, "normalisation": "layer"}, training={"epochs": 2})
    shuffled = training_data.take(data, np.random.default_rng(0).permutation(50))  # written in another order

    def weights(data, config):
        return trainer.train(data, validation, config)[0].get_weights()

    first = weights(data, config)
    for a, b in zip(first, weights(shuffled, config), strict=True):
        np.testing.assert_array_equal(a, b)
    other = weights(data, dataclasses.replace(config, training=dataclasses.replace(config.training, seed=2)))
    assert not np.array_equal(first[-2], other[-2])


OTHER_SETTINGS = {
    "model": {
        "scorer": "linear", "hidden": [8], "activation": "tanh", "dropout": 0.5, "normalisation": "layer",
        "loss": "approx_ndcg",
    },
    "training": {
        "epochs": 2, "batch_lists": 5, "optimizer": "sgd", "learning_rate": 0.1, "clip_norm": 1e-3,
        "early_stopping": {"metric": "mrr", "patience": 3}, "propensity": {"power": 1.0}, "seed": 7,
    },
    "evaluation": {"gain": "linear", "no_relevant": "zero", "relevant_from": 2.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def train_with():
    """The final weights and the validation value of a short training with one setting changed."""
    data, validation = lists_of(20, 1), lists_of(10, 2)

    def run(section=None, key=None, value=None):
        base = {"training": {"epochs": 1, "early_stopping": {"metric": "ndcg@10"}}}
        changed = {**base, section: {**base.get(section, {}), key: value}} if section else base
        if key == "relevant_from":
            changed["training"]["early_stopping"] = {"metric": "mrr"}
        ranker, history = trainer.train(data, validation, config_of(**changed))
        return [weight.tolist() for weight in ranker.get_weights()], (history["best_value"], history["metric"])

    return run


@pytest.fixture(scope="module")
def trained_as_usual(train_with):
    return train_with()


@pytest.mark.parametrize(("section", "key"), [(s, key) for s, keys in OTHER_SETTINGS.items() for key in keys])
def test_every_setting_has_an_effect(section, key, train_with, trained_as_usual):
    weights, figure = train_with(section, key, OTHER_SETTINGS[section][key])
    if section == "evaluation" or key == "early_stopping":  # these choose the epoch and change no training step
        assert weights == trained_as_usual[0]
        assert figure != trained_as_usual[1]
    else:
        assert weights != trained_as_usual[0]


def test_no_setting_is_forgotten():
    for section, kind in {"model": Model, "training": Training}.items():
        elsewhere = {"initialize_from", "warm_start"} if section == "training" else set()  # these have their own tests
        assert {field.name for field in dataclasses.fields(kind)} == set(OTHER_SETTINGS[section]) | elsewhere


def test_early_stopping_counts_epochs_without_a_rise():
    stopping = {"metric": "mrr", "patience": 2}
    config = config_of(training={"epochs": 50, "learning_rate": 1e-9, "early_stopping": stopping})
    _, history = trainer.train(lists_of(30, 1), lists_of(20, 2), config)
    assert len(history["epochs"]) == history["best_epoch"] + 2


def test_no_early_stopping_keeps_the_last_weights():
    config = config_of(training={"epochs": 4, "early_stopping": None})
    _, history = trainer.train(lists_of(30, 1), lists_of(20, 2), config)
    assert history["best_epoch"] == 4


def test_every_list_once_an_epoch():
    data = lists_of(37, 1)
    indices = tf.data.Dataset.range(37).shuffle(37, 1, reshuffle_each_iteration=True)
    batches = training_data.batches(data, indices, 8)
    assert batches.cardinality() == 5  # must be known; otherwise Keras runs an extra step
    orders = [np.concatenate([targets["lists"].numpy() for _, targets in batches]) for _ in range(2)]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(37))
    assert not np.array_equal(*orders)


def test_a_batch_holds_what_its_lists_hold():
    data = lists_of(20, 1)
    inputs, targets = next(iter(training_data.batches(data, tf.data.Dataset.from_tensor_slices(np.array([7, 3])), 2)))
    expected = training_data.take(data, np.array([7, 3]))
    np.testing.assert_array_equal(inputs["items/numeric"], expected.items["items/numeric"])
    np.testing.assert_array_equal(inputs["items/tags"], expected.items["items/tags"].values)
    np.testing.assert_array_equal(inputs["items/tags/row_lengths"], np.diff(expected.items["items/tags"].row_splits))
    np.testing.assert_array_equal(inputs["row_lengths"], np.diff(expected.row_splits))
    np.testing.assert_array_equal(inputs["context/wish"], data.context["context/wish"][[7, 3]])
    np.testing.assert_array_equal(targets["label"], expected.items["label"])


def test_a_loss_that_is_not_finite_names_step_lists_and_feature():
    data = lists_of(20, 1)
    data.items["items/numeric"][data.row_splits[4], 2] = np.float32(3e38)
    with pytest.raises(RankingError) as caught:
        trainer.train(data, lists_of(20, 2), config_of(model={"loss": "mean_squared"}, training={"batch_lists": 2}))
    message = str(caught.value)
    assert "the loss is not a finite number at step" in message
    assert "'q1-4'" in message
    assert "items/numeric[2] = 3e+38 (list 'q1-4')" in message


def test_the_largest_magnitude_has_its_features_name():
    batch = ListBatch(
        {"group_id": np.array([b"a", b"b"]), "context/numeric": np.float32([[1], [-7]])},
        {"items/numeric": np.float32([[1, 2], [3, 4], [-9, 5]]), "label": np.float32([50, 50, 50])},
        np.array([0, 1, 3]),
    )
    raw = {"name": "t", "data": {"input": "x", "format": "csv"}, "items": {"price": {}, "age": {}}}
    config = ranking_config.parse(raw)
    largest = training_data.largest(batch, np.array([0, 1]), config)
    assert largest == ("items.age (column 0 of items/numeric)", -9.0, b"b")
    assert training_data.largest(batch, np.array([0]), config)[:2] == ("items.price (column 1 of items/numeric)", 2.0)
    batch.context["context/numeric"][0] = np.nan  # NaN counts as larger than every number
    name, value, group = training_data.largest(batch, np.array([0, 1]), config)
    assert (name, group) == ("context/numeric", b"a")
    assert np.isnan(value)


def test_columns_that_cannot_be_inputs():
    config = config_of()

    def refused(column, message):
        data = ListBatch({"group_id": np.array([b"a"])}, {"items/x": column}, np.array([0, 2]))
        with pytest.raises(DataError, match=message):
            training_data.inputs(data, config, {})

    refused(np.array([b"a", b"b"], object), r"items/x: expected float32 numbers or int64 ids; got object")
    refused(np.zeros((2, 3, 4), np.float32), r"items/x: expected one number, one vector .* got rows of \(3, 4\)")
    refused(np.array([1, 10**12]), r"items/x: ids up to 1,000,000,000,000 would need an embedding each")
    refused(Tokens(np.float32([1, 2]), np.array([0, 1, 2])), r"items/x: expected int64 ids; got float32")


def test_weights_by_propensity():
    data = ListBatch(
        {"group_id": np.array([b"q"])},
        {"label": np.array([1.0, 0, 1, 1]), "position": np.array([1, 2, 2, 9]), "weight": np.float32([1, 1, 3, 1])},
        np.array([0, 4]),
    )
    # 1 / p(position) on clicked items, times their weight; p(k) = 1 / k, or the list's last value beyond its end.
    np.testing.assert_allclose(training_data.item_weights(data, PowerPropensity(power=1.0)), [1, 1, 2 * 3, 9])
    np.testing.assert_allclose(training_data.item_weights(data, (1.0, 0.5, 0.1)), [1, 1, 2 * 3, 10])
    np.testing.assert_allclose(training_data.item_weights(data, None), [1, 1, 3, 1])
    data.items["position"][3] = 0
    with pytest.raises(DataError, match="list b'q': a clicked item has position 0; positions count from 1"):
        training_data.item_weights(data, (1.0,))


def test_propensities_change_the_training():
    data, validation = lists_of(40, 1), lists_of(20, 2)
    plain = trainer.train(data, validation, config_of())[0].get_weights()
    weighted = trainer.train(data, validation, config_of(training={"propensity": {"power": 1.0}}))[0].get_weights()
    assert not np.array_equal(plain[-2], weighted[-2])


def test_lists_of_one_group_id_are_ordered_by_content():
    data = lists_of(12, 1)
    data.context["group_id"][:] = b"same"
    shuffled = training_data.take(data, np.random.default_rng(1).permutation(12))
    np.testing.assert_array_equal(
        training_data.in_hash_order(data).items["label"], training_data.in_hash_order(shuffled).items["label"]
    )


def test_refused_data_and_config():
    data, validation = lists_of(10, 1), lists_of(10, 2)
    empty = training_data.take(data, np.array([], np.int64))
    with pytest.raises(DataError, match="the validation split is empty"):
        trainer.train(data, empty, config_of())
    none_relevant = validation._replace(items={**validation.items, "label": validation.items["label"] * 0})
    with pytest.raises(DataError, match="validation split has no list with a relevant item"):
        trainer.train(data, none_relevant, config_of())
    with pytest.raises(ConfigError, match=r"model\.scorer: 'no_such\.module' cannot be imported"):
        trainer.train(data, validation, config_of(model={"scorer": "no_such.module"}))


def test_a_saved_ranker_scores_the_same(tmp_path):
    data, validation = lists_of(30, 1), lists_of(20, 2)
    ranker, _ = trainer.train(data, validation, config_of(model={"normalisation": "batch"}))
    path = str(tmp_path / "Format-Keras" / "ranker.keras")
    trainer.save(ranker, path)
    loaded = keras.saving.load_model(path)  # safe mode
    np.testing.assert_array_equal(scores_of(ranker, validation), scores_of(loaded, validation))
