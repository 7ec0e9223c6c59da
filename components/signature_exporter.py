"""SignatureExporter: a trained ranker becomes the SavedModel that TensorFlow Serving runs on raw protos.

Enters: the trainer's Keras model, the transform graph, the test split raw and transformed.  Leaves: `Format-Serving`,
one SavedModel with parsing, preprocessing and scoring in one graph, and the proof that it scores as training does.
The one idea: a model whose signatures disagree with training is not emitted.
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
WARMUP_LISTS, SAMPLE_LISTS = 5, 2  # lists of different length that a call of these has at most


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
    """Saves a trained ranker with the signatures that `serving` chooses, and proves them on `split`.

    trained_model: `Format-Keras`.  examples: list examples.  transformed_examples: what Transform made of them.
    code_digest: of the module behind a dotted `serving.postprocessing`; nothing reads it, but a changed one exports
    again.  model: `Format-Serving`, with the properties `signatures`, `digest`, `fingerprint` (TensorFlow's),
    `parity_lists`, `parity_max_difference` and one a proof, and `parity.json` beside it.
    Raises ParityError when a signature and training disagree: then nothing is emitted.
    """
    del code_digest
    out = pathlib.Path(model.uri)
    paths = RankerPaths(
        keras_model=f"{trained_model.uri}/Format-Keras/ranker.keras",
        transform_graph=transform_graph.uri,
        examples=tuple(split_files(examples.uri, split)),
        transformed_examples=tuple(split_files(transformed_examples.uri, split)),
    )
    given = {
        "trained_model": trained_model,
        "transform_graph": transform_graph,
        "schema": schema,
        "examples": examples,
        "transformed_examples": transformed_examples,
    }
    # TFX removes the outputs of a step that fails; what is reported outlives it.
    failed = out.parent.parent / "reports" / f"parity-{out.name}.json"
    report = export(paths, from_selection(config), out, failed, receipt.receipt(given))
    served = str(out / model_files.FORMAT_SERVING)
    proofs = [(way, figures) for ways in report["signatures"].values() for way, figures in ways.items()]
    model.set_string_custom_property("signatures", ",".join(report["signatures"]))
    model.set_string_custom_property("digest", model_files.digest(served))
    model.set_string_custom_property("fingerprint", _fingerprint(served))
    model.set_int_custom_property("parity_lists", report["lists"])
    worst = max(figures["max_difference"] for _, figures in proofs)
    model.set_float_custom_property("parity_max_difference", worst)
    for way in dict(proofs):
        of_way = max(figures["max_difference"] for each, figures in proofs if each == way)
        model.set_float_custom_property(f"max_difference {way}", of_way)
    if "tflite_max_difference" in report:
        model.set_float_custom_property("tflite_max_difference", report["tflite_max_difference"])
    count = len(report["signatures"])
    model.set_string_custom_property(
        "summary",
        f"{count} signature{'s' * (count != 1)}, equal to training on {report['lists']} lists to {worst:.0e}",
    )


class RunAwareExecutor(SignatureExporter.EXECUTOR_SPEC.executor_class):  # type: ignore[name-defined, misc]
    """The function's executor; it knows the pipeline run, which the function is not told."""

    def Do(self, *arguments: Any, **named: Any) -> Any:
        context, token = self._context, None
        if context is not None and context.pipeline_info is not None:
            run = receipt.Run(context.pipeline_info.id, context.pipeline_run_id or "", context._unique_id or "")
            token = receipt.current_run.set(run)
        try:
            return super().Do(*arguments, **named)
        finally:
            if token:
                receipt.current_run.reset(token)


SignatureExporter.EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(RunAwareExecutor)


@dataclasses.dataclass(frozen=True)
class RankerPaths:
    """What a trained ranker consists of, and the lists of the split that it is proved on (TFRecord files)."""

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
    """Writes `<to>/Format-Serving` and `<to>/parity.json`; returns the parity report.

    report_to: where the report goes when the proof fails; then `to` is left without a model.  lineage: the receipt that
    travels with the model.  Raises ParityError, naming that file, or DataError when the split is empty.
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
        write_papers(ranker, served, sample, answered, lineage or receipt.receipt({}))
        if config.serving.tflite:
            fed = parity_sample.fed(sample, range(len(sample.scores)))
            report["tflite_max_difference"] = tflite.write(ranker.network, fed, to / tflite.TFLITE_IN_ARTIFACT)
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
    """The trained network and the transform graph as one."""
    if config.model.own_scorer:  # its module registers the user's own layers with Keras
        own_code.load_module(config.model.own_scorer)
    network = keras.saving.load_model(paths.keras_model, compile=False)
    return serving_ranker.ServingRanker(network, f"{paths.transform_graph}/transform_fn", config)


def transformed_specs(paths: RankerPaths) -> Dict[str, Any]:
    """How materialised features are read, as the trainer reads them."""
    return tft.TFTransformOutput(paths.transform_graph).transformed_feature_spec()


def save(ranker: serving_ranker.ServingRanker, to: str) -> None:
    """Writes the SavedModel with the config's signatures."""
    serving_ranker.save(ranker, to)
    selection = ranker.config.select(*(key for key in READS if key != "serving"), *SERVED)
    _write_json(pathlib.Path(to) / model_files.CONFIG_IN_MODEL, json.loads(selection))


def sample_feeds(ranker: serving_ranker.ServingRanker, sample: parity_sample.Sample) -> Dict[str, client_requests.Feed]:
    """A request of SAMPLE_LISTS lists for each signature."""
    some = _of_different_length(sample, SAMPLE_LISTS)
    rows = serving_ranker.rows_of(ranker)
    return {name: client_requests.feed(row, some, ranker.config) for name, row in rows.items()}


def write_papers(
    ranker: serving_ranker.ServingRanker,
    served: pathlib.Path,
    sample: parity_sample.Sample,
    answered: Mapping[str, tuple[client_requests.Feed, client_requests.Feed]],
    lineage: Mapping[str, Any],
) -> None:
    """What travels with the model: contract, receipt, weights, warm-up; `samples`, each a request and its answer."""
    config, rows = ranker.config, serving_ranker.rows_of(ranker)
    _write_json(served / model_files.CONTRACT_IN_MODEL, contract.describe(served, config, list(ranker.inputs)))
    _write_json(served / model_files.LINEAGE_IN_MODEL, lineage)
    weights.write(ranker.network, served / model_files.WEIGHTS_IN_MODEL)
    for name, (feed, answer) in answered.items():
        samples.write_sample(served, name, feed, answer, config.name)
    warmup.write_warmup(served, warmup.warmup_records(rows, _of_different_length(sample, WARMUP_LISTS), config))


# What the model's own config keeps of `serving`: what a client or another tool asks about.
SERVED = tuple(
    f"serving.{key}" for key in ("signatures", "default", "compatibility", "postprocessing", "top_k", "rename")
)


def _of_different_length(sample: parity_sample.Sample, lists: int) -> list[bytes]:
    at = parity_sample.choose(np.array([len(scores) for scores in sample.scores]), lists)
    return [sample.list_examples[each] for each in at]


def _fingerprint(served: str) -> str:
    """TensorFlow's own, hexadecimal; "" where this TensorFlow writes none."""
    try:
        return f"{tf.saved_model.experimental.read_fingerprint(served).saved_model_checksum:016x}"
    except (FileNotFoundError, tf.errors.NotFoundError):
        return ""


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
