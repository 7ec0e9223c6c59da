"""Compares NDCG@10 of the DNN and of LightGBM on LightGBM's own ranking example (201 training and 50 test lists).

The DNN runs through the whole pipeline, once per seed.  LightGBM trains on the 201 lists with the settings of its
example, also once per seed, because its bagging alone moves the result by 0.02.  Both are measured on the same test
file with the same metric, list by list.  The difference is printed with its paired confidence interval over the lists.

    python benchmarks/quality.py [--seeds 1 2 3] [--data ../shared/data]   prints the results
    python benchmarks/quality.py --choose                                  prints how RANKING was chosen

RANKING was chosen without the test file, by cross-validation on rank.train: each of its lists was scored by rankers
that were trained on the other four fifths (5 folds; a tenth of the training lists is the validation split).  The
highest mean NDCG@10 won.  Most candidates differ by less than their interval; --choose prints the main ones.
"""

import argparse
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import lightgbm
import numpy as np
import pyarrow.parquet as pq
import scipy.stats
import tensorflow as tf
import yaml
from sklearn.datasets import load_svmlight_file

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import trainer
from tfx_ranking.components.lists.list_examples import ListBatch
from tfx_ranking.components.metrics import ranking_metrics
from tfx_ranking.components.metrics.convention import Convention
from tfx_ranking.components.training import training_data
from tfx_ranking.pipelines.metadata.connection import artifacts_root
from tfx_ranking.pipelines.running import process

ROOT = pathlib.Path(__file__).resolve().parent.parent
FEATURES, METRIC = 300, "ndcg@10"
CLIP = 2.0  # standard deviations within the list

# The epochs are fixed: early stopping on the validation split's 15 or so lists would follow their noise; see --choose.
RANKING = f"""
name: lightgbm
data:
  input: {{train: rank.train, test: rank.test}}
  format: letor
  group_sizes: .query
  order: grouped
  label_range: [0, 4]
  splits: {{validation: 0.1}}
items:
  f[1-{FEATURES}]: {{transform: [query_normalise, {{clip: [-{CLIP}, {CLIP}]}}]}}
model: {{hidden: [256, 128, 64], dropout: 0.5, loss: pairwise_logistic}}
training: {{epochs: 20, batch_lists: 16, learning_rate: 0.001, early_stopping: null, seed: 1}}
evaluation: {{metrics: [ndcg@5, ndcg@10, mrr]}}
"""

# LightGBM's examples/lambdarank/train.conf (a lambdarank of 100 trees), and the settings that make two runs equal.
EXAMPLE_SETTINGS = {
    "objective": "lambdarank",
    "num_leaves": 31,
    "learning_rate": 0.1,
    "max_bin": 255,
    "feature_fraction": 1.0,
    "bagging_freq": 1,
    "bagging_fraction": 0.9,
    "min_data_in_leaf": 50,
    "min_sum_hessian_in_leaf": 5.0,
    "deterministic": True,
    "verbosity": -1,
}
TREES = 100

# What --choose compares: a name, whether features are normalised within the list, changes of RANKING's sections.
CANDIDATES: dict[str, tuple[bool, Mapping[str, Any], Mapping[str, Any]]] = {
    "RANKING": (True, {}, {}),
    "stopped early, patience 10": (True, {}, {"epochs": 50, "early_stopping": {"patience": 10}}),
    "features as they are": (False, {}, {}),
    "loss softmax": (True, {"loss": "softmax"}, {}),
    "loss approx_ndcg": (True, {"loss": "approx_ndcg"}, {}),
    "hidden 64, 32": (True, {"hidden": [64, 32]}, {}),
    "no dropout": (True, {"dropout": 0.0}, {}),
    "layer normalisation": (True, {"normalisation": "layer"}, {}),
    "linear": (True, {"scorer": "linear"}, {}),
}


