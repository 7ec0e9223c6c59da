"""RankingEvaluator: is the exported model good enough to serve?

Input: list examples of a split that was not used for training, the exported model and the live model.  Output: a
ModelEvaluation (`metrics.json`, `per_list.parquet`) and a ModelBlessing that TFX's resolvers and Pusher read.  The
exported signature scores the lists as serialized bytes, so the evaluation measures exactly what will serve.
"""

import io
import json
import pathlib
import tempfile
from typing import Any, Dict

import apache_beam as beam
import pyarrow.parquet as pq
from tfx.components.evaluator import constants
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.evaluation import measure, previous_lists
from tfx_ranking.components.evaluation import report as evaluation_report
from tfx_ranking.components.evaluation.scores import SIGNATURE, score_lists  # noqa: F401  0.1 documented score_lists here
from tfx_ranking.components.exported import contract, model_files, saved_model
from tfx_ranking.components.lists import list_examples

READS = (
    *("data.group_id", "data.label"),
    *("context.*.dtype", "context.*.shape", "context.*.tokens.present"),
    "evaluation",
)


@component(use_beam=True)
def RankingEvaluator(
    examples: InputArtifact[Examples],
    model: InputArtifact[Model],
    config: Parameter[str],
    evaluation: OutputArtifact[ModelEvaluation],
    blessing: OutputArtifact[ModelBlessing],
    baseline_model: InputArtifact[Model] = None,
    split: Parameter[str] = "test",
    beam_pipeline: BeamComponentParameter[beam.Pipeline] = None,
):
    """Measures a model and the baseline on the same lists, and blesses the model or gives the reason why not.

    examples: list examples; `split` must not be empty.
    model, baseline_model: SavedModels under `Format-Serving`.  If the baseline is empty (nothing serves) or has no
    `list_example` signature, nothing is compared and the reason says so.
    evaluation: every metric with its convention in `metrics.json`, the values of each list in `per_list.parquet`, and
    the values of the lists that the live model was blessed on (`evaluation.bless.previous_spans`) in
    `per_list_previous.parquet`.
    blessing: TFX's own properties and file, and `reason`.
    Both outputs have `contract`, the verdict for the live model's clients (one of `contract.VERDICTS`), and
    `contract_differences` as JSON.
    """
    read = ranking_config.from_selection(config)
    for i, name in enumerate(read.evaluation.slices):
        if read.context[name].shape:
            raise ConfigError(
                f"evaluation.slices[{i}]: expected a feature with one value per list; {name!r} is a vector."
            )
    models = {"model": f"{model.uri}/{model_files.FORMAT_SERVING}"}
    no_baseline = why_no_baseline(baseline_model.uri if baseline_model else "")
    if not no_baseline:
        models["baseline"] = f"{baseline_model.uri}/{model_files.FORMAT_SERVING}"
    files = list_examples.split_files(examples.uri, split)
    previous = previous_lists.Previous()
    with tempfile.TemporaryDirectory() as fetched:
        if read.evaluation.bless.previous_spans and not no_baseline:
            previous = previous_lists.of_live(
                models["baseline"],
                read.evaluation.bless.previous_spans,
                split=split,
                label=read.data.label,
                folder=pathlib.Path(fetched),
            )
        table, table_before = measure.measure(
            beam_pipeline, files, models, config, f"{evaluation.uri}/shards", previous.files
        )
    if not table.num_rows:
        raise DataError(f"{examples.uri}: split {split!r} has no list; give it a share in data.splits or name another.")
    about = {"split": split, "digests": {name: model_files.digest(path) for name, path in models.items()}}
    compared = compare_contracts(baseline_model.uri if baseline_model else "", model.uri)
    before = evaluation_report.Before(table_before, previous.spans, previous.uri, previous.absent, previous.refused)
    report = evaluation_report.summarise(table, read.evaluation, about, no_baseline, compared, before)

    _write(f"{evaluation.uri}/metrics.json", json.dumps(report, indent=2, allow_nan=False).encode())
    for name, measured in {"per_list": table, "per_list_previous": table_before}.items():
        if name == "per_list" or measured.num_rows:
            pq.write_table(evaluation_report.in_order(measured), written := io.BytesIO())
            _write(f"{evaluation.uri}/{name}.parquet", written.getvalue())
    evaluation.set_string_custom_property("summary", report["bless"]["summary"])
    evaluation.set_string_custom_property("metric", report["bless"]["metric"])
    for judged in (evaluation, blessing):
        judged.set_string_custom_property("contract", compared.verdict)
        judged.set_string_custom_property("contract_differences", json.dumps(compared.differences))
    if previous.uri:
        evaluation.set_string_custom_property("previous_examples", previous.uri)
        evaluation.set_string_custom_property("previous_spans", json.dumps(previous.spans))
    for name, figures in report.get("previous", {}).get("metrics", {}).items():
        if figures.get("difference") is not None:
            evaluation.set_float_custom_property(f"previous {name}", figures["value"])
            evaluation.set_float_custom_property(f"previous baseline {name}", figures["baseline"])
    for name, figures in report["metrics"].items():
        evaluation.set_string_custom_property(f"convention {name}", figures["convention"])
        for kind in ("value", "baseline"):
            if figures.get(kind) is not None:
                evaluation.set_float_custom_property(name if kind == "value" else f"{kind} {name}", figures[kind])
    _record_verdict(blessing, report["bless"], model, baseline_model if report["baseline"] else None)


def why_no_baseline(uri: str) -> str:
    """Why the Model artifact at `uri` cannot be the baseline; "" when it can."""
    directory = f"{uri}/{model_files.FORMAT_SERVING}"
    if not uri or not model_files.is_loadable(directory):
        return "first model"
    if SIGNATURE not in {signature.name for signature in saved_model.signature_definitions(directory)}:
        return f"the live model has no signature {SIGNATURE}"
    return ""


def compare_contracts(live: str, candidate: str) -> contract.ContractComparison:
    """Compares the contracts of two Model artifacts, for the live model's clients; `live` may be empty or "".

    Unlike the metrics, this does not need the live model's signature `list_example`.
    """
    if not live or not model_files.is_loadable(f"{live}/{model_files.FORMAT_SERVING}"):
        return contract.FIRST
    return contract.compare_models(f"{live}/{model_files.FORMAT_SERVING}", f"{candidate}/{model_files.FORMAT_SERVING}")


def _record_verdict(blessing: Any, verdict: Dict[str, Any], model: Any, baseline: Any) -> None:
    """Writes what TFX's Evaluator writes, for its Pusher and LatestBlessedModelStrategy, and the reason."""
    blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_URI_KEY, model.uri)
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_CURRENT_MODEL_ID_KEY, model.id)
    if baseline:
        blessing.set_string_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_URI_KEY, baseline.uri)
        blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BASELINE_MODEL_ID_KEY, baseline.id)
    blessed = verdict["blessed"]
    value = constants.BLESSED_VALUE if blessed else constants.NOT_BLESSED_VALUE
    blessing.set_int_custom_property(constants.ARTIFACT_PROPERTY_BLESSED_KEY, value)
    blessing.set_string_custom_property("reason", verdict["reason"])
    blessing.set_string_custom_property("summary", verdict["summary"])
    file = constants.BLESSED_FILE_NAME if blessed else constants.NOT_BLESSED_FILE_NAME
    _write(f"{blessing.uri}/{file}", b"")


def _write(path: str, content: bytes) -> None:
    fileio.makedirs(path.rpartition("/")[0])
    with fileio.open(path, "wb") as file:
        file.write(content)
