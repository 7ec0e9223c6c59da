"""Measures how fast an exported ranker serves, and compares it with TF-Ranking, ml4ir and a bare scorer.

All use a DNN of 256-128-64 on 46 features and get the same lists of 5 to 120 items, in the form that their clients
send.  Our ranker has its preprocessing (a z-score of each feature) in the graph; the others have none.  The figures are
items/s in calls of 32 lists, and p50 and p99 of a call with one list of 120 items, with the loader that TensorFlow
Serving uses and from Python.  TF-Ranking and ml4ir run in separate environments (`benchmarks/peers/`).

The rankers are measured in turns, and the fastest turn of each counts: other programs on a machine only ever add time,
and that time varies by more than the differences of interest.  The scores of every ranker are checked first.

    python benchmarks/serve.py [--seconds 0.15] [--turns 15] [--peers tf_ranking ml4ir]
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from peers import environments, protos

from tfx_ranking.components.config import RankingConfig, parse
from tfx_ranking.components.exported import model_files
from tfx_ranking.pipelines.search_logs import NumericLists, numeric_lists

FEATURES, HIDDEN, LONGEST, BATCH = 46, (256, 128, 64), 120, 32
MANY, ONE = 256, 16  # number of lists: in a round of batches, and in calls of one list
LOADERS = {"serving": "as TensorFlow Serving loads it", "python": "from Python"}
ELWC_OF_TFR = "TF-Ranking, ELWC"


@dataclasses.dataclass(frozen=True)
class Row:
    """One ranker of the comparison: a signature of a model, in `peer`'s environment (ours when None)."""

    peer: str | None
    model: str
    signature: str
    requests: str
    input: str = "inputs"
    output: str = "scores"
    lists: int = BATCH  # per call

    def side(self, loader: str) -> dict[str, Any]:
        fields = dataclasses.asdict(self)
        del fields["peer"]
        return {**fields, "loader": loader}


ROWS = {
    "ours, predict (ELWC)": Row(None, "ours/Format-Serving", "predict", "elwc"),
    "ours, list_example": Row(None, "ours/Format-Serving", "list_example", "list_example"),
    "ours, sequence_example": Row(None, "ours/Format-Serving", "sequence_example", "sequence_example"),
    "ours, features (46 named tensors)": Row(None, "ours/Format-Serving", "features", "tensors"),
    "bare scorer, one matrix": Row(None, "bare", "matrix", "matrix"),
    "bare scorer, 46 named tensors": Row(None, "bare", "named", "tensors"),
    ELWC_OF_TFR: Row(
        "tf_ranking", "tf_ranking/export/latest_model", "tensorflow/serving/predict", "elwc", output="outputs"
    ),
    "ml4ir, SequenceExample, padded": Row(
        "ml4ir", "ml4ir/padded/final/tfrecord", "serving_tfrecord", "sequence_example", "protos", "ranking_score"
    ),
    "ml4ir, SequenceExample, one by one": Row(
        "ml4ir", "ml4ir/one_by_one/final/tfrecord", "serving_tfrecord", "sequence_example", "protos", "ranking_score", 1
    ),
}
ML4IR = tuple(name for name, row in ROWS.items() if row.peer == "ml4ir")

# Our signature, the others, the least ratio of our items/s to their best, the greatest ratio of our p50 to their best.
TARGETS = (
    ("ours, predict (ELWC)", (ELWC_OF_TFR,), 2.5, 0.7),
    ("ours, list_example", (ELWC_OF_TFR,), 5.0, 0.45),
    ("ours, sequence_example", ML4IR, 5.0, 0.7),
    ("ours, features (46 named tensors)", ("bare scorer, 46 named tensors",), 1 / 1.5, 1.5),
)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seconds", type=float, default=0.15, help="length of each measurement in a turn")
    arguments.add_argument("--turns", type=int, default=15)
    arguments.add_argument("--peers", nargs="*", default=list(environments.PEERS), choices=environments.PEERS)
    arguments.add_argument("--folder", help="keep the models in this folder, and reuse those that are in it")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(options.folder or temporary).resolve()
        rows = {name: row for name, row in ROWS.items() if row.peer is None or row.peer in options.peers}
        make(folder, options.peers)
        measured = measure(folder, rows, options.turns, options.seconds)
    show(measured)


