"""Every refused config names the key, what was expected and what came."""

import dataclasses
import json

import pytest

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config import RankingConfig, from_selection, json_schema, load, parse
from tfx_ranking.components.config_features import Feature
from tfx_ranking.components.errors import ConfigError

SMALL = {"name": "shop", "data": {"input": "logs/*.csv", "format": "csv"}, "items": {"price": {}}}
FULL = {
    "name": "shop-search",
    "data": {
        "input": "logs/*.csv",
        "format": "csv",
        "group_id": "query_id",
        "item_id": "sku",
        "label": "relevance",
        "label_range": [0, 4],
        "position": "rank",
        "splits": {"by": "group_id", "train": 0.8, "validation": 0.1, "test": 0.1},
    },
    "context": {
        "query_text": {"dtype": "string", "tokens": {"top_k": 20000}, "embedding": 16},
        "country": {"dtype": "string", "vocabulary": {}},
    },
    "items": {
        "price": {"dtype": "float", "transform": ["log1p", "z_score"], "default": 0.0},
        "brand": {"dtype": "string", "vocabulary": {"num_oov_buckets": 8}, "embedding": 8},
        "f[1-136]": {"dtype": "float", "transform": ["z_score"]},
        "image": {"dtype": "float", "shape": [128]},
    },
    "model": {"scorer": "dnn", "hidden": [256, 128, 64], "loss": "approx_ndcg"},
    "training": {"epochs": 30, "batch_lists": 64, "early_stopping": {"metric": "ndcg@10", "patience": 5}, "seed": 1},
    "serving": {"signatures": ["predict", "list_example"], "default": "predict"},
    "evaluation": {
        "metrics": ["ndcg@5"],
        "slices": ["country"],
        "bless": {"metric": "ndcg@10", "min_improvement": 0.0},
    },
    "push": {"base": "serving/shop-search"},
    "metadata": {"sqlite": "metadata.sqlite"},
}


def _with(**changes):
    raw = json.loads(json.dumps(FULL))
    for path, value in changes.items():
        *parents, key = path.split("__")
        at = raw
        for parent in parents:
            at = at.setdefault(parent, {})
        at[key] = value
    return raw


