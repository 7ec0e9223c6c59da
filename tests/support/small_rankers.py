"""Makes a ranker's files in seconds, without a pipeline: list examples, transform graph, Keras model.

The network is not trained: its weights are random, so that every input changes the scores.  `SHOP` is a config with
features of every kind and every signature of the table; conftest's `shop` is its ranker, exported once per session.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import apache_beam as beam
import keras
import numpy as np
import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_transform as tft
from tensorflow_transform import beam as tft_beam
from tensorflow_transform.tf_metadata import metadata_io
from tfx_bsl.coders import example_coder
from tfx_bsl.public import tfxio

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import preprocessing, signature_exporter
from tfx_ranking.components.choices.signatures import COMPATIBILITY, SIGNATURES
from tfx_ranking.components.config import RankingConfig
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode, write_records
from tfx_ranking.components.schema_gen import ranking_schema
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import network_inputs
from tfx_ranking.components.serving import parity_sample
from tfx_ranking.components.serving.serving_ranker import ServingRanker
from tfx_ranking.components.signature_exporter import RankerPaths
from tfx_ranking.components.training import training_data

PreprocessingFn = Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]]

SHOP = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv", "group_id": "query_id", "position": "rank", "item_id": "sku"},
    "context": {
        "age": {"transform": ["z_score"], "default": 40.0, "indicator": True},
        "country": {"dtype": "string", "vocabulary": {"num_oov_buckets": 2}, "embedding": 3},
        "words": {"dtype": "string", "tokens": {}, "embedding": 4},
    },
    "items": {
        "price": {"transform": ["log1p", "z_score"], "default": 9.0},
        "sales": {"transform": ["min_max"]},
        "stock": {"dtype": "int", "default": 7},
        "visits": {"transform": [{"bucketize": 4}], "embedding": 2},
        "brand": {"dtype": "string", "hash": {"num_buckets": 16}, "embedding": 3},
        "title": {"dtype": "string", "tokens": {}, "embedding": 4},
        "image": {"shape": [3], "transform": ["min_max"]},
    },
    "model": {"hidden": [16, 8], "normalisation": "batch"},
    "serving": {
        "signatures": list(SIGNATURES),
        "compatibility": list(COMPATIBILITY),
        "rename": {"price": "price-eur"},
        "parity_lists": 12,
    },
})  # fmt: skip
SIZES = [1, 2, 7, 3, 11, 4, 5, 1, 6, 9, 2, 8, 10, 13, 3, 2]  # of the test split's lists


@dataclasses.dataclass(frozen=True, eq=False)
class Shop:
    """SHOP's ranker: its files, its SavedModel, and the parity report."""

    paths: RankerPaths
    served: pathlib.Path
    report: dict[str, Any]

    @functools.cached_property
    def ranker(self) -> ServingRanker:
        return signature_exporter.load_ranker(self.paths, SHOP)

    @functools.cached_property
    def sample(self) -> parity_sample.Sample:
        """Every list of the test split and the training path's scores of it."""
        specs = signature_exporter.transformed_specs(self.paths)
        return parity_sample.draw(self.ranker, self.paths.examples, self.paths.transformed_examples, specs, 1000)

    @functools.cached_property
    def trained(self) -> "TrainingPath":
        """Transforms and scores lists as training does."""
        return training_path(self.paths.transform_graph, self.paths.keras_model)


TrainingPath = Callable[[Sequence[bytes]], tuple[dict[str, Any], list[np.ndarray]]]


