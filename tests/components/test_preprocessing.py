"""Every transform step against NumPy's arithmetic on raw values, through TensorFlow Transform as in the pipeline."""

import apache_beam as beam
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_transform as tft
from record_statistics import statistics_of
from tensorflow_transform import beam as tft_beam
from tfx_bsl.public import tfxio

from tfx_ranking.components import preprocessing
from tfx_ranking.components.choices.transform_steps import TRANSFORM_STEPS, step_name
from tfx_ranking.components.config import parse
from tfx_ranking.components.errors import ConfigError, DataError
from tfx_ranking.components.features.feature_columns import numeric_columns
from tfx_ranking.components.lists.list_examples import ListBatch, Tokens, columns, encode
from tfx_ranking.components.preprocessing import preprocessing_fn
from tfx_ranking.components.schema_gen import ranking_schema

NAN = np.nan
SIZES = np.array([3, 1, 4, 2, 6, 1])
SPLITS = np.concatenate([[0], np.cumsum(SIZES)])
ITEMS = int(SPLITS[-1])
RNG = np.random.default_rng(7)


def lists(values):
    return np.split(values, SPLITS[1:-1])


def z_score(x):
    return (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)


def min_max(x):
    return (x - x.min(0)) / np.where(np.ptp(x, axis=0) > 0, np.ptp(x, axis=0), 1)


def sign_log1p(x):
    return np.sign(x) * np.log1p(np.abs(x))


def query_normalise(x):
    return np.concatenate([(each - each.mean()) / (each.std() or 1) for each in lists(x)])


def spread(low, high, missing=()):
    """float32 [item], NaN at the items in `missing`."""
    values = RNG.uniform(low, high, ITEMS).astype(np.float32)
    values[list(missing)] = NAN
    return values


