"""The DNN on LightGBM's own ranking example: as good as LightGBM, on a test file that the trainer never opened."""

import dataclasses
import json

import lightgbm
import numpy as np
import pytest
import real_sets
import scipy.stats
import tensorflow as tf
import yaml
from pipeline_runs import PipelineRun
from sklearn.datasets import load_svmlight_file
from sklearn.metrics import ndcg_score

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import metrics, trainer, training_data
from tfx_ranking.components.list_examples import Column, columns, decode
from tfx_ranking.pipelines import local

SEEDS = (1, 2, 3)
EXAMPLE_SETTINGS = {  # examples/lambdarank/train.conf of LightGBM
    **{"objective": "lambdarank", "learning_rate": 0.1, "num_leaves": 31, "bagging_freq": 1, "bagging_fraction": 0.9},
    **{
        "min_data_in_leaf": 50,
        "min_sum_hessian_in_leaf": 5.0,
        "verbosity": -1,
        "deterministic": True,
        "num_threads": 2,
    },
}
TREES = 100


@pytest.fixture(scope="module")
def run(data_dir, tmp_path_factory) -> PipelineRun:
    """The whole set's pipeline; loss, size and rate are those with the best validation figure."""
    folder = tmp_path_factory.mktemp("quality")
    raw = real_sets.lightgbm(data_dir, folder, None)
    raw["data"]["splits"] = {"validation": 0.1}  # hashed out of the 201 training lists; the test file is the test split
    raw["model"] = {"hidden": [64], "loss": "approx_ndcg"}
    raw["training"] = {"batch_lists": 16, "learning_rate": 0.003, "seed": SEEDS[0]}
    raw["evaluation"] = {"metrics": ["ndcg@10"]}
    (folder / "ranking.yaml").write_text(yaml.safe_dump(raw))
    run_id = local.run_here(folder / "ranking.yaml", folder)
    return PipelineRun(folder, ranking_config.load(folder / "ranking.yaml"), run_id)


@pytest.mark.slow
def test_the_trainer_never_opened_the_test_file(run):
    opened = json.loads(run.properties("RankingTrainer", "model")["opened"])
    assert set(opened) == {"train", "validation"}
    for split, files in opened.items():
        assert files
        assert all(f"/Split-{split}/" in file for file in files)
    in_split = {split: _group_ids(run, split) for split in ("train", "validation", "test")}
    assert len(in_split["test"]) == 50
    assert len(in_split["train"]) + len(in_split["validation"]) == 201
    assert not in_split["test"] & (in_split["train"] | in_split["validation"])


@pytest.mark.slow
def test_as_good_as_lightgbm(run, data_dir, capsys):
    served = _ndcg_by_list(run, run.training_scores())
    report = json.loads((run.uri("RankingEvaluator", "evaluation") / "metrics.json").read_text())["metrics"]["ndcg@10"]
    assert np.nanmean(served) == pytest.approx(report["value"], abs=1e-6)  # what was printed, by scikit-learn
    assert report["convention"] == "ndcg@10(gain=exponential, no_relevant=drop, ties=averaged)"

    by_seed = [served, *(_ndcg_by_list(run, _train_again(run, seed)) for seed in SEEDS[1:])]
    ours = np.mean(by_seed, axis=0)  # per list, over the seeds
    features, labels, splits = _load(data_dir, "rank.test")
    scores = [_lightgbm_scores(data_dir, features, seed) for seed in SEEDS]
    theirs = np.mean([metrics.per_list(["ndcg@10"], each, labels, splits)["ndcg@10"] for each in scores], axis=0)
    assert np.array_equal(np.isnan(ours), np.isnan(theirs))
    difference = (ours - theirs)[~np.isnan(ours)]
    half = scipy.stats.t.ppf(0.975, len(difference) - 1) * scipy.stats.sem(difference)
    seeds = ", ".join(f"{np.nanmean(values):.4f}" for values in by_seed)
    with capsys.disabled():
        print(
            f"\nndcg@10 on rank.test, mean of {len(SEEDS)} seeds: DNN {np.nanmean(ours):.4f} ({seeds}), LightGBM "
            f"{np.nanmean(theirs):.4f}, difference {difference.mean():+.4f} ± {half:.4f} "
            f"(95%, paired over {len(difference)} lists)"
        )
    assert np.nanmean(ours) >= 0.73


def _train_again(run, seed):
    """Another seed on the same transformed examples; the test split's scores by group id."""
    layout = training_data.read_layout(str(run.uri("Transform", "transform_graph")))
    examples = str(run.uri("Transform", "transformed_examples"))
    train, validation, test = (training_data.read_split(examples, split, layout)[0] for split in real_sets.SPLITS)
    config = dataclasses.replace(run.config, training=dataclasses.replace(run.config.training, seed=seed))
    ranker, _ = trainer.train(train, validation, config, sizes=layout.sizes)
    everything = tf.data.Dataset.range(len(test.row_splits) - 1)
    [(inputs, _)] = training_data.batches(test, everything, len(test.row_splits))
    return dict(zip(test.context["group_id"], np.split(ranker(inputs).numpy(), test.row_splits[1:-1])))


def _group_ids(run, split):
    name = run.config.data.group_id
    records = run.records("RankingExampleGen", "examples", split)
    return set(decode(records, {name: Column("context", "string")}).context[name].tolist())


def _ndcg_by_list(run, scores):
    """scikit-learn's figure of each test list, in the file's order; NaN without a relevant item."""
    table = columns(run.config)
    label, group = run.config.data.label, run.config.data.group_id
    batch = decode(run.records("RankingExampleGen", "examples", "test"), {name: table[name] for name in (group, label)})
    values = {}
    for i, group_id in enumerate(batch.context[group]):
        labels = batch.items[label][batch.row_splits[i] : batch.row_splits[i + 1]]
        gains = 2.0**labels - 1
        if not gains.any():
            values[group_id] = np.nan
        else:  # scikit-learn refuses a list of one item, whose NDCG is 1
            values[group_id] = ndcg_score([gains], [scores[group_id]], k=10) if len(gains) > 1 else 1.0
    return np.array([values[group_id] for group_id in sorted(values, key=_number)])


def _number(group_id):
    """The place of a list in its file; lists without an id are named by it."""
    return int(group_id.rsplit(b":", 1)[-1])


def _load(data_dir, name):
    folder = data_dir / "lightgbm-lambdarank"
    features, labels = load_svmlight_file(str(folder / name), n_features=301, zero_based=True)
    sizes = np.loadtxt(folder / f"{name}.query", dtype=int)
    return features, labels, np.append(0, np.cumsum(sizes))


def _lightgbm_scores(data_dir, test, seed):
    features, labels, splits = _load(data_dir, "rank.train")
    data = lightgbm.Dataset(features, labels, group=np.diff(splits))
    return lightgbm.train({**EXAMPLE_SETTINGS, "seed": seed}, data, TREES).predict(test)
