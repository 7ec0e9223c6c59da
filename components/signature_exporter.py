"""Exports a trained ranker as the SavedModel that TensorFlow Serving runs on raw protos.

Input: the trainer's Keras model, the transform graph, and the test split before and after Transform.
Output: `Format-Serving`, one SavedModel with parsing, preprocessing and scoring in one graph, and the parity report.

A model whose signatures give other scores than training is not exported.
"""

import dataclasses
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any, Dict

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.base import executor_spec
from tfx.types.standard_artifacts import Examples, Model, Schema, TransformGraph

from tfx_ranking.components.config import RankingConfig, from_selection, own_code
from tfx_ranking.components.exported import contract, model_files, receipt
from tfx_ranking.components.lists.list_examples import split_files
from tfx_ranking.components.serving import (
    client_requests,
    parity,
    parity_sample,
    samples,
    serving_ranker,
    tflite,
    warmup,
)
from tfx_ranking.components.training import weights

READS = (
    *("data.group_id", "data.label", "data.weight", "data.position", "data.item_id"),
    *(
        f"{level}.*.{key}"
        for level in ("context", "items")
        for key in ("dtype", "shape", "default", "indicator", "transform", "vocabulary", "hash", "tokens")
    ),
    *("transform", "model.scorer", "serving"),
)
WARMUP_LISTS, SAMPLE_LISTS = 5, 2  # at most so many lists of different length in one request


@component
def SignatureExporter(
    trained_model: InputArtifact[Model],
    transform_graph: InputArtifact[TransformGraph],
    schema: InputArtifact[Schema],
    examples: InputArtifact[Examples],
    transformed_examples: InputArtifact[Examples],
    model: OutputArtifact[Model],
    config: Parameter[str],
    split: Parameter[str] = "test",
    code_digest: Parameter[str] = "",
):
    """Exports a trained ranker with the signatures of `serving`, and compares their scores with training on `split`.

    trained_model: `Format-Keras`.  examples: list examples.  transformed_examples: Transform's output for them.
    code_digest: the digest of the module of `serving.postprocessing` when that is a dotted name; nothing reads it, but
    TFX runs the step again when it changes.  model: `Format-Serving` with `parity.json` beside it, and the custom
    properties `digest`, `fingerprint` (TensorFlow's) and those of `parity_properties`.
    Raises ParityError when a signature's scores differ from training; then there is no model.
    """
    del code_digest
    out = pathlib.Path(model.uri)
    paths = RankerPaths(
        keras_model=f"{trained_model.uri}/Format-Keras/ranker.keras",
        transform_graph=transform_graph.uri,
        examples=tuple(split_files(examples.uri, split)),
        transformed_examples=tuple(split_files(transformed_examples.uri, split)),
    )
    inputs = {
        "trained_model": trained_model,
        "transform_graph": transform_graph,
        "schema": schema,
        "examples": examples,
        "transformed_examples": transformed_examples,
    }
    # TFX removes the outputs of a step that fails, so the report of a failed comparison is written elsewhere.
    failed = out.parent.parent / "reports" / f"parity-{out.name}.json"
    report = export(paths, from_selection(config), out, failed, receipt.receipt(inputs))
    served = str(out / model_files.FORMAT_SERVING)
    model.set_string_custom_property("digest", model_files.digest(served))
    model.set_string_custom_property("fingerprint", _fingerprint(served))
    setters = {
        str: model.set_string_custom_property,
        int: model.set_int_custom_property,
        float: model.set_float_custom_property,
    }
    for name, value in parity_properties(report).items():
        setters[type(value)](name, value)


def parity_properties(report: Mapping[str, Any]) -> dict[str, str | int | float]:
    """The model artifact's custom properties that come from a parity report: property name → value.

    `parity_max_difference` is the largest difference of all, `max_difference <way>` the largest of one way of calling.
    """
    largest: dict[str, float] = {}
    for ways in report["signatures"].values():
        for way, figures in ways.items():
            largest[way] = max(largest.get(way, 0.0), float(figures["max_difference"]))
    worst, count = max(largest.values()), len(report["signatures"])
    signatures = f"{count} signature{'s' * (count != 1)}"
    properties: dict[str, str | int | float] = {
        "signatures": ",".join(report["signatures"]),
        "parity_lists": report["lists"],
        "parity_max_difference": worst,
        **{f"max_difference {way}": difference for way, difference in largest.items()},
        "summary": f"{signatures}, equal to training on {report['lists']} lists to {worst:.0e}",
    }
    if "tflite_max_difference" in report:
        properties["tflite_max_difference"] = float(report["tflite_max_difference"])
    return properties


class RunAwareExecutor(SignatureExporter.EXECUTOR_SPEC.executor_class):  # type: ignore[name-defined, misc]
    """The component's executor, which gives the component's function access to the pipeline run (for the receipt)."""

    def Do(self, *arguments: Any, **named: Any) -> Any:
        context, token = self._context, None
        if context is not None and context.pipeline_info is not None:
            run = receipt.PipelineRun(context.pipeline_info.id, context.pipeline_run_id or "", context._unique_id or "")
            token = receipt.current_run.set(run)
        try:
            return super().Do(*arguments, **named)
        finally:
            if token:
                receipt.current_run.reset(token)


SignatureExporter.EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RunAwareExecutor)


