"""The trainer on NumPy data: what it learns, that it repeats itself, what it refuses."""

import dataclasses
import json
import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, Model, ModelRun, TransformGraph

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import metrics, scorers, serving_versions, trainer, training_data, weights
from tfx_ranking.components.config import PowerPropensity
from tfx_ranking.components.errors import ConfigError, DataError, RankingError
from tfx_ranking.components.list_examples import Column, ListBatch, Tokens, encode, write_records

BRAND_LIFT = np.array([0.0, 2.0, -2.0, 1.0])


def lists_of(count, seed, width=3):
    """Lists whose relevance is a linear function of two numbers, a brand, a token and the query's wish."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 12, count)
    splits = np.append(0, np.cumsum(lengths))
    total = splits[-1]
    numeric = rng.normal(size=(total, width)).astype(np.float32)
    brand = rng.integers(0, 4, total)
    token_counts = rng.integers(0, 3, total)
    tokens = Tokens(rng.integers(0, 5, token_counts.sum()), np.append(0, np.cumsum(token_counts)))
    wish = rng.integers(0, 2, count)
    worth = numeric[:, 0] * np.where(np.repeat(wish, lengths) == 1, 1, -1) + BRAND_LIFT[brand]
    return ListBatch(
        {
            "group_id": np.array([b"q%d-%d" % (seed, i) for i in range(count)], object),
            "context/wish": wish,
            "context/numeric": wish[:, None].astype(np.float32),
        },
        {
            "items/numeric": numeric,
            "items/brand": brand,
            "items/tags": tokens,
            "label": (worth > 1).astype(np.float32) + (worth > 2),
            "position": np.arange(total) - np.repeat(splits[:-1], lengths) + 1,
        },
        splits,
    )


def config_of(**sections):
    raw = {
        "name": "t",
        "data": {"input": "x", "format": "csv", "position": "rank"},
        "items": {"brand": {"dtype": "string", "vocabulary": {}, "embedding": 3}},
    }
    model = {"hidden": [16, 8], **sections.pop("model", {})}
    training = {"epochs": 3, "batch_lists": 16, "learning_rate": 0.01, **sections.pop("training", {})}
    return ranking_config.parse({**raw, "model": model, "training": training, **sections})


def scores_of(ranker, data):
    ((inputs, _),) = training_data.batches(data, tf.data.Dataset.range(len(data.row_splits) - 1), 10**6)
    return ranker(inputs).numpy()


@pytest.mark.parametrize("scorer", scorers.SCORERS)
def test_learns_what_is_there_to_learn(scorer):
    data, validation = lists_of(200, 1), lists_of(60, 2)
    ranker, history = trainer.train(data, validation, config_of(model={"scorer": scorer}, training={"epochs": 12}))
    values = metrics.per_list(
        ["ndcg@10"], scores_of(ranker, validation), validation.items["label"], validation.row_splits
    )
    # The weights in the ranker are those of the best epoch.
    assert metrics.mean(values["ndcg@10"]) == pytest.approx(history["best_value"])
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
    """Final weights and validation figure of a short training with one setting changed."""
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
    if section == "evaluation" or key == "early_stopping":  # they choose the epoch, and do not touch a step
        assert weights == trained_as_usual[0]
        assert figure != trained_as_usual[1]
    else:
        assert weights != trained_as_usual[0]


def test_no_setting_is_forgotten():
    for section, kind in {"model": ranking_config.Model, "training": ranking_config.Training}.items():
        elsewhere = {"initialize_from"} if section == "training" else set()  # it has tests of its own
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
    assert batches.cardinality() == 5  # known, or Keras would run an extra step
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


def test_a_loss_that_breaks_names_step_lists_and_feature():
    data = lists_of(20, 1)
    data.items["items/numeric"][data.row_splits[4], 2] = np.float32(3e38)
    with pytest.raises(RankingError) as caught:
        trainer.train(data, lists_of(20, 2), config_of(model={"loss": "mean_squared"}, training={"batch_lists": 2}))
    message = str(caught.value)
    assert "the loss is no finite number at step" in message
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
    found = training_data.largest(batch, np.array([0, 1]), config)
    assert found == ("items.price (column 0 of items/numeric)", -9.0, b"b")
    assert training_data.largest(batch, np.array([0]), config)[:2] == ("items.age (column 1 of items/numeric)", 2.0)
    batch.context["context/numeric"][0] = np.nan  # no number is larger than any
    name, value, group = training_data.largest(batch, np.array([0, 1]), config)
    assert (name, group) == ("context/numeric", b"a")
    assert np.isnan(value)


def test_columns_that_are_no_input():
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
    # 1 / p(position) on clicked items, times their weight; p(k) = 1 / k, or the list's last one behind its end.
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
    with pytest.raises(ConfigError, match=r"training\.optimizer: expected one of .*adam.*; got 'adamm'"):
        trainer.train(data, validation, config_of(training={"optimizer": "adamm"}))
    with pytest.raises(ConfigError, match=r"model\.scorer: expected one of linear, dnn"):
        trainer.train(data, validation, config_of(model={"scorer": "dnnn"}))
    with pytest.raises(ConfigError, match=r"model\.scorer: 'no_such\.module' cannot be imported"):
        trainer.train(data, validation, config_of(model={"scorer": "no_such.module"}))


@keras.saving.register_keras_serializable(package="test_trainer")
class BuiltAtItsFirstCall(keras.Model):
    def __init__(self, units=1, **kwargs):
        super().__init__(**kwargs)
        self.units, self.dense = units, keras.layers.Dense(units)

    def call(self, inputs, training=False):
        scores = self.dense(inputs["items/numeric"])
        return scores[:, 0] if self.units == 1 else scores

    def build(self, input_shape):
        self.dense.build((None, 3))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class NotRegistered(BuiltAtItsFirstCall):
    pass


def test_a_scorer_of_the_users_own(tmp_path, monkeypatch):
    own = types.ModuleType("own_scorers")
    own.build = lambda inputs, model: BuiltAtItsFirstCall()
    own.build_wide = lambda inputs, model: BuiltAtItsFirstCall(2)
    own.build_unregistered = lambda inputs, model: NotRegistered()
    monkeypatch.setitem(sys.modules, "own_scorers", own)
    data, validation = lists_of(20, 1), lists_of(10, 2)
    ranker, history = trainer.train(data, validation, config_of(model={"scorer": "own_scorers.build"}))
    assert history["epochs"][-1]["loss"] < history["epochs"][0]["loss"]
    trainer.save(ranker, str(tmp_path / "ranker.keras"))
    with pytest.raises(
        ConfigError, match=r"model\.scorer: expected one score per item, of shape \[item\]; got \[\d+, 2\]"
    ):
        trainer.train(data, validation, config_of(model={"scorer": "own_scorers.build_wide"}))
    unregistered, _ = trainer.train(data, validation, config_of(model={"scorer": "own_scorers.build_unregistered"}))
    with pytest.raises(ConfigError, match=r"NotRegistered cannot be loaded again .*Register its class with keras"):
        trainer.save(unregistered, str(tmp_path / "other.keras"))


@keras.saving.register_keras_serializable(package="test_trainer")
class SeveralOutputs(BuiltAtItsFirstCall):
    def call(self, inputs, training=False):
        scores = super().call(inputs, training)
        return {"scores": scores, "chance": tf.sigmoid(scores)}


class NoScores(BuiltAtItsFirstCall):
    def call(self, inputs, training=False):
        return {"chance": super().call(inputs, training)}


class TwoLayersOfOneName(BuiltAtItsFirstCall):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.other = keras.layers.Dense(1, name=self.dense.name)

    def call(self, inputs, training=False):
        return super().call(inputs, training) + self.other(inputs["items/numeric"])[:, 0]


class WideSecondOutput(BuiltAtItsFirstCall):
    def call(self, inputs, training=False):
        scores = super().call(inputs, training)
        return {"scores": scores, "pair": tf.stack([scores, scores], axis=1)}


def test_a_scorer_with_several_outputs_trains_by_its_scores(tmp_path, monkeypatch):
    own = types.ModuleType("own_scorers")
    own.build = lambda inputs, model: BuiltAtItsFirstCall()
    own.several = lambda inputs, model: SeveralOutputs()
    own.none = lambda inputs, model: NoScores()
    own.wide = lambda inputs, model: WideSecondOutput()
    own.same_names = lambda inputs, model: TwoLayersOfOneName()
    monkeypatch.setitem(sys.modules, "own_scorers", own)
    data, validation = lists_of(20, 1), lists_of(10, 2)
    ranker, history = trainer.train(data, validation, config_of(model={"scorer": "own_scorers.several"}))
    alone, alone_history = trainer.train(data, validation, config_of(model={"scorer": "own_scorers.build"}))
    assert history["best_value"] == alone_history["best_value"]
    for a, b in zip(ranker.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    trainer.save(ranker, str(tmp_path / "ranker.keras"))
    with pytest.raises(ConfigError, match=r"model\.scorer: expected .* 'scores' .* got a dict of \['chance'\]"):
        trainer.train(data, validation, config_of(model={"scorer": "own_scorers.none"}))
    with pytest.raises(ConfigError, match=r"expected one value of output 'pair' per item.* got \[\d+, 2\]"):
        trainer.train(data, validation, config_of(model={"scorer": "own_scorers.wide"}))
    with pytest.raises(ConfigError, match=r"two layers are called 'dense.*'.* give each a name of its own"):
        trainer.train(data, validation, config_of(model={"scorer": "own_scorers.same_names"}))


# --- starting from another model's weights


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder as an exported model's, of a ranker that was trained; and the ranker."""
    model = {"normalisation": "batch", "dropout": 0.1}
    ranker, _ = trainer.train(lists_of(200, 1), lists_of(60, 2), config_of(model=model, training={"epochs": 8}))
    return exported(tmp_path_factory.mktemp("source") / "1", ranker), ranker


