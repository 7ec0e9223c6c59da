"""Whole pipelines that begin from the live model: what runs again, and that old values score as before."""

import csv
import json

import numpy as np
import pipeline_runs
import pytest
import run_support
from run_support import COMPONENTS, ran

from tfx_ranking.components.serving import serving_process

pytestmark = pytest.mark.slow
BRAND = {"dtype": "string", "vocabulary": {"num_oov_buckets": 2}, "embedding": 3}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    made = run_support.open_shop(tmp_path_factory.mktemp("shop"))
    # No statistic that new data moves: then all that changes are vocabularies.
    title = {"dtype": "string", "tokens": {}}
    made.set("items", {"price": {"transform": ["log1p"]}, "text_match": {}, "brand": BRAND, "title": title})
    made.set("model", {"scorer": "dnn", "hidden": [8]})
    standing_still = {"epochs": 1, "optimizer": "sgd", "learning_rate": 0.0001, "clip_norm": 0.0001}
    made.set("training", {**standing_still, "batch_lists": 16, "warm_start": True})
    made.set("evaluation.bless", {"min_improvement": 0.5})  # nothing is pushed but the first model
    return made


def test_nothing_to_begin_from_then_the_live_model_then_nothing_to_do(shop):
    assert ran(shop.run()) == list(COMPONENTS)
    assert trained_model(shop)["summary"].endswith("warm start: nothing serves yet")
    (version,) = shop.versions()
    # Now a version lives, which is another model to begin from.
    again = ["RankingTrainer", "SignatureExporter", "LiveModel", "RankingEvaluator", "RankingPusher"]
    assert ran(shop.run()) == again
    assert f"warm start from version {version}" in trained_model(shop)["summary"]
    assert set(recorded_weights(shop).values()) == {"all of it"}
    assert ran(shop.run()) == ["RankingPusher"]
    assert shop.versions() == [version]


def test_old_values_score_as_before_behind_a_vocabulary_that_grew_and_moved(shop):
    (version,) = shop.versions()
    requests = pipeline_runs.finished(shop.folder, "").records("RankingExampleGen", "examples", "test")
    log = min((shop.folder / "logs").glob("*.csv"))
    with log.open() as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row["query_id"] = f"new-{row['query_id']}"
        row["brand"] = "zenith" if i % 2 else "morava"  # a new brand, and one that becomes the most frequent
    with (log.parent / "2027-01-01.csv").open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    shop.run()
    layers = recorded_weights(shop)
    served = shop.base / str(version)
    then, now = ((folder / "assets" / "items_brand").read_text().split() for folder in (served, exported(shop)))
    assert set(now) - set(then) == {"zenith"}
    assert now.index("morava") != then.index("morava")
    assert layers["items_brand_embedding"] == f"{len(then) + 3} of {len(now) + 3} rows"
    before, after = (scores(folder, requests) for folder in (served, exported(shop)))
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert np.ptp(before) > 0.01


def exported(shop):
    return pipeline_runs.finished(shop.folder, "").uri("SignatureExporter", "model") / "Format-Serving"


def scores(model, requests) -> np.ndarray:
    calls = {"list_example": [{"inputs": np.array(requests, object)}]}
    (answer,) = serving_process.ask(str(model), calls)["list_example"]
    return np.asarray(answer["scores"])


def trained_model(shop) -> dict[str, str]:
    return pipeline_runs.finished(shop.folder, "").properties("RankingTrainer", "model")


def recorded_weights(shop) -> dict[str, str]:
    return json.loads(trained_model(shop)["warm_start"])
