"""Compares list examples with flat Examples of the same items in TFX's ImportExampleGen, StatisticsGen and Transform.

Both run as ordinary TFX pipelines in one process, with the DirectRunner in memory.  The first preprocessing_fn of the
flat Examples is written as in TFX's own examples: each feature becomes its z-score.  The second one works as ours for
list examples: all numbers in one matrix with one analyzer.  The seconds are those of the executors.  The marginal rate
is computed from two sizes.

    python benchmarks/transform.py [--items 500000]
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.example_gen.import_example_gen import executor as import_executor
from tfx.components.example_gen.import_example_gen.component import ImportExampleGen
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen import executor as statistics_executor
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.transform import executor as transform_executor
from tfx.components.transform.component import Transform
from tfx.dsl.components.base import executor_spec
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.proto import example_gen_pb2

from tfx_ranking.components import preprocessing, schema_gen
from tfx_ranking.components.config import RankingConfig, parse
from tfx_ranking.components.lists.list_examples import (
    Column,
    ListBatch,
    Tokens,
    columns,
    encode,
    read_records,
    write_records,
)
from tfx_ranking.pipelines.search_logs import numeric_lists

FLOATS, PARTS = 46, 8
FLAT_NUMBERS = [*(f"f{i + 1}" for i in range(FLOATS)), "stock"]
STEPS = ("ImportExampleGen", "StatisticsGen", "Transform")
BEAM_ARGS = ["--runner=DirectRunner", "--direct_running_mode=in_memory", "--direct_num_workers=1"]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--items", type=int, default=500_000)
    items = arguments.parse_args().items
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        fewer = items // 10
        run_lists(root / "warm-up", 2_000)
        few = run_lists(root / "few", fewer)
        lists = run_lists(root / "lists", items)
        flat = run_flat(root / "flat", items)
        equal(check(root / "lists", "Transform", "items/"), check(root / "flat", "Transform.matrix", ""), items)

    matrix = flat.pop("Transform.matrix")
    print(
        f"\n{items:,} items x {FLOATS + 4} features, {os.cpu_count()} cores, DirectRunner in memory, seconds wall (CPU)"
    )
    print(f"{'':32}{'flat':>16}{'lists':>16}{'ratio':>16}")
    show("ImportExampleGen", flat["ImportExampleGen"], lists["ImportExampleGen"])
    show("StatisticsGen", flat["StatisticsGen"], lists["StatisticsGen"])
    show("Transform", flat["Transform"], lists["Transform"], "  (at least 4x)")
    show("Transform, flat as one matrix", matrix, lists["Transform"])
    show(
        "the three together",
        *(sum((side[step] for step in STEPS), Taken(0, 0)) for side in (flat, lists)),
        "  (at least 5x)",
    )
    more = lists["Transform"] - few["Transform"]
    rates = f"{(items - fewer) / more.wall:,.0f} ({(items - fewer) / more.cpu:,.0f}) items/s"
    print(f"Transform of lists, marginal: {rates}  (at least 60,000; {fewer:,} items took {few['Transform']})")


class Taken(NamedTuple):
    """Seconds; the CPU seconds of all threads are more reliable when other programs run."""

    wall: float
    cpu: float

    def __add__(self, other: "Taken") -> "Taken":  # type: ignore[override]
        return Taken(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: "Taken") -> "Taken":
        return Taken(self.wall - other.wall, self.cpu - other.cpu)

    def __str__(self) -> str:
        return f"{self.wall:.1f} ({self.cpu:.1f})"


def show(what: str, flat: Taken, lists: Taken, wanted: str = "") -> None:
    ratio = f"{flat.wall / lists.wall:.1f}x ({flat.cpu / lists.cpu:.1f}x)"
    print(f"{what:32}{flat!s:>16}{lists!s:>16}{ratio:>16}{wanted}")


def ranking_config() -> RankingConfig:
    return parse(
        {
            "name": "benchmark",
            "data": {"input": "none", "format": "list_example"},
            "items": {
                f"f[1-{FLOATS}]": {"transform": ["z_score"]},
                "stock": {"dtype": "int", "transform": ["z_score"]},
                "brand": {"dtype": "string", "vocabulary": {}},
                "category": {"dtype": "string", "vocabulary": {}},
                "title": {"dtype": "string", "tokens": {"top_k": 2000}},
            },
        }
    )


def documents(items: int) -> ListBatch:
    """Made-up lists of 5 to 120 items; brands and words are as unevenly frequent as in a shop."""
    numbers, rng = numeric_lists(items, FLOATS), np.random.default_rng(1)
    brands, categories, words = (
        [f"{kind}{i}".encode() for i in range(n)] for kind, n in (("b", 1000), ("c", 50), ("w", 3000))
    )
    pick = lambda values: np.array(values, object)[np.minimum(rng.zipf(1.3, items) - 1, len(values) - 1)]  # noqa: E731
    titles = pick(words) + b" " + pick(words) + b" " + pick(words)
    features = {f"f{i + 1}": np.ascontiguousarray(numbers.features[:, i]) for i in range(FLOATS)}
    features |= {"stock": rng.integers(0, 99, items), "brand": pick(brands), "category": pick(categories)}
    features |= {"title": titles, "label": numbers.labels}
    group_ids = np.char.encode(np.arange(1, len(numbers.row_splits)).astype(str)).astype(object)
    return ListBatch({"group_id": group_ids}, features, numbers.row_splits)


def chunks(batch: ListBatch) -> Iterator[ListBatch]:
    """The batch in `PARTS` parts of whole lists, so that encoding needs little memory."""
    splits = batch.row_splits
    size = -(-(len(splits) - 1) // PARTS)
    for first in range(0, len(splits) - 1, size):
        rows = splits[first : first + size + 1]
        context = {name: value[first : first + size] for name, value in batch.context.items()}
        yield ListBatch(context, {n: value[rows[0] : rows[-1]] for n, value in batch.items.items()}, rows - rows[0])


def run_lists(root: pathlib.Path, items: int) -> dict[str, Taken]:
    config = ranking_config()

    def encoded(part: ListBatch) -> list[bytes]:
        title = part.items["title"]
        part.items["title"] = Tokens(title, np.arange(len(title) + 1))
        return encode(part, columns(config))

    write(root, map(encoded, chunks(documents(items))))
    examples, statistics = sources(root)
    schema = schema_gen.RankingSchemaGen(
        statistics=statistics.outputs["statistics"], config=config.select(*schema_gen.READS)
    )
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=f"{preprocessing.__name__}.preprocessing_fn",
        custom_config={"config": config.select(*preprocessing.READS)},
        disable_statistics=True,
    )
    return run(root, [examples, statistics, schema, transform])


def run_flat(root: pathlib.Path, items: int) -> dict[str, Taken]:
    kinds = {f"f{i + 1}": "float" for i in range(FLOATS)} | {"stock": "int", "label": "float"}
    kinds |= dict.fromkeys(("group_id", "brand", "category", "title"), "string")
    table = {name: Column("context", kind) for name, kind in kinds.items()}

    def encoded(part: ListBatch) -> list[bytes]:
        group_id = np.repeat(part.context["group_id"], np.diff(part.row_splits))
        return encode(ListBatch({"group_id": group_id, **part.items}, {}, np.arange(part.row_splits[-1] + 1)), table)

    write(root, map(encoded, chunks(documents(items))))
    examples, statistics = sources(root)
    schema = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    transforms = []
    for name, function in (("", "flat_preprocessing_fn"), (".matrix", "flat_matrix_preprocessing_fn")):
        transform = Transform(
            examples=examples.outputs["examples"],
            schema=schema.outputs["schema"],
            preprocessing_fn=f"{pathlib.Path(__file__).stem}.{function}",
            disable_statistics=True,
        )
        transforms.append(transform.with_id(f"Transform{name}"))
    return run(root, [examples, statistics, schema, *transforms])


def flat_preprocessing_fn(inputs):
    """The same features as the ranking config's, for one item per Example, written as in TFX's own examples."""
    numbers = {name: tft.scale_to_z_score(tf.cast(inputs[name], tf.float32)) for name in FLAT_NUMBERS}
    return {**numbers, **flat_categories(inputs)}


def flat_matrix_preprocessing_fn(inputs):
    """The same with all numbers in one matrix and one analyzer."""
    matrix = tf.stack([tf.cast(inputs[name], tf.float32) for name in FLAT_NUMBERS], axis=1)
    return {"numeric": tft.scale_to_z_score(matrix, elementwise=True), **flat_categories(inputs)}


def flat_categories(inputs):
    words = tf.strings.split(tf.strings.lower(inputs["title"], encoding="utf-8"))
    learn = tft.compute_and_apply_vocabulary
    return {
        "brand": learn(inputs["brand"], num_oov_buckets=1),
        "category": learn(inputs["category"], num_oov_buckets=1),
        "title": learn(words, num_oov_buckets=1, top_k=2000),
        "label": inputs["label"],
        "group_id": inputs["group_id"],
    }


def write(root: pathlib.Path, parts: Iterable[list[bytes]]) -> None:
    """Every fourth part is the eval split, so that both sides learn from the same items."""
    (root / "input").mkdir(parents=True)
    for i, records in enumerate(parts):
        write_records(str(root / "input" / f"{'train' if i % 4 else 'eval'}-{i}.gz"), records)


def sources(root: pathlib.Path) -> tuple[ImportExampleGen, StatisticsGen]:
    splits = [example_gen_pb2.Input.Split(name=name, pattern=f"{name}-*.gz") for name in ("train", "eval")]
    examples = ImportExampleGen(input_base=str(root / "input"), input_config=example_gen_pb2.Input(splits=splits))
    return examples, StatisticsGen(examples=examples.outputs["examples"])


def run(root: pathlib.Path, components: list) -> dict[str, Taken]:
    """Measures the time of each component's executor."""
    for component in components:
        timed = TIMED.get(component.executor_spec.executor_class)
        if timed:
            component.executor_spec = executor_spec.BeamExecutorSpec(timed)
    TAKEN.clear()
    LocalDagRunner().run(
        pipeline.Pipeline(
            pipeline_name="benchmark",
            pipeline_root=str(root / "artifacts"),
            components=components,
            metadata_connection_config=metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite")),
            beam_pipeline_args=BEAM_ARGS,
            enable_cache=False,
        )
    )
    ids = [component.id for component in components if component.executor_spec.executor_class in TIMED.values()]
    taken = dict(zip(ids, TAKEN))
    print(root.name, {name: str(each) for name, each in taken.items()}, file=sys.stderr)
    return taken