def exported(folder, ranker):
    for name in ("saved_model.pb", "variables/variables.index"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"")
    weights.write(ranker, folder / serving_versions.WEIGHTS_IN_MODEL)
    return folder


def start(folder, **training):
    model = {"normalisation": "batch", "dropout": 0.1}
    given = {"model": str(folder), **training.pop("initialize_from", {})}
    return config_of(model=model, training={"initialize_from": given, **training})


def values(ranker, layer):
    return [weight.copy() for weight in ranker.get_layer(layer).get_weights()]


def test_a_start_from_a_model_begins_below_a_fresh_one(source):
    data, validation = lists_of(100, 3), lists_of(30, 4)
    _, fresh = trainer.train(data, validation, config_of(model={"normalisation": "batch", "dropout": 0.1}))
    _, warm = trainer.train(data, validation, start(source[0]))
    assert warm["epochs"][0]["loss"] < fresh["epochs"][0]["loss"]
    assert "initialized" not in fresh
    expected = {
        "model": {"directory": str(source[0]), "digest": serving_versions.digest(source[0])},
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


def test_named_layers_alone_start_from_the_model(source):
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
    initialize_from = ranking_config.InitializeFrom(model=run.config.push.base, freeze=frozen)
    training = dataclasses.replace(run.config.training, initialize_from=initialize_from)
    _, fresh = trainer.train(data, validation, run.config, layout.sizes)
    config = dataclasses.replace(run.config, training=training)
    ranker, warm = trainer.train(data, validation, config, layout.sizes)
    assert warm["epochs"][0]["loss"] < fresh["epochs"][0]["loss"]
    assert warm["initialized"]["model"]["digest"] == serving_versions.digest(run.served)
    served = weights.read(run.served / serving_versions.WEIGHTS_IN_MODEL)
    for layer in warm["initialized"]["frozen"]:
        for name, variable in weights.variables(ranker)[layer].items():
            np.testing.assert_array_equal(variable.numpy(), served[f"{layer}/{name}"])
    assert not np.array_equal(ranker.get_layer("score").get_weights()[0], served["score/kernel"])


def test_a_start_that_does_not_fit(source):
    model = {"normalisation": "batch", "hidden": [16, 9]}
    config = config_of(model=model, training={"initialize_from": {"model": str(source[0])}})
    with pytest.raises(ConfigError, match=r"layer dense_1 has a kernel of shape \[16, 9\] here and \[16, 8\] in the m"):
        trainer.train(lists_of(20, 3), lists_of(10, 4), config)


def test_a_saved_ranker_scores_the_same(tmp_path):
    data, validation = lists_of(30, 1), lists_of(20, 2)
    ranker, _ = trainer.train(data, validation, config_of(model={"normalisation": "batch"}))
    path = str(tmp_path / "Format-Keras" / "ranker.keras")
    trainer.save(ranker, path)
    loaded = keras.saving.load_model(path)  # safe mode
    np.testing.assert_array_equal(scores_of(ranker, validation), scores_of(loaded, validation))


# --- the component, on files as stock Transform writes them

SCHEMA = """
feature { name: "group_id" type: BYTES presence { min_fraction: 1 } shape {} }
feature { name: "context/wish" type: INT int_domain { min: 0 max: 1 } presence { min_fraction: 1 } shape {} }
feature { name: "context/numeric" type: FLOAT presence { min_fraction: 1 } shape { dim { size: 1 } } }
feature { name: "items/numeric$ragged_values" type: FLOAT }
feature { name: "items/brand$ragged_values" type: INT int_domain { min: 0 max: 6 } }
feature { name: "items/tags$ragged_values" type: INT }
feature { name: "items/tags$ragged_values/row_lengths" type: INT }
feature { name: "label$ragged_values" type: FLOAT }
feature { name: "position$ragged_values" type: INT }
tensor_representation_group { key: "" value { REPRESENTATIONS } }
"""
PARTITIONS = {
    "items/numeric": "partition { uniform_row_length: 3 }",
    "items/brand": "",
    "items/tags": 'partition { row_length: "items/tags$ragged_values/row_lengths" }',
    "label": "",
    "position": "",
}


def write_transformed(folder, extra="", **splits):
    """A transform graph's metadata and materialised splits, as stock Transform leaves them."""
    table = {
        "group_id": Column("context", "string"),
        "context/wish": Column("context", "int"),
        "context/numeric": Column("context", "float", 1),
        "items/numeric": Column("items", "float", 3),
        "items/brand": Column("items", "int"),
        "items/tags": Column("items", "int", tokens=True),
        "label": Column("items", "float"),
        "position": Column("items", "int"),
    }
    representations = "".join(
        f'tensor_representation {{ key: "{name}" value {{ ragged_tensor {{ '
        f'feature_path {{ step: "{name}$ragged_values" }} {partition} }} }} }}'
        for name, partition in PARTITIONS.items()
    )
    metadata = folder / "graph" / "transformed_metadata"
    metadata.mkdir(parents=True)
    (metadata / "schema.pbtxt").write_text(SCHEMA.replace("REPRESENTATIONS", representations) + extra)
    stored = {name + ("$ragged_values" if name in PARTITIONS else ""): column for name, column in table.items()}
    for split, data in splits.items():
        (folder / "examples" / f"Split-{split}").mkdir(parents=True)
        items = {name + "$ragged_values": data.items[name] for name in PARTITIONS}
        records = encode(data._replace(items=items), stored)
        half = len(records) // 2
        for part, some in enumerate((records[half:], records[:half])):
            write_records(str(folder / "examples" / f"Split-{split}" / f"part-{part}.gz"), some)


def run_component(folder, config, anomalies=None, **parameters):
    """The component's executor on artifacts in `folder`; returns the Model and ModelRun artifacts."""
    inputs = {"transformed_examples": [Examples()], "transform_graph": [TransformGraph()]}
    inputs["transformed_examples"][0].uri = str(folder / "examples")
    inputs["transform_graph"][0].uri = str(folder / "graph")
    if anomalies is not None:
        inputs["anomalies"] = [ExampleAnomalies()]
        inputs["anomalies"][0].uri = str(anomalies)
    outputs = {"model": [Model()], "model_run": [ModelRun()]}
    for name, (artifact,) in outputs.items():
        artifact.uri = str(folder / name)
        (folder / name).mkdir(exist_ok=True)
    defaults = {"train_split": "train", "validation_split": "validation", "code_digest": "", "initial_model": ""}
    properties = {"config": config.select(*trainer.READS), **defaults, **parameters}
    trainer.RankingTrainer.EXECUTOR_SPEC.executor_class().Do(inputs, outputs, properties)
    return outputs["model"][0], outputs["model_run"][0]


def test_the_component_trains_on_two_splits_and_opens_no_third(tmp_path):
    data, validation = lists_of(40, 1), lists_of(20, 2)
    write_transformed(tmp_path, train=data, validation=validation, test=lists_of(20, 3))
    model, _ = run_component(tmp_path, config_of(training={"epochs": 2}))

    opened = json.loads(model.get_string_custom_property("opened"))
    folders = {split: [file.split("/")[-2] for file in files] for split, files in opened.items()}
    assert folders == {"train": ["Split-train"] * 2, "validation": ["Split-validation"] * 2}
    history = json.loads((tmp_path / "model_run" / "history.json").read_text())
    assert history["train"] == {"lists": 40, "items": int(data.row_splits[-1])}
    assert history["metric"] == "ndcg@10(gain=exponential, no_relevant=drop, ties=averaged)"
    assert model.get_string_custom_property("summary") == history["summary"]
    assert list((tmp_path / "model_run").glob("**/events.out.tfevents.*"))

    ranker = keras.saving.load_model(tmp_path / "model" / "Format-Keras" / "ranker.keras")
    assert {each.name: each.size for each in ranker.input_specs}["items/brand"] == 7  # the schema's, not the data's 4
    values = metrics.per_list(
        ["ndcg@10"], scores_of(ranker, validation), validation.items["label"], validation.row_splits
    )
    assert metrics.mean(values["ndcg@10"]) == pytest.approx(history["best_value"])
    # What is read from files is what is in memory.
    again, _ = trainer.train(
        data, validation, config_of(training={"epochs": 2}), sizes={"items/brand": 7, "context/wish": 2}
    )
    for a, b in zip(ranker.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_component_records_which_model_it_started_from(tmp_path, source):
    """What the component reads of the config includes the start, and the model's digest is there for the lineage."""
    # `source` was trained on sizes that were counted in its data, so its embeddings are smaller than these files'.
    write_transformed(tmp_path, train=lists_of(40, 1), validation=lists_of(20, 2))
    layers = ["dense_*", "score"]
    config = start(source[0], epochs=1, initialize_from={"layers": layers, "freeze": ["dense_0"]})
    model, run = run_component(tmp_path, config)
    history = json.loads((tmp_path / "model_run" / "history.json").read_text())
    assert history["initialized"]["layers"] == ["dense_0", "dense_1", "score"]
    assert history["initialized"]["frozen"] == ["dense_0"]
    for artifact in (model, run):
        assert artifact.get_string_custom_property("initialized_from") == serving_versions.digest(source[0])
    ranker = keras.saving.load_model(tmp_path / "model" / "Format-Keras" / "ranker.keras")
    for before, after in zip(values(source[1], "dense_0"), values(ranker, "dense_0"), strict=True):
        np.testing.assert_array_equal(before, after)


def test_splits_are_parameters_and_an_empty_one_is_an_error(tmp_path):
    write_transformed(tmp_path, train=lists_of(20, 1), eval=lists_of(10, 2))
    model, _ = run_component(tmp_path, config_of(training={"epochs": 1}), validation_split="eval")
    assert list(json.loads(model.get_string_custom_property("opened"))) == ["train", "eval"]
    with pytest.raises(DataError, match=r"split 'validation' holds no list \(0 files in .*Split-validation\)"):
        run_component(tmp_path, config_of())


def test_anomalies_stop_the_training_or_are_warned_of(tmp_path, caplog):
    write_transformed(tmp_path, train=lists_of(20, 1), validation=lists_of(10, 2))
    found = anomalies_pb2.Anomalies()
    found.anomaly_info["price"].short_description = "Out-of-range values"
    found.anomaly_info["price"].description = "Unexpectedly low value: -3."
    for split, anomalies in {"train": anomalies_pb2.Anomalies(), "validation": found}.items():
        folder = tmp_path / "anomalies" / f"Split-{split}"
        folder.mkdir(parents=True)
        (folder / "SchemaDiff.pb").write_bytes(anomalies.SerializeToString())
    with pytest.raises(
        DataError, match=r"1 anomalies in the data: validation: price: Out-of-range values \(Unexp.*on_anomaly: warn"
    ):
        run_component(tmp_path, config_of(), tmp_path / "anomalies")
    data = {"input": "x", "format": "csv", "on_anomaly": "warn"}
    run_component(tmp_path, config_of(data=data, training={"epochs": 1}), tmp_path / "anomalies")
    assert "price: Out-of-range values" in caplog.text


def test_outputs_that_break_the_naming_rule(tmp_path):
    write_transformed(tmp_path, extra='feature { name: "price_log" type: FLOAT }', train=lists_of(5, 1))
    with pytest.raises(DataError, match=r"preprocessing_fn gives price_log: expected outputs named items/<name>"):
        training_data.read_layout(str(tmp_path / "graph"))
