"""Compares RankingTrainer's speed with TF-Ranking, ml4ir and a plain Keras `fit` of the same network.

The data are items of 46 features in lists of 5 to 120, in files as TFX's Transform writes them; the network is a DNN
256-128-64 in float32.  The plain `fit` has the items as one matrix in memory, pointwise, in batches with as many items,
once without XLA (as the trainer) and once with it; the faster one is the reference.  TF-Ranking and ml4ir train on the
first of the same lists with their own pipelines, in their own environments (`benchmarks/peers/`), with softmax loss in
batches of as many lists as ours: TF-Ranking from ELWC files, ml4ir from SequenceExample files.  All take turns, one
epoch is one sample, and the fastest epoch of each counts, because other work on the machine only ever adds time, and
often more than the difference that is measured.  The medians are printed too.

    python benchmarks/train.py [--items 500000] [--peer-items 200000] [--epochs 3] [--turns 3] [--peers ...]
"""

import argparse
import itertools
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from peers import environments, protos

from tfx_ranking.components import trainer
from tfx_ranking.components.config import RankingConfig, parse
from tfx_ranking.components.lists.list_examples import Column, ListBatch, encode, write_records
from tfx_ranking.components.scorers import networks
from tfx_ranking.components.scorers.inputs import Input
from tfx_ranking.components.training import training_data
from tfx_ranking.pipelines.search_logs import NumericLists, numeric_lists