REFUSED = {
    "a misspelt key": (_with(data__lable="y"), "data.lable: unknown key; did you mean 'label'?"),
    "a misspelt section": (_with(modle={}), "modle: unknown key; did you mean 'model'?"),
    "a misspelt key, deep": (
        _with(items__brand__vocabulary={"top": 3}),
        "items.brand.vocabulary.top: unknown key; did you mean 'top_k'?",
    ),
    "a format there is none of": (_with(data__format="cvs"), "data.format: input should be 'letor', 'csv'"),
    "text for a number": (_with(training__epochs="30"), "training.epochs: input should be a valid integer; got '30'"),
    "a fraction of an epoch": (
        _with(training__epochs=3.5),
        "training.epochs: input should be a valid integer; got 3.5",
    ),
    "no epochs": (_with(training__epochs=0), "training.epochs: expected at least 1; got 0"),
    "a step there is none of": (
        _with(items__price={"transform": ["log1p", "z_scor"]}),
        "items.price.transform[1]: expected one of z_score, .*; got 'z_scor'; did you mean 'z_score'?",
    ),
    "a step's bad argument": (
        _with(items__price={"transform": [{"clip": [1]}]}),
        "items.price.transform[0]: expected one of .*; got {'clip': [1]}",
    ),
    "a bucket not last": (
        _with(items__price={"transform": [{"bucketize": 3}, "log1p"]}),
        "items.price.transform[0]: bucketize comes last",
    ),
    "the label as an input": (
        _with(items__relevance={}),
        "items.relevance: data.label is no scoring input; take it out of items",
    ),
    "the position as an input": (_with(context__rank={}), "context.rank: data.position is no scoring input"),
    "the group id as an input": (_with(items__query_id={}), "items.query_id: data.group_id is no scoring input"),
    "a name in both": (_with(items__country={"dtype": "float"}), "items.country: the same name stands under context"),
    "a bare string": (
        _with(items__brand={"dtype": "string"}),
        "items.brand.dtype: a string needs vocabulary, hash or tokens",
    ),
    "two kinds of category": (
        _with(items__brand={"dtype": "string", "hash": {"num_buckets": 3}, "vocabulary": {}}),
        "items.brand.hash: expected one of vocabulary, hash, tokens",
    ),
    "a default of another type": (
        _with(items__price={"default": "free"}),
        "items.price.default: .*expected a value of dtype float; got 'free'",
    ),
    "an embedding of a number": (
        _with(items__price={"embedding": 4}),
        "items.price.embedding: an embedding needs a category",
    ),
    "the items of a list compared in the context": (
        _with(context__age={"transform": ["query_normalise"]}),
        "context.age.transform: query_normalise compares the items",
    ),
    "a range the wrong way round": (_with(**{"items__g[3-1]": {}}), "items.g[3-1]: expected [first-last]"),
    "a feature twice by range": (_with(items__f7={}), "items.f7: f7 was named before"),
    "a slice of no feature": (
        _with(evaluation__slices=["contry"]),
        "evaluation.slices[0]: expected a context feature; got 'contry'; did you mean 'country'?",
    ),
    "shares above 1": (
        _with(data__splits={"train": 0.8, "test": 0.5}),
        "data.splits.train: train, validation and test are shares that add up to 1; got 1.4",
    ),
    "a split there is none of": (
        _with(data__input={"trian": "x"}),
        "data.input.trian: expected a split, one of train, validation, test",
    ),
    "a span of an input without spans": (
        _with(data__span=17),
        "data.span: spans need {SPAN}, or {YYYY}, {MM} and {DD}, in '",
    ),
    "no pattern for train": (_with(data__input={"test": "x"}), "data.input: expected a pattern for train"),
    "propensities without a position": (
        _with(data__position=None, training__propensity={"power": 1.0}),
        "training.propensity: propensities are by position",
    ),
    "a propensity of 0": (
        _with(training__propensity=[1.0, 0.0]),
        "training.propensity: expected probabilities in (0, 1]",
    ),
    "a default that is not exported": (
        _with(serving__default="regress"),
        "serving.default: expected one of the signatures",
    ),
    "tested on, then trained on": (
        _with(data__splits={"by": "time"}, evaluation__bless__previous_spans=3),
        "evaluation.bless.previous_spans: splits by time would train on lists that the live model was tested on",
    ),
    "a distance beyond 1": (
        _with(retrain={"refuse": {"label": 2.0}}),
        "retrain.refuse.label: expected a distance in [0, 1]; got 2.0",
    ),
    "drift of no feature": (
        _with(retrain={"drift": {"features": {"*": 0.3, "prise": 0.1}}}),
        "retrain.drift.features.prise: expected a feature, or a pattern of some; did you mean 'price'?",
    ),
    "no new lists as a reason": (_with(retrain={"min_lists": 0}), "retrain.min_lists: expected at least 1; got 0"),
    "no age as a reason": (_with(retrain={"max_age": 0.0}), "retrain.max_age: expected days, above 0; got 0.0"),
    "fewer than no spans": (
        _with(evaluation__bless__previous_spans=-1),
        "evaluation.bless.previous_spans: expected 0 (not asked) or more; got -1",
    ),
    "two stores": (_with(metadata__connection={}), "metadata.connection: expected sqlite or connection; got both"),
    "side files without LETOR": (
        _with(data__group_sizes=".query"),
        "data.group_sizes: a side file of list sizes goes with format letor; got csv",
    ),
    "rows that name their list": (
        _with(data__group_from="record"),
        "data.group_from: only a format whose records are lists can name them; got format csv",
    ),
    "a cap by nothing": (
        _with(data__position=None, data__max_items=5),
        "data.keep: keeping by position needs data.position",
    ),
    "a name with a slash": (_with(name="a/b"), "name: expected letters, digits"),
    "no data": ({"name": "a", "items": {"f": {}}}, "data: missing; this key has no default"),
    "a list": ([], "expected a mapping with name, data and items; got list"),
}


