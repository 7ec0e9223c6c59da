"""With the schema, TFX's own validator accepts clean data and reports each kind of error."""

import numpy as np
import pandas
import pytest
import tensorflow as tf
import tensorflow_data_validation as tfdv
from record_statistics import statistics_of
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts
from tfx.utils import io_utils

from tfx_ranking.components.config import parse
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode
from tfx_ranking.components.schema_gen import READS, RankingSchemaGen, ranking_schema

CONFIG = parse(
    {
        "name": "a",
        "data": {
            "input": "x",
            "format": "csv",
            "weight": "w",
            "position": "rank",
            "item_id": "sku",
            "label_range": [0, 4],
        },
        "context": {"day": {}, "place": {"shape": [2]}, "words": {"dtype": "string", "tokens": {}}},
        "items": {
            "price": {},
            "image": {"shape": [3]},
            "stock": {"dtype": "int"},
            "brand": {"dtype": "string", "vocabulary": {}},
            "seller": {"dtype": "string", "hash": {"num_buckets": 9}},
            "title": {"dtype": "string", "tokens": {}},
        },
    }
)
LISTS, ITEMS = 20, 40  # two items per list


def records(**replaced):
    """Clean list examples; `replaced`: item columns that have one value for every item instead."""
    texts = lambda text, n: np.array([text] * n, object)  # noqa: E731
    every = np.arange(ITEMS + 1)
    items = {
        "price": np.linspace(0, 9, ITEMS, dtype=np.float32),
        "image": np.zeros((ITEMS, 3), np.float32),
        "stock": np.arange(ITEMS),
        "brand": np.array([b"acme", b"bolt"] * LISTS, object),
        "seller": texts(b"s", ITEMS),
        "title": Tokens(texts(b"shoe", ITEMS), every),
        "label": np.ones(ITEMS, np.float32),
        "w": np.ones(ITEMS, np.float32),
        "rank": np.arange(ITEMS) % 2 + 1,
        "sku": texts(b"k", ITEMS),
    }
    for name, value in replaced.items():
        items[name] = np.full(ITEMS, value, items[name].dtype if not isinstance(items[name], Tokens) else object)
    context = {
        "group_id": np.array([b"q%d" % i for i in range(LISTS)], object),
        "day": np.zeros(LISTS, np.float32),
        "place": np.zeros((LISTS, 2), np.float32),
        "words": Tokens(texts(b"w", LISTS), np.arange(LISTS + 1)),
    }
    return encode(ListBatch(context, items, np.arange(0, ITEMS + 1, 2)), columns(CONFIG))


def edited(serialized, name, values=None):
    """The record without the feature, or with these integers as its values."""
    example = tf.train.Example.FromString(serialized)
    example.features.feature.pop(name, None)
    if values is not None:
        example.features.feature[name].int64_list.value.extend(values)
    return example.SerializeToString()


@pytest.fixture(scope="module")
def schema():
    return ranking_schema([statistics_of(records())], CONFIG)


def anomalies(schema, serialized, environment=None):
    anomalies = tfdv.validate_statistics(statistics_of(serialized), schema, environment=environment)
    return {name: each.short_description for name, each in anomalies.anomaly_info.items()}


def test_types_shapes_and_presence(schema):
    features = {each.name: each for each in schema.feature}
    expected = {**columns(CONFIG), "title/row_lengths": None}
    assert set(features) == set(expected)
    kinds = {"float": schema_pb2.FLOAT, "int": schema_pb2.INT, "string": schema_pb2.BYTES}
    for name, column in columns(CONFIG).items():
        assert features[name].type == kinds[column.dtype], name
    for feature in features.values():
        assert (feature.presence.min_fraction, feature.presence.min_count) == (1, 1)
    spec = tf.io.parse_example(records(), _spec(schema))
    assert spec["day"].shape == (LISTS,)
    assert spec["place"].shape == (LISTS, 2)
    for name in ("price", "image", "stock", "brand", "title", "title/row_lengths", "words", "label"):
        assert isinstance(spec[name], tf.RaggedTensor), name
    assert spec["image"].row_lengths().numpy().tolist() == [6] * LISTS


