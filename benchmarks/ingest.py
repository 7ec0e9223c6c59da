"""RankingExampleGen's rate for each format, beside scikit-learn's reader of the same LETOR file.

Items of 46 features in lists of 5 to 120, through Beam's in-memory runner to gzip list examples in three splits.  The
marginal rate is what a further item costs: runs of two sizes take turns, and of each the fastest counts, since the
speed of a machine that others use as well swings by more than what is measured.  A sample of each format's lists is
compared with what a plain loop reads from the same file.

    python benchmarks/ingest.py [--items 200000] [--turns 3] [--formats letor csv ...]
"""

import argparse
import contextlib
import csv
import io
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import tensorflow as tf
from sklearn.datasets import load_svmlight_file
from tensorflow_serving.apis import input_pb2
from tfx_bsl.coders.example_coder import RecordBatchToExamplesEncoder

from tfx_ranking.components import example_gen
from tfx_ranking.components.config import RankingConfig, parse
from tfx_ranking.components.lists.list_examples import columns, decode, read_records, split_files
from tfx_ranking.pipelines.search_logs import NumericLists, numeric_lists, numeric_table, write_letor

FEATURES, SMALL, SAMPLE = 46, 0.1, 50
NAMES = [f"f{i + 1}" for i in range(FEATURES)]
List = tuple[bytes, np.ndarray, np.ndarray]  # group id, float32 [item, feature], float32 [item]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--items", type=int, default=200_000)
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--formats", nargs="*", default=list(CASES), choices=list(CASES))
    options = arguments.parse_args()
    print(f"{options.items:,} items x {FEATURES} features, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    lists = {
        "small": numeric_lists(int(options.items * SMALL), FEATURES),
        "large": numeric_lists(options.items, FEATURES),
    }
    yardstick = None
    for name in options.formats:
        format, order, write, slow, wanted = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            files = {size: pathlib.Path(folder) / size for size in lists}
            for size, made in lists.items():
                write(made, files[size])
            seconds: dict[str, list[float]] = {size: [] for size in lists}
            sklearn: dict[str, list[float]] = {size: [] for size in lists}
            for _ in range(options.turns):
                for size, file in files.items():
                    if format == "letor":
                        sklearn[size].append(_seconds(load_svmlight_file, str(file), query_id=True))
                    seconds[size].append(_seconds(ingest, file, format, order))
            check(files["small"], format, order, slow)
            rate = _marginal(lists, seconds)
            comparison = f"wanted {wanted:,}" if wanted else ""
            if format == "letor":
                yardstick = _marginal(lists, sklearn)
                comparison = f"scikit-learn {yardstick:,.0f} items/s, {rate / yardstick:.2f} times that; wanted 0.50"
            print(
                f"{name:28s} {rate:10,.0f} items/s  ({min(seconds['large']):.2f} s whole run)  {comparison}", flush=True
            )


def config(file: pathlib.Path, format: str, order: str) -> RankingConfig:
    data = {"input": str(file), "format": format, "order": order, "label_range": [0, 4]}
    return parse({"name": "ingest", "data": data, "items": {f"f[1-{FEATURES}]": {}}})


def ingest(file: pathlib.Path, format: str, order: str) -> None:
    cfg = config(file, format, order)
    with tempfile.TemporaryDirectory() as folder:
        example_gen.ingest(cfg, example_gen.resolve(cfg.data), folder)


def check(file: pathlib.Path, format: str, order: str, slow: Callable[[pathlib.Path], Iterator[List]]) -> None:
    """The file's first lists, as the plain loop reads them, are among the lists that were written, equal to the bit."""
    cfg = config(file, format, order)
    lists_read = {}
    with tempfile.TemporaryDirectory() as folder:
        properties = example_gen.ingest(cfg, example_gen.resolve(cfg.data), folder)
        for split in properties["split_names"]:
            batch = decode(list(read_records(split_files(folder, split))), columns(cfg))
            matrix = np.stack([batch.items[name] for name in NAMES], axis=1)
            for i, group in enumerate(batch.context["group_id"]):
                items = slice(batch.row_splits[i], batch.row_splits[i + 1])
                lists_read[group] = (matrix[items], batch.items["label"][items])
    for (group, features, labels), _ in zip(slow(file), range(SAMPLE)):
        np.testing.assert_array_equal(lists_read[group][0], features)
        np.testing.assert_array_equal(lists_read[group][1], labels)


def _seconds(call: Callable[..., object], *arguments: object, **named: object) -> float:
    start = time.perf_counter()
    with contextlib.redirect_stderr(io.StringIO()):
        call(*arguments, **named)
    return time.perf_counter() - start


def _marginal(lists: dict[str, NumericLists], seconds: dict[str, list[float]]) -> float:
    items = len(lists["large"].labels) - len(lists["small"].labels)
    return items / (min(seconds["large"]) - min(seconds["small"]))


# Writers


def write_csv(lists: NumericLists, file: pathlib.Path) -> None:
    pyarrow.csv.write_csv(numeric_table(lists), str(file))


def write_parquet(lists: NumericLists, file: pathlib.Path) -> None:
    pyarrow.parquet.write_table(numeric_table(lists), str(file))


def write_elwc(lists: NumericLists, file: pathlib.Path) -> None:
    columns = [*lists.features.T, lists.labels]
    single = [
        pa.ListArray.from_arrays(pa.array(np.arange(len(c) + 1), pa.int32()), pa.array(c.copy())) for c in columns
    ]
    examples = RecordBatchToExamplesEncoder().encode(pa.RecordBatch.from_arrays(single, [*NAMES, "label"]))
    with tf.io.TFRecordWriter(str(file)) as writer:
        for i, (start, end) in enumerate(zip(lists.row_splits[:-1], lists.row_splits[1:])):
            body = b"".join(b"\x0a" + _varint(len(each)) + each for each in examples[start:end])
            context = _context(i).SerializeToString()
            writer.write(body + b"\x12" + _varint(len(context)) + context)