# name → (declaration, raw values [item], NumPy's arithmetic on the values once NaN is the default)
NUMBERS = {
    "plain": ({}, spread(-2, 2, [0]), lambda x: x),
    "z": ({"transform": ["z_score"], "default": 5.0, "indicator": True}, spread(0, 9, [2, 7]), z_score),
    "z_far": ({"transform": ["z_score"]}, spread(1e6, 1e6 + 9), z_score),
    "z_constant": ({"transform": ["z_score"]}, np.full(ITEMS, 0.1, np.float32), lambda x: 0 * x),
    "min_max": ({"transform": ["min_max"]}, spread(-3, 3, [1]), min_max),
    "min_max_constant": ({"transform": ["min_max"]}, np.full(ITEMS, 0.3, np.float32), lambda x: 0 * x),
    "log": ({"transform": ["log1p"]}, spread(0, 1e6, [5]), np.log1p),
    "log_below": ({"transform": ["log1p"]}, np.full(ITEMS, -3, np.float32), lambda x: np.log1p(0 * x - 1 + 2**-24)),
    "sign_log": ({"transform": ["sign_log1p"]}, spread(-1e6, 1e6), sign_log1p),
    "clip": ({"transform": [{"clip": [-0.5, 0.5]}]}, spread(-1, 1), lambda x: np.clip(x, -0.5, 0.5)),
    "in_list": ({"transform": ["query_normalise"]}, spread(1e3, 1e3 + 1), query_normalise),
    "in_list_constant": ({"transform": ["query_normalise"]}, np.full(ITEMS, 0.1, np.float32), lambda x: 0 * x),
    "log_z": (
        {"transform": ["log1p", "z_score"], "indicator": True},
        spread(0, 1e3, [9]),
        lambda x: z_score(np.log1p(x)),
    ),
    "chain": (
        {"transform": [{"clip": [0, 9]}, "query_normalise", "min_max", "z_score"]},
        spread(-9, 18, [3]),
        lambda x: z_score(min_max(query_normalise(np.clip(x, 0, 9)))),
    ),
    "count": ({"dtype": "int", "transform": ["z_score"]}, RNG.integers(0, 99, ITEMS), z_score),
}
BUCKETS = {
    "quarter": ({"transform": [{"bucketize": 4}]}, spread(0, 1), 4),
    "log_half": ({"transform": ["log1p", {"bucketize": 2}], "indicator": True}, spread(0, 1e3, [4]), 2),
    "half": ({"transform": [{"bucketize": 2}]}, spread(0, 1), 2),
}
IMAGE = RNG.normal(size=(ITEMS, 3)).astype(np.float32)
IMAGE[6] = NAN
BRANDS = np.array([b"acme", b"acme", b"", b"bolt", b"acme", b"bolt", b"acme"] + [b"cog"] * 3 + [b"acme"] * 7, object)
CODES = np.array([7, 7, 8, 9, 7, 8, 7] + [7] * 10)
TITLES = [b"Red Shoe", b"", b"red\tshirt ", b"\xc3\x89tui", b"red", b"shoe", b""] + [b"red shoe"] * 10
TITLE_LENGTHS = np.array([int(bool(title)) for title in TITLES])
PLACE = RNG.normal(size=(len(SIZES), 2)).astype(np.float32)
DAY = np.array([1, 2, 3, 4, 5, NAN], np.float32)
CONFIG = parse(
    {
        "name": "table",
        "data": {
            "input": "x",
            "format": "csv",
            "group_id": "query",
            "label": "grade",
            "weight": "w",
            "position": "rank",
        },
        "context": {
            "country": {"dtype": "string", "vocabulary": {}, "default": "de"},
            "place": {"shape": [2], "transform": ["z_score"]},
            "day": {"transform": ["min_max"], "indicator": True},
            "query_text": {"dtype": "string", "tokens": {"lower": False}},
        },
        "items": {
            **{name: declared for name, (declared, *_) in {**NUMBERS, **BUCKETS}.items()},
            "image": {"shape": [3], "indicator": True},
            "brand": {"dtype": "string", "vocabulary": {"num_oov_buckets": 2, "top_k": 2}},
            "code": {"dtype": "int", "vocabulary": {"frequency_threshold": 2}},
            "seller": {"dtype": "string", "hash": {"num_buckets": 5}},
            "shop": {"dtype": "int", "hash": {"num_buckets": 6}},
            "title": {"dtype": "string", "tokens": {}, "default": "none"},
        },
    }
)
TITLE_TOKENS = Tokens(
    np.array([title for title in TITLES if title], object), np.concatenate([[0], np.cumsum(TITLE_LENGTHS)])
)
BATCH = ListBatch(
    {
        "query": np.array([b"q%d" % i for i in range(len(SIZES))], object),
        "country": np.array([b"de", b"fr", b"de", b"", b"fr", b"de"], object),
        "place": PLACE,
        "day": DAY,
        "query_text": Tokens(np.array([b"red shoe", b"Red"], object), np.array([0, 1, 1, 2, 2, 2, 2])),
    },
    {
        **{name: raw for name, (_, raw, _) in {**NUMBERS, **BUCKETS}.items()},
        "image": IMAGE,
        "brand": BRANDS,
        "code": CODES,
        "seller": BRANDS,
        "shop": CODES,
        "title": TITLE_TOKENS,
        "grade": RNG.integers(0, 5, ITEMS).astype(np.float32),
        "w": np.where(np.arange(ITEMS) == 1, NAN, 2).astype(np.float32),
        "rank": np.concatenate([np.arange(n) + 1 for n in SIZES]),
    },
    SPLITS,
)


def learn(folder, config, records, function=preprocessing_fn):
    """Runs Transform without files: a function from serialized list examples to features, and TFT's output."""
    schema = ranking_schema([statistics_of(records)], config)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", schema=schema, telemetry_descriptors=["test"])
    custom_config = {"config": config.select(*preprocessing.READS)}
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(folder / "temp")):
        raw = pipeline | beam.Create(records) | source.BeamSource(len(records))
        graph = (raw, source.TensorAdapterConfig()) | tft_beam.AnalyzeDataset(
            lambda inputs: function(inputs, custom_config)
        )
        _ = graph | tft_beam.WriteTransformFn(str(folder / "graph"))
    output = tft.TFTransformOutput(str(folder / "graph"))
    layer = output.transform_features_layer()
    spec = tft.tf_metadata.schema_utils.schema_as_feature_spec(schema).feature_spec
    return lambda serialized: layer(tf.io.parse_example(serialized, spec)), output


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    return learn(tmp_path_factory.mktemp("table"), CONFIG, encode(BATCH, columns(CONFIG)))


