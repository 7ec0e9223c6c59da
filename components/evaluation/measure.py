"""Scores lists with exported models on Beam and computes their metrics, one row per list.

Input: files of list examples and SavedModels with the signature `list_example`.  Output: a table with one row per list.
The signature scores the lists as serialized bytes, in batches that Beam cannot change: the last digit of a score
depends on the other lists in its batch.
"""

import io
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from apache_beam.io.filesystems import FileSystems
from apache_beam.io.parquetio import WriteToParquetBatched
from apache_beam.utils.shared import Shared

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.evaluation import report as evaluation_report
from tfx_ranking.components.evaluation.scores import SIGNATURE, score_lists
from tfx_ranking.components.lists import list_examples
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention

BATCH_LISTS = 64
PREVIOUS = "previous"  # column of the measured table: whether the live model was blessed on this list


def measure(
    pipeline: beam.Pipeline,
    files: List[str],
    models: Dict[str, str],
    config: str,
    shards: str,
    previous: Sequence[str] = (),
) -> Tuple[pa.Table, pa.Table]:
    """Computes the metrics of every list in `files` and of every list in `previous`.

    models: name to SavedModel.  config: the evaluator's selection (READS).  shards: a folder that Beam's workers and
    this process can both reach; it is deleted afterwards.  previous: files of lists that the live model was blessed on.
    Returns two tables with the columns of `evaluation_report.columns`, without rows if there are no lists.  Only group
    id and label of the previous lists are read; their slices are "".
    """
    wanted = ranking_config.from_selection(config).evaluation
    schema = pa.schema([(PREVIOUS, pa.bool_()), *evaluation_report.columns(wanted, list(models)).items()])
    if files:
        with pipeline:
            _ = (
                pipeline
                | "Files" >> beam.Create([*((each, False) for each in sorted(files)), *((p, True) for p in previous)])
                # Not batched by Beam: a score's last digit depends on the other lists in its batch.
                | "Batches" >> beam.FlatMapTuple(_batches)
                | "Spread" >> beam.Reshuffle()
                | "Measure" >> beam.ParDo(_Measure(models, config))
                | "Write" >> WriteToParquetBatched(f"{shards}/part", schema, file_name_suffix=".parquet")
            )
    (written,) = FileSystems.match([f"{shards}/part*"])
    parts = sorted(part.path for part in written.metadata_list)
    tables = [pq.read_table(io.BytesIO(_read(part))).cast(schema) for part in parts]
    if parts:  # first the files, because an object store has no folders to delete
        FileSystems.delete(parts)
    if FileSystems.exists(shards):
        FileSystems.delete([shards])
    table = pa.concat_tables(tables) if tables else schema.empty_table()
    is_previous = table[PREVIOUS]
    table = table.drop([PREVIOUS])
    return table.filter(pc.invert(is_previous)), table.filter(is_previous)


class _Models(dict):
    """Name to signature; a class of its own, because Beam shares objects by weak reference."""

    loaded: Any  # the SavedModels: a signature does not keep its model's variables alive


class _Measure(beam.DoFn):
    """Batches of serialized lists → tables of metrics.  The models are loaded once per worker process."""

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
    """A context feature's value as text, one per list; tokens are joined by spaces, as in the source."""
    if isinstance(column, list_examples.Tokens):
        cuts = column.row_splits
        return [" ".join(map(_text, column.values[cuts[i] : cuts[i + 1]])) for i in range(lists)]
    return [_text(value) for value in column]


def _text(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)


def _read(path: str) -> bytes:
    with FileSystems.open(path) as file:
        return bytes(file.read())
