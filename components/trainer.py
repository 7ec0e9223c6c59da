"""RankingTrainer: transformed list examples in, a Keras ranker and its learning curve out.

Enters: transformed examples, the transform graph, anomalies, config.  Leaves: `Format-Keras/ranker.keras` and a
ModelRun with `history.json` and TensorBoard logs.  The one idea: whole splits in memory as flat columns
(`training_data`), lists in an order that depends on their group ids alone, so that equal inputs and an equal seed give
bit-equal weights.
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
    # Embeddings; the rest gives a number of the matrix its feature's name when training breaks on it.
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
    """Trains a ranker on one split, stops it on another, and opens no third.

    config: a selection of READS.  anomalies: of ExampleValidator; refused or warned about by `data.on_anomaly`.
    base_model: of LiveModel, which the ranker begins from; one that holds nothing is none.
    code_digest: of the module behind a dotted `model.scorer`.  initial_model: the digest of the model that
    `training.initialize_from` names.  Nothing reads the two, but a changed one trains again.  learning_rate: in place
    of `training.learning_rate`.
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
    """A selection of the config with another `training.learning_rate`; the same for None.

    Raises ConfigError for one that is not above 0.

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
    """A trained ranker and the history of its training.

    train_data, validation_data: NumPy columns as `training_data.read_split` gives them.  sizes: ids per category, by
    input name; what is not there is counted in `train_data`.  logs: folder for TensorBoard.  base: the live model to
    begin from.
    The history is JSON-able: the metric with its convention, one entry an epoch, the best one, a summary; with
    `training.initialize_from` the model, the layers that started from it and those that were frozen; with a base what
    each layer began from.
    Raises DataError for data that cannot be trained on, RankingError when the loss stops being a number, ConfigError
    for a scorer or a start that does not fit.
    """
    began = time.perf_counter()
    settings = config.training
    for name, data in {"training": train_data, "validation": validation_data}.items():
        training_data.check(data, name)
    # Everything random below (initial weights, dropout, shuffling) hangs on the seed alone.
    keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    train_data, validation_data = training_data.in_hash_order(train_data), training_data.in_hash_order(validation_data)
    item_weights = training_data.item_weights(train_data, settings.propensity)
    if item_weights is not None:
        train_data = train_data._replace(items={**train_data.items, "weight": item_weights})

    inputs = training_data.inputs(train_data, config, sizes or {})
    ranker = networks.build(inputs, config.model)
    _try(ranker, train_data)
    weights.variables(ranker)  # layers that share a name are refused now, and not by the exporter after the training
    start = _start(ranker, settings.initialize_from)
    if base is not None:
        start["warm_start"] = warm_start.begin(ranker, inputs, config, base)
    fit = fitting.Fit(ranker, LOSSES[config.model.loss].load())
    fit.compile(optimizer=_optimizer(config), jit_compile=False)  # XLA would compile every batch's shape anew
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
    """Writes `ranker.keras` and reads it back in safe mode, as the exporter will; ConfigError where that fails."""
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
    """What LiveModel says of its copy."""
    return warm_start.Base(
        directory=pathlib.Path(live.uri) / model_files.FORMAT_SERVING,
        version=live.get_string_custom_property("version") if live.get_int_custom_property("live") else "",
        digest=live.get_string_custom_property("digest"),
        vocabularies=pathlib.Path(transform_graph.uri) / "transform_fn" / "assets",
    )


def _start(ranker: keras.Model, initialize_from: InitializeFrom | None) -> dict[str, Any]:
    """Sets and freezes the ranker's layers; what the history says of it."""
    if initialize_from is None:
        return {}
    directory = weights.model_directory(initialize_from)
    initialized = weights.initialize(ranker, initialize_from)
    frozen = weights.freeze(ranker, initialize_from)
    model = {"directory": str(directory), "digest": model_files.digest(directory)}
    return {"initialized": {"model": model, "layers": initialized, "frozen": frozen}}


def _try(ranker: keras.Model, data: ListBatch) -> None:
    """One list through the network: makes the weights of a scorer that waits for its first call, checks its answer."""
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