class Lists(NamedTuple):
    """A file of the example: features [item, FEATURES], labels [item], row_splits [list + 1]."""

    features: np.ndarray
    labels: np.ndarray
    row_splits: np.ndarray

    def take(self, lists: np.ndarray) -> "Lists":
        part = training_data.take(self.batch(self.features), lists)
        return Lists(part.items["items/numeric"], part.items["label"], part.row_splits)

    def batch(self, features: np.ndarray) -> ListBatch:
        """The lists as the trainer reads them."""
        groups = np.array([b"%d" % i for i in range(len(self.row_splits) - 1)], object)
        return ListBatch({"group_id": groups}, {"items/numeric": features, "label": self.labels}, self.row_splits)

    def measure(self, scores: np.ndarray) -> np.ndarray:
        """NDCG@10 of each list; exponential gain, NaN without a relevant item."""
        return ranking_metrics.per_list([METRIC], scores, self.labels, self.row_splits)[METRIC]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("TFX_RANKING_DATA", ROOT.parent / "shared" / "data")
    arguments.add_argument("--data", type=pathlib.Path, default=default, help="folder that holds lightgbm-lambdarank")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--choose", action="store_true", help="compare configs by cross-validation on rank.train")
    arguments.add_argument("--repeats", type=int, default=2, help="of the cross-validation, each with other folds")
    options = arguments.parse_args()
    folder = pathlib.Path(options.data) / "lightgbm-lambdarank"
    if not folder.is_dir():
        print(f"no folder {folder}: name the one that holds lightgbm-lambdarank by --data or TFX_RANKING_DATA")
    elif options.choose:
        choose(read(folder / "rank.train"), options.repeats)
    else:
        compare(folder, options.seeds)


def compare(folder: pathlib.Path, seeds: Sequence[int]) -> None:
    """Prints both rankers' results and their difference."""
    train, test = read(folder / "rank.train"), read(folder / "rank.test")
    with tempfile.TemporaryDirectory() as root:
        by_seed = [values for values, _ in run_pipeline(folder, pathlib.Path(root), seeds).values()]
    trees = [test.measure(lightgbm_scores(train, test, {"seed": seed})) for seed in seeds]
    ours, theirs = np.mean(by_seed, axis=0), test.measure(lightgbm_scores(train, test))
    print(f"\n{ranking_metrics.describe(METRIC, Convention())} on rank.test, {len(theirs)} lists")
    # A random order has the mean over all orders of equal scores.
    print(f"random order                         {np.nanmean(test.measure(np.zeros(len(test.labels)))):.4f}")
    print(f"LightGBM, its default seed           {np.nanmean(theirs):.4f}")
    print(f"LightGBM, mean of {len(seeds)} seeds            {np.nanmean(trees):.4f}  ({_listed(trees)})")
    print(
        f"DNN, mean of {len(seeds)} seeds                 {np.nanmean(ours):.4f}  ({_listed(by_seed)})  (at least 0.73)"
    )
    for name, other in {
        "LightGBM, mean of seeds": np.mean(trees, axis=0),
        "LightGBM, its default seed": theirs,
    }.items():
        print(f"DNN less {name}: {describe_difference(ours, other)}")


