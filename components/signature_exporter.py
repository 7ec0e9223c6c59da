"""SignatureExporter: a trained ranker becomes the SavedModel that TensorFlow Serving runs on raw protos.

Enters: the trainer's Keras model, the transform graph, the test split raw and transformed.  Leaves: `Format-Serving`,
one SavedModel with parsing, preprocessing and scoring in one graph, and the proof that it scores as training does.
The one idea: a model whose signatures disagree with training is not emitted.
"""

import dataclasses
import importlib
import json
import pathlib
import shutil
from typing import Any, Dict

import keras
import tensorflow as tf
import tensorflow_transform as tft
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, Schema, TransformGraph

from tfx_ranking.components import parity, serving_ranker, serving_versions
from tfx_ranking.components.config import RankingConfig, from_selection
from tfx_ranking.components.list_examples import split_files

READS = (
    *("data.group_id", "data.label", "data.weight", "data.position", "data.item_id"),
    *(
        f"{level}.*.{key}"
        for level in ("context", "items")
        for key in ("dtype", "shape", "default", "indicator", "transform", "vocabulary", "hash", "tokens")
    ),
    *("transform", "model.scorer", "serving"),
)


@component
def SignatureExporter(
    trained_model: InputArtifact[Model],
    transform_graph: InputArtifact[TransformGraph],
    schema: InputArtifact[Schema],
    examples: InputArtifact[Examples],
    transformed_examples: InputArtifact[Examples],
    model: OutputArtifact[Model],
    config: Parameter[Dict[str, Any]],
    split: Parameter[str] = "test",
):
    """Saves a trained ranker with the signatures that `serving.signatures` chooses, and proves them on `split`.

    trained_model: `Format-Keras`.  examples: list examples.  transformed_examples: what Transform made of them.
    model: `Format-Serving`, with the properties `signatures`, `digest`, `parity_lists` and `parity_max_difference`, and
    `parity.json` beside it.  Raises ParityError when a signature and training disagree: then nothing is emitted.
    """
    out = pathlib.Path(model.uri)
    paths = RankerPaths(
        keras_model=f"{trained_model.uri}/Format-Keras/ranker.keras",
        transform_graph=transform_graph.uri,
        examples=tuple(split_files(examples.uri, split)),
        transformed_examples=tuple(split_files(transformed_examples.uri, split)),
    )
    # TFX removes the outputs of a step that fails; what is reported outlives it.
    report = export(paths, from_selection(config), out, out.parent.parent / "reports" / f"parity-{out.name}.json")
    served = str(out / "Format-Serving")
    worst = max(figures["max_difference"] for ways in report["signatures"].values() for figures in ways.values())
    model.set_string_custom_property("signatures", ",".join(report["signatures"]))
    model.set_string_custom_property("digest", serving_versions.digest(served))
    model.set_int_custom_property("parity_lists", report["lists"])
    model.set_float_custom_property("parity_max_difference", worst)
    model.set_string_custom_property(
        "summary",
        f"{len(report['signatures'])} signatures, equal to training on {report['lists']} lists to {worst:.0e}",
    )


@dataclasses.dataclass(frozen=True)
class RankerPaths:
    """What a trained ranker consists of, and the lists of the split that it is proved on (TFRecord files)."""

    keras_model: str
    transform_graph: str
    examples: tuple[str, ...]
    transformed_examples: tuple[str, ...]


def export(paths: RankerPaths, config: RankingConfig, to: pathlib.Path, report_to: pathlib.Path) -> Dict[str, Any]:
    """Writes `<to>/Format-Serving` and `<to>/parity.json`; returns the parity report.

    report_to: where the report goes when the proof fails; then `to` is left without a model.  Raises ParityError,
    naming that file, or DataError when the split is empty.
    """
    ranker = load_ranker(paths, config)
    specs = transformed_specs(paths)
    sample = parity.draw(ranker, paths.examples, paths.transformed_examples, specs, config.serving.parity_lists)
    served = to / "Format-Serving"
    try:
        save(ranker, str(served))
        report = parity.prove(ranker, str(served), sample, serving_ranker.rows_of(ranker))
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
    if "." in config.model.scorer:  # its module registers the user's own layers with Keras
        importlib.import_module(config.model.scorer.rpartition(".")[0])
    network = keras.saving.load_model(paths.keras_model, compile=False)
    return serving_ranker.ServingRanker(network, f"{paths.transform_graph}/transform_fn", config)


def transformed_specs(paths: RankerPaths) -> Dict[str, Any]:
    """How materialised features are read, as the trainer reads them."""
    return tft.TFTransformOutput(paths.transform_graph).transformed_feature_spec()


def save(ranker: serving_ranker.ServingRanker, to: str) -> None:
    """Writes the SavedModel with the config's signatures."""
    tf.saved_model.save(serving_ranker.savable(ranker), to, signatures=serving_ranker.build(ranker))
    selection = ranker.config.select(*(key for key in READS if not key.startswith("serving")))
    _write_json(pathlib.Path(to) / serving_versions.CONFIG_IN_MODEL, selection)


def _write_json(path: pathlib.Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n")
