"""A ranker that begins from the live model: which of its weights are copied."""

import json
import pathlib
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tfx.types import standard_artifacts
from trainer_files import run_component, write_transformed
from training_lists import config_of, exported, lists_of

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import signature_exporter, trainer
from tfx_ranking.components.choices.scorers import SCORERS
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.exported.model_files import CONFIG_IN_MODEL, WEIGHTS_IN_MODEL
from tfx_ranking.components.features import feature_columns
from tfx_ranking.components.scorers import networks as scorers
from tfx_ranking.components.scorers.inputs import Input
from tfx_ranking.components.training import warm_start, weights
from tfx_ranking.components.training.warm_start import ALL, Base

ITEMS: dict[str, Any] = {
    "price": {"transform": ["z_score"], "indicator": True},
    "image": {"shape": [2]},
    "sales": {"transform": ["log1p"]},
    "brand": {"dtype": "string", "vocabulary": {"num_oov_buckets": 2}, "embedding": 4},
    "title": {"dtype": "string", "tokens": {}, "embedding": 3},
    "shop": {"dtype": "string", "hash": {"num_buckets": 4}, "embedding": 2},
    "grade": {"transform": [{"bucketize": 3}], "embedding": 2},
}
CONTEXT: dict[str, Any] = {"age": {}, "country": {"dtype": "string", "vocabulary": {}, "embedding": 2}}
VALUES = {"items_brand": "acme bolt cog", "items_title": "red blue", "context_country": "DE FR"}


class Side:
    """A ranker's config, its inputs and vocabularies as from a transform graph, and its network."""

    def __init__(self, folder: pathlib.Path, seed: int, items=None, context=None, model=None, **values: str):
        self.config: RankingConfig = ranking_config.parse({
            "name": "shop",
            "data": {"input": "x", "format": "csv"},
            "items": ITEMS if items is None else items,
            "context": CONTEXT if context is None else context,
            "model": {"hidden": [5, 3], "normalisation": "batch", **(model or {})},
        })  # fmt: skip
        self.values = {**VALUES, **values}
        self.assets = folder / "assets"
        self.assets.mkdir(parents=True)
        for file, words in self.values.items():
            (self.assets / file).write_text("".join(f"{word}\n" for word in words.split()))
        self.inputs = self.network_inputs()
        keras.utils.set_random_seed(seed)
        self.network = scorers.build(self.inputs, self.config.model)
        rng = np.random.default_rng(seed)
        self.network.set_weights([each + rng.uniform(0, 0.5, each.shape) for each in self.network.get_weights()])

    def network_inputs(self) -> list[Input]:
        inputs = []
        for level in ("items", "context"):
            if width := len(feature_columns.numeric_columns(self.config, level)):
                inputs.append(Input(f"{level}/numeric", "numeric", width))
            for name, each in getattr(self.config, level).items():
                if not each.is_category:
                    continue
                learned = each.tokens or each.vocabulary
                if learned:
                    size = len(self.values[f"{level}_{name}"].split()) + learned.num_oov_buckets
                else:
                    size = each.hash.num_buckets if each.hash else each.transform[-1].value
                inputs.append(Input(f"{level}/{name}", "tokens" if each.tokens else "category", size, each.embedding))
        return inputs

    def exported(self, folder: pathlib.Path) -> Base:
        """Exports it as the live model; you set the folder of the new vocabularies."""
        (folder / WEIGHTS_IN_MODEL).parent.mkdir(parents=True)
        weights.write(self.network, folder / WEIGHTS_IN_MODEL)
        (folder / CONFIG_IN_MODEL).write_text(self.config.select(*signature_exporter.READS))
        self.assets.rename(folder / "assets")
        return Base(folder, "7", "digest", pathlib.Path())

    def score(self, item: dict[str, Any]) -> float:
        """The score of one item; categories have the values of the logs, numbers have their steps applied already."""
        inputs: dict[str, Any] = {"row_lengths": tf.constant([1], tf.int64)}
        for level in ("items", "context"):
            columns = feature_columns.numeric_columns(self.config, level)
            if columns:
                inputs[f"{level}/numeric"] = tf.constant([[item.get(name, 0.0) for name in columns]], tf.float32)
        for one in self.inputs:
            if one.kind == "numeric":
                continue
            level, _, name = one.name.partition("/")
            words = self.values.get(f"{level}_{name}", "").split()
            # An int stands for a value outside of the vocabulary: the number of its bucket.
            values = item[name] if isinstance(item[name], list) else [item[name]]
            ids = [words.index(each) if isinstance(each, str) else len(words) + each for each in values]
            inputs[one.name] = tf.constant(ids, tf.int64)
            if one.kind == "tokens":
                inputs[one.name + "/row_lengths"] = tf.constant([len(ids)], tf.int64)
        return float(self.network(inputs)[0])


