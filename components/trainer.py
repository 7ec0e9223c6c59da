"""RankingTrainer trains a Keras ranker on transformed list examples.

Input: transformed examples, the transform graph, anomalies, config.  Output: `Format-Keras/ranker.keras`, and a
ModelRun with `history.json` and TensorBoard logs.  Whole splits are in memory as flat columns (`training_data`), and
the order of the lists depends only on their group ids, so the same inputs and seed give bit-equal weights.
"""

import json
import os
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, Model, ModelRun, TransformGraph

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices.losses import LOSSES
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.config.training_sections import InitializeFrom, Training
from tfx_ranking.components.errors import ConfigError, as_sentence
from tfx_ranking.components.exported import model_files
from tfx_ranking.components.lists.list_examples import ListBatch
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.training import fitting, training_data, warm_start, weights

READS = (
    *("data.on_anomaly", "data.position", "model", "training"),
    *("evaluation.gain", "evaluation.no_relevant", "evaluation.relevant_from"),
    # `embedding` sets a width. The other keys name the feature in the error message when the loss is not finite.
    *(f"{level}.*.{key}" for level in ("context", "items") for key in ("embedding", "dtype", "shape", "indicator")),
    *(f"{level}.*.{key}" for level in ("context", "items") for key in ("transform", "vocabulary", "hash", "tokens")),
)


@component
def RankingTrainer(
    transformed_examples: InputArtifact[Examples],
    transform_graph: InputArtifact[TransformGraph],
    config: Parameter[str],
    model: OutputArtifact[Model],
    model_run: OutputArtifact[ModelRun],
    anomalies: InputArtifact[ExampleAnomalies] = None,
    base_model: InputArtifact[Model] = None,
    train_split: Parameter[str] = "train",
    validation_split: Parameter[str] = "validation",
    code_digest: Parameter[str] = "",
    initial_model: Parameter[str] = "",
    learning_rate: Parameter[float] = None,  # type: ignore[assignment]
):
    """Trains a ranker on one split, chooses the best epoch on another, and opens no other split.

    config: a selection of the config by READS.  anomalies: ExampleValidator's; `data.on_anomaly` decides whether they
    fail the training or are a warning.
    base_model: LiveModel's, from which the ranker begins; an empty one counts as none.
    code_digest: of the module behind a dotted `model.scorer`.  initial_model: the digest of the model that
    `training.initialize_from` names.  The training reads neither, but TFX runs it again when one has changed.
    learning_rate: replaces `training.learning_rate`.
    """
    del code_digest, initial_model
    settings = ranking_config.from_selection(with_learning_rate(config, learning_rate))
    if anomalies is not None:
        training_data.check_anomalies(anomalies.uri, (train_split, validation_split), settings.data.on_anomaly)
    layout = training_data.read_layout(transform_graph.uri)
    train_data, train_files = training_data.read_split(transformed_examples.uri, train_split, layout)
    validation_data, validation_files = training_data.read_split(transformed_examples.uri, validation_split, layout)
    base = None if base_model is None else _base(base_model, transform_graph)
    ranker, history = train(train_data, validation_data, settings, sizes=layout.sizes, logs=model_run.uri, base=base)

    with tf.io.gfile.GFile(os.path.join(model_run.uri, "history.json"), "w") as file:
        file.write(json.dumps(history, indent=1))
    save(ranker, os.path.join(model.uri, "Format-Keras", "ranker.keras"))
    opened = {train_split: train_files, validation_split: validation_files}
    for artifact in (model, model_run):
        artifact.set_string_custom_property("opened", json.dumps(opened))
        artifact.set_string_custom_property("summary", history["summary"])
        artifact.set_string_custom_property("metric", history["metric"])
        artifact.set_float_custom_property("best_value", history["best_value"])
        artifact.set_int_custom_property("best_epoch", history["best_epoch"])
        if "initialized" in history:
            artifact.set_string_custom_property("initialized_from", history["initialized"]["model"]["digest"])
        if "warm_start" in history:
            begun = history["warm_start"]
            artifact.set_string_custom_property("warm_start", json.dumps(begun["layers"]))
            artifact.set_string_custom_property("warm_started_from", (begun["model"] or {}).get("digest", ""))


def with_learning_rate(config: str, learning_rate: float | None) -> str:
    """The selection of the config with another `training.learning_rate`; unchanged for None.

    Raises ConfigError for a learning rate that is not above 0.

    >>> with_learning_rate('{"training": {"epochs": 3}}', 0.01)
    '{"training": {"epochs": 3, "learning_rate": 0.01}}'
    """
    if learning_rate is None:
        return config
    try:
        Training(learning_rate=learning_rate)
    except ValueError as error:
        raise ConfigError(f"training.learning_rate: {as_sentence(error)}") from None
    selected = json.loads(config)
    selected.setdefault("training", {})["learning_rate"] = learning_rate
    return json.dumps(selected, ensure_ascii=False)


