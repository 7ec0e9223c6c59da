"""RankingDataCheck compares the distances that TFDV measures in new lists with thresholds."""

import json

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
from tfx.types.standard_artifacts import ExampleAnomalies, ExampleStatistics
from tfx.utils import io_utils

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import data_check
from tfx_ranking.components.lists import list_examples
from tfx_ranking.components.lists.list_examples import ListBatch
from tfx_ranking.components.schema_gen import ranking_schema

RAW = {
    "name": "shop",
    "data": {"input": "x", "format": "csv", "label_range": [0, 4]},
    "context": {"country": {"dtype": "string", "vocabulary": {}}},
    "items": {"price": {}, "stock": {"dtype": "int"}},
}
CONFIG = ranking_config.parse(RAW)


def statistics(folder, name, seed, count=200, config=CONFIG, change=lambda batch: None):
    """TFDV's statistics of random lists of five items."""
    random = np.random.default_rng(seed)
    context = {
        "group_id": np.array([f"q{i}".encode() for i in range(count)], object),
        "country": random.choice(np.array([b"de", b"fr", b"it"], object), count),
    }
    items = {
        "label": random.choice(5, 5 * count, p=[0.6, 0.2, 0.1, 0.06, 0.04]).astype(np.float32),
        "price": random.lognormal(0, 1, 5 * count).astype(np.float32),
        "stock": random.poisson(4, 5 * count),
    }
    batch = ListBatch(context, items, np.arange(0, 5 * count + 1, 5))
    change(batch)
    file = folder / f"{name}.gz"
    list_examples.write_records(str(file), list_examples.encode(batch, list_examples.columns(config)))
    return tfdv.generate_statistics_from_tfrecord(str(file))


@pytest.fixture(scope="module")
def figures(tmp_path_factory):
    """The live model's lists; other lists of the same kind; inverted labels; another country, a label out of range."""
    folder = tmp_path_factory.mktemp("figures")

    def inverted(batch):
        batch.items["label"][:] = 4 - batch.items["label"]

    def elsewhere(batch):
        batch.context["country"][:150] = b"de"
        batch.items["label"][0] = 9

    return {
        "live": statistics(folder, "live", 1),
        "alike": statistics(folder, "alike", 2),
        "inverted": statistics(folder, "inverted", 3, change=inverted),
        "elsewhere": statistics(folder, "elsewhere", 4, change=elsewhere),
    }


def test_drift_of_columns_that_moved_and_of_others(figures):
    alike = data_check.drift(figures["alike"], figures["live"], CONFIG)
    assert set(alike) == {"label", "country", "price", "stock"}
    assert max(alike["label"], alike["country"], alike["stock"]) < 0.1
    inverted = data_check.drift(figures["inverted"], figures["live"], CONFIG)
    assert inverted["label"] > 0.3
    assert inverted["country"] < 0.1
    # 150 of 200 lists are set to "de", and a third of the others has it: 0.75 + 0.25/3 - 1/3 = 0.5.
    elsewhere = data_check.drift(figures["elsewhere"], figures["live"], CONFIG)
    assert elsewhere["country"] == pytest.approx(0.5, abs=0.06)
    assert data_check.drift(figures["live"], figures["live"], CONFIG) == dict.fromkeys(alike, 0.0)


def check(tmp_path, figures, name, retrain, **data):
    """Runs the component; returns its properties refused, moved and summary."""
    config = ranking_config.parse({**RAW, "data": {**RAW["data"], **data}, "retrain": retrain})
    live = tmp_path / "live"
    for folder, stats in ((live, figures["live"]), (tmp_path / "new", figures[name])):
        io_utils.write_bytes_file(str(folder / "Split-train" / "FeatureStats.pb"), stats.SerializeToString())
    io_utils.write_pbtxt_file(str(live / "schema.pbtxt"), ranking_schema([figures["live"]], CONFIG))
    new, anomalies = ExampleStatistics(), ExampleAnomalies()
    new.uri, new.split_names, anomalies.uri = str(tmp_path / "new"), '["train"]', str(tmp_path / "anomalies")
    data_check.RankingDataCheck.test_call(
        statistics=new,
        config=config.select(*data_check.READS),
        live=json.dumps({"statistics": str(live), "schema": str(live)}),
        anomalies=anomalies,
    )
    text = anomalies.get_string_custom_property
    assert (tmp_path / "anomalies" / "Split-train" / "SchemaDiff.pb").is_file()
    assert set(json.loads(text("drift"))) == {"label", "country", "price", "stock"}
    assert anomalies.get_int_custom_property("lists") == 200
    return text("refused"), json.loads(text("moved")), text("summary")


def test_good_data(tmp_path, figures):
    retrain = {"refuse": {"label": 0.2, "features": {"*": 0.5}}, "drift": {"label": 0.2}}
    assert check(tmp_path, figures, "alike", retrain) == ("", [], "200 lists, good")


def test_labels_that_moved_are_refused_and_a_reason(tmp_path, figures):
    refused, moved, summary = check(
        tmp_path, figures, "inverted", {"refuse": {"label": 0.2}, "drift": {"label": 0.1, "features": {"country": 0.1}}}
    )
    assert refused.startswith("label moved by 0.")
    assert refused.endswith("(Jensen-Shannon divergence, threshold 0.2)")
    assert [each.rpartition(" ")[2] for each in moved] == ["0.1)"]
    assert summary == f"refused: {refused}"
    assert check(tmp_path, figures, "inverted", {}) == ("", [], "200 lists, good")  # no thresholds


def test_the_schema_of_the_live_models_run(tmp_path, figures):
    refused, moved, _ = check(tmp_path, figures, "elsewhere", {"drift": {"features": {"c*": 0.1, "*": 0.9}}})
    assert refused.startswith("label: ")
    assert len(moved) == 1
    assert moved[0].startswith("country moved by 0.")
    assert check(tmp_path, figures, "elsewhere", {}, on_anomaly="warn")[0] == ""


def test_added_and_removed_features_are_not_anomalies(figures):
    schema = ranking_schema([figures["live"]], CONFIG)
    fewer = ranking_config.parse({**RAW, "items": {"price": {}, "colour": {"dtype": "string", "vocabulary": {}}}})
    assert not data_check.validate(figures["alike"], schema, fewer).anomaly_info
    del schema.feature[[feature.name for feature in schema.feature].index("stock")]
    assert not data_check.validate(figures["alike"], schema, CONFIG).anomaly_info
    assert set(data_check.drift(figures["alike"], figures["live"], fewer)) == {"label", "country", "price"}