def training_path(transform_graph: str, keras_model: str) -> TrainingPath:
    """List examples → (transformed features by name, float32 [item] of each list), computed without the serving code.

    They are read by the raw schema's specs, transformed by TFT, and scored by the Keras model.
    """
    output = tft.TFTransformOutput(transform_graph)
    layer = output.transform_features_layer()
    network = keras.saving.load_model(keras_model, compile=False)

    def trained(list_examples: Sequence[bytes]) -> tuple[dict[str, Any], list[np.ndarray]]:
        if not list_examples:
            return {}, []
        parsed = tf.io.parse_example(tf.constant(list(list_examples)), output.raw_feature_spec())
        fed = {name: each for name, each in layer(parsed).items() if name.startswith(("items/", "context/"))}
        inputs = network_inputs(fed)
        scores = networks.scores_of(network(inputs, training=False))
        return fed, np.split(np.asarray(scores, np.float32), np.cumsum(inputs["row_lengths"])[:-1])

    return trained


def export_shop(folder: pathlib.Path) -> str:
    """Makes and exports SHOP's ranker; `exported_shop` reads it."""
    folder.mkdir()
    train = random_lists(SHOP, [5] * 40, seed=1)
    paths = make(folder / "ranker", SHOP, train, random_lists(SHOP, SIZES, seed=2))
    assert paths == paths_in(folder / "ranker")
    report = signature_exporter.export(paths, SHOP, folder / "exported", folder / "report.json")
    assert json.loads((folder / "exported" / "parity.json").read_text()) == report
    return "exported"


def exported_shop(folder: pathlib.Path) -> Shop:
    report = json.loads((folder / "exported" / "parity.json").read_text())
    return Shop(paths_in(folder / "ranker"), folder / "exported" / "Format-Serving", report)


def paths_in(folder: pathlib.Path) -> RankerPaths:
    """The files that `make` writes."""
    named = {name: str(folder / name) for name in ("ranker.keras", "transform_graph", "examples.gz", "transformed.gz")}
    keras_model, graph, examples, transformed = named.values()
    return RankerPaths(keras_model, graph, (examples,), (transformed,))


def export(folder: pathlib.Path, config: RankingConfig) -> pathlib.Path:
    """The exporter's artifact of a small ranker with this config."""
    paths = make(
        folder / "ranker",
        config,
        random_lists(config, [5] * 20, seed=1),
        random_lists(config, [1, 4, 2, 3] * 3, seed=2),
    )
    signature_exporter.export(paths, config, folder / "exported", folder / "parity.json")
    return folder / "exported"


def random_lists(config: RankingConfig, sizes: Sequence[int], seed: int, missing: float = 0.1) -> list[bytes]:
    """List examples of these sizes, with values of every kind that `config` names, some of them missing."""
    rng = np.random.default_rng(seed)
    words = np.array([b"red", b"Blue", b"green", b"shoe", b"Hat", b"coat", b"unknown%d" % seed], object)

    def column(rows: int, one: Any) -> Any:
        absent = rng.random(rows) < missing
        if one.tokens:
            lengths = np.where(absent, 0, rng.integers(1, 4, rows))
            return Tokens(rng.choice(words, int(lengths.sum())), np.concatenate([[0], np.cumsum(lengths)]))
        if one.dtype == "string":
            return np.where(absent, b"", rng.choice(words, rows))
        if one.dtype == "int":
            return np.where(absent, one.missing, rng.integers(0, 9, rows))
        values = rng.gamma(2.0, 3.0, (rows, one.width)).astype(np.float32)
        return np.where(absent[:, None], np.float32(one.missing), values).reshape(-1, *([one.width] * (one.width > 1)))

    table, items = columns(config), int(sum(sizes))
    batch = ListBatch(
        {name: column(len(sizes), one) for name, one in table.items() if one.level == "context"},
        {name: column(items, one) for name, one in table.items() if one.level == "items"},
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )
    batch.context[config.data.group_id] = np.array([b"s%d-q%d" % (seed, i) for i in range(len(sizes))], object)
    batch.items[config.data.label] = rng.integers(0, 3, items).astype(np.float32)
    if config.data.position:
        batch.items[config.data.position] = np.concatenate([np.arange(1, size + 1) for size in sizes]).astype(np.int64)
    if config.data.item_id:
        batch.items[config.data.item_id] = np.array([b"item%d" % i for i in range(items)], object)
    return encode(batch, table)