def train(
    train_data: ListBatch,
    validation_data: ListBatch,
    config: RankingConfig,
    sizes: Mapping[str, int] | None = None,
    logs: str | None = None,
    base: warm_start.Base | None = None,
) -> tuple[keras.Model, dict[str, Any]]:
    """Trains a ranker; returns it and the history of its training.

    train_data, validation_data: NumPy columns as `training_data.read_split` returns them.  sizes: ids per category, by
    input name; a category that is not in it is counted in `train_data`.  logs: folder for TensorBoard.  base: the live
    model to begin from.
    The history can be written as JSON: the metric with its convention, an entry for each epoch, the best epoch, a
    summary; with `training.initialize_from` the model, the layers that started from it and the frozen layers; with a
    base what each layer began from.
    Raises DataError for data that cannot be trained on, RankingError when the loss is not a finite number, ConfigError
    for a scorer or initial weights that do not fit.
    """
    began = time.perf_counter()
    settings = config.training
    for name, data in {"training": train_data, "validation": validation_data}.items():
        training_data.check(data, name)
    # Everything random below (initial weights, dropout, shuffling) depends on the seed alone.
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    train_data, validation_data = training_data.in_hash_order(train_data), training_data.in_hash_order(validation_data)
    item_weights = training_data.item_weights(train_data, settings.propensity)
    if item_weights is not None:
        train_data = train_data._replace(items={**train_data.items, "weight": item_weights})

    inputs = training_data.inputs(train_data, config, sizes or {})
    ranker = networks.build(inputs, config.model)
    _try(ranker, train_data)
    weights.variables(ranker)  # refuses layers that share a name before the training, not in the exporter after it
    start = _start(ranker, settings.initialize_from)
    if base is not None:
        start["warm_start"] = warm_start.begin(ranker, inputs, config, base)
    fit = fitting.Fit(ranker, LOSSES[config.model.loss].load())
    fit.compile(optimizer=_optimizer(config), jit_compile=False)  # XLA would compile again for every batch's shape
    fit.optimizer.build(fit.trainable_variables)  # a step that creates variables would be traced twice
    lists = len(train_data.row_splits) - 1
    watch = fitting.Watch(fit, train_data, validation_data, config, began)
    callbacks = [watch]
    if logs is not None:
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    indices = tf.data.Dataset.range(lists).shuffle(lists, settings.seed, reshuffle_each_iteration=True)
    batches = training_data.batches(train_data, indices, settings.batch_lists)
    fit.fit(batches, epochs=settings.epochs, callbacks=callbacks, verbose=0)
    history = {**watch.finish(), **start}
    if base is not None:
        history["summary"] += f", {warm_start.summary(history['warm_start'])}"
    return ranker, history


def save(ranker: keras.Model, path: str) -> None:
    """Writes `ranker.keras` and loads it in safe mode, as the exporter will.  Raises ConfigError when that fails."""
    tf.io.gfile.makedirs(os.path.dirname(path))
    ranker.save(path)
    try:
        keras.saving.load_model(path, compile=False)
    except Exception as error:
        reason = str(error).partition(". ")[0]
        raise ConfigError(
            f"model.scorer: the trained {type(ranker).__name__} cannot be loaded again ({reason}). Register its class "
            "with keras.saving.register_keras_serializable and create all weights in __init__ or build."
        ) from error


def _base(live: Model, transform_graph: TransformGraph) -> warm_start.Base:
    """LiveModel's copy of the live model, and the properties of its artifact."""
    return warm_start.Base(
        directory=pathlib.Path(live.uri) / model_files.FORMAT_SERVING,
        version=live.get_string_custom_property("version") if live.get_int_custom_property("live") else "",
        digest=live.get_string_custom_property("digest"),
        vocabularies=pathlib.Path(transform_graph.uri) / "transform_fn" / "assets",
    )


def _start(ranker: keras.Model, initialize_from: InitializeFrom | None) -> dict[str, Any]:
    """Sets and freezes the ranker's layers; returns what the history records about it."""
    if initialize_from is None:
        return {}
    directory = weights.model_directory(initialize_from)
    initialized = weights.initialize(ranker, initialize_from)
    frozen = weights.freeze(ranker, initialize_from)
    model = {"directory": str(directory), "digest": model_files.digest(directory)}
    return {"initialized": {"model": model, "layers": initialized, "frozen": frozen}}


def _try(ranker: keras.Model, data: ListBatch) -> None:
    """Calls the network on one list.  This creates weights that are built at the first call, and checks the outputs."""
    [(inputs, targets)] = training_data.batches(data, tf.data.Dataset.range(1), 1)
    answered = ranker(inputs, training=False)
    outputs = {"scores": networks.scores_of(answered), **(answered if isinstance(answered, Mapping) else {})}
    expected = tuple(targets["label"].shape)
    for name, output in outputs.items():
        if tuple(output.shape) != expected:
            what = "one score" if name == "scores" else f"one value of output {name!r}"
            raise ConfigError(
                f"model.scorer: expected {what} per item, of shape [item]; got {list(output.shape)} for {expected[0]} "
                "items. Squeeze the last axis."
            )


def _optimizer(config: RankingConfig) -> keras.optimizers.Optimizer:
    settings = config.training
    kind = type(keras.optimizers.get(settings.optimizer))
    return kind(learning_rate=settings.learning_rate, global_clipnorm=settings.clip_norm)
