"""Trains a TF-Ranking ranker with TF-Ranking's pipeline on ELWC files, and exports it with TF-Ranking's signatures.

Input: JSON with `train` and `validation` (TFRecord files), `lists`, `validation_lists`, `batch`, `epochs`, `features`,
`hidden`, `folder`.
Output: `<folder>/export/latest_model`; the last line that it prints is JSON with the seconds and loss of each epoch and
the number of weights.

It runs in TF-Ranking's environment.
"""

import json
import sys
import time

import tensorflow as tf
import tensorflow_ranking as tfr

# By default TF-Ranking's DNN has batch normalisation, a dropout of 0.5 and no activation.
TOWER = {"output_units": 1, "activation": tf.nn.relu, "use_batch_norm": False, "dropout": None}


class Clock(tf.keras.callbacks.Callback):
    """Records the seconds of each epoch's training, without its validation."""

    def __init__(self):
        super().__init__()
        self.seconds, self.losses, self.weights = [], [], 0

    def on_epoch_begin(self, epoch, logs=None):
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        self.ended = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds.append(self.ended - self.began)
        self.losses.append(float(logs["loss"]))
        self.weights = sum(weight.shape.num_elements() for weight in self.model.trainable_weights)


class Timed(tfr.keras.pipeline.SimplePipeline):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.clock = Clock()

    def build_callbacks(self):
        return [*super().build_callbacks(), self.clock]


def main(options):
    column = tf.io.FixedLenFeature([1], tf.float32, default_value=[0.0])
    features = {f"f{i + 1}": column for i in range(options["features"])}
    models = tfr.keras.model.ModelBuilder(
        input_creator=tfr.keras.model.FeatureSpecInputCreator({}, features),
        preprocessor=tfr.keras.model.PreprocessorWithSpec({}),
        scorer=tfr.keras.model.DNNScorer(hidden_layer_dims=options["hidden"], **TOWER),
        mask_feature_name="mask",
    )
    data = tfr.keras.pipeline.SimpleDatasetBuilder(
        {},
        features,
        "mask",
        ("label", tf.io.FixedLenFeature([1], tf.float32, default_value=[-1.0])),
        tfr.keras.pipeline.DatasetHparams(options["train"], options["validation"], options["batch"], options["batch"]),
    )
    hparams = tfr.keras.pipeline.PipelineHparams(
        model_dir=options["folder"],
        num_epochs=options["epochs"],
        steps_per_epoch=-(-options["lists"] // options["batch"]),
        validation_steps=-(-options["validation_lists"] // options["batch"]),
        learning_rate=0.001,
        loss="softmax_loss",
    )
    pipeline = Timed(models, data, hparams)
    pipeline.train_and_validate()
    clock = pipeline.clock
    print(json.dumps({"seconds": clock.seconds, "losses": clock.losses, "weights": clock.weights}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
