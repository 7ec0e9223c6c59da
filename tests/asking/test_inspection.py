"""What `tfx-ranking inspect` finds in a model's folder, and its text."""

import dataclasses
import json
import struct
import subprocess
import sys

import numpy as np
import pytest
import saved_models

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import contract, model_files
from tfx_ranking.components.serving.warmup import WARMUP_IN_MODEL
from tfx_ranking.pipelines import text_layout
from tfx_ranking.pipelines.asking import inspection
from tfx_ranking.pipelines.cli import command_tree

PREDICT, REGRESS = "tensorflow/serving/predict", "tensorflow/serving/regress"
PROTOS = {"inputs": ("string", [-1])}
SCORES = {"scores": ("float", [-1, -1]), "sizes": ("int64", [-1])}
SIGNATURES = {
    "features": (PREDICT, {f"f{i}": ("float", [-1, -1]) for i in range(1, 31)} | {"sizes": ("int64", [-1])}, SCORES),
    "list_example": (PREDICT, PROTOS, SCORES),
    "predict": (PREDICT, PROTOS, SCORES),
    "regress": (REGRESS, PROTOS, {"outputs": ("float", [-1])}),
    "serving_default": (PREDICT, PROTOS, SCORES),
}
CONFIG = ranking_config.parse({
    "name": "shop",
    "data": {"input": "x", "format": "csv"},
    "context": {"words": {"dtype": "string", "tokens": {}}},
    "items": {
        "f[1-30]": {},
        "price": {"default": 9.0},
        "image": {"shape": [128]},
        "brand": {"dtype": "string", "vocabulary": {}},
    },
    "serving": {"signatures": ["predict", "regress", "features"], "rename": {"brand": "product_brand"}},
})  # fmt: skip
RECEIPT = {
    "pipeline": "shop",
    "run": "2026-11-21T14:12:03",
    "exported_at": "2026-11-21T14:13:40+00:00",
    "artifacts": {"trained_model": [{"id": 12, "uri": "artifacts/model/12", "name": "shop:model:0", "run": "r"}]},
    "data": {"span": 3, "version": 1, "fingerprint": "0a1b"},
    "packages": {"tensorflow": "2.16.2", "tfx": "1.16.0"},
}


def write(directory, path, value):
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


def records(*serialized):
    """A TFRecord file; its checksums are left at 0."""
    return b"".join(struct.pack("<QI", len(one), 0) + one + bytes(4) for one in serialized)


@pytest.fixture
def model(tmp_path):
    """Version 3 of three, with everything that the exporter puts beside a model."""
    directory = saved_models.save(tmp_path / "serving" / "3", SIGNATURES)
    write(directory, "variables/variables.index", b"")
    write(directory, model_files.CONTRACT_IN_MODEL, contract.describe(directory, CONFIG))
    write(directory, model_files.CONFIG_IN_MODEL, CONFIG.select("context", "items", "serving").encode())
    write(directory, model_files.LINEAGE_IN_MODEL, RECEIPT)
    write(directory, WARMUP_IN_MODEL, records(b"a request", b"", b"another"))
    for signature in ("predict", "regress"):
        write(directory, f"{model_files.SAMPLES_IN_MODEL}/{signature}.json", {})
        write(directory, f"{model_files.SAMPLES_IN_MODEL}/{signature}.pb", b"")
    weights = {f"{layer}/{name}": np.zeros(2) for layer in ("dense_0", "scores") for name in ("kernel", "bias")}
    np.savez(directory / model_files.WEIGHTS_IN_MODEL, **weights)
    for other in ("1", "2"):
        (tmp_path / "serving" / other).mkdir()
    return directory


