"""RankingEvaluator: is the exported model good enough to serve?

Enters: raw list examples of a split that nothing was trained on, the exported model, the live one.  Leaves: a
ModelEvaluation (`metrics.json`, `per_list.parquet`) and a ModelBlessing as TFX's resolvers and Pusher read it.  The one
idea: what is measured is what will serve, so the lists go through the exported signature as the bytes they are.
"""

import io
import json
import pathlib
import tempfile
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.parquetio import WriteToParquetBatched
from apache_beam.utils.shared import Shared
from tfx.components.evaluator import constants
from tfx.dsl.component.experimental.annotations import BeamComponentParameter, InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing, ModelEvaluation

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.evaluation import previous_lists
from tfx_ranking.components.evaluation import report as evaluation_report
from tfx_ranking.components.exported import contract, model_files, saved_model
from tfx_ranking.components.lists import list_examples
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention

READS = (
    *("data.group_id", "data.label"),
    *("context.*.dtype", "context.*.shape", "context.*.tokens.present"),
    "evaluation",
)
SIGNATURE = "list_example"
BATCH_LISTS = 64
PREVIOUS = "previous"  # column while measuring: whether a list is one that the live model was blessed on


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
    """Measures a model and the baseline over the same lists and blesses it, or says why not.

    examples: list examples; `split` must not be empty.  model, baseline_model: SavedModels under `Format-Serving`; a
    baseline that is empty (nothing serves) or has no `list_example` signature is none, and the reason says so.
    evaluation: every figure with its convention in `metrics.json`, the values list by list in `per_list.parquet`, those
    of the lists that the live model was blessed on (`evaluation.bless.previous_spans`) in `per_list_previous.parquet`.
    blessing: TFX's own properties and file, and `reason`.  Both have `contract`, what the live model's clients are to
    expect (one of `contract.VERDICTS`), and `contract_differences` in JSON.
    """
    read = ranking_config.from_selection(config)
    for i, name in enumerate(read.evaluation.slices):
        if read.context[name].shape:
            raise ConfigError(
                f"evaluation.slices[{i}]: expected a feature with one value a list; {name!r} is a vector."
            )
    models = {"model": f"{model.uri}/{model_files.FORMAT_SERVING}"}
    no_baseline = why_no_baseline(baseline_model.uri if baseline_model else "")
    if not no_baseline:
        models["baseline"] = f"{baseline_model.uri}/{model_files.FORMAT_SERVING}"
    files = list_examples.split_files(examples.uri, split)
    previous = previous_lists.Previous()
    with tempfile.TemporaryDirectory() as fetched:
        if read.evaluation.bless.previous_spans and not no_baseline:
            asked = read.evaluation.bless.previous_spans
            place = pathlib.Path(fetched)
            previous = previous_lists.of_live(models["baseline"], asked, split, read.data.label, place)
        table, table_before = measure(beam_pipeline, files, models, config, f"{evaluation.uri}/shards", previous.files)
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


def measure(
    pipeline: beam.Pipeline,
    files: List[str],
    models: Dict[str, str],
    config: str,
    shards: str,
    previous: Sequence[str] = (),
) -> Tuple[pa.Table, pa.Table]:
    """The metrics of every list in `files`, and of those in `previous`, as `evaluation_report.columns` names them; no
    rows without lists.  Of the previous lists only group id and label are read, slices are "".

    models: name to SavedModel.  config: a selection of READS.  shards: a folder that Beam's workers and this process
    both reach; it is empty again afterwards.
    """
    wanted = ranking_config.from_selection(config).evaluation
    schema = pa.schema([(PREVIOUS, pa.bool_()), *evaluation_report.columns(wanted, list(models)).items()])
    if files:
        with pipeline:
            _ = (
                pipeline
                | "Files" >> beam.Create([*((each, False) for each in sorted(files)), *((p, True) for p in previous)])
                # Cut here and not by Beam: a score's last digit depends on what else is in its batch.
                | "Batches" >> beam.FlatMapTuple(_batches)
                | "Spread" >> beam.Reshuffle()
                | "Measure" >> beam.ParDo(_Measure(models, config))
                | "Write" >> WriteToParquetBatched(f"{shards}/part", schema, file_name_suffix=".parquet")
            )
    found = sorted(fileio.glob(f"{shards}/part*"))
    tables = [pq.read_table(io.BytesIO(_read(file))).cast(schema) for file in found]
    if fileio.exists(shards):
        fileio.rmtree(shards)
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    is_previous = table[PREVIOUS]
    table = table.drop([PREVIOUS])
    return table.filter(pc.invert(is_previous)), table.filter(is_previous)


def score_lists(signature: Any, serialized: List[bytes], row_splits: np.ndarray) -> np.ndarray:
    """Float32 [item] from an exported `list_example` signature, the first list's scores first.

    Raises DataError where the model counts other items than the labels do.
    """
    import tensorflow as tf

    outputs = signature(inputs=tf.constant(serialized, tf.string))
    scores, sizes = outputs["scores"].numpy(), outputs["sizes"].numpy()
    expected = np.diff(row_splits)
    if not np.array_equal(sizes, expected):
        bad = int(np.flatnonzero(sizes != expected)[0])
        raise DataError(f"list {bad} of the batch: the model scored {sizes[bad]} items, labels are {expected[bad]}.")
    return scores[np.arange(scores.shape[1]) < sizes[:, None]]