def _spec(schema):
    from tensorflow_transform.tf_metadata import schema_utils

    return schema_utils.schema_as_feature_spec(schema).feature_spec


def test_only_declared_vocabularies_have_a_domain_and_it_holds_the_missing_value(schema):
    assert [(domain.name, list(domain.value)) for domain in schema.string_domain] == [("brand", ["", "acme", "bolt"])]


CLEAN = {
    "the same": records(),
    "a missing brand": records(brand=b""),
    "unseen sellers": records(seller=b"new"),
    "no price": records(price=np.nan),
    "another item id": records(sku=b"z"),
}
WRONG = {
    "an absent feature": ([edited(each, "price") for each in records()], {"price": "Column dropped"}),
    "absent in one list": (
        [edited(records()[0], "price"), *records()[1:]],
        {"price": "Column dropped"},
    ),
    "another type": ([edited(each, "price", [1, 2]) for each in records()], {"price": "Unexpected data type"}),
    "a text that became a number": (
        [edited(each, "brand", [1, 2]) for each in records()],
        {"brand": "Unexpected data type"},
    ),
    "a new column": ([edited(each, "surprise", [1]) for each in records()], {"surprise": "New column"}),
    "other brands altogether": (records(brand=b"zeta"), {"brand": "Unexpected string values"}),
    "a label out of range": (records(label=7), {"label": "Out-of-range values"}),
    "an infinite price": (records(price=np.inf), {"price": "Invalid values"}),
}


@pytest.mark.parametrize("name", CLEAN)
def test_clean_data_has_no_anomaly(schema, name):
    assert anomalies(schema, CLEAN[name]) == {}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_wrong_data_has_the_anomaly_that_names_it(schema, name):
    serialized, expected = WRONG[name]
    assert anomalies(schema, serialized) == expected


def test_a_few_unseen_values_of_an_open_vocabulary_are_not_an_anomaly(schema):
    mixed = records()[:12] + records(brand=b"zeta")[12:]  # 40 % are not in the domain
    assert anomalies(schema, mixed) == {}
    rare = ranking_schema([statistics_of(records()[:4])], CONFIG)  # 8 values seen, fewer than ten of each brand
    assert anomalies(rare, records(brand=b"zeta")) == {}


def test_serving_has_no_label_weight_position_or_ids(schema):
    requests = records()
    for name in ("label", "w", "rank", "group_id", "sku"):
        requests = [edited(each, name) for each in requests]
    assert anomalies(schema, requests, environment="SERVING") == {}
    expected = dict.fromkeys(("label", "w", "rank", "group_id", "sku"), "Column dropped")
    assert anomalies(schema, requests, environment="TRAINING") == expected
    absent = {each.name for each in schema.feature if "SERVING" in each.not_in_environment}
    assert absent == {"label", "w", "rank", "group_id", "sku"}


def test_tokens_may_be_missing_everywhere():
    config = parse(
        {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"t": {"dtype": "string", "tokens": {}}}}
    )
    batch = ListBatch(
        {"group_id": np.array([b"a", b"b"], object)},
        {"t": Tokens(np.array([], object), np.zeros(4, np.int64)), "label": np.zeros(3, np.float32)},
        np.array([0, 2, 3]),
    )
    serialized = encode(batch, columns(config))
    assert anomalies(ranking_schema([statistics_of(serialized)], config), serialized) == {}


def test_columns_that_the_config_does_not_name_are_left_alone():
    more = [edited(each, "extra", [1]) for each in records()]
    schema = ranking_schema([statistics_of(more)], CONFIG)
    assert anomalies(schema, more) == {}
    assert "extra" not in _spec(schema)