def make(folder: pathlib.Path, peers: list[str]) -> None:
    """Makes the requests of all kinds, and the model of each ranker."""
    folder.mkdir(parents=True, exist_ok=True)
    write_requests(folder)
    train, validation = folder / "train", numeric_lists(2_000, FEATURES, seed=2)
    if not (folder / "ours").exists():
        apart(make_ours, folder)
    if not (folder / "bare").exists():
        apart(make_bare, folder)
    training = {"batch": 64, "epochs": 1, "features": FEATURES, "hidden": HIDDEN, "longest": LONGEST, "export": True}
    training |= {"lists": len(validation.row_splits) - 1, "validation_lists": len(validation.row_splits) - 1}
    for peer in peers:
        if (folder / peer).exists():
            continue
        kind = {"tf_ranking": "elwc", "ml4ir": "sequence_example"}[peer]
        for split in ("train", "validation", "test"):
            (train / kind / split).mkdir(parents=True, exist_ok=True)
            protos.write(protos.KINDS[kind](validation, labels=True), train / kind / split / "lists.tfrecord")
        files = {split: str(train / kind / split / "lists.tfrecord") for split in ("train", "validation")}
        described = {**training, **files, "data": str(train / kind), "folder": str(folder / peer)}
        environments.run(peer, f"{peer}_ranker.py", described)


def write_requests(folder: pathlib.Path) -> None:
    drawn = numeric_lists(2 * MANY * LONGEST, FEATURES, max_list=LONGEST)
    end = drawn.row_splits[MANY]
    many = NumericLists(drawn.features[:end], drawn.labels[:end], drawn.row_splits[: MANY + 1])
    items = ONE * LONGEST
    one = NumericLists(drawn.features[:items], drawn.labels[:items], np.arange(0, items + 1, LONGEST))
    for which, lists in (("many", many), ("one", one)):
        np.savez(folder / f"{which}.npz", features=lists.features, row_splits=lists.row_splits)
        for kind, build in protos.KINDS.items():
            protos.write(build(lists), folder / f"{kind}-{which}.tfrecord")