ITEM = {
    "price": 0.3, "price/missing": 1.0, "image[0]": -1.0, "image[1]": 2.0, "sales": 0.7, "age": 0.4, "brand": "bolt",
    "title": ["blue", "red", 0], "shop": 2, "grade": 1, "country": "FR",
}  # fmt: skip


def begin(tmp_path, old: dict[str, Any], new: dict[str, Any]) -> tuple[Side, Side, dict[str, str]]:
    before, after = Side(tmp_path / "old", 1, **old), Side(tmp_path / "new", 2, **new)
    base = before.exported(tmp_path / "live")
    history = warm_start.begin(after.network, after.inputs, after.config, Base(base.directory, "7", "d", after.assets))
    assert history["model"] == {"version": "7", "digest": "d"}
    assert set(history["layers"]) == {layer.name for layer in after.network.layers if layer.weights}
    return before, after, history["layers"]


def rows(side: Side, layer: str) -> np.ndarray:
    return side.network.get_layer(layer).get_weights()[0]


@pytest.mark.parametrize("scorer", SCORERS)
def test_a_grown_and_reordered_vocabulary_scores_as_before_on_old_values(scorer, tmp_path):
    model = {"scorer": scorer}
    grown = {"items_brand": "dune cog acme elm bolt", "items_title": "green blue red", "context_country": "FR IT DE"}
    before, after, layers = begin(tmp_path, {"model": model}, {"model": model, **grown})
    for change in (
        {}, {"brand": "acme"}, {"brand": 0}, {"brand": 1}, {"title": []}, {"title": [0]}, {"country": "DE"},
        {"country": 0}, {"shop": 0}, {"grade": 2},
    ):  # fmt: skip
        item = {**ITEM, **change}
        assert after.score(item) == pytest.approx(before.score(item), rel=1e-6), change
    assert layers["items_brand_embedding"] == "6 of 8 rows"  # unknown, three values, two buckets; dune and elm are new
    assert layers["items_shop_embedding"] == ALL
    assert layers["score"] == ALL
    at = grown["items_brand"].split().index("dune") + 1
    fresh = Side(tmp_path / "again", 2, model=model, **grown)
    np.testing.assert_array_equal(
        rows(after, "items_brand_embedding")[at], rows(fresh, "items_brand_embedding")[at]
    )  # a new value starts as without a warm start


def test_features_in_another_order_score_as_before(tmp_path):
    turned = dict(reversed(ITEMS.items()))
    context = dict(reversed(CONTEXT.items()))
    before, after, layers = begin(tmp_path, {}, {"items": turned, "context": context})
    assert set(layers.values()) == {ALL}
    assert after.score(ITEM) == pytest.approx(before.score(ITEM), rel=1e-6)


def test_added_and_removed_inputs(tmp_path):
    other = {name: each for name, each in ITEMS.items() if name not in ("sales", "shop")}
    other["clicks"] = {}
    before, after, layers = begin(tmp_path, {}, {"items": other})
    # price, image 2, price/missing, brand 4, title 3, grade 2, age, country 2, without clicks.
    width = 1 + 2 + 1 + 1 + 4 + 3 + 2 + 1 + 2
    assert layers["dense_0"] == f"{width - 1} of {width} rows"
    assert layers["normalisation_inputs"] == f"{width - 1} of {width} rows"
    ours, theirs = rows(after, "dense_0"), rows(before, "dense_0")
    np.testing.assert_array_equal(ours[3], theirs[2])  # price, now after clicks and image
    np.testing.assert_array_equal(ours[4], theirs[4])  # price/missing, now after price, before after sales
    fresh = Side(tmp_path / "again", 2, items=other)
    np.testing.assert_array_equal(ours[0], rows(fresh, "dense_0")[0])  # clicks
    assert {layers[name] for name in ("dense_1", "score", "normalisation_0")} == {ALL}


