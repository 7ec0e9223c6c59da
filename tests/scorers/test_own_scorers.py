"""A user's own scorers in the trainer: which networks train, and which are refused."""

import sys
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from training_lists import config_of, lists_of

from tfx_ranking.components import trainer
from tfx_ranking.components.errors import ConfigError


@keras.saving.register_keras_serializable(package="test_own_scorers")
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


@keras.saving.register_keras_serializable(package="test_own_scorers")
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