def apart(function: Any, *arguments: Any) -> Any:
    """Calls the function in another process and returns its result, so that the measuring process never loads TFX."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def config() -> RankingConfig:
    return parse(
        {
            "name": "serve",
            "data": {"input": "x", "format": "letor"},
            "items": {f"f[1-{FEATURES}]": {"transform": ["z_score"]}},
            "model": {"hidden": list(HIDDEN)},
            "serving": {"signatures": ["predict", "sequence_example", "list_example", "features"]},
        }
    )


def make_ours(folder: pathlib.Path) -> None:
    """Runs our own steps on a few lists: transform graph, network with random weights, export."""
    import apache_beam as beam
    import tensorflow_data_validation as tfdv
    from tensorflow_transform import beam as tft_beam
    from tfx_bsl.public import tfxio

    from tfx_ranking.components import preprocessing, signature_exporter
    from tfx_ranking.components.schema_gen import ranking_schema

    cfg, home = config(), folder / "ours"
    home.mkdir()
    lists = numeric_lists(2_000, FEATURES, seed=2)
    lists = lists._replace(features=lists.features * 3 + 1)  # so that the z-score changes the values
    records = protos.list_examples(lists, labels=True)
    protos.write(records, home / "train.tfrecord")
    schema = ranking_schema([tfdv.generate_statistics_from_tfrecord(str(home / "train.tfrecord"))], cfg)
    source = tfxio.TFExampleBeamRecord(physical_format="inmem", schema=schema, telemetry_descriptors=["benchmark"])
    selection = {"config": cfg.select(*preprocessing.READS)}
    graph = str(home / "transform_graph")
    with beam.Pipeline() as pipeline, tft_beam.Context(temp_dir=str(home / "temp")):
        data = pipeline | beam.Create(records) | source.BeamSource(), source.TensorAdapterConfig()
        fn = data | tft_beam.AnalyzeDataset(lambda inputs: preprocessing.preprocessing_fn(inputs, selection))
        _ = fn | tft_beam.WriteTransformFn(graph)

    network = drawn_network(cfg)
    network.save(home / "ranker.keras")
    paths = signature_exporter.RankerPaths(str(home / "ranker.keras"), graph, (), ())
    signature_exporter.save(signature_exporter.load_ranker(paths, cfg), str(home / model_files.FORMAT_SERVING))


def drawn_network(cfg: RankingConfig) -> Any:
    import keras
    import tensorflow as tf

    from tfx_ranking.components.scorers import networks
    from tfx_ranking.components.scorers.inputs import Input

    keras.utils.set_random_seed(1)
    network = networks.build([Input("items/numeric", "numeric", FEATURES)], cfg.model)
    network({"items/numeric": tf.zeros([1, FEATURES]), "row_lengths": tf.constant([1], tf.int64)})
    return network


def make_bare(folder: pathlib.Path) -> None:
    """Saves the network alone, with one matrix [item, feature] as input, and with 46 tensors [list, item]."""
    import keras
    import tensorflow as tf

    stack = keras.Sequential(drawn_network(config()).stack)
    stack.build((None, FEATURES))
    bare = tf.Module()
    bare.network, bare.tracked = stack, [variable.value for variable in stack.variables]

    def matrix(features):
        return {"scores": stack(features)[:, 0]}

    def named(**tensors):
        sizes = tensors.pop("sizes")
        stacked = tf.stack([tensors[f"f{i + 1}"] for i in range(FEATURES)], axis=-1)
        scores = stack(tf.reshape(stacked, [-1, FEATURES]))
        return {"scores": tf.reshape(scores, tf.shape(stacked)[:2]), "sizes": sizes}

    specs = {f"f{i + 1}": tf.TensorSpec([None, None], tf.float32, f"f{i + 1}") for i in range(FEATURES)}
    specs["sizes"] = tf.TensorSpec([None], tf.int64, "sizes")
    signatures = {
        "matrix": tf.function(matrix, autograph=False).get_concrete_function(
            tf.TensorSpec([None, FEATURES], tf.float32, "inputs")
        ),
        "named": tf.function(named, autograph=False).get_concrete_function(**specs),
    }
    tf.saved_model.save(bare, str(folder / "bare"), signatures=signatures)


def measure(
    folder: pathlib.Path, rows: Mapping[str, Row], turns: int, seconds: float
) -> dict[tuple[str, str], dict[str, float]]:
    """Measures all rows in turns: (row, loader) → items_per_second, p50 and p99 (seconds) of its fastest turns."""
    processes = {peer: environments.start(peer, "measure.py") for peer in {row.peer for row in rows.values()}}
    try:
        for process in processes.values():
            send(process, str(folder))

        def request(name: str, loader: str, **options: Any) -> Any:
            row = rows[name]
            side = {**row.side(loader), "model": str(folder / row.model)}
            return answer(processes[row.peer], {"side": side, **options})

        keys = [(name, loader) for loader in LOADERS for name in rows]
        check({key: scores(folder, request(*key, scores=str(folder / "scores.npy"))) for key in keys})
        measured: dict[tuple[str, str], list[dict[str, Any]]] = {key: [] for key in keys}
        for _ in range(turns):
            for key in keys:
                measured[key].append(request(*key, seconds=seconds))
    finally:
        for process in processes.values():
            process.kill()
    best = {}
    for key, each in measured.items():
        percentiles = [np.percentile(turn["seconds"], [50, 99]) for turn in each]
        p50, p99 = min(percentiles, key=lambda pair: pair[0])
        best[key] = {"items_per_second": max(turn["items_per_second"] for turn in each), "p50": p50, "p99": p99}
    return best


def send(process: Any, message: Any) -> None:
    process.stdin.write(json.dumps(message) + "\n")
    process.stdin.flush()


def answer(process: Any, message: Any) -> Any:
    send(process, message)
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"no answer to {message}: {process.args} ended with {process.wait()}")
    return json.loads(line)


def scores(folder: pathlib.Path, count: int) -> np.ndarray:
    values = np.load(folder / "scores.npy")
    assert len(values) == count
    return values


def check(scores: Mapping[tuple[str, str], np.ndarray]) -> None:
    """Checks that each row has scored every item with scores that differ, and that all of ours are equal."""
    items = {len(each) for each in scores.values()}
    if len(items) != 1:
        raise SystemExit(
            f"the rows have scored different numbers of items: { {key: len(each) for key, each in scores.items()} }"
        )
    for (name, loader), values in scores.items():
        if not np.isfinite(values).all() or len(np.unique(values)) < 0.9 * len(values):
            raise SystemExit(f"{name}, {loader}: expected finite scores that differ, got {values[:10]}")
        other = scores["ours, predict (ELWC)" if name.startswith("ours") else name, "serving"]
        if not np.allclose(values, other, rtol=1e-4, atol=1e-5):
            raise SystemExit(f"{name}, {loader}: expected the scores {other[:5]}, got {values[:5]}")


def show(measured: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
    print(f"DNN {HIDDEN}, {FEATURES} features, lists of 5 to {LONGEST}, {os.cpu_count()} cores, scores checked")
    for loader, title in LOADERS.items():
        print(f"\n{title:38}{'32 lists a call':>18}{f'one list of {LONGEST}':>26}")
        print(f"{'':38}{'items/s':>18}{'p50 ms':>13}{'p99 ms':>13}")
        for (name, by), figures in measured.items():
            if by == loader:
                p50, p99 = figures["p50"] * 1e3, figures["p99"] * 1e3
                print(f"{name:38}{figures['items_per_second']:18,.0f}{p50:13.2f}{p99:13.2f}")
        for ours, others, at_least, at_most in TARGETS:
            theirs = [measured[name, loader] for name in others if (name, loader) in measured]
            if theirs:
                mine = measured[ours, loader]
                rate = mine["items_per_second"] / max(each["items_per_second"] for each in theirs)
                p50 = mine["p50"] / min(each["p50"] for each in theirs)
                against = others[0].partition(",")[0]
                print(
                    f"{ours} over {against}: items/s {rate:.2f}x (at least {at_least:.2g}x), "
                    f"p50 {p50:.2f}x (at most {at_most:.2g}x)"
                )


if __name__ == "__main__":
    main()
