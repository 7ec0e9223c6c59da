"""Reads lists to score from files of any input format; labels, weights and positions are not needed.

Input: an exported model's config, and file names.  Output: `grouping.Lists`, and a `Reading` that counts bad records.
It uses the pipeline's own readers with fewer columns.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices.formats import FORMATS
from tfx_ranking.components.config import RankingConfig, from_selection
from tfx_ranking.components.errors import RankingError, UsageError
from tfx_ranking.components.exported import contract
from tfx_ranking.components.exported.model_files import CONFIG_IN_MODEL
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping, sources, workers
from tfx_ranking.components.lists.list_examples import columns

SHOWN = 20  # bad records that are printed one by one


@dataclasses.dataclass
class Reading:
    """Counts of the records read so far: `items` = items of the lists + `lost`.

    bad: (file, record) of each record that cannot be used.
    """

    items: int = 0  # all items in the files, with those of bad records
    lost: int = 0  # items of bad records
    bad: list[tuple[str, chunks.BadRecord]] = dataclasses.field(default_factory=list)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def add(self, chunk: chunks.Chunk, path: str) -> None:
        self.items += chunk.records
        self.lost += sum(bad.items for bad in chunk.bad)
        self.bad.extend((path, bad) for bad in chunk.bad)
        self.counts.update(chunk.counts)


def read_config(
    model: pathlib.Path, patterns: Sequence[str], format: str | None = None, override: pathlib.Path | None = None
) -> RankingConfig:
    """Reads the config that a model was exported with, and sets how to read the files of `patterns` (may be empty).

    format: a row of `choices.formats.FORMATS`; else the override's, else guessed from the file name.  override: a
    ranking.yaml whose `data` section describes the files.  Raises RankingError if tfx-ranking did not export the
    model, or if the format cannot be guessed.
    """
    file = model / CONFIG_IN_MODEL
    if not file.is_file():
        raise RankingError(
            f"{model}: expected {CONFIG_IN_MODEL}, which describes the features; the file is missing. "
            "Only a model exported by tfx-ranking has it."
        )
    selection = json.loads(file.read_text())
    data = selection["data"]
    if not patterns:
        return from_selection(selection)
    trained_on = data["format"]
    if override is not None:
        data = json.loads(ranking_config.load(override).select("data"))["data"]
    chosen = format or (data["format"] if override is not None else _agreed(patterns, trained_on))
    if chosen not in FORMATS:
        raise UsageError(f"--format {chosen}: expected one of {', '.join(FORMATS)}.")
    if not FORMATS[chosen].size_files:
        data.pop("group_sizes", None)
    if not FORMATS[chosen].lists:
        data.pop("group_from", None)
    for key in ("max_items", "no_relevant"):  # every list is scored, whole
        data.pop(key, None)
    return from_selection({**selection, "data": {**data, "format": chosen, "input": list(patterns)}})


def guess(name: str, trained_on: str) -> str:
    """Guesses the input format from a file's name.  Raises RankingError if it cannot.

    trained_on: the format of the training data, which decides between the kinds of TFRecord.

    >>> guess("logs/may-*.csv.gz", "elwc"), guess("test_elwc.tfrecord", "csv"), guess("test.tfrecord", "elwc")
    ('csv', 'elwc', 'elwc')
    """
    base = pathlib.PurePath(name).name.lower().removesuffix(".gz")
    ending = pathlib.PurePath(base).suffix
    by_ending = [name for name, form in FORMATS.items() if ending in form.endings]
    if by_ending:
        return by_ending[0]
    named = [name for name, form in FORMATS.items() if form.tfrecord and name in base]
    if len(named) == 1:
        return named[0]
    if ending in (".tfrecord", ".tfrecords") and FORMATS[trained_on].tfrecord:
        return trained_on
    raise RankingError(
        f"{name}: cannot guess the format from the name; set it with --format, one of {', '.join(FORMATS)}."
    )


def _agreed(patterns: Sequence[str], trained_on: str) -> str:
    guesses = {guess(pattern, trained_on): pattern for pattern in patterns}
    if len(guesses) > 1:
        formats = ", ".join(f"{pattern} {name}" for name, pattern in guesses.items())
        raise RankingError(f"the input: all files must have one format; by their names they have: {formats}.")
    return next(iter(guesses))


def features(model: pathlib.Path, config: RankingConfig) -> set[str]:
    """The features that the model's requests are searched for: with `serving.required_only` fewer than the config's."""
    promised = contract.read(model)
    served = config.serving.rename
    return {name for name in config.features if promised is None or served.get(name, name) in promised["features"]}


def requests(config: RankingConfig, wanted: set[str]) -> list[chunks.FileRequest]:
    """One for each file that `data.input` matches, sorted by path.  Raises DataError when none does.

    wanted: the features to read; the files need no others.
    """
    data = config.data
    assert isinstance(data.input, tuple)
    matches = sources.files_matching(list(data.input), "the input", data)
    wanted = {*wanted, data.group_id, *([data.item_id] if data.item_id else [])}
    table = {name: column for name, column in columns(config).items() if name in wanted}
    # A request to a server may omit these, too.
    optional = {data.item_id} if data.item_id else set()
    if FORMATS[data.format].lists:
        optional.add(data.group_id)
    return [
        chunks.FileRequest(path, name, data, table, side=side, optional=frozenset(optional))
        for (path, side), name in zip(matches, sources.names_below([path for path, _ in matches]))
    ]


def bad_lines(reading: Reading) -> Iterator[str]:
    """A line for each bad record, with its position and reason, and one line for all after the first `SHOWN`."""
    for path, bad in reading.bad[:SHOWN]:
        yield f"bad: {path}: {bad.position}: {bad.reason}"
    if len(reading.bad) > SHOWN:
        yield f"bad: {len(reading.bad) - SHOWN:,} more records"


def lists(files: list[chunks.FileRequest], reading: Reading, in_memory: bool = False) -> Iterator[grouping.Lists]:
    """All lists of the files, in their order; a group id is null in no list.

    Rows are grouped as they come; raises GroupOrderError when those of one list stand apart.  in_memory: all rows are
    held, in any order; a list stands where its first row does.
    """
    if FORMATS[files[0].data.format].lists:
        return records_as_lists(files, reading)
    return _gathered(files, reading) if in_memory else _streamed(files, reading)


def records_as_lists(files: list[chunks.FileRequest], reading: Reading) -> Iterator[grouping.Lists]:
    """The lists of a format whose records are lists; one without a group id is called `<file>:<record>`."""
    for request in files:
        for chunk in workers.checked(request):
            reading.add(chunk, request.path)
            lists = workers.lists_of_chunk(chunk, request)
            group_id = request.data.group_id
            if lists.context[group_id].null_count:
                made_up = pa.array([f"{request.name}:{at}".encode() for at in lists.positions.tolist()], pa.binary())
                lists.context[group_id] = pc.coalesce(lists.context[group_id], made_up)
            yield lists


def grouped(parts: Iterable[chunks.Chunk], request: chunks.FileRequest) -> grouping.Lists:
    """All rows of some chunks (at least one) as lists, each where its first row stands."""
    parts = list(parts)
    rows = {name: pa.concat_arrays([chunk.columns[name] for chunk in parts]) for name in request.table}
    positions = np.concatenate([chunk.positions for chunk in parts])
    order = np.argsort(rows[request.data.group_id].dictionary_encode().indices.to_numpy(), kind="stable")
    rows = {name: array.take(pa.array(order)) for name, array in rows.items()}
    return grouping.cut(rows, positions[order], request.table, request.data.group_id)


def _streamed(files: list[chunks.FileRequest], reading: Reading) -> Iterator[grouping.Lists]:
    seen: dict[bytes, tuple[str, int]] = {}  # group → its file and row, of the files before
    for request in files:
        own: dict[bytes, tuple[str, int]] = {}
        for chunk, lists in grouping.stream(workers.checked(request), request):
            reading.add(chunk, request.path)
            if len(files) > 1:
                for group, row in zip(lists.context[request.data.group_id].to_pylist(), lists.positions.tolist()):
                    if group in seen:
                        raise grouping.group_order_error(group, seen[group], (request.path, row))
                    own[group] = request.path, row
            yield lists
        seen.update(own)


def _gathered(files: list[chunks.FileRequest], reading: Reading) -> Iterator[grouping.Lists]:
    parts: list[chunks.Chunk] = []
    for request in files:
        for chunk in workers.checked(request):
            reading.add(chunk, request.path)
            parts.append(chunk)
    if parts:
        yield grouped(parts, files[0])
