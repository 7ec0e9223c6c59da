"""What counts as the answer that a model gave when it was exported."""

import shutil

import numpy as np
import pytest
import servable_models

from tfx_ranking.components.errors import PushRefused
from tfx_ranking.components.serving import samples


def scores(*values):
    return {"scores": np.float32(values)}


@pytest.mark.parametrize(
    ("expected", "came", "said"),
    [
        ([1.0, 2.0], scores(1.0, 2.0001), ""),  # 1e-4 of the largest, 2
        ([1.0, 2.0], scores(1.0, 2.001), "scores[1] is 2.000999927520752, it was 2.0"),
        ([1.0, 2.0], scores(1.0), "scores has the shape [1], it had [2]"),
        ([], {"scores": np.zeros((0, 3), np.float32)}, ""),  # no list has no shape in JSON
        ([float("nan")], scores(float("nan")), ""),
        ([1.0], scores(float("nan")), "scores[0] is nan, it was 1.0"),
        ({"a": [1], "b": [2]}, {"a": np.array([1])}, "it has outputs ['a'], it had ['a', 'b']"),
        ([["x", "y"]], {"ids": np.array([[b"x", b"z"]], object)}, "ids[0, 1] is 'z', it was 'y'"),
    ],
)
def test_the_difference_that_counts(expected, came, said):
    assert samples.difference(expected, came) == said


def test_items_that_tie_may_change_places():
    expected = {"ids": [["a", "b", "c"]], "scores": [[2.0, 2.0, 1.0]]}
    ids = np.array([[b"b", b"a", b"c"]], object)
    assert samples.difference(expected, {"ids": ids, "scores": np.float32([[2, 2, 1]])}) == ""
    apart = {"ids": [["a", "b", "c"]], "scores": [[3.0, 2.0, 1.0]]}
    said = samples.difference(apart, {"ids": ids, "scores": np.float32([[3, 2, 1]])})
    assert said == "ids[0, 0] is 'b', it was 'a'"


def test_each_sample_is_asked_with_the_dtypes_of_its_signature(tmp_path):
    asked = {}

    def ask(model, calls):
        asked.update(calls)
        return {"predict": [scores(1.0)]}

    model = servable_models.save(tmp_path / "model", 0.5)
    assert samples.check(model, ask) == "loaded, and 1 sample request answered as when it was exported"
    ((call,),) = asked.values()
    assert call["x"].dtype == np.float32
    assert call["x"].tolist() == [2.0]


def test_a_model_without_samples_is_loaded_and_that_is_said(tmp_path):
    model = servable_models.save(tmp_path / "model", 0.5)
    (model / "assets.extra" / "tfx_ranking" / "samples" / "predict.json").unlink()
    assert samples.check(model, lambda model, calls: {}) == "loaded (it brought no sample requests to ask)"


def test_a_sample_of_another_model(tmp_path):
    model = servable_models.save(tmp_path / "model", 0.5)
    sample = model / "assets.extra" / "tfx_ranking" / "samples" / "predict.json"
    sample.write_text(sample.read_text().replace('"predict"', '"rank"'))
    with pytest.raises(
        PushRefused, match=r"sample predict\.json asks for signature rank, which the model does not have"
    ):
        samples.check(model, lambda model, calls: {})


@pytest.mark.slow
def test_an_exported_model_answers_every_sample_and_with_another_vocabulary_none(shop, tmp_path):
    signatures = len(shop.report["signatures"])
    said = samples.check(shop.served)
    assert said == f"loaded, and {signatures} sample requests answered as when it was exported"
    other = tmp_path / "other"
    shutil.copytree(shop.served, other)
    for vocabulary in (other / "assets").iterdir():  # their words in another order: the model loads as before
        words = vocabulary.read_bytes().splitlines(keepends=True)
        vocabulary.write_bytes(b"".join(reversed([word.rstrip(b"\n") + b"\n" for word in words])))
    with pytest.raises(PushRefused, match=r"signature \w+ answers its sample otherwise than when it was exported"):
        samples.check(other)
