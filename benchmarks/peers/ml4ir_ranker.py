"""Trains an ml4ir ranker with ml4ir's pipeline on SequenceExample files, and exports it with ml4ir's signature.

Input: JSON with `data` (a folder with train, validation and test), `lists`, `batch`, `epochs`, `features`, `hidden`,
`longest`, `folder`, `export`.
Output: `<folder>/<padded or one_by_one>/final/tfrecord`, SavedModels with and without padding at inference; the last
line that it prints is JSON with the seconds and loss of each epoch and the number of weights.

It runs in ml4ir's environment.
"""

import collections
import collections.abc
import json
import os
import pathlib
import sys
import time
import types

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # ml4ir needs Keras 2

import tensorflow as tf
import yaml

# ml4ir 0.1.16 needs collections as in Python 3.9, and imports a package that only its transformer layer uses.
collections.Callable = collections.abc.Callable
sys.modules["tensorflow_models"] = types.ModuleType("tensorflow_models")

import ml4ir
from ml4ir.applications.ranking.config.parse_args import get_args
from ml4ir.applications.ranking.pipeline import RankingPipeline


class Clock(tf.keras.callbacks.Callback):
    """Records the seconds of each epoch's training, without its validation."""

    def __init__(self):
        super().__init__()
        self.seconds, self.losses = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self.ended - self.began)
        self.losses.append(float(logs["loss"]))


def main(options):
    folder = pathlib.Path(options["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    (folder / "features.yaml").write_text(yaml.safe_dump(feature_config(options["features"])))
    (folder / "model.yaml").write_text(yaml.safe_dump(model_config(options["hidden"])))
    arguments = {
        "data_dir": options["data"],
        "feature_config": "features.yaml",
        "model_config": "model.yaml",
        "evaluation_config": str(pathlib.Path(ml4ir.__path__[0]) / "base/config/default_evaluation_config.yaml"),
        "tfrecord_type": "sequence_example",
        "loss_key": "softmax_cross_entropy",
        "scoring_type": "listwise",
        "metrics_keys": "MRR",
        "monitor_metric": "MRR",
        "monitor_mode": "max",
        "batch_size": options["batch"],
        "max_sequence_size": options["longest"],
        "num_epochs": options["epochs"],
        "early_stopping_patience": options["epochs"],
        "pad_sequence_at_inference": True,
        "output_name": "ranking_score",
        "run_id": "run",
    }
    pipeline = RankingPipeline(
        get_args([word for key, value in arguments.items() for word in (f"--{key}", str(value))])
    )
    data, ranker, clock = pipeline.get_relevance_dataset(), pipeline.get_relevance_model(), Clock()
    hooks = ranker._build_callback_hooks
    ranker._build_callback_hooks = lambda **named: [*hooks(**named), clock]
    ranker.fit(
        dataset=data,
        num_epochs=options["epochs"],
        models_dir="models",
        logs_dir="logs",
        monitor_metric="MRR",
        monitor_mode="max",
        patience=options["epochs"],
    )
    for name, padded in (("padded", True), ("one_by_one", False)) if options["export"] else ():
        ranker.save(models_dir=name, preprocessing_keys_to_fns={}, pad_sequence=padded)
    report = {
        "seconds": clock.seconds,
        "losses": clock.losses,
        "weights": sum(weight.shape.num_elements() for weight in ranker.model.trainable_weights),
    }
    print(json.dumps(report))


def feature_config(features):
    def feature(name, dtype, kind="sequence", trainable=False):
        return {
            "name": name,
            "node_name": name,
            "trainable": trainable,
            "dtype": dtype,
            "log_at_inference": False,
            "feature_layer_info": {"type": "numeric", "shape": None},
            "serving_info": {
                "name": name,
                "required": trainable or name == "rank",
                "default_value": "" if dtype == "string" else 0,
            },
            "tfrecord_type": kind,
        }

    return {
        "query_key": feature("query_id", "string", "context"),
        "rank": feature("rank", "int64"),
        "label": feature("label", "float"),
        "features": [feature(f"f{i + 1}", "float", trainable=True) for i in range(features)],
    }


def model_config(hidden):
    layers = [
        {"type": "dense", "name": f"dense_{i}", "units": units, "activation": "relu"} for i, units in enumerate(hidden)
    ]
    return {
        "architecture_key": "dnn",
        "layers": [*layers, {"type": "dense", "name": "score", "units": 1, "activation": None}],
        "optimizer": {"key": "adam", "gradient_clip_value": 5.0},
        "lr_schedule": {"key": "constant", "learning_rate": 0.001},
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
