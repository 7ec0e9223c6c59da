"""The contract: what is in it, what a change of it is to a client, and that it is read without TensorFlow."""

import copy
import json
import subprocess
import sys

import pytest
import saved_models

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.exported import contract

CONFIG = {
    "name": "shop",
    "data": {"input": "x", "format": "csv", "item_id": "sku"},
    "context": {"query": {"dtype": "string", "tokens": {}}},
    "items": {
        "price": {"default": 9.0},
        "image": {"shape": [128]},
        "brand": {"dtype": "string", "vocabulary": {}, "default": "none"},
    },
    "serving": {"rename": {"brand": "product_brand"}},
}
PREDICT, REGRESS = "tensorflow/serving/predict", "tensorflow/serving/regress"
PROTOS = {"inputs": ("string", [-1])}
SCORES = {"scores": ("float", [-1, -1]), "sizes": ("int64", [-1])}
SIGNATURES = {
    "predict": (PREDICT, PROTOS, SCORES),
    "list_example": (PREDICT, PROTOS, SCORES),
    "regress": (REGRESS, PROTOS, {"outputs": ("float", [-1])}),
    "features": (PREDICT, {"price": ("float", [-1, -1]), "image": ("float", [-1, -1, 128])}, SCORES),
    "serving_default": (PREDICT, PROTOS, SCORES),
}


def described(folder, saved=SIGNATURES, reads=None, **serving):
    config = {**CONFIG, "serving": {**CONFIG["serving"], "signatures": ["predict", "regress", "features"], **serving}}
    return contract.describe(saved_models.save(folder, saved), ranking_config.parse(config), reads)


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    return described(tmp_path_factory.mktemp("live"))


def test_a_contract_is_names_types_and_defaults(live):
    assert live == json.loads(json.dumps(live))
    assert live["signatures"]["regress"] == {
        "method": REGRESS,
        "request": "example",
        "answer": "item_scores",
        "inputs": {"inputs": {"dtype": "string", "shape": [-1]}},
        "outputs": {"outputs": {"dtype": "float", "shape": [-1]}},
    }
    assert live["signatures"]["serving_default"] == live["signatures"]["predict"]
    item = {"level": "items", "dtype": "float", "shape": [], "tokens": False}
    assert live["features"] == {
        "query": {"level": "context", "dtype": "string", "shape": [], "tokens": True, "default": ""},
        "price": {**item, "default": 9.0},
        "image": {**item, "shape": [128], "default": 0.0},
        "product_brand": {**item, "dtype": "string", "default": "none"},
    }
    assert "of_the_graph" not in json.dumps(live)


def test_a_contract_has_the_features_that_are_read_and_the_ids_that_are_returned(tmp_path):
    assert list(described(tmp_path, reads={"brand", "price"})["features"]) == ["product_brand", "price"]
    ranked = {**SIGNATURES, "rank": (PREDICT, PROTOS, {"item_ids": ("string", [-1, -1])})}
    features = described(tmp_path, ranked, signatures=["predict", "rank"])["features"]
    assert list(features) == ["query", "product_brand", "image", "price", "sku"]


def change(described, path, value):
    """Sets what stands at a dotted path; None takes it away."""
    *parents, last = path.split(".")
    for key in parents:
        described = described[key]
    if value is None:
        del described[last]
    else:
        described[last] = value


TENSOR = {"dtype": "float", "shape": [-1, -1]}
ITEM = {"level": "items", "dtype": "float", "shape": [], "tokens": False, "default": 0.0}
CALL = {"method": PREDICT, "inputs": {}, "outputs": {}}
INPUTS, SCORED = "signatures.predict.inputs.inputs", "signatures.predict.outputs.scores"
COMPATIBLE = [
    # a client has more to call, to read, to send
    ("signatures.rank", CALL, "signature rank is new", "+1 signature"),
    ("signatures.predict.outputs.logits", TENSOR, "predict: output logits (float [?, ?]) is new", "+1 output"),
    ("features.stock", ITEM, "feature stock (float of items) is new, 0.0 where a request has none", "+1 feature"),
    ("features.price.default", 1.5, "price: a missing value is 1.5, it was 9.0", "1 default changed"),
    # an input takes what it took, and more
    ("signatures.features.inputs.image.shape", [-1, -1, -1], "[?, ?, ?], it was float [?, ?, 128]", "1 input changed"),
]
BREAKING = [
    # what was called, sent or read is gone
    ("signatures.regress", None, "signature regress is gone", "-1 signature"),
    ("signatures.predict.inputs.inputs", None, "predict: input inputs is gone", "-1 input"),
    ("signatures.predict.outputs.sizes", None, "predict: output sizes is gone", "-1 output"),
    ("features.price", None, "feature price is not read any more", "-1 feature"),
    # or another
    ("signatures.regress.method", PREDICT, f"has the method {PREDICT}, it had {REGRESS}", "1 signature changed"),
    (f"{INPUTS}.dtype", "float", "predict: input inputs is float [?], it was string [?]", "1 input changed"),
    (f"{INPUTS}.shape", [-1, -1], "is string [?, ?], it was string [?]", "1 input changed"),
    (f"{INPUTS}.shape", [32], "is string [32], it was string [?]", "1 input changed"),
    (f"{SCORED}.dtype", "double", "is double [?, ?], it was float [?, ?]", "1 output changed"),
    (f"{SCORED}.shape", [-1], "is float [?], it was float [?, ?]", "1 output changed"),
    (f"{SCORED}.shape", [-1, 10], "is float [?, 10], it was float [?, ?]", "1 output changed"),
    ("features.price.dtype", "int", "price is int of items, it was float of items", "1 feature changed"),
    ("features.price.level", "context", "price is float of context, it was float of items", "1 feature changed"),
    ("features.query.tokens", False, "is string of context, it was string tokens of", "1 feature changed"),
    ("features.image.shape", [64], "is float [64] of items, it was float [128] of items", "1 feature changed"),
    # a call without all of its inputs is refused by TensorFlow Serving
    ("signatures.features.inputs.stock", TENSOR, "stock (float [?, ?]) is new, and a request", "+1 input"),
    # the same tensors with other bytes or other numbers in them
    ("signatures.serving_default.request", "list_example", "reads list_example, it read elwc", "1 signature changed"),
    ("signatures.serving_default.answer", "ranked", "with ranked, it answered with scores", "1 signature changed"),
]


