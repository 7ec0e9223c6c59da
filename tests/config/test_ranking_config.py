"""The error of a wrong config names the key, what was expected and the value."""

import dataclasses
import json
import pathlib
import re
from typing import get_args

import pytest
import yaml

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.choices import signatures
from tfx_ranking.components.choices.metrics import METRICS
from tfx_ranking.components.config import RankingConfig, from_selection, load, parse, reference, training_sections
from tfx_ranking.components.config.feature_sections import Feature
from tfx_ranking.components.config.reference import json_schema
from tfx_ranking.components.config.training_sections import Model
from tfx_ranking.components.errors import ConfigError
from tfx_ranking.components.formats import column_types

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
    "an unknown format": (
        _with(data__format="cvs"),
        "data.format: expected one of letor, csv, parquet, .*; got 'cvs'; did you mean 'csv'?",
    ),
    "text for a number": (_with(training__epochs="30"), "training.epochs: expected an integer; got '30'"),
    "a fraction of an epoch": (
        _with(training__epochs=3.5),
        "training.epochs: expected an integer; got 3.5",
    ),
    "no epochs": (_with(training__epochs=0), "training.epochs: expected at least 1; got 0"),
    "an unknown step": (
        _with(items__price={"transform": ["log1p", "z_scor"]}),
        "items.price.transform[1]: expected one of z_score, .*; got 'z_scor'; did you mean 'z_score'?",
    ),
    "a step's bad argument": (
        _with(items__price={"transform": [{"clip": [1]}]}),
        "items.price.transform[0].clip: expected [low, high]; got [1].",
    ),
    "a bucket not last": (
        _with(items__price={"transform": [{"bucketize": 3}, "log1p"]}),
        "items.price.transform[0]: bucketize comes last",
    ),
    "the label as an input": (
        _with(items__relevance={}),
        "items.relevance: data.label cannot be an input of the scorer; take it out of items",
    ),
    "the position as an input": (
        _with(context__rank={}),
        "context.rank: data.position cannot be an input",
    ),
    "the group id as an input": (
        _with(items__query_id={}),
        "items.query_id: data.group_id cannot be an input",
    ),
    "a name in both": (_with(items__country={"dtype": "float"}), "items.country: the name is also under context"),
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
    "a feature twice by range": (_with(items__f7={}), "items.f7: f7 is there twice"),
    "a slice of no feature": (
        _with(evaluation__slices=["contry"]),
        "evaluation.slices[0]: expected a context feature; got 'contry'; did you mean 'country'?",
    ),
    "shares above 1": (
        _with(data__splits={"train": 0.8, "test": 0.5}),
        "data.splits.train: train, validation and test are shares that add up to 1; got 1.4",
    ),
    "an unknown split": (
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
    "splits by time with previous spans": (
        _with(data__splits={"by": "time"}, evaluation__bless__previous_spans=3),
        "evaluation.bless.previous_spans: splits by time would train on lists that the live model was tested on",
    ),
    "a distance above 1": (
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
        "evaluation.bless.previous_spans: expected 0 (off) or more; got -1",
    ),
    "two stores": (_with(metadata__connection={}), "metadata.connection: expected sqlite or connection; got both"),
    "side files without LETOR": (
        _with(data__group_sizes=".query"),
        "data.group_sizes: files of list sizes need format letor; got csv",
    ),
    "rows that name their list": (
        _with(data__group_from="record"),
        "data.group_from: record needs a format whose records are lists; got format csv",
    ),
    "a cap by position without a position column": (
        _with(data__position=None, data__max_items=5),
        "data.keep: keeping by position needs data.position",
    ),
    "a name with a slash": (_with(name="a/b"), "name: expected letters, digits"),
    "no data": ({"name": "a", "items": {"f": {}}}, "data: missing; this key has no default"),
    "a number for a list": (
        _with(model__hidden=32),
        "model.hidden: expected a list of integers, as in [256, 128, 64]; got 32",
    ),
    "a fraction in a list": (_with(model__hidden=[1.5]), "model.hidden[0]: expected an integer; got 1.5"),
    "a text for a list": (
        _with(serving__signatures="rank"),
        "serving.signatures: expected a list of texts, as in [predict, list_example]; got 'rank'",
    ),
    "a step without its list": (
        _with(items__price={"transform": "log1p"}),
        "items.price.transform: expected a list of values; got 'log1p'",
    ),
    "one end of a range": (_with(data__label_range=[0]), "data.label_range: expected a list of 2 numbers; got [0]"),
    "a range of three": (_with(data__label_range=[0, 1, 2]), "data.label_range: expected a list of 2 numbers; got ["),
    "a number for a section": (_with(push=3), "push: expected a mapping (keys: base, version, keep, .*); got 3"),
    "a list for a mapping": (_with(serving__rename=[1]), "serving.rename: expected a mapping; got [1]"),
    "a text for a switch": (
        _with(training__warm_start="yes"),
        "training.warm_start: expected true or false; got 'yes'",
    ),
    "one of several types": (
        _with(data__input=3),
        "data.input: expected a text, a list of texts or a mapping; got 3",
    ),
    "one of two types": (
        _with(training__propensity=5),
        "training.propensity: expected a mapping (keys: power) or a list of numbers; got 5",
    ),
    "an unknown metric": (
        _with(evaluation__metrics=["mrr", "ndgc@10"]),
        "evaluation.metrics[1]: expected one of ndcg, mrr, map, precision, recall, with a cutoff as in ndcg@10; "
        "got 'ndgc@10'; did you mean 'ndcg@10'?",
    ),
    "a cutoff of nothing": (
        _with(evaluation__metrics=["ndcg@0"]),
        "evaluation.metrics[0]: expected a cutoff of at least 1; got 'ndcg@0'.",
    ),
    "an unknown deciding metric": (
        _with(evaluation__bless={"metric": "mmr"}),
        "evaluation.bless.metric: expected one of .*; got 'mmr'; did you mean 'mrr'?",
    ),
    "a metric without its cutoff": (
        _with(training__early_stopping={"metric": "precision"}),
        "training.early_stopping.metric: expected a cutoff, as in precision@10; got 'precision'.",
    ),
    "an unknown optimizer": (
        _with(training__optimizer="adamm"),
        "training.optimizer: expected one of adadelta, .*; got 'adamm'; did you mean 'adam",
    ),
    "an optimizer in capitals": (
        _with(training__optimizer="SGD"),
        "training.optimizer: expected one of adadelta, .*; got 'SGD'; did you mean 'sgd'?",
    ),
    "an optimizer that wraps another": (
        _with(training__optimizer="lossscaleoptimizer"),
        "training.optimizer: expected one of adadelta, .*; got 'lossscaleoptimizer'",
    ),
    "an unknown activation": (
        _with(model__activation="rellu"),
        "model.activation: expected one of celu, .*; got 'rellu'; did you mean 'relu'?",
    ),
    "an unknown scorer": (
        _with(model__scorer="dnnn"),
        "model.scorer: expected one of linear, dnn, or the dotted path of a build function; got 'dnnn'; "
        "did you mean 'dnn'?",
    ),
    "a scorer that is no path": (
        _with(model__scorer="my-scorers.build"),
        "model.scorer: expected the dotted path of a function, as in package.module.function; got 'my-scorers.build'.",
    ),
    "preprocessing that is no path": (
        _with(transform={"preprocessing_fn": "mine.py:prepare"}),
        "transform.preprocessing_fn: expected the dotted path of a function, .*; got 'mine.py:prepare'.",
    ),
    "postprocessing without a module": (
        _with(serving__postprocessing="better"),
        "serving.postprocessing: expected the dotted path of a function, .*; got 'better'.",
    ),
    "an unknown loss": (
        _with(model__loss="softmx"),
        "model.loss: expected one of softmax, .*; got 'softmx'; did you mean 'softmax'?",
    ),
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
    assert "?." not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_a_full_config():
    config = parse(FULL)
    assert [name for name in config.items if name.startswith("f")] == [f"f{i}" for i in range(1, 137)]
    assert config.items["image"].width == 128
    assert config.features["brand"].is_category
    assert not config.features["price"].is_category


def test_relative_paths_start_at_the_files_folder(tmp_path):
    (tmp_path / "ranking.yaml").write_text(json.dumps(_with(data__input={"train": "a/*.csv", "test": ["b", "s3://c"]})))
    config = load(tmp_path / "ranking.yaml")
    assert config.data.input == {"train": f"{tmp_path}/a/*.csv", "test": (f"{tmp_path}/b", "s3://c")}
    assert config.push.base == f"{tmp_path}/serving/shop-search"
    assert config.metadata.sqlite == f"{tmp_path}/metadata.sqlite"


def test_a_file_that_cannot_be_read(tmp_path):
    file = tmp_path / "ranking.yaml"
    with pytest.raises(ConfigError, match=r"ranking\.yaml: cannot be read"):
        load(file)
    file.write_text("name: [")
    with pytest.raises(ConfigError, match=r"ranking\.yaml: not valid YAML"):
        load(file)
    file.write_text("name: a\nname: b\n")
    with pytest.raises(ConfigError, match="the key 'name' is there twice"):
        load(file)


def test_a_selection_has_the_named_keys_and_no_others():
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
    assert again.items["brand"] == Feature()  # keys outside of the selection have their defaults


def test_a_selection_of_everything_is_the_config():
    config = parse(FULL)
    sections = [field.name for field in dataclasses.fields(RankingConfig)]
    assert from_selection(config.select(*sections)) == config


def test_a_selection_is_not_checked_again():
    cut = {**SMALL, "evaluation": {"metrics": ["gone@3"]}, "model": {"scorer": "gone"}}
    assert from_selection(cut).evaluation.metrics == ("gone@3",)


def test_optimizers_and_activations_are_those_of_keras():
    import keras

    from tfx_ranking.components.scorers import networks

    def optimizer(name):
        try:
            kind = type(keras.optimizers.get(name))
        except Exception:  # a class that Keras does not know by its name
            return None
        return type(kind(learning_rate=0.1, global_clipnorm=1.0)).__name__.lower()

    classes = {name.lower() for name in dir(keras.optimizers) if name[0].isupper() and "Optimizer" not in name}
    of_keras = {name for name in classes if optimizer(name) == name}
    assert of_keras - {"muon", "schedulefreeadamw"} == set(get_args(training_sections.Optimizer))  # of newer Kerases
    functions = {name for name in dir(keras.activations) if not name.startswith("_")}
    functions -= {"get", "serialize", "deserialize", "glu", "threshold"}
    activations = get_args(training_sections.Activation)
    assert functions == set(activations)
    for name in activations:
        assert keras.activations.get(name)(keras.ops.ones((2, 4))).shape == (2, 4), name
    assert get_args(Model.__annotations__["normalisation"]) == tuple(networks.NORMALISATIONS)


def _keys(at, path=""):
    """Every key of the config's dataclasses, as a path with * for names that the user chooses."""
    for field in dataclasses.fields(at):
        here = f"{path}.{field.name}".lstrip(".")
        yield here
        kinds = [k for k in (field.type, *getattr(field.type, "__args__", ())) if dataclasses.is_dataclass(k)]
        for kind in kinds:
            yield from _keys(kind, here + (".*" if getattr(field.type, "__origin__", None) is dict else ""))


def test_the_json_schema_has_every_key():
    schema = json.dumps(json_schema())
    for key in _keys(ranking_config.RankingConfig):
        assert f'"{key.rsplit(".", 1)[-1]}"' in schema, key
    assert json_schema()["additionalProperties"] is False


def test_every_key_has_a_sentence():
    schema = json_schema()
    for name, part in {"": schema, **schema["$defs"]}.items():
        for key, of in part["properties"].items():
            assert of.get("description", "").endswith((".", "?")), f"{name}.{key}"
    evaluation, serving = (schema["$defs"][name]["properties"] for name in ("Evaluation", "Serving"))
    assert all(name in evaluation["metrics"]["description"] for name in METRICS)
    assert all(name in serving["signatures"]["description"] for name in signatures.SIGNATURES)
    missing = schema["$defs"]["Feature"]["properties"]["default"]["description"]
    assert all(word in missing for word in column_types.MISSING_WORDS.to_pylist())


def test_the_reference_page_is_up_to_date_and_its_example_is_valid():
    file = pathlib.Path(__file__).parent.parent.parent / "docs" / "config.md"
    remedy = "python -m tfx_ranking.components.config.reference > docs/config.md"
    assert file.read_text() == reference.page(), remedy
    (example,) = re.findall(r"```yaml\n(.*?)```", file.read_text(), re.DOTALL)
    assert parse(yaml.safe_load(example)).items["image"].width == 128


def test_features_are_ordered_by_name_not_by_position_in_the_file():
    raw = _with(items={"f[9-10]": {}, "b": {}, "a2": {}, "a10": {}})
    assert list(parse(raw).items) == ["a2", "a10", "b", "f9", "f10"]
    back = {**raw, "items": dict(reversed(raw["items"].items()))}
    assert parse(back).select("items") == parse(raw).select("items")  # TFX's cache goes by this text
    sorted_by_tfx = json.loads(json.dumps(json.loads(parse(raw).select("items")), sort_keys=True))
    assert list(from_selection(sorted_by_tfx).items) == ["a2", "a10", "b", "f9", "f10"]