def write_sequence_each(lists: NumericLists, file: pathlib.Path) -> None:
    """One `Feature` an item, as TensorFlow's guide has it."""
    # FeatureList.feature (10 bytes): Feature.float_list (8): FloatList.value, packed (6): one float32 (4).
    head = np.frombuffer(b"\x0a\x08\x12\x06\x0a\x04", np.uint8)
    _write_sequences(lists, file, lambda values: _behind(head, values))


def write_sequence_whole(lists: NumericLists, file: pathlib.Path) -> None:
    """All items in one `Feature`, as ml4ir has it."""

    def feature_list(values: np.ndarray) -> bytes:
        body = values.tobytes()
        for tag in (b"\x0a", b"\x12", b"\x0a"):
            body = tag + _varint(len(body)) + body
        return body

    _write_sequences(lists, file, feature_list)


def _behind(head: np.ndarray, values: np.ndarray) -> bytes:
    rows = np.concatenate([np.tile(head, (len(values), 1)), values.copy().view(np.uint8).reshape(-1, 4)], axis=1)
    return rows.tobytes()


def _write_sequences(lists: NumericLists, file: pathlib.Path, feature_list: Callable[[np.ndarray], bytes]) -> None:
    with tf.io.TFRecordWriter(str(file)) as writer:
        for i, (start, end) in enumerate(zip(lists.row_splits[:-1], lists.row_splits[1:])):
            entries = []
            for name, column in zip([*NAMES, "label"], [*lists.features[start:end].T, lists.labels[start:end]]):
                value = feature_list(np.ascontiguousarray(column, np.float32))
                entry = b"\x0a" + _varint(len(name)) + name.encode() + b"\x12" + _varint(len(value)) + value
                entries.append(b"\x0a" + _varint(len(entry)) + entry)
            context, body = _context(i).features.SerializeToString(), b"".join(entries)
            writer.write(b"\x0a" + _varint(len(context)) + context + b"\x12" + _varint(len(body)) + body)


def _context(i: int) -> tf.train.Example:
    example = tf.train.Example()
    example.features.feature["group_id"].bytes_list.value.append(b"%d" % (i + 1))
    return example


def _varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + _varint(number >> 7)


# Plain slow readers


def slow_letor(file: pathlib.Path) -> Iterator[List]:
    def rows() -> Iterator[tuple[bytes, list[float], float]]:
        for line in file.open():
            label, qid, *pairs = line.split()
            values = dict(pair.split(":") for pair in pairs)
            yield qid[4:].encode(), [float(values[str(i + 1)]) for i in range(FEATURES)], float(label)

    return _grouped(rows())


def slow_csv(file: pathlib.Path) -> Iterator[List]:
    with file.open() as opened:
        rows = (
            (row["group_id"].encode(), [float(row[name]) for name in NAMES], float(row["label"]))
            for row in csv.DictReader(opened)
        )
        yield from _grouped(rows)


def slow_parquet(file: pathlib.Path) -> Iterator[List]:
    rows = pyarrow.parquet.read_table(str(file)).slice(0, 120 * SAMPLE).to_pylist()
    return _grouped((b"%d" % row["group_id"], [row[name] for name in NAMES], row["label"]) for row in rows)


def slow_elwc(file: pathlib.Path) -> Iterator[List]:
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        made = input_pb2.ExampleListWithContext.FromString(record)
        values = [[e.features.feature[n].float_list.value[0] for n in [*NAMES, "label"]] for e in made.examples]
        table = np.array(values, np.float32)
        yield made.context.features.feature["group_id"].bytes_list.value[0], table[:, :-1], table[:, -1]


def slow_sequence(file: pathlib.Path) -> Iterator[List]:
    for record in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
        made = tf.train.SequenceExample.FromString(record)
        lists = made.feature_lists.feature_list
        values = [[v for f in lists[name].feature for v in f.float_list.value] for name in [*NAMES, "label"]]
        table = np.array(values, np.float32).T
        yield made.context.feature["group_id"].bytes_list.value[0], table[:, :-1], table[:, -1]


def _grouped(rows: Iterator[tuple[bytes, list[float], float]]) -> Iterator[List]:
    """Rows whose groups stand together, as lists; the last one, maybe cut, is left out."""
    group, features, labels = None, [], []
    for each, values, label in rows:
        if each != group and group is not None:
            yield group, np.array(features, np.float32), np.array(labels, np.float32)
            features, labels = [], []
        group = each
        features.append(values)
        labels.append(label)


CASES: dict[str, tuple[str, str, Callable, Callable, int | None]] = {
    "letor": ("letor", "grouped", write_letor, slow_letor, None),
    "letor, by shuffle": ("letor", "any", write_letor, slow_letor, None),
    "csv": ("csv", "grouped", write_csv, slow_csv, 150_000),
    "csv, by shuffle": ("csv", "any", write_csv, slow_csv, 150_000),
    "parquet": ("parquet", "grouped", write_parquet, slow_parquet, 150_000),
    "parquet, by shuffle": ("parquet", "any", write_parquet, slow_parquet, 150_000),
    "elwc": ("elwc", "any", write_elwc, slow_elwc, 60_000),
    "sequence, a Feature an item": ("sequence_example", "any", write_sequence_each, slow_sequence, 60_000),
    "sequence, one Feature": ("sequence_example", "any", write_sequence_whole, slow_sequence, 60_000),
}

if __name__ == "__main__":
    main()