@pytest.fixture(scope="module")
def transformed(learnt):
    return learnt[0](encode(BATCH, columns(CONFIG)))


def column(transformed, name, level="items"):
    matrix = transformed[f"{level}/numeric"]
    return (matrix.flat_values if level == "items" else matrix).numpy()[:, numeric_columns(CONFIG, level).index(name)]


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_what_numpy_computes(transformed, name):
    declared, raw, arithmetic = NUMBERS[name]
    filled = np.where(np.isnan(raw), declared.get("default", 0.0), raw).astype(np.float64)
    np.testing.assert_allclose(column(transformed, name), arithmetic(filled), rtol=2e-5, atol=2e-5)


def test_every_step_of_the_table_is_tested():
    declared = [CONFIG.items[name] for name in {**NUMBERS, **BUCKETS}]
    assert {step_name(step) for feature in declared for step in feature.transform} == set(TRANSFORM_STEPS)


def test_constant_columns_are_exactly_zero(transformed):
    for name in ("z_constant", "min_max_constant", "in_list_constant"):
        assert not column(transformed, name).any(), name


@pytest.mark.parametrize("name", BUCKETS)
def test_buckets_hold_equal_shares_in_order(learnt, transformed, name):
    _, raw, number = BUCKETS[name]
    ids = transformed[f"items/{name}"].flat_values.numpy()
    order = np.argsort(np.where(np.isnan(raw), 0, raw), kind="stable")
    assert np.all(np.diff(ids[order]) >= 0)
    counts = np.bincount(ids, minlength=number)
    assert counts.sum() == ITEMS
    assert counts.max() - counts.min() <= 2  # 17 items; the sketch may move a boundary by one
    assert ids.dtype == np.int64


def test_missing_values_have_an_indicator_each(transformed):
    expected = {"z": {2, 7}, "log_z": {9}, "image": {6}, "log_half": {4}}
    for name, places in expected.items():
        assert set(np.flatnonzero(column(transformed, f"{name}/missing"))) == places
    assert column(transformed, "day/missing", "context").tolist() == [0, 0, 0, 0, 0, 1]


def test_columns_are_ordered_by_name_with_indicators_last():
    image = ["image[0]", "image[1]", "image[2]"]
    names = [name for name in CONFIG.items if name in (*NUMBERS, "image")]
    features = [column for name in names for column in (image if name == "image" else [name])]
    indicators = ["image/missing", "log_half/missing", "log_z/missing", "z/missing"]
    assert names == sorted(names)
    assert numeric_columns(CONFIG, "items") == features + indicators
    assert numeric_columns(CONFIG, "context") == ["day", "place[0]", "place[1]", "day/missing"]


def test_vectors_and_context(transformed):
    for i in range(3):
        np.testing.assert_array_equal(column(transformed, f"image[{i}]"), np.nan_to_num(IMAGE)[:, i])
    for i in range(2):
        np.testing.assert_allclose(
            column(transformed, f"place[{i}]", "context"), z_score(PLACE)[:, i], rtol=1e-5, atol=1e-6
        )
    np.testing.assert_allclose(column(transformed, "day", "context"), np.array([1, 2, 3, 4, 5, 0]) / 5, rtol=1e-6)


def test_all_item_features_have_the_lists_lengths(transformed):
    for name, value in transformed.items():
        if name.startswith("items/"):
            assert value.row_lengths().numpy().tolist() == SIZES.tolist(), name


def test_vocabularies_are_by_frequency_then_reverse_alphabet_as_in_tft(learnt, transformed):
    _, output = learnt
    assert output.vocabulary_by_name("items_brand") == [b"acme", b"cog"]  # 11 and 3 times; bolt twice; "" never
    ids = transformed["items/brand"].flat_values.numpy()
    assert ids[BRANDS == b"acme"].tolist() == [0] * 11
    assert ids[BRANDS == b"cog"].tolist() == [1] * 3
    assert set(ids[(BRANDS == b"bolt") | (BRANDS == b"")]) <= {2, 3}  # two buckets for values outside of the vocabulary
    assert output.vocabulary_by_name("items_code") == [b"7", b"8"]  # 9 occurs once, below the threshold
    assert transformed["items/code"].flat_values.numpy()[:4].tolist() == [0, 0, 1, 2]
    assert transformed["context/country"].numpy().tolist() == [0, 1, 0, 0, 1, 0]  # "" is the default, de


