"""List examples through stock ImportExampleGen, StatisticsGen and Transform, beside the same items as flat Examples.

Both sides run as ordinary TFX pipelines in one process, DirectRunner in memory, and get the best that their format
allows: the flat side's preprocessing_fn scales its numbers as one matrix with one analyzer, too.  Seconds are those of
ML Metadata's executions.  The marginal rate is what a further item costs, from two sizes.

    python benchmarks/transform.py [--items 500000]
"""

import argparse
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import ml_metadata
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx.components.example_gen.import_example_gen.component import ImportExampleGen
from tfx.components.schema_gen.component import SchemaGen
from tfx.components.statistics_gen.component import StatisticsGen
from tfx.components.transform.component import Transform
from tfx.orchestration import metadata, pipeline
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.proto import example_gen_pb2

from tfx_ranking.components import preprocessing, schema_gen
from tfx_ranking.components.config import RankingConfig, parse
from tfx_ranking.components.list_examples import Column, ListBatch, Tokens, columns, encode, read_records, write_records
from tfx_ranking.pipelines.search_logs import numeric_lists

FLOATS, PARTS = 46, 8
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
        equal(check(root / "lists", "items/"), check(root / "flat", ""), items)

    print(f"\n{items:,} items x {FLOATS + 4} features, seconds ({os.cpu_count()} cores, DirectRunner in memory)")
    print(f"{'':24}{'flat':>10}{'lists':>10}{'ratio':>10}")
    for step in STEPS:
        print(f"{step:24}{flat[step]:10.1f}{lists[step]:10.1f}{flat[step] / lists[step]:9.1f}x")
    together = sum(flat[step] for step in STEPS), sum(lists[step] for step in STEPS)
    print(f"{'together':24}{together[0]:10.1f}{together[1]:10.1f}{together[0] / together[1]:9.1f}x  (at least 5x)")
    print(f"Transform alone: {flat['Transform'] / lists['Transform']:.1f}x  (at least 4x)")
    more = lists["Transform"] - few["Transform"]
    print(
        f"Transform of lists, marginal: {(items - fewer) / more:,.0f} items/s  (at least 60,000; "
        f"{fewer:,} items took {few['Transform']:.1f} s)"
    )


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


def run_lists(root: pathlib.Path, items: int) -> dict[str, float]:
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


def run_flat(root: pathlib.Path, items: int) -> dict[str, float]:
    kinds = {f"f{i + 1}": "float" for i in range(FLOATS)} | {"stock": "int", "label": "float"}
    kinds |= dict.fromkeys(("group_id", "brand", "category", "title"), "string")
    table = {name: Column("context", kind) for name, kind in kinds.items()}

    def encoded(part: ListBatch) -> list[bytes]:
        group_id = np.repeat(part.context["group_id"], np.diff(part.row_splits))
        return encode(ListBatch({"group_id": group_id, **part.items}, {}, np.arange(part.row_splits[-1] + 1)), table)

    write(root, map(encoded, chunks(documents(items))))
    examples, statistics = sources(root)
    schema = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    transform = Transform(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        preprocessing_fn=f"{pathlib.Path(__file__).stem}.flat_preprocessing_fn",
        disable_statistics=True,
    )
    return run(root, [examples, statistics, schema, transform])


def flat_preprocessing_fn(inputs):
    """What the ranking config derives, for one document an Example."""
    names = [*(f"f{i + 1}" for i in range(FLOATS)), "stock"]
    matrix = tf.stack([tf.cast(inputs[name], tf.float32) for name in names], axis=1)
    words = tf.strings.split(tf.strings.lower(inputs["title"], encoding="utf-8"))
    learn = tft.compute_and_apply_vocabulary
    return {
        "numeric": tft.scale_to_z_score(matrix, elementwise=True),
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


def run(root: pathlib.Path, components: list) -> dict[str, float]:
    """Seconds of each component's execution."""
    connection = metadata.sqlite_metadata_connection_config(str(root / "metadata.sqlite"))
    LocalDagRunner().run(
        pipeline.Pipeline(
            pipeline_name="benchmark",
            pipeline_root=str(root / "artifacts"),
            components=components,
            metadata_connection_config=connection,
            beam_pipeline_args=BEAM_ARGS,
            enable_cache=False,
        )
    )
    store = ml_metadata.MetadataStore(connection)
    seconds = {}
    for execution in store.get_executions():
        taken = execution.last_update_time_since_epoch - execution.create_time_since_epoch
        seconds[store.get_execution_types_by_id([execution.type_id])[0].name.rsplit(".", 1)[-1]] = taken / 1000
    print(root.name, {name: round(each, 1) for name, each in seconds.items()}, file=sys.stderr)
    return seconds


def check(root: pathlib.Path, prefix: str) -> dict[str, float]:
    """Sums over all that Transform wrote: enough to see that both sides did the same work."""
    [graph] = (root / "artifacts" / "Transform" / "transform_graph").iterdir()
    spec = tft.TFTransformOutput(str(graph)).transformed_feature_spec()
    files = [str(each) for each in (root / "artifacts" / "Transform" / "transformed_examples").glob("*/Split-*/*")]
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
