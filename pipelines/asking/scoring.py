"""Scores files with an exported model: `tfx-ranking rank`.

Input: a SavedModel and a file of any input format.  Output: a score and a rank for every item.  It calls the model's
`list_example` signature, batch by batch, while a thread reads and encodes the next lists.  It needs TensorFlow and the
readers, but not TFX.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rich.console
import rich.progress

from tfx_ranking.components.errors import GroupOrderError, RankingError
from tfx_ranking.components.evaluation import scores as model_scores
from tfx_ranking.components.formats import chunks
from tfx_ranking.components.ingestion import grouping
from tfx_ranking.components.lists.list_examples import encode
from tfx_ranking.pipelines.asking import inspection, score_files, unlabelled
from tfx_ranking.pipelines.quiet import quiet_imports

LISTS_A_CALL = 256
PADDED = 1 << 22  # scores of one call, with the padding
_EVERY = 5.0  # seconds between two lines of progress where there is no terminal


@dataclasses.dataclass(frozen=True)
class Ranked:
    """What was scored; the files have `items` + `reading.lost` items."""

    lists: int
    items: int
    reading: unlabelled.Reading
    seconds: float  # without loading the model


def rank(
    directory: pathlib.Path,
    inputs: Sequence[str],
    output: pathlib.Path | None = None,
    format: str | None = None,
    config: pathlib.Path | None = None,
) -> Ranked:
    """Scores the files that `inputs` match; writes to `output`, or as CSV to standard output.

    directory: a SavedModel of tfx-ranking, or a folder of versions.  format, config: see `unlabelled.read_config`.
    Raises RankingError when nothing could be scored; then nothing is written.
    """
    make_writer = score_files.writer_of(output)
    model = inspection.inspect(directory).directory
    ranking = unlabelled.read_config(model, inputs, format, config)
    features = unlabelled.features(model, ranking)
    files = unlabelled.requests(ranking, features)
    console = rich.console.Console(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
    score = load(model)

    def once(show: Callable[[int], None], in_memory: bool) -> Ranked:
        with score_files.whole(output) as file:
            writer = make_writer(file)
            try:
                ranked = _rank(score, features, files, writer, show, in_memory)
            finally:
                writer.close()
            report(ranked, console)
            if not ranked.items:
                raise RankingError(
                    f"{', '.join(inputs)}: nothing could be scored; read as {ranking.data.format}, "
                    "which --format changes."
                )
        return ranked

    with progress(console) as show:
        try:
            ranked = once(show, in_memory=False)
        except GroupOrderError:
            if ranking.data.order == "grouped":
                raise
            console.print("the rows of a list stand apart: beginning again, with all rows in memory to group them")
            ranked = once(show, in_memory=True)
    console.print(
        f"scored {ranked.items:,} items of {ranked.lists:,} lists, {ranked.reading.lost:,} bad, "
        f"in {ranked.seconds:.1f} s ({ranked.items / max(ranked.seconds, 1e-9):,.0f} items/s)"
        + (f": {output}" if output else "")
    )
    return ranked


def report(ranked: Ranked, console: rich.console.Console) -> None:
    """Tells what could not be scored, and why."""
    reading = ranked.reading
    for line in unlabelled.bad_lines(reading):
        console.print(line)
    if differing := reading.counts["context_differs"]:
        console.print(f"{differing:,} lists have rows that differ in a context value; the first row's counts")
    if reading.items != ranked.items + reading.lost:
        raise RuntimeError(
            f"{reading.items} items came, {ranked.items} were scored and {reading.lost} set aside; some were lost. "
            "This is a fault of tfx-ranking."
        )


Score = Callable[[list[bytes]], tuple[np.ndarray, np.ndarray]]


def load(model: pathlib.Path) -> Score:
    """The model's `list_example` signature: list examples to (scores float32 [item], sizes int64 [list])."""
    with quiet_imports():
        import tensorflow as tf

    loaded = tf.saved_model.load(str(model))
    if model_scores.SIGNATURE not in loaded.signatures:
        raise RankingError(
            f"{model}: expected a signature 'list_example'; it has {', '.join(sorted(loaded.signatures))}. "
            "Export it again with a current tfx-ranking."
        )

    def score(protos: list[bytes], model: Any = loaded) -> tuple[np.ndarray, np.ndarray]:
        return model_scores.scores_and_sizes(model.signatures[model_scores.SIGNATURE], protos)

    return score