def test_hashes_are_tensorflows_fast_hash(transformed):
    expected = tf.strings.to_hash_bucket_fast(BRANDS.tolist(), 5).numpy()
    np.testing.assert_array_equal(transformed["items/seller"].flat_values.numpy(), expected)
    expected = tf.strings.to_hash_bucket_fast([str(code) for code in CODES], 6).numpy()
    np.testing.assert_array_equal(transformed["items/shop"].flat_values.numpy(), expected)


def test_tokens_are_cut_lowered_and_looked_up(learnt, transformed):
    words = [w.decode() for w in learnt[1].vocabulary_by_name("items_title")]
    assert words[:3] == ["red", "shoe", "none"]  # 13, 12 and 2 times: an empty title is its default
    assert set(words) == {"red", "shoe", "none", "shirt", "étui"}
    expected = [[words.index(w) for w in (t.decode().lower().split() or ["none"])] for t in TITLES]
    assert transformed["items/title"].merge_dims(0, 1).to_list() == expected
    words = learnt[1].vocabulary_by_name("context_query_text")
    assert set(words) == {b"red", b"shoe", b"Red"}
    ids = [[words.index(w) for w in text] for text in ([b"red", b"shoe"], [], [b"Red"], [], [], [])]
    assert transformed["context/query_text"].to_list() == ids


def test_the_transformed_schema_has_the_range_of_every_category(learnt):
    schema = {each.name.removesuffix("$ragged_values"): each for each in learnt[1].transformed_metadata.schema.feature}
    sizes = {
        **{f"items/{name}": number for name, (_, _, number) in BUCKETS.items()},
        "items/brand": 2 + 2,
        "items/code": 2 + 1,
        "items/seller": 5,
        "items/shop": 6,
        "items/title": 5 + 1,
        "context/country": 2 + 1,
        "context/query_text": 3 + 1,
    }
    assert {name: schema[name].int_domain.max + 1 for name in sizes} == sizes


def test_training_columns_pass_under_fixed_names(transformed):
    np.testing.assert_array_equal(transformed["label"].flat_values, BATCH.items["grade"])
    assert transformed["weight"].flat_values.numpy().tolist() == [2, 1] + [2] * 15  # the second is missing
    np.testing.assert_array_equal(transformed["position"].flat_values, BATCH.items["rank"])
    assert transformed["group_id"].numpy().tolist() == BATCH.context["query"].tolist()


def test_lists_that_training_never_saw_empty_lists_and_strange_bytes(learnt):
    sizes, n = np.array([2, 0, 1]), 3
    items = {name: np.full(n, NAN, np.float32) for name in {**NUMBERS, **BUCKETS} if name != "count"}
    items["min_max"] = np.float32([-1e6, 0, 1e6])
    items |= {
        "count": np.zeros(n, np.int64),
        "code": np.arange(n),
        "shop": np.arange(n),
        "image": np.zeros((n, 3), np.float32),
    }
    items |= {"brand": np.array([b"new", b"\xff\xfe", b""], object), "seller": np.array([b""] * n, object)}
    items |= {"title": Tokens(np.array([b"\xff\xfe red", b"new"], object), np.array([0, 1, 1, 2]))}
    items |= {"grade": np.zeros(n, np.float32), "w": np.zeros(n, np.float32), "rank": np.zeros(n, np.int64)}
    context = {name: np.repeat(value[:1], 3, 0) for name, value in BATCH.context.items() if name != "query_text"}
    context["query_text"] = Tokens(np.array([], object), np.zeros(4, np.int64))
    batch = ListBatch(context, items, np.concatenate([[0], np.cumsum(sizes)]))
    out = learnt[0](encode(batch, columns(CONFIG)))
    assert out["items/numeric"].row_lengths().numpy().tolist() == [2, 0, 1]
    assert np.isfinite(out["items/numeric"].flat_values.numpy()).all()
    x = np.nan_to_num(NUMBERS["min_max"][1])
    low, high = x.min(), x.max()
    expected = (np.float32([-1e6, 0, 1e6]) - low) / (high - low)  # may be outside of [0, 1]
    np.testing.assert_allclose(column(out, "min_max"), expected, rtol=1e-5)
    assert not column(out, "z_constant").any()  # training had no 0 and no deviation
    assert set(out["items/brand"].flat_values.numpy()) <= {2, 3}
    assert out["items/title"].row_lengths(2).to_list() == [[2, 1], [], [1]]
    only_empty = ListBatch(
        {name: value[:1] for name, value in context.items() if name != "query_text"}
        | {"query_text": Tokens(np.array([], object), np.zeros(2, np.int64))},
        {
            name: Tokens(np.array([], object), np.zeros(1, np.int64)) if name == "title" else value[:0]
            for name, value in items.items()
        },
        np.zeros(2, np.int64),
    )
    out = learnt[0](encode(only_empty, columns(CONFIG)))
    assert out["items/numeric"].row_lengths().numpy().tolist() == [0]