def test_what_another_step_or_width_changes_starts_fresh(tmp_path):
    other = {
        **ITEMS,
        "price": {"transform": ["log1p", "z_score"], "indicator": True},
        "brand": {**ITEMS["brand"], "embedding": 5},
        "shop": {**ITEMS["shop"], "hash": {"num_buckets": 8}},
        "grade": {**ITEMS["grade"], "transform": [{"bucketize": 4}]},
        "title": {**ITEMS["title"], "tokens": {"num_oov_buckets": 2}},
    }
    _, _, layers = begin(tmp_path, {}, {"items": other})
    assert layers["items_brand_embedding"] == "fresh: it is 5 wide, the live model's 4"
    assert layers["items_shop_embedding"] == "fresh: no value in common"
    assert layers["items_grade_embedding"] == "fresh: no value in common"
    assert layers["items_title_embedding"] == "3 of 5 rows"  # unknown, two words; the buckets hash differently
    # image 2, sales, price/missing, title 3, age, country 2; not price, brand 5, shop 2, grade 2.
    assert layers["dense_0"] == "10 of 20 rows"


def test_another_network_starts_fresh_where_it_differs(tmp_path):
    _, _, layers = begin(tmp_path, {}, {"model": {"hidden": [6, 3]}})
    assert layers["dense_0"] == "fresh: its kernel is [19, 6], the live model's [19, 5]"
    assert layers["dense_1"] == "fresh: it has a kernel of shape [6, 3] here and [5, 3] in the model"
    assert layers["score"] == ALL
    _, _, layers = begin(tmp_path / "linear", {}, {"model": {"scorer": "linear"}})
    assert layers["score"] == "fresh: it receives the inputs in only one of the two models"
    assert layers["items_brand_embedding"] == "fresh: it is 1 wide, the live model's 4"
    _, _, layers = begin(tmp_path / "deeper", {}, {"model": {"hidden": [5, 3, 2]}})
    assert layers["dense_2"] == "fresh: the live model does not have this layer"


