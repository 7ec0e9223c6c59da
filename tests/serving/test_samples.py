"""Tests of the check of a model's sample requests: which answers count as the recorded ones."""

import shutil

import numpy as np
import pytest
import servable_models

from tfx_ranking.components.errors import PushRefused
from tfx_ranking.components.serving import samples


def scores(*values):
    return {"scores": np.float32(values)}


@pytest.mark.parametrize(
    ("expected", "answer", "difference"),
    [
        ([1.0, 2.0], scores(1.0, 2.0001), ""),  # within 1e-4 of the largest value, 2
        ([1.0, 2.0], scores(1.0, 2.001), "scores[1] is 2.000999927520752, it was 2.0"),
        ([1.0, 2.0], scores(1.0), "scores has the shape [1], it had [2]"),
        ([], {"scores": np.zeros((0, 3), np.float32)}, ""),  # JSON does not keep the shape of an empty array
        ([float("nan")], scores(float("nan")), ""),
        ([1.0], scores(float("nan")), "scores[0] is nan, it was 1.0"),
        ({"a": [1], "b": [2]}, {"a": np.array([1])}, "it has outputs ['a'], it had ['a', 'b']"),
        ([["x", "y"]], {"ids": np.array([[b"x", b"z"]], object)}, "ids[0, 1] is 'z', it was 'y'"),
    ],
)
def test_difference_names_the_first_output_that_differs(expected, answer, difference):
    assert samples.difference(expected, answer) == difference


def test_items_with_equal_scores_may_be_in_another_order():
    expected = {"ids": [["a", "b", "c"]], "scores": [[2.0, 2.0, 1.0]]}
    ids = np.array([[b"b", b"a", b"c"]], object)
    assert samples.difference(expected, {"ids": ids, "scores": np.float32([[2, 2, 1]])}) == ""
    apart = {"ids": [["a", "b", "c"]], "scores": [[3.0, 2.0, 1.0]]}
    difference = samples.difference(apart, {"ids": ids, "scores": np.float32([[3, 2, 1]])})
    assert difference == "ids[0, 0] is 'b', it was 'a'"


def test_each_sample_request_has_the_dtypes_of_its_signature(tmp_path):
    requests = {}

    def ask(model, calls):
        requests.update(calls)
        return {"predict": [scores(1.0)]}

    model = servable_models.save(tmp_path / "model", 0.5)
    assert samples.check(model, ask) == "loaded, and 1 sample request answered as at export"
    ((call,),) = requests.values()
    assert call["x"].dtype == np.float32
    assert call["x"].tolist() == [2.0]


def test_a_model_without_samples_is_loaded_and_the_summary_says_so(tmp_path):
    model = servable_models.save(tmp_path / "model", 0.5)
    (model / "assets.extra" / "tfx_ranking" / "samples" / "predict.json").unlink()
    assert samples.check(model, lambda model, calls: {}) == "loaded (the model has no sample requests)"


def test_a_sample_for_an_unknown_signature_is_refused(tmp_path):
    model = servable_models.save(tmp_path / "model", 0.5)
    sample = model / "assets.extra" / "tfx_ranking" / "samples" / "predict.json"
    sample.write_text(sample.read_text().replace('"predict"', '"rank"'))
    with pytest.raises(PushRefused, match=r"sample predict\.json calls signature rank, which the model does not have"):
        samples.check(model, lambda model, calls: {})


@pytest.mark.slow
def test_an_exported_model_passes_and_one_with_a_changed_vocabulary_is_refused(shop, tmp_path):
    signatures = len(shop.report["signatures"])
    assert samples.check(shop.served) == f"loaded, and {signatures} sample requests answered as at export"
    other = tmp_path / "other"
    shutil.copytree(shop.served, other)
    for vocabulary in (other / "assets").iterdir():  # the words in reverse order: the model still loads
        words = vocabulary.read_bytes().splitlines(keepends=True)
        vocabulary.write_bytes(b"".join(reversed([word.rstrip(b"\n") + b"\n" for word in words])))
    with pytest.raises(PushRefused, match=r"signature \w+ no longer answers its sample as it did at export"):
        samples.check(other)