def ranks(scores: np.ndarray, row_splits: np.ndarray) -> np.ndarray:
    """int64 [item]: each item's rank in its list, from 1, highest score first, ties in their order.

    >>> ranks(np.float32([0.5, 2.0, 0.5, 7.0]), np.array([0, 3, 4]))
    array([2, 1, 3, 1])
    """
    lengths = np.diff(row_splits)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((-scores, owner))  # stable
    placed = np.empty(len(scores), np.int64)
    placed[order] = np.arange(len(scores)) - row_splits[:-1][owner] + 1
    return placed


class Batch(NamedTuple):
    """Lists that are sent to the model in one call."""

    group_id: pa.Array  # string [list]
    item_id: pa.Array  # string [item]
    row_splits: np.ndarray
    protos: list[bytes]


def batches(source: Iterator[grouping.Lists], request: chunks.FileRequest, features: set[str]) -> Iterator[Batch]:
    """Lists encoded as the model reads them, LISTS_A_CALL at a time, fewer where one of them is very long."""
    data = request.data
    sent = {name: column for name, column in request.table.items() if name in features}
    for lists in source:
        for start, end in _calls(np.diff(lists.row_splits)):
            part = lists.between(start, end)
            _, batch, _ = grouping.arrange(part, data, request.table, 0.0)
            item_id = _item_ids(part, part.items.get(data.item_id) if data.item_id else None)
            yield Batch(score_files.text(part.context[data.group_id]), item_id, part.row_splits, encode(batch, sent))


def _calls(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """Which lists go together, first and end: the answer is a matrix as wide as the longest of them."""
    start = 0
    while start < len(lengths):
        widest = np.maximum.accumulate(lengths[start : start + LISTS_A_CALL])
        fit = int(np.searchsorted(widest * np.arange(1, len(widest) + 1), PADDED, side="right"))
        yield start, start + max(fit, 1)
        start += max(fit, 1)


def _item_ids(lists: grouping.Lists, ids: pa.Array | None) -> pa.Array:
    """string [item]: the item's own id, or its place in its list, from 0."""
    lengths = np.diff(lists.row_splits)
    index = np.arange(lists.row_splits[-1]) - np.repeat(lists.row_splits[:-1], lengths)
    made = pa.array(index).cast(pa.string())
    return made if ids is None else pc.coalesce(score_files.text(ids), made)


def _rank(
    score: Score,
    features: set[str],
    files: list[chunks.FileRequest],
    writer: score_files.Writer,
    show: Callable[[int], None],
    in_memory: bool,
) -> Ranked:
    began = time.perf_counter()
    reading = unlabelled.Reading()
    lists = items = 0
    # Three threads: one reads, one groups and encodes, this one scores and writes.
    for batch in chunks.read_ahead(batches(unlabelled.lists(files, reading, in_memory), files[0], features)):
        scores, sizes = score(batch.protos)
        if not np.array_equal(sizes, np.diff(batch.row_splits)):
            raise RuntimeError("the model saw lists of other sizes than were sent; this is a fault of tfx-ranking")
        owner = pa.array(np.repeat(np.arange(len(sizes)), sizes))
        placed = ranks(scores, batch.row_splits)
        writer.write(score_files.Scored(batch.group_id.take(owner), batch.item_id, scores, placed))
        lists, items = lists + len(sizes), items + len(scores)
        show(items)
    return Ranked(lists, items, reading, time.perf_counter() - began)


@contextlib.contextmanager
def progress(console: rich.console.Console) -> Iterator[Callable[[int], None]]:
    """Shows how many items are scored: a line that moves on a terminal, plain lines elsewhere."""
    if console.is_terminal:
        shown = "[bold]{task.completed:,}[/] items scored, {task.fields[rate]:,.0f} items/s"
        parts = rich.progress.SpinnerColumn(), rich.progress.TextColumn(shown), rich.progress.TimeElapsedColumn()
        with rich.progress.Progress(*parts, console=console, transient=True) as bar:
            task, began = bar.add_task("", total=None, rate=0.0), time.perf_counter()
            yield lambda items: bar.update(task, completed=items, rate=items / max(time.perf_counter() - began, 1e-9))
        return
    began = last = time.perf_counter()

    def show(items: int) -> None:
        nonlocal last
        now = time.perf_counter()
        if now - last >= _EVERY:
            last = now
            console.print(f"{items:,} items scored, {items / (now - began):,.0f} items/s")

    yield show