@pytest.mark.parametrize(("raw", "message"), REFUSED.values(), ids=list(REFUSED))
def test_refused(raw, message):
    with pytest.raises(ConfigError) as refused:
        parse(raw)
    position = 0
    for part in message.split(".*"):  # parts in their order
        position = str(refused.value).find(part, position)
        assert position >= 0, str(refused.value)


def test_all_of_it():
    config = parse(FULL)
    assert [name for name in config.items if name.startswith("f")] == [f"f{i}" for i in range(1, 137)]
    assert config.items["image"].width == 128
    assert config.features["brand"].is_category
    assert not config.features["price"].is_category


def test_relative_paths_are_the_files(tmp_path):
    (tmp_path / "ranking.yaml").write_text(json.dumps(_with(data__input={"train": "a/*.csv", "test": ["b", "s3://c"]})))
    config = load(tmp_path / "ranking.yaml")
    assert config.data.input == {"train": f"{tmp_path}/a/*.csv", "test": (f"{tmp_path}/b", "s3://c")}
    assert config.push.base == f"{tmp_path}/serving/shop-search"
    assert config.metadata.sqlite == f"{tmp_path}/metadata.sqlite"


def test_a_file_that_is_no_config(tmp_path):
    file = tmp_path / "ranking.yaml"
    with pytest.raises(ConfigError, match=r"ranking\.yaml: cannot be read"):
        load(file)
    file.write_text("name: [")
    with pytest.raises(ConfigError, match=r"ranking\.yaml: not valid YAML"):
        load(file)
    file.write_text("name: a\nname: b\n")
    with pytest.raises(ConfigError, match="the key 'name' stands twice"):
        load(file)


def test_a_selection_holds_what_was_named_and_nothing_else():
    config = parse(_with(training__seed=7))
    text = config.select("items.*.transform", "training.seed")
    selected = json.loads(text)
    assert selected["items"]["price"] == {"transform": ["log1p", "z_score"]}
    assert selected["training"] == {"seed": 7}
    assert not {"model", "push"} & set(selected)
    assert "label" not in selected["data"]
    assert "\\" not in text  # ML Metadata cannot write one to PostgreSQL
    again = from_selection(text)
    assert from_selection(selected) == again
    assert again.items["price"].transform == ("log1p", "z_score")
    assert again.items["brand"] == Feature()  # what was not named has its default


def test_a_selection_of_everything_is_the_config():
    config = parse(FULL)
    sections = [field.name for field in dataclasses.fields(RankingConfig)]
    assert from_selection(config.select(*sections)) == config


def _keys(at, path=""):
    """Every key of the config's dataclasses, as a path with * for names of the user's."""
    for field in dataclasses.fields(at):
        here = f"{path}.{field.name}".lstrip(".")
        yield here
        kinds = [k for k in (field.type, *getattr(field.type, "__args__", ())) if dataclasses.is_dataclass(k)]
        for kind in kinds:
            yield from _keys(kind, here + (".*" if getattr(field.type, "__origin__", None) is dict else ""))


def test_the_json_schema_knows_every_key():
    schema = json.dumps(json_schema())
    for key in _keys(ranking_config.RankingConfig):
        assert f'"{key.rsplit(".", 1)[-1]}"' in schema, key
    assert json_schema()["additionalProperties"] is False


def test_features_stand_by_name_however_they_were_written():
    raw = _with(items={"f[9-10]": {}, "b": {}, "a2": {}, "a10": {}})
    assert list(parse(raw).items) == ["a2", "a10", "b", "f9", "f10"]
    back = {**raw, "items": dict(reversed(raw["items"].items()))}
    assert parse(back).select("items") == parse(raw).select("items")  # TFX's cache goes by this text
    sorted_by_tfx = json.loads(json.dumps(json.loads(parse(raw).select("items")), sort_keys=True))
    assert list(from_selection(sorted_by_tfx).items) == ["a2", "a10", "b", "f9", "f10"]