def test_everything_that_travels_with_a_model(model):
    inspected = inspection.inspect(model.parent)
    assert (inspected.directory, inspected.versions) == (model, (1, 2, 3))
    assert inspected.digest == model_files.digest(model)
    assert [call.signature.name for call in inspected.calls] == list(SIGNATURES)  # serving_default is the last
    assert [(call.request, call.answer) for call in inspected.calls[2:4]] == [
        ("elwc", "scores"),
        ("example", "item_scores"),
    ]
    assert inspected.warm_up == 3
    assert inspected.samples == ("predict", "regress")
    assert inspected.layers == ("dense_0", "scores")
    by_name = {feature.name: feature for feature in inspected.features}
    assert len(by_name) == 1 + 30 + 3
    feature = inspection.RequestFeature
    assert by_name["product_brand"] == feature("product_brand", "brand", "items", "string", "")
    assert by_name["image"] == feature("image", "image", "items", "float [128]", 0.0)
    assert inspected.receipt == inspection.InspectedReceipt(
        "shop",
        "2026-11-21T14:12:03",
        "2026-11-21T14:13:40+00:00",
        data=(("span", "3"), ("version", "1"), ("fingerprint", "0a1b")),
        artifacts=(("trained_model", "shop:model:0 (id 12)"),),
        packages=(("tensorflow", "2.16.2"), ("tfx", "1.16.0")),
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        inspected.warm_up = 4
    assert hash(inspected)


def test_the_text(model):
    lines = inspection.render(inspection.inspect(model)).splitlines()
    text = "\n".join(lines)
    assert lines[0] == str(model)
    for line in (
        "versions  1, 2, 3",
        "warm-up   3 requests",
        "samples   predict, regress",
        "weights   2 layers: dense_0, scores",
        "made by   shop, run 2026-11-21T14:12:03",
        "data      span 3, version 1, fingerprint 0a1b",
        "from      trained_model: shop:model:0 (id 12)",
        "packages  tensorflow 2.16.2, tfx 1.16.0",
        f"regress  example → item_scores  ({REGRESS})",
    ):
        assert line in lines
    assert f"serving_default  elwc → scores  ({PREDICT})\n  the same as predict" in text
    assert f"predict  elwc → scores  ({PREDICT})\n  tensors as of list_example" in text
    assert "  in  float [?, ?]       f1, f2, f3, f4," in text  # by number, and of one type together
    assert "  context  string tokens     no tokens    words" in lines
    assert "  items    float             9.0          price" in lines
    assert '  items    string            ""           product_brand (brand in training)' in lines
    assert max(map(len, lines[1:])) <= text_layout.WIDTH


def test_a_split_model_shows_the_same(model):
    whole = inspection.inspect(model)
    saved_models.split(model, "brotli")
    split = inspection.inspect(model)
    assert split.digest != whole.digest
    assert dataclasses.replace(split, digest=whole.digest) == whole


def test_a_model_that_is_not_ours(tmp_path):
    directory = saved_models.save(tmp_path / "Format-Serving", SIGNATURES)
    inspected = inspection.inspect(tmp_path)
    assert (inspected.directory, inspected.versions) == (directory, ())
    assert (inspected.features, inspected.receipt, inspected.warm_up, inspected.samples, inspected.layers) == (
        (),
        None,
        0,
        (),
        (),
    )
    text = inspection.render(inspected)
    assert f"serving_default  ({PREDICT})\n  the same as list_example" in text
    assert "warm-up   none" in text
    assert "features" not in text.splitlines()


def test_a_neighbour_whose_name_is_a_digit_but_not_a_number(model):
    (model.parent / "²").mkdir()  # "²".isdigit() is True; TensorFlow Serving ignores it
    assert inspection.inspect(model).versions == (1, 2, 3)


def test_a_damaged_receipt_is_a_plain_error(model, capsys):
    write(model, model_files.LINEAGE_IN_MODEL, b"{")
    assert command_tree.main(["inspect", str(model)]) == 1
    assert "lineage.json: expected a lineage receipt" in capsys.readouterr().err


@pytest.mark.parametrize("missing", [*RECEIPT, "all of it"])
def test_a_receipt_may_lack_anything(model, missing):
    receipt = {key: value for key, value in RECEIPT.items() if missing not in (key, "all of it")}
    write(model, model_files.LINEAGE_IN_MODEL, receipt)
    inspected = inspection.inspect(model)
    assert inspected.receipt is not None
    assert not getattr(inspected.receipt, missing, None)
    assert inspection.render(inspected)


def test_warm_up_requests_that_are_cut_off(model):
    write(model, WARMUP_IN_MODEL, records(b"a request", b"another")[:-1])
    with pytest.raises(RankingError, match=r"tf_serving_warmup_requests: record 1 is cut off"):
        inspection.inspect(model)


def test_an_older_export_has_its_features_from_the_config(model):
    (model / model_files.CONTRACT_IN_MODEL).unlink()
    inspected = inspection.inspect(model)
    assert len(inspected.features) == 1 + 30 + 3
    assert {call.request for call in inspected.calls} == {""}


def test_no_tensorflow_is_loaded(model):
    script = f"""
import sys, pathlib
from tfx_ranking.pipelines.asking import inspection
from tfx_ranking.pipelines.cli import command_tree
inspection.render(inspection.inspect(pathlib.Path({str(model)!r})))
print(sorted({{"tensorflow", "tfx", "keras", "apache_beam"}} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
