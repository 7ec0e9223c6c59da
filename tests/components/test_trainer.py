"""The trainer as a component, on files as TFX's Transform writes them."""

import json

import keras
import numpy as np
import pytest
from tensorflow_metadata.proto.v0 import anomalies_pb2
from trainer_files import run_component, write_transformed
from training_lists import config_of, lists_of, scores_of

from tfx_ranking.components import trainer
from tfx_ranking.components.errors import DataError
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.training import training_data


def test_the_component_trains_on_two_splits_and_opens_no_third(tmp_path):
    data, validation = lists_of(40, 1), lists_of(20, 2)
    write_transformed(tmp_path, train=data, validation=validation, test=lists_of(20, 3))
    model, _ = run_component(tmp_path, config_of(training={"epochs": 2}))

    opened = json.loads(model.get_string_custom_property("opened"))
    folders = {split: [file.split("/")[-2] for file in files] for split, files in opened.items()}
    assert folders == {"train": ["Split-train"] * 2, "validation": ["Split-validation"] * 2}
    history = json.loads((tmp_path / "model_run" / "history.json").read_text())
    assert history["train"] == {"lists": 40, "items": int(data.row_splits[-1])}
    assert history["metric"] == "ndcg@10(gain=exponential, no_relevant=drop, ties=averaged)"
    assert model.get_string_custom_property("summary") == history["summary"]
    assert list((tmp_path / "model_run").glob("**/events.out.tfevents.*"))

    ranker = keras.saving.load_model(tmp_path / "model" / "Format-Keras" / "ranker.keras")
    assert {each.name: each.size for each in ranker.input_specs}["items/brand"] == 7  # the schema's, not the data's 4
    values = ranking_metrics.per_list(
        ["ndcg@10"], scores_of(ranker, validation), validation.items["label"], validation.row_splits
    )
    assert ranking_metrics.mean(values["ndcg@10"]) == pytest.approx(history["best_value"])
    # The columns read from the files equal those in memory.
    again, _ = trainer.train(
        data, validation, config_of(training={"epochs": 2}), sizes={"items/brand": 7, "context/wish": 2}
    )
    for a, b in zip(ranker.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_splits_are_parameters_and_an_empty_one_is_an_error(tmp_path):
    write_transformed(tmp_path, train=lists_of(20, 1), eval=lists_of(10, 2))
    model, _ = run_component(tmp_path, config_of(training={"epochs": 1}), validation_split="eval")
    assert list(json.loads(model.get_string_custom_property("opened"))) == ["train", "eval"]
    with pytest.raises(DataError, match=r"split 'validation' has no list \(0 files in .*Split-validation\)"):
        run_component(tmp_path, config_of())


def test_anomalies_fail_the_training_or_are_a_warning(tmp_path, caplog):
    write_transformed(tmp_path, train=lists_of(20, 1), validation=lists_of(10, 2))
    reported = anomalies_pb2.Anomalies()
    reported.anomaly_info["price"].short_description = "Out-of-range values"
    reported.anomaly_info["price"].description = "Unexpectedly low value: -3."
    for split, anomalies in {"train": anomalies_pb2.Anomalies(), "validation": reported}.items():
        folder = tmp_path / "anomalies" / f"Split-{split}"
        folder.mkdir(parents=True)
        (folder / "SchemaDiff.pb").write_bytes(anomalies.SerializeToString())
    with pytest.raises(
        DataError, match=r"1 anomalies in the data: validation: price: Out-of-range values \(Unexp.*on_anomaly: warn"
    ):
        run_component(tmp_path, config_of(), tmp_path / "anomalies")
    data = {"input": "x", "format": "csv", "on_anomaly": "warn"}
    run_component(tmp_path, config_of(data=data, training={"epochs": 1}), tmp_path / "anomalies")
    assert "price: Out-of-range values" in caplog.text


def test_outputs_that_break_the_naming_rule(tmp_path):
    write_transformed(tmp_path, extra='feature { name: "price_log" type: FLOAT }', train=lists_of(5, 1))
    with pytest.raises(DataError, match=r"preprocessing_fn returns price_log: expected outputs named items/<name>"):
        training_data.read_layout(str(tmp_path / "graph"))