TAKEN: list[Taken] = []  # by each executor in turn


class Timed:
    """A mixin: list it before a TFX executor among the bases."""

    def Do(self, *arguments, **named):
        wall, cpu = time.perf_counter(), time.process_time()
        super().Do(*arguments, **named)
        TAKEN.append(Taken(time.perf_counter() - wall, time.process_time() - cpu))


class TimedImport(Timed, import_executor.Executor):
    pass


class TimedStatistics(Timed, statistics_executor.Executor):
    pass


class TimedTransform(Timed, transform_executor.Executor):
    pass


TIMED = {timed.__mro__[2]: timed for timed in (TimedImport, TimedStatistics, TimedTransform)}


def check(root: pathlib.Path, component: str, prefix: str) -> dict[str, float]:
    """Sums over everything that Transform wrote, to check that both sides did the same work."""
    [graph] = (root / "artifacts" / component / "transform_graph").iterdir()
    spec = tft.TFTransformOutput(str(graph)).transformed_feature_spec()
    files = [str(each) for each in (root / "artifacts" / component / "transformed_examples").glob("*/Split-*/*")]
    sums: dict[str, float] = {}
    for batch in tf.data.Dataset.from_generator(
        lambda: read_records(files), output_signature=tf.TensorSpec([], tf.string)
    ).batch(512):
        features = tf.io.parse_example(batch, spec)
        flat = {name: getattr(value, "flat_values", value) for name, value in features.items()}
        numeric, sparse = flat[f"{prefix}numeric"].numpy().astype(np.float64), flat[f"{prefix}title"]
        title = sparse.values if isinstance(sparse, tf.SparseTensor) else sparse
        for name, value in {
            "items": len(numeric),
            "numbers": numeric.sum(),
            "squares": (numeric**2).sum(),
            "brands": tf.reduce_sum(flat[f"{prefix}brand"]).numpy(),
            "categories": tf.reduce_sum(flat[f"{prefix}category"]).numpy(),
            "tokens": tf.reduce_sum(title).numpy(),
            "labels": tf.reduce_sum(flat["label"]).numpy(),
        }.items():
            sums[name] = sums.get(name, 0.0) + float(value)
    return sums


def equal(lists: dict[str, float], flat: dict[str, float], items: int) -> None:
    if lists["items"] != items or any(not np.isclose(lists[name], flat[name], rtol=1e-4, atol=10.0) for name in flat):
        raise SystemExit(f"The two sides did not do the same work: lists {lists}, flat {flat}.")


if __name__ == "__main__":
    main()