def describe_difference(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Mean of the paired differences list by list, with its 95% interval (Student's t over the lists)."""
    kept = ~np.isnan(ours) & ~np.isnan(theirs)
    low, high = scipy.stats.ttest_rel(ours[kept], theirs[kept]).confidence_interval(0.95)
    difference = float(np.mean(ours[kept] - theirs[kept]))
    return f"{difference:+.4f} (95% {low:+.4f} to {high:+.4f}, paired over {np.count_nonzero(kept)} lists)"


def run_pipeline(folder: pathlib.Path, root: pathlib.Path, seeds: Sequence[int]) -> dict[int, tuple[np.ndarray, str]]:
    """Runs the pipeline of RANKING once per seed, in one root.  Returns by seed NDCG@10 by list, and the run's id."""
    for name in ("rank.train", "rank.test"):
        for file in (name, f"{name}.query"):
            shutil.copy(folder / file, root / file)
    by_seed = {}
    for seed in seeds:
        raw = yaml.safe_load(RANKING)
        raw["training"]["seed"] = seed
        (root / "ranking.yaml").write_text(yaml.safe_dump(raw, sort_keys=False))
        run_id = process.run_here(root / "ranking.yaml", root)
        config = ranking_config.load(root / "ranking.yaml")
        written = artifacts_root(config, root) / "RankingEvaluator" / "evaluation"
        newest = max(written.iterdir(), key=lambda each: int(each.name))
        table = pq.read_table(newest / "per_list.parquet").to_pydict()
        values = dict(zip(table["group_id"], table[f"model.{METRIC}"]))
        # A list without an id has its file and its number in it as its name.
        by_seed[seed] = (np.array([values[group] for group in sorted(values, key=_place)]), run_id)
        summary = json.loads((newest / "metrics.json").read_text())["bless"]["summary"]
        print(f"seed {seed}: {summary}", flush=True)
    return by_seed


def lightgbm_scores(train: Lists, test: Lists, settings: Mapping[str, Any] | None = None) -> np.ndarray:
    """Float64 [item]: the test items' scores by LightGBM with its example's settings."""
    data = lightgbm.Dataset(train.features, train.labels, group=np.diff(train.row_splits))
    return np.asarray(lightgbm.train({**EXAMPLE_SETTINGS, **(settings or {})}, data, TREES).predict(test.features))


def read(file: pathlib.Path) -> Lists:
    features, labels = load_svmlight_file(str(file), n_features=FEATURES + 1, zero_based=True)
    sizes = np.loadtxt(f"{file}.query", dtype=np.int64)
    dense = np.asarray(features.todense(), np.float32)[:, 1:]
    return Lists(dense, labels.astype(np.float32), np.append(0, np.cumsum(sizes)))


def choose(train: Lists, repeats: int, folds: int = 5) -> None:
    """Prints each candidate's NDCG@10 over the lists of rank.train, scored by rankers that were not trained on them."""
    lists = len(train.row_splits) - 1
    reference = cross_validate(
        lists, folds, repeats, lambda fit, holdout, seed: _trees_on_holdout(train, fit, holdout, seed)
    )
    print(f"LightGBM {np.nanmean(reference):.4f}", flush=True)
    best = None
    for name, (normalised, model, training) in CANDIDATES.items():
        features = normalise_by_list(train) if normalised else train.features
        values = cross_validate(
            lists,
            folds,
            repeats,
            lambda fit, holdout, seed: _dnn_on_holdout(train.batch(features), fit, holdout, seed, model, training),  # noqa: B023
        )
        best = values if best is None else best
        against = "" if name == "RANKING" else f"  RANKING less this: {describe_difference(best, values)}"
        print(f"{name:28} {np.nanmean(values):.4f}{against}", flush=True)
    print(f"RANKING less LightGBM: {describe_difference(best, reference)}")


def cross_validate(lists: int, folds: int, repeats: int, measure_holdout: Any) -> np.ndarray:
    """Each list's NDCG@10 by the rankers that were not trained on it: the mean over the repeats, each with other folds.

    measure_holdout: called with the lists to train on, the lists to measure, and the seed.
    """
    values = np.full((repeats, lists), np.nan)
    for repeat in range(repeats):
        order = np.random.default_rng(repeat).permutation(lists)
        for fold in range(folds):
            holdout = order[fold::folds]
            values[repeat, holdout] = measure_holdout(np.setdiff1d(order, holdout), holdout, repeat + 1)
    return np.mean(values, axis=0)


def _trees_on_holdout(train: Lists, fit: np.ndarray, holdout: np.ndarray, seed: int) -> np.ndarray:
    test = train.take(holdout)
    return test.measure(lightgbm_scores(train.take(fit), test, {"seed": seed}))


def _dnn_on_holdout(
    data: ListBatch,
    fit: np.ndarray,
    holdout: np.ndarray,
    seed: int,
    model: Mapping[str, Any],
    training: Mapping[str, Any],
) -> np.ndarray:
    raw = yaml.safe_load(RANKING)
    raw["model"] |= model
    raw["training"] |= {**training, "seed": seed}
    shuffled = np.random.default_rng(seed).permutation(fit)
    validation, rest = np.split(shuffled, [len(fit) // 10])
    config = ranking_config.parse(raw)
    ranker, _ = trainer.train(training_data.take(data, rest), training_data.take(data, validation), config)
    test = training_data.take(data, holdout)
    [(inputs, _)] = training_data.batches(test, tf.data.Dataset.range(len(holdout)), len(holdout))
    return ranking_metrics.per_list([METRIC], ranker(inputs).numpy(), test.items["label"], test.row_splits)[METRIC]


def normalise_by_list(lists: Lists) -> np.ndarray:
    """The transform of RANKING in NumPy: z-score within the list, 0 where all items are equal, clipped."""
    parts = []
    for part in np.split(lists.features, lists.row_splits[1:-1]):
        spread = part.std(axis=0)
        varies = spread > 1e-6
        parts.append(np.where(varies, (part - part.mean(axis=0)) / np.where(varies, spread, 1), 0))
    return np.clip(np.concatenate(parts), -CLIP, CLIP).astype(np.float32)


def _place(group_id: str) -> int:
    return int(group_id.rpartition(":")[2])


def _listed(by_seed: Sequence[np.ndarray]) -> str:
    return ", ".join(f"{np.nanmean(values):.4f}" for values in by_seed)


if __name__ == "__main__":
    main()
