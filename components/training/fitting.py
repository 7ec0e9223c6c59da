"""Trains a ranker with Keras' `fit`, and measures the validation split after each epoch.

Input: a ranker and its data as flat columns.  Output: the ranker with the weights of its best epoch, and the history.
The loop is Keras' own.  Scores stay flat, all items of a batch one after another, and are padded only for the loss.
"""

import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.errors import DataError, RankingError
from tfx_ranking.components.lists.list_examples import ListBatch, group_text
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.training import training_data

DEFAULT_METRIC = "ndcg@10"  # of the validation split, when early stopping names no other


class Fit(keras.Model):
    """The ranker as Keras' `fit` trains it: flat scores, padded only for the loss.

    (Keras makes a TensorFlow name scope of the class name, so it must not begin with an underscore.)
    """

    def __init__(self, ranker: keras.Model, loss: Any):
        super().__init__()
        self.ranker = ranker
        self.list_loss = loss
        self.bad_lists = tf.Variable([], shape=[None], dtype=tf.int64, trainable=False)  # of the first broken step
        self.built = True

    def call(self, inputs, training=False):
        return self.ranker(inputs, training=training)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        scores, mask = pad(networks.scores_of(y_pred), x["row_lengths"])
        labels, _ = pad(y["label"], x["row_lengths"])
        weights = pad(y["weight"], x["row_lengths"])[0] if "weight" in y else None
        loss = self.list_loss(scores, labels, mask=mask, weights=weights)
        for penalty in self.ranker.losses:
            loss += penalty
        is_broken = ~tf.math.is_finite(loss) & (tf.size(self.bad_lists) == 0)
        tf.cond(is_broken, lambda: self.bad_lists.assign(y["lists"]), lambda: self.bad_lists.value())
        return loss


def pad(values: tf.Tensor, row_lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Flat [item] values as [list, longest], and the bool mask of the same shape."""
    padded = tf.RaggedTensor.from_row_lengths(values, row_lengths, validate=False).to_tensor()
    return padded, tf.sequence_mask(row_lengths, tf.shape(padded)[1])


class Watch(keras.callbacks.Callback):
    """Measures the validation split after each epoch, keeps the best weights, and stops early or on a broken loss."""

    def __init__(
        self, fit: Fit, train_data: ListBatch, validation_data: ListBatch, config: RankingConfig, began: float
    ):
        super().__init__()
        self.fit, self.train_data, self.validation_data = fit, train_data, validation_data
        self.config, self.settings, self.began_training = config, config.training, began
        stopping = self.settings.early_stopping
        self.metric = str(ranking_metrics.parse(stopping.metric if stopping else DEFAULT_METRIC))
        self.convention = Convention.of(config.evaluation)
        self.items = int(train_data.row_splits[-1])
        self.epochs: list[dict[str, Any]] = []
        self.best: tuple[int, float, list[np.ndarray]] | None = None
        score = tf.autograph.experimental.do_not_convert(self._score)
        self.scorer = tf.function(score, reduce_retracing=True)
        order = tf.data.Dataset.range(len(validation_data.row_splits) - 1)
        self.validation = training_data.batches(validation_data, order, self.settings.batch_lists)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if len(self.fit.bad_lists.numpy()):
            raise RankingError(self._explain(batch))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        seconds = time.perf_counter() - self.began
        value = self._validate()
        logs[self.metric] = value  # for TensorBoard, which comes after this callback
        entry = {"epoch": epoch + 1, "loss": float(logs["loss"]), self.metric: value}
        self.epochs.append({**entry, "seconds": seconds, "items_per_second": self.items / seconds})
        if epoch == 0:
            self.first_epoch_seconds = time.perf_counter() - self.began_training
        if self.best is None or value > self.best[1] or self.settings.early_stopping is None:
            self.best = (epoch + 1, value, self.fit.ranker.get_weights())
        elif epoch + 1 - self.best[0] >= self.settings.early_stopping.patience:
            self.fit.stop_training = True

    def finish(self) -> dict[str, Any]:
        """Sets the best epoch's weights; returns the history."""
        assert self.best is not None  # there is at least one epoch
        epoch, value, weights = self.best
        self.fit.ranker.set_weights(weights)
        rates = [each["items_per_second"] for each in self.epochs]
        rate = float(np.median(rates[1:] or rates))  # without the first epoch, which includes the tracing
        return {
            "metric": ranking_metrics.describe(self.metric, self.convention),
            "convention": str(self.convention),
            "best_epoch": epoch,
            "best_value": value,
            "summary": f"{self.metric} {value:.4f} (epoch {epoch} of {len(self.epochs)}), {rate:,.0f} items/s",
            "items_per_second": rate,
            "first_epoch_seconds": self.first_epoch_seconds,  # ordering, building, tracing and validation included
            "train": _sizes(self.train_data),
            "validation": _sizes(self.validation_data),
            "seed": self.settings.seed,
            "epochs": self.epochs,
        }

    def _score(self, inputs: Mapping[str, tf.Tensor]) -> tf.Tensor:
        return networks.scores_of(self.fit.ranker(inputs, training=False))

    def _validate(self) -> float:
        data = self.validation_data
        scores = np.concatenate([self.scorer(inputs).numpy() for inputs, _ in self.validation])
        if not np.isfinite(scores).all():
            item = int(np.flatnonzero(~np.isfinite(scores))[0])
            group = training_data.group_of(data, item)
            raise RankingError(
                f"the score of an item of validation list {group!r} is {scores[item]}, after a finite loss."
            )
        values = ranking_metrics.per_list([self.metric], scores, data.items["label"], data.row_splits, self.convention)
        value = ranking_metrics.mean(values[self.metric])
        if np.isnan(value):
            raise DataError(
                "the validation split has no list with a relevant item, so there is no best epoch: give it "
                "more lists (data.splits.validation), or see evaluation.relevant_from."
            )
        return value

    def _explain(self, step: int) -> str:
        lists = self.fit.bad_lists.numpy()
        name, value, group = training_data.largest(self.train_data, lists, self.config)
        groups = [repr(group_text(self.train_data.context["group_id"][i])) for i in lists]
        shown = ", ".join(groups[:10]) + (f" and {len(groups) - 10} more" if len(groups) > 10 else "")
        return (
            f"the loss is not a finite number at step {step + 1} of epoch {len(self.epochs) + 1}. "
            f"The batch's lists: {shown}. "
            f"The feature with the largest magnitude there is {name} = {value:g} (list {group_text(group)!r}). "
            "Scale or clip it (items.<name>.transform), or lower training.learning_rate."
        )


def _sizes(data: ListBatch) -> dict[str, int]:
    return {"lists": len(data.row_splits) - 1, "items": int(data.row_splits[-1])}