def why_no_baseline(uri: str) -> str:
    """Why the Model artifact at `uri` cannot be compared with; "" when it can."""
    directory = f"{uri}/{model_files.FORMAT_SERVING}"
    if not uri or not model_files.is_loadable(directory):
        return "first model"
    if SIGNATURE not in {signature.name for signature in saved_model.signature_definitions(directory)}:
        return f"the live model has no signature {SIGNATURE}"
    return ""


def compare_contracts(live: str, candidate: str) -> contract.Comparison:
    """What the candidate's Model artifact changes for the clients of the live one; `live` may be empty or "".

    Unlike the figures, this needs no signature `list_example` of the live model.
    """
    if not live or not model_files.is_loadable(f"{live}/{model_files.FORMAT_SERVING}"):
        return contract.FIRST
    return contract.compare_models(f"{live}/{model_files.FORMAT_SERVING}", f"{candidate}/{model_files.FORMAT_SERVING}")


class _Models(dict):
    """Name to signature; a class of its own, since Beam shares by weak reference."""

    loaded: Any  # the SavedModels: a signature does not keep its model's variables alive


class _Measure(beam.DoFn):
    """Batches of serialized lists → tables of metrics.  The models are loaded once a worker process."""

    def __init__(self, models: Dict[str, str], config: str):
        self._directories, self._selection, self._shared = models, config, Shared()

    def setup(self) -> None:
        config = ranking_config.from_selection(self._selection)
        self._evaluation, self._data = config.evaluation, config.data
        read = (config.data.group_id, config.data.label, *config.evaluation.slices)
        self._columns = {name: column for name, column in list_examples.columns(config).items() if name in read}
        self._always = {name: self._columns[name] for name in read[:2]}
        self._models = self._shared.acquire(self._load)

    def _load(self) -> _Models:
        import tensorflow as tf

        loaded = {name: tf.saved_model.load(path) for name, path in self._directories.items()}
        models = _Models({name: model.signatures[SIGNATURE] for name, model in loaded.items()})
        models.loaded = loaded
        return models

    def process(self, element: Tuple[bool, List[bytes]]) -> Iterator[pa.Table]:
        previous, serialized = element
        batch = list_examples.decode(serialized, self._always if previous else self._columns)
        labels = batch.items[self._data.label]
        groups = [_text(value) for value in batch.context[self._data.group_id]]
        if np.isnan(labels).any():
            at = int(np.searchsorted(batch.row_splits, np.flatnonzero(np.isnan(labels))[0], side="right")) - 1
            raise DataError(f"list {groups[at]!r}: an item has no label; every item of the split needs one.")
        rows: Dict[str, Any] = {"group_id": groups, "items": np.diff(batch.row_splits)}
        for name in self._evaluation.slices:
            rows[f"slice.{name}"] = [""] * len(groups) if previous else _slice_values(batch.context[name], len(groups))
        for model, signature in self._models.items():
            scores = score_lists(signature, serialized, batch.row_splits)
            measured = self._values(scores, labels, batch.row_splits)
            rows |= {f"{model}.{name}": values for name, values in measured.items()}
        types = evaluation_report.columns(self._evaluation, list(self._models))
        measured = {name: pa.array(rows[name], kind) for name, kind in types.items()}
        yield pa.table({PREVIOUS: pa.array([previous] * len(groups)), **measured})

    def _values(self, scores: np.ndarray, labels: np.ndarray, row_splits: np.ndarray) -> Dict[str, np.ndarray]:
        finite_before = np.append(0, np.cumsum(np.isfinite(scores)))
        finite = np.diff(finite_before[row_splits]) == np.diff(row_splits)
        values = ranking_metrics.per_list(
            evaluation_report.names(self._evaluation),
            np.nan_to_num(scores),
            labels,
            row_splits,
            Convention.of(self._evaluation),
        )
        return {"finite": finite, **{name: np.where(finite, each, np.nan) for name, each in values.items()}}


def _batches(file: str, previous: bool) -> Iterator[Tuple[bool, List[bytes]]]:
    batch: List[bytes] = []
    for record in list_examples.read_records([file]):
        batch.append(record)
        if len(batch) == BATCH_LISTS:
            yield previous, batch
            batch = []
    if batch:
        yield previous, batch


def _slice_values(column: Any, lists: int) -> List[str]:
    """A context feature's value as text, one a list; tokens joined by blanks as they were in the source."""
    if isinstance(column, list_examples.Tokens):
        cuts = column.row_splits
        return [" ".join(map(_text, column.values[cuts[i] : cuts[i + 1]])) for i in range(lists)]
    return [_text(value) for value in column]


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _record_verdict(blessing: Any, verdict: Dict[str, Any], model: Any, baseline: Any) -> None:
    """Writes what TFX's Evaluator writes, so that its Pusher and LatestBlessedModelStrategy read it, and the reason."""
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


def _read(path: str) -> bytes:
    with fileio.open(path, "rb") as file:
        return file.read()