FEATURES, HIDDEN, BATCH_LISTS, FILES = 46, (256, 128, 64), 64, 4
PEER_NAMES = {"tf_ranking": "TF-Ranking", "ml4ir": "ml4ir"}
PEER_DATA = {"tf_ranking": "elwc", "ml4ir": "sequence_example"}
WANTED = {"tf_ranking": 8, "ml4ir": 1.5}  # times a peer's warm epoch
SCHEMA = """
feature { name: "group_id" type: BYTES presence { min_fraction: 1 } shape {} }
feature { name: "items/numeric$ragged_values" type: FLOAT }
feature { name: "label$ragged_values" type: FLOAT }
tensor_representation_group { key: "" value {
  tensor_representation { key: "items/numeric" value { ragged_tensor {
    feature_path { step: "items/numeric$ragged_values" } partition { uniform_row_length: %d } } } }
  tensor_representation { key: "label" value { ragged_tensor { feature_path { step: "label$ragged_values" } } } }
} }
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--items", type=int, default=500_000)
    arguments.add_argument("--epochs", type=int, default=3, help="warm epochs a turn, after the first")
    arguments.add_argument("--turns", type=int, default=3)
    arguments.add_argument("--peers", nargs="*", default=list(environments.PEERS), choices=environments.PEERS)
    arguments.add_argument("--peer-items", type=int, default=200_000, help="of the same lists, for the slower peers")
    options = arguments.parse_args()
    lists = numeric_lists(options.items, FEATURES)
    with tempfile.TemporaryDirectory() as folder:
        write_files(pathlib.Path(folder), lists)
        write_files(
            pathlib.Path(folder), numeric_lists(max(2_000, options.items // 50), FEATURES, seed=2), "validation"
        )
        bare: dict[str, list[float]] = {"plain": [], "XLA": []}
        first, warm = [], []
        peers: dict[str, tuple[list[float], list[float]]] = {peer: ([], []) for peer in options.peers}
        some = first_lists(lists, options.peer_items)
        for peer in peers:
            write_peer_files(pathlib.Path(folder) / PEER_DATA[peer], PEER_DATA[peer], some)
        for turn in range(options.turns):
            for peer, (whole_of_peer, warm_of_peer) in peers.items():
                rates = peer_rates(peer, pathlib.Path(folder), some, options.epochs, turn)
                whole_of_peer.append(rates[0])
                warm_of_peer += rates[1:]
            for name, rates in bare.items():
                rates += apart(bare_rates, options.items, options.epochs, name == "XLA")
            whole, later = apart(trainer_rates, folder, options.items, options.epochs)
            first.append(whole)
            warm += later

    yardstick = max(bare, key=lambda name: max(bare[name]))
    count = f"{options.items:,} items x {FEATURES} features in {len(lists.row_splits) - 1:,} lists"
    print(f"\n{count}, DNN {HIDDEN}, {os.cpu_count()} cores, items/s")
    print(f"{'':48}{'fastest':>12}{'median':>12}")
    rows = {f"bare Keras fit, {name}": rates for name, rates in bare.items()}
    rows |= {"RankingTrainer, warm epoch": warm, "RankingTrainer, whole first epoch from files": first}
    for peer, (whole_of_peer, warm_of_peer) in peers.items():
        rows |= {f"{PEER_NAMES[peer]}, warm epoch": warm_of_peer, f"{PEER_NAMES[peer]}, first epoch": whole_of_peer}
    for name, rates in rows.items():
        print(f"{name:48}{max(rates):12,.0f}{np.median(rates):12,.0f}")
    print(f"warm: {max(warm) / max(bare[yardstick]):.2f}x of bare ({yardstick})  (at least 0.7x)")
    print(f"whole first epoch: {max(first) / max(bare[yardstick]):.2f}x of bare ({yardstick})  (at least 0.2x)")
    for peer, (whole_of_peer, warm_of_peer) in peers.items():
        name, wanted = PEER_NAMES[peer], WANTED[peer]
        print(f"warm: {max(warm) / max(warm_of_peer):.2f}x of {name}  (at least {wanted}x)")
        print(f"first epoch: {max(first) / max(whole_of_peer):.2f}x of {name}, tracing included")


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Runs the function in a separate process, because the trainer makes a whole process deterministic."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def config(epochs: int) -> RankingConfig:
    training = {"epochs": epochs, "batch_lists": BATCH_LISTS, "early_stopping": None}
    items = {f"f[1-{FEATURES}]": {}}
    return parse({"name": "b", "data": {"input": "x", "format": "letor"}, "items": items, "training": training})


def trainer_rates(folder: str, items: int, epochs: int) -> tuple[float, list[float]]:
    """Items/s of the whole first epoch (reading, building, tracing, validation), and of each warm one."""
    began = time.perf_counter()
    layout = training_data.read_layout(f"{folder}/graph")
    train_data, _ = training_data.read_split(f"{folder}/examples", "train", layout)
    validation_data, _ = training_data.read_split(f"{folder}/examples", "validation", layout)
    read = time.perf_counter() - began
    ranker, history = trainer.train(train_data, validation_data, config(epochs + 1), sizes=layout.sizes)
    losses = [epoch["loss"] for epoch in history["epochs"]]
    if history["train"]["items"] != items or not losses[-1] < losses[0] or history["best_value"] < 0.8:
        raise SystemExit(f"the trainer did not do its work: {history}")
    check_network(ranker)
    return items / (read + history["first_epoch_seconds"]), [e["items_per_second"] for e in history["epochs"][1:]]


def bare_rates(items: int, epochs: int, jit_compile: bool) -> list[float]:
    """Items/s of each warm epoch of Keras' own `fit`."""
    lists = numeric_lists(items, FEATURES)
    keras.utils.set_random_seed(1)
    inputs = [Input("items/numeric", "numeric", FEATURES)]
    network = keras.Sequential(networks.build(inputs, config(1).model).stack)
    network.build((None, FEATURES))
    check_network(network)
    network.compile(optimizer="adam", loss="mse", jit_compile=jit_compile)
    features, labels = tf.constant(lists.features), tf.constant(lists.labels[:, None])
    batch = BATCH_LISTS * len(lists.labels) // (len(lists.row_splits) - 1)
    clock = Clock()
    losses = network.fit(features, labels, batch, epochs + 1, verbose=0, callbacks=[clock]).history["loss"]
    steps = -(-len(lists.labels) // batch) * (epochs + 1)
    if int(network.optimizer.iterations.numpy()) != steps or not losses[-1] < losses[0]:
        raise SystemExit(f"Keras' fit did not do its work: {network.optimizer.iterations} of {steps} steps, {losses}")
    return [len(lists.labels) / seconds for seconds in clock.seconds[1:]]


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def check_network(network: keras.Model) -> None:
    if network.count_params() != count_weights():
        raise SystemExit(f"not the same network: {network.count_params()} weights, expected {count_weights()}")


def count_weights() -> int:
    return sum((rows + 1) * columns for rows, columns in itertools.pairwise((FEATURES, *HIDDEN, 1)))


def first_lists(lists: NumericLists, items: int) -> NumericLists:
    """The first lists, of about so many items."""
    count = int(np.searchsorted(lists.row_splits, items, side="right")) - 1
    end = lists.row_splits[count]
    return NumericLists(lists.features[:end], lists.labels[:end], lists.row_splits[: count + 1])


def write_peer_files(folder: pathlib.Path, kind: str, lists: NumericLists) -> None:
    validation = numeric_lists(2_000, FEATURES, seed=2)
    for split, made in (("train", lists), ("validation", validation), ("test", validation)):
        if not (folder / split).exists():
            (folder / split).mkdir(parents=True)
            protos.write(protos.KINDS[kind](made, labels=True), folder / split / "lists.tfrecord")


def peer_rates(peer: str, folder: pathlib.Path, lists: NumericLists, epochs: int, turn: int) -> list[float]:
    """Items/s of each epoch, the first with its tracing; without validation."""
    data = folder / PEER_DATA[peer]
    report = environments.run(
        peer,
        f"{peer}_ranker.py",
        {
            "train": str(data / "train" / "lists.tfrecord"),
            "validation": str(data / "validation" / "lists.tfrecord"),
            "data": str(data),
            "folder": str(folder / f"{peer}-{turn}"),
            "lists": len(lists.row_splits) - 1,
            "validation_lists": BATCH_LISTS,  # one step
            "batch": BATCH_LISTS,
            "epochs": epochs + 1,
            "features": FEATURES,
            "hidden": HIDDEN,
            "longest": 120,
            "export": False,
        },
    )
    if report["weights"] != count_weights() or not report["losses"][-1] < report["losses"][0]:
        raise SystemExit(f"{peer} did not do its work: {report}")
    return [len(lists.labels) / seconds for seconds in report["seconds"]]


def write_files(folder: pathlib.Path, lists: NumericLists, split: str = "train") -> None:
    """The lists as transformed examples, in the layout of TFX's Transform."""
    metadata = folder / "graph" / "transformed_metadata"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "schema.pbtxt").write_text(SCHEMA % FEATURES)
    table = {
        "group_id": Column("context", "string"),
        "items/numeric$ragged_values": Column("items", "float", FEATURES),
        "label$ragged_values": Column("items", "float"),
    }
    target = folder / "examples" / f"Split-{split}"
    target.mkdir(parents=True)
    every = ListBatch(
        {"group_id": np.array([b"%s-%d" % (split.encode(), i) for i in range(len(lists.row_splits) - 1)], object)},
        {"items/numeric$ragged_values": lists.features, "label$ragged_values": lists.labels},
        lists.row_splits,
    )
    for part, numbers in enumerate(np.array_split(np.arange(len(lists.row_splits) - 1), FILES)):
        some = encode(training_data.take(every, numbers), table)
        write_records(str(target / f"transformed_examples-{part:05d}-of-{FILES:05d}.gz"), some)


if __name__ == "__main__":
    main()