@dataclasses.dataclass(frozen=True)
class RankerPaths:
    """The files of a trained ranker, and the TFRecord files of the split on which it is compared with training."""

    keras_model: str
    transform_graph: str
    examples: tuple[str, ...]
    transformed_examples: tuple[str, ...]


def export(
    paths: RankerPaths,
    config: RankingConfig,
    to: pathlib.Path,
    report_to: pathlib.Path,
    lineage: Mapping[str, Any] | None = None,
) -> Dict[str, Any]:
    """Writes `<to>/Format-Serving` and `<to>/parity.json`, and returns the parity report.

    report_to: the file for the report when the scores differ from training; then `to` has no model.  lineage: the
    lineage receipt to write into the model.  Raises ParityError, with the name of that file, or DataError when the
    split is empty.
    """
    ranker = load_ranker(paths, config)
    specs = transformed_specs(paths)
    sample = parity_sample.draw(ranker, paths.examples, paths.transformed_examples, specs, config.serving.parity_lists)
    served = to / model_files.FORMAT_SERVING
    try:
        save(ranker, str(served))
        feeds = sample_feeds(ranker, sample)
        report, answers = parity.prove(ranker, str(served), sample, serving_ranker.rows_of(ranker), feeds)
        answered = {name: (feed, answers[name]) for name, feed in feeds.items()}
        write_model_files(ranker, served, sample, answered, lineage or receipt.receipt({}))
        if config.serving.tflite:
            inputs = parity_sample.training_inputs(sample, range(len(sample.scores)))
            report["tflite_max_difference"] = tflite.write(ranker.network, inputs, to / tflite.TFLITE_IN_ARTIFACT)
    except parity.ParityError as error:
        shutil.rmtree(served, ignore_errors=True)
        _write_json(report_to, {**error.report, "message": str(error)})
        raise parity.ParityError(f"{error} The report is in {report_to}.", error.report) from None
    except Exception:
        shutil.rmtree(served, ignore_errors=True)
        raise
    _write_json(to / "parity.json", report)
    return report


def load_ranker(paths: RankerPaths, config: RankingConfig) -> serving_ranker.ServingRanker:
    """Loads the trained network and the transform graph."""
    if config.model.own_scorer:  # its module registers the user's own layers with Keras
        own_code.load_module(config.model.own_scorer)
    network = keras.saving.load_model(paths.keras_model, compile=False)
    return serving_ranker.ServingRanker(network, f"{paths.transform_graph}/transform_fn", config)


def transformed_specs(paths: RankerPaths) -> Dict[str, Any]:
    """The feature specs by which the trainer reads transformed examples."""
    return tft.TFTransformOutput(paths.transform_graph).transformed_feature_spec()


def save(ranker: serving_ranker.ServingRanker, to: str) -> None:
    """Writes the SavedModel with the config's signatures, and the parts of the config that it keeps."""
    serving_ranker.save(ranker, to)
    selection = ranker.config.select(*(key for key in READS if key != "serving"), *SERVED)
    _write_json(pathlib.Path(to) / model_files.CONFIG_IN_MODEL, json.loads(selection))


def sample_feeds(ranker: serving_ranker.ServingRanker, sample: parity_sample.Sample) -> Dict[str, client_requests.Feed]:
    """Makes a request of SAMPLE_LISTS lists for each signature."""
    some = _of_different_length(sample, SAMPLE_LISTS)
    rows = serving_ranker.rows_of(ranker)
    return {name: client_requests.feed(row, some, ranker.config) for name, row in rows.items()}


def write_model_files(
    ranker: serving_ranker.ServingRanker,
    served: pathlib.Path,
    sample: parity_sample.Sample,
    answered: Mapping[str, tuple[client_requests.Feed, client_requests.Feed]],
    lineage: Mapping[str, Any],
) -> None:
    """Writes the files that come with a model: contract, receipt, weights, sample requests and warm-up requests.

    answered: signature name → a request and the model's answer to it.
    """
    config, rows = ranker.config, serving_ranker.rows_of(ranker)
    _write_json(served / model_files.CONTRACT_IN_MODEL, contract.describe(served, config, list(ranker.inputs)))
    _write_json(served / model_files.LINEAGE_IN_MODEL, lineage)
    weights.write(ranker.network, served / model_files.WEIGHTS_IN_MODEL)
    for name, (feed, answer) in answered.items():
        samples.write_sample(served, name, feed, answer, config.name)
    warmup.write_warmup(served, warmup.warmup_records(rows, _of_different_length(sample, WARMUP_LISTS), config))


# The keys of `serving` that stay in the model's own config, because clients and other tools need them.
SERVED = tuple(
    f"serving.{key}" for key in ("signatures", "default", "compatibility", "postprocessing", "top_k", "rename")
)


def _of_different_length(sample: parity_sample.Sample, lists: int) -> list[bytes]:
    at = parity_sample.choose(np.array([len(scores) for scores in sample.scores]), lists)
    return [sample.list_examples[each] for each in at]


def _fingerprint(served: str) -> str:
    """TensorFlow's fingerprint of the model, hexadecimal; "" when this version of TensorFlow writes none."""
    try:
        return f"{tf.saved_model.experimental.read_fingerprint(served).saved_model_checksum:016x}"
    except (FileNotFoundError, tf.errors.NotFoundError):
        return ""


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