def test_nothing_to_begin_from(tmp_path):
    side = Side(tmp_path, 1)
    before = [each.copy() for each in side.network.get_weights()]
    history = warm_start.begin(side.network, side.inputs, side.config, Base(tmp_path, "", "", side.assets))
    assert warm_start.summary(history) == "warm start: nothing serves yet"
    history = warm_start.begin(side.network, side.inputs, side.config, Base(tmp_path, "3", "d", side.assets))
    assert "version 3 cannot be used" in warm_start.summary(history)
    assert "weights.npz" in warm_start.summary(history)
    assert set(history["layers"].values()) == {"fresh"}
    json.dumps(history)
    for was, now in zip(before, side.network.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_vocabulary_that_is_missing_or_has_other_values(tmp_path):
    before, after = Side(tmp_path / "old", 1), Side(tmp_path / "new", 2)
    (after.assets / "items_brand").unlink()
    (after.assets / "items_title").write_text("red\n")
    base = before.exported(tmp_path / "live")
    history = warm_start.begin(after.network, after.inputs, after.config, Base(base.directory, "7", "d", after.assets))
    assert history["layers"]["items_brand_embedding"] == "fresh: there is no vocabulary items_brand"
    assert history["layers"]["items_title_embedding"] == "fresh: vocabulary items_title has 1 values for 3 ids"
    assert history["layers"]["dense_0"] == "12 of 19 rows"  # brand's four and title's three start fresh
    assert warm_start.summary(history) == (
        "warm start from version 7 (fresh: items_brand_embedding, items_title_embedding)"
    )


def own_numbers(tmp_path, widths: tuple[int, int]) -> dict[str, str]:
    """The layers of a ranker whose numbers come from the user's own preprocessing_fn, more than the config names."""
    config = ranking_config.parse({
        "name": "t", "data": {"input": "x", "format": "csv"}, "items": {"price": {}}, "model": {"hidden": [3]},
    })  # fmt: skip
    networks, inputs = [], []
    for seed, width in enumerate(widths):
        keras.utils.set_random_seed(seed)
        inputs.append([Input("items/numeric", "numeric", width)])
        networks.append(scorers.build(inputs[-1], config.model))
    live = tmp_path / "live"
    (live / WEIGHTS_IN_MODEL).parent.mkdir(parents=True)
    weights.write(networks[0], live / WEIGHTS_IN_MODEL)
    (live / CONFIG_IN_MODEL).write_text(config.select(*signature_exporter.READS))
    return warm_start.begin(networks[1], inputs[1], config, Base(live, "1", "d", tmp_path))["layers"]


def test_numbers_of_the_users_own(tmp_path):
    assert own_numbers(tmp_path / "same", (4, 4)) == {"dense_0": ALL, "score": ALL}
    assert own_numbers(tmp_path / "other", (4, 5)) == {
        "dense_0": "fresh: the names of its columns are unknown",
        "score": ALL,
    }


@keras.saving.register_keras_serializable(package="test_warm_start")
class Own(keras.Model):
    def __init__(self, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.brand = keras.layers.Embedding(size + 1, 2, name="items_brand_embedding")
        self.mix = keras.layers.Dense(1, name="mix")
        self.brand.build((None,))
        self.mix.build((None, 2))
        self.built = True


def test_a_scorer_of_the_users_own_by_names_shapes_and_values(tmp_path):
    items = {"brand": ITEMS["brand"]}
    before = Side(tmp_path / "old", 1, items=items)
    after = Side(tmp_path / "new", 2, items=items, items_brand="cog acme")
    before.network, after.network = Own(5), Own(4)
    base = before.exported(tmp_path / "live")
    history = warm_start.begin(after.network, after.inputs, after.config, Base(base.directory, "7", "d", after.assets))
    assert history["layers"] == {"items_brand_embedding": ALL, "mix": ALL}
    np.testing.assert_array_equal(  # unknown, cog, acme, two buckets
        rows(after, "items_brand_embedding"), rows(before, "items_brand_embedding")[[0, 3, 1, 4, 5]]
    )


def live_model(folder: pathlib.Path, live: int) -> standard_artifacts.Model:
    """The artifact that LiveModel writes."""
    artifact = standard_artifacts.Model()
    artifact.uri = str(folder)
    artifact.set_int_custom_property("live", live)
    artifact.set_string_custom_property("version", "12" if live else "")
    artifact.set_string_custom_property("digest", "d12" if live else "")
    return artifact


def test_the_component_records_what_it_began_from(tmp_path):
    config = config_of(training={"epochs": 1, "learning_rate": 1e-12})
    first, _ = trainer.train(lists_of(40, 1), lists_of(20, 2), config, {"items/brand": 7, "context/wish": 2})
    served = exported(tmp_path / "live" / "Format-Serving", first)
    (served / CONFIG_IN_MODEL).write_text(config.select(*signature_exporter.READS))
    write_transformed(tmp_path, train=lists_of(40, 1), validation=lists_of(20, 2))
    model, run = run_component(tmp_path, config, base_model=live_model(tmp_path / "live", 1))
    layers = json.loads(model.get_string_custom_property("warm_start"))
    # These files' transform graph has no vocabularies; the matrix has more columns than the config has numbers.
    assert layers["items_brand_embedding"] == "fresh: there is no vocabulary items_brand"
    assert layers["context_wish_embedding"].startswith("fresh: context/wish is not a feature of the config")
    assert layers["dense_1"] == ALL
    assert run.get_string_custom_property("warm_started_from") == "d12"
    assert ", warm start from version 12 (fresh: " in model.get_string_custom_property("summary")
    ranker = keras.saving.load_model(tmp_path / "model" / "Format-Keras" / "ranker.keras")
    kernels = [each.get_layer("dense_1").get_weights()[0] for each in (first, ranker)]
    np.testing.assert_allclose(*kernels, atol=1e-6)

    model, _ = run_component(tmp_path, config, base_model=live_model(tmp_path / "nothing", 0))
    assert model.get_string_custom_property("warm_started_from") == ""
    assert model.get_string_custom_property("summary").endswith(", warm start: nothing serves yet")


def test_a_start_from_two_models_is_refused():
    raw = {"name": "t", "data": {"input": "x", "format": "csv"}, "items": {"price": {}}, "push": {"base": "b"}}
    both = {"warm_start": True, "initialize_from": {"model": "m"}}
    with pytest.raises(ConfigError, match=r"training\.warm_start: training starts from one model"):
        ranking_config.parse({**raw, "training": both})
    with pytest.raises(ConfigError, match=r"training\.warm_start: the live model is the one that push"):
        ranking_config.parse({**raw, "push": None, "training": {"warm_start": True}})