def make(
    folder: pathlib.Path,
    config: RankingConfig,
    train: list[bytes],
    test: list[bytes],
    preprocessing_fn: PreprocessingFn = preprocessing.preprocessing_fn,
) -> RankerPaths:
    """Writes the exporter's input with the same libraries as the pipeline's steps."""
    folder.mkdir(parents=True, exist_ok=True)
    examples, transformed = folder / "examples.gz", folder / "transformed.gz"
    write_records(str(examples), test)
    graph, source = learn(folder, config, train, preprocessing_fn)
    encoder = example_coder.RecordBatchToExamplesEncoder(tft.TFTransformOutput(graph).transformed_metadata.schema)
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(folder / "temp")):
        data = _rows(pipeline, source, test), source.TensorAdapterConfig()
        batches, _ = (data, pipeline | tft_beam.ReadTransformFn(graph)) | tft_beam.TransformDataset(
            output_record_batches=True
        )
        _ = (
            batches
            | beam.FlatMap(lambda pair: encoder.encode(pair[0]))
            | beam.Map(lambda record, to: write_one(record, to), str(folder / "transformed"))
        )
    materialised = [path.read_bytes() for path in sorted((folder / "transformed").iterdir())]
    write_records(str(transformed), materialised)
    network = make_network(config, graph, materialised)
    keras_model = folder / "ranker.keras"
    network.save(keras_model)
    return RankerPaths(str(keras_model), graph, (str(examples),), (str(transformed),))


def learn(
    folder: pathlib.Path, config: RankingConfig, train: list[bytes], preprocessing_fn: PreprocessingFn
) -> tuple[str, Any]:
    """The transform graph of some training lists, and the specs to read its input."""
    folder.mkdir(exist_ok=True)
    schema = ranking_schema([_statistics(train, folder)], config)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", schema=schema, telemetry_descriptors=["test"])
    selection = {"config": config.select(*preprocessing.READS)}
    graph = str(folder / "transform_graph")
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(folder / "temp")):
        data = _rows(pipeline, source, train), source.TensorAdapterConfig()
        fn = data | tft_beam.AnalyzeDataset(lambda inputs: preprocessing_fn(inputs, selection))
        _ = fn | tft_beam.WriteTransformFn(graph)
    raw = tft.DatasetMetadata(schema)  # as TFX's Transform writes it
    metadata_io.write_metadata(raw, str(pathlib.Path(graph, tft.TFTransformOutput.RAW_METADATA_DIR)))
    return graph, source


def _rows(pipeline: Any, source: Any, records: list[bytes]) -> Any:
    flat = pipeline | beam.Create([records], reshuffle=False) | beam.FlatMap(lambda all_of_them: all_of_them)
    return flat | source.BeamSource(len(records))


def write_one(record: bytes, folder: str) -> None:
    path = pathlib.Path(folder)
    path.mkdir(exist_ok=True)
    (path / f"{len(list(path.iterdir())):06d}").write_bytes(record)


def make_network(config: RankingConfig, transform_graph: str, transformed: Sequence[bytes]) -> keras.Model:
    """A network of the config's size with random weights, biases too."""
    layout = training_data.read_layout(transform_graph)
    data = training_data.flat_columns(tf.io.parse_example(list(transformed), dict(layout.spec)))
    keras.utils.set_random_seed(3)
    network = networks.build(training_data.inputs(data, config, layout.sizes), config.model)
    rng = np.random.default_rng(3)
    network.set_weights([value + rng.normal(0, 0.2, value.shape) for value in network.get_weights()])
    return network


def _statistics(records: list[bytes], folder: pathlib.Path) -> Any:
    write_records(str(folder / "train.gz"), records)
    return tfdv.generate_statistics_from_tfrecord(str(folder / "train.gz"))