@pytest.mark.parametrize(
    ("verdict", "path", "value", "says", "counts"),
    [("compatible", *row) for row in COMPATIBLE] + [("breaking", *row) for row in BREAKING],
)
def test_one_change_at_a_time(live, verdict, path, value, says, counts):
    candidate = copy.deepcopy(live)
    change(candidate, path, value)
    compared = contract.compare(live, candidate)
    assert (compared.verdict, len(compared.differences)) == (verdict, 1)
    assert says in compared.differences[0]
    assert compared.summary == f"contract {verdict} ({counts})"


def test_nothing_changed(live):
    assert contract.compare(live, copy.deepcopy(live)) == ("same", [], "")


def test_breaking_differences_come_first_and_are_counted_alone(live):
    candidate = copy.deepcopy(live)
    change(candidate, "signatures.rank", CALL)
    for gone in ("features.price", "features.query", "signatures.regress"):
        change(candidate, gone, None)
    verdict, differences, summary = contract.compare(live, candidate)
    assert (verdict, summary) == ("breaking", "contract breaking (-1 signature, -2 features)")
    assert differences[-1] == "signature rank is new"


def test_another_default_signature_breaks_whoever_names_none(tmp_path, live):
    verdict, differences, _ = contract.compare(live, described(tmp_path, default="list_example"))
    assert verdict == "breaking"
    assert differences == ["signature serving_default reads list_example, it read elwc"]


def test_a_renamed_training_column_breaks_nobody(tmp_path, live):
    config = copy.deepcopy(CONFIG)
    config["items"] = {("maker" if name == "brand" else name): each for name, each in config["items"].items()}
    config["serving"] = {"rename": {"maker": "product_brand"}, "signatures": ["predict", "regress", "features"]}
    candidate = contract.describe(saved_models.save(tmp_path, SIGNATURES), ranking_config.parse(config))
    assert contract.compare(live, candidate).verdict == "same"


def test_what_preprocessing_makes_is_no_promise(tmp_path, live):
    def exported(numbers):
        shown = {"items/numeric": ("float", [-1, -1, numbers])}
        return described(
            tmp_path, {**SIGNATURES, "transform": (PREDICT, PROTOS, shown)}, signatures=["predict", "transform"]
        )

    verdict, differences, _ = contract.compare(exported(3), exported(4))
    assert verdict == "compatible"
    assert differences == ["signature transform: output items/numeric is float [?, ?, 4], it was float [?, ?, 3]"]


def test_a_model_that_is_not_ours_has_no_contract(tmp_path, live):
    ours, other = tmp_path / "ours", tmp_path / "other"
    file = ours / contract.CONTRACT_IN_MODEL
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(live))
    saved_models.save(other, SIGNATURES)
    assert contract.read(other) is None
    assert contract.read(ours) == live
    assert contract.compare_models(ours, ours).verdict == "same"
    for pair, which in (((other, ours), "the live model"), ((ours, other), "this model")):
        verdict, (sentence,), summary = contract.compare_models(*pair)
        assert (verdict, summary) == ("no contract", "no contract")
        assert sentence.startswith(f"{which} has no assets.extra/tfx_ranking/contract.json")


def test_no_tensorflow_is_needed(tmp_path):
    saved_models.save(tmp_path, SIGNATURES)
    saved_models.split(tmp_path)
    script = f"""
import sys
from tfx_ranking.components.exported import contract, saved_model
found = saved_model.signature_definitions({str(tmp_path)!r})
print(len(found), sorted({{"tensorflow", "tfx", "keras"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "5 []"