def test_a_feature_that_the_examples_lack_is_named():
    with pytest.raises(DataError, match=r"\['brand', .*'title/row_lengths'.*\] of the config are not in"):
        preprocessing_fn({"plain": None}, {"config": CONFIG.select(*preprocessing.READS)})


def test_training_and_serving_settings_are_not_read():
    import dataclasses

    other = dataclasses.replace(
        CONFIG,
        training=dataclasses.replace(CONFIG.training, learning_rate=0.5),
        model=dataclasses.replace(CONFIG.model, dropout=0.5),
    )
    assert other.select(*preprocessing.READS) == CONFIG.select(*preprocessing.READS)
    brand = dataclasses.replace(
        CONFIG.items["brand"], vocabulary=dataclasses.replace(CONFIG.items["brand"].vocabulary, top_k=9)
    )
    other = dataclasses.replace(CONFIG, items={**CONFIG.items, "brand": brand})
    assert other.select(*preprocessing.READS) != CONFIG.select(*preprocessing.READS)


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        (
            {"dtype": "string", "vocabulary": {"num_oov_buckets": 0}},
            r"items\.f\.vocabulary\.num_oov_buckets: .*at least 1.*got 0",
        ),
        ({"dtype": "string", "tokens": {"top_k": 0}}, r"items\.f\.tokens\.top_k: expected at least 1; got 0"),
        ({"dtype": "string", "hash": {"num_buckets": 0}}, r"items\.f\.hash\.num_buckets: expected at least 1; got 0"),
        ({"transform": [{"bucketize": 1}]}, r"items\.f\.transform\[0\].*expected at least 2 buckets; got 1"),
        ({"transform": [{"clip": [3, 1]}]}, r"items\.f\.transform\[0\].*expected \[low, high\]; got \[3.0, 1.0\]"),
    ],
)
def test_numbers_that_no_transform_can_use_are_refused(feature, message):
    with pytest.raises(ConfigError, match=message):
        parse({"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": feature}})


@pytest.mark.parametrize(
    ("level", "value", "message"),
    [
        (
            "items",
            tf.sparse.from_dense([[1.0, 2.0]]),
            r"f: expected a ragged list: .*represent_var.*; got a SparseTensor",
        ),
        ("items", tf.constant([[1.0]]), r"f: expected a ragged list: no shape"),
        ("context", tf.ragged.constant([[1.0]]), r"f: expected a shape in the schema; got a RaggedTensor"),
    ],
)
def test_a_schema_that_gives_a_feature_another_layout_is_explained(level, value, message):
    features = {"items": {"other": {}}, "context": {}}
    features[level] = {"f": {}, **features[level]}
    config = parse({"name": "a", "data": {"input": "x", "format": "csv"}, **features})
    inputs = {"other": tf.ragged.constant([[1.0]]), "f": value}
    with pytest.raises(DataError, match=message):
        preprocessing_fn(inputs, {"config": config.select(*preprocessing.READS)})