def test_item_features_of_different_length_are_refused():
    example = tf.train.Example.FromString(records()[0])
    example.features.feature["stock"].int64_list.value.append(3)
    with pytest.raises(
        DataError, match=r"'brand' and 'stock' differ in length: .*\[2.0, 2.0, 40.0\] and \[2.0, 3.0, 41.0\]"
    ):
        ranking_schema([statistics_of([example.SerializeToString(), *records()[1:]])], CONFIG)


def _artifacts(folder, statistics):
    figures, schema = standard_artifacts.ExampleStatistics(), standard_artifacts.Schema()
    figures.uri, schema.uri = str(folder / "statistics"), str(folder / "schema")
    figures.split_names = artifact_utils.encode_split_names(list(statistics))
    for split, each in statistics.items():
        io_utils.write_bytes_file(f"{figures.uri}/Split-{split}/FeatureStats.pb", each.SerializeToString())
    return figures, schema


def test_the_component_learns_from_the_train_split_alone(tmp_path):
    other = statistics_of(records(brand=b"zeta"))
    figures, schema = _artifacts(tmp_path, {"train": statistics_of(records()), "validation": other, "test": other})
    RankingSchemaGen.test_call(statistics=figures, schema=schema, config=CONFIG.select(*READS))
    written = io_utils.parse_pbtxt_file(f"{schema.uri}/schema.pbtxt", schema_pb2.Schema())
    assert written == ranking_schema([statistics_of(records())], CONFIG)
    assert schema.get_string_custom_property("summary") == "15 columns, 1 value domain"
    RankingSchemaGen.test_call(
        statistics=figures, schema=schema, config=CONFIG.select(*READS), exclude_splits=["validation"]
    )
    written = io_utils.parse_pbtxt_file(f"{schema.uri}/schema.pbtxt", schema_pb2.Schema())
    assert written.string_domain[0].value == ["", "acme", "bolt", "zeta"]
    with pytest.raises(DataError, match="no split is left"):
        RankingSchemaGen.test_call(
            statistics=figures,
            schema=schema,
            config=CONFIG.select(*READS),
            exclude_splits=["train", "validation", "test"],
        )


def test_the_schema_of_ml4irs_train_split_fits_its_other_splits(data_dir):
    config = parse(
        {
            "name": "ml4ir",
            "data": {"input": "x", "format": "csv", "group_id": "query_id", "label": "clicked", "label_range": [0, 1]},
            "context": {
                "domain_name": {"dtype": "string", "vocabulary": {}},
                "query_text": {"dtype": "string", "vocabulary": {}},
            },
            "items": {"text_match_score": {}, "page_views_score": {}, "name_match": {"dtype": "int"}},
        }
    )
    figures = {}
    for split in ("train", "validation", "test"):
        rows = pandas.read_csv(data_dir / "ml4ir" / "csv" / f"{split}.csv", keep_default_na=False)
        lists = rows.groupby("query_id", sort=False)
        rows = rows.iloc[np.concatenate(list(lists.indices.values()))]
        first = lists.first().reset_index()
        text = lambda column: column.str.encode("utf-8").to_numpy(object)  # noqa: E731
        batch = ListBatch(
            {name: text(first[name]) for name in ("query_id", "domain_name", "query_text")},
            {name: rows[name].to_numpy(np.float32) for name in ("text_match_score", "page_views_score", "clicked")}
            | {"name_match": rows["name_match"].to_numpy(np.int64)},
            np.concatenate([[0], np.cumsum([len(rows) for rows in lists.indices.values()])]),
        )
        figures[split] = statistics_of(encode(batch, columns(config)))
    schema = ranking_schema([figures["train"]], config)
    domains = {domain.name for domain in schema.string_domain}
    assert domains == {"domain_name"}  # query_text has a thousand values: a vocabulary, but no domain
    for split, each in figures.items():
        assert not tfdv.validate_statistics(each, schema).anomaly_info, split
