"""The compiled pipeline runs: each container's command as a process, in the order and with the inputs that KFP gives.

Twice on LightGBM's example, a first run on one span and a recurring one with a new span beside it, and the same two
runs by the local runner: scores, metric and lineage are to agree.
"""

import os
import pathlib
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import kubeflow_replay
import numpy as np
import pytest
import real_sets
import serving_client
import yaml
from lineage_answers import answers
from ml_metadata import metadata_store

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.lists.list_examples import columns, decode, read_records, split_files
from tfx_ranking.components.push import versions
from tfx_ranking.pipelines.kubeflow import compiler
from tfx_ranking.pipelines.lineage import impact, origin
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.metadata import run_records as runs
from tfx_ranking.pipelines.metadata.connection import config_connection
from tfx_ranking.pipelines.running import process

pytestmark = pytest.mark.slow
SPANS = (1, 2)


@pytest.fixture(scope="module")
def root(data_dir, tmp_path_factory) -> Iterator[pathlib.Path]:
    """The pipeline root: the logs of both spans, and whatever the containers write."""
    # Not pytest's where another user runs the containers: nobody else can enter that.
    new = pathlib.Path(tempfile.mkdtemp(prefix="kubeflow-")) if kubeflow_replay.USER else tmp_path_factory.mktemp("kf")
    root = new / "root"
    whole = root / "whole"
    whole.mkdir(parents=True)
    real_sets.lightgbm(data_dir, whole, None)
    for name in ("rank.train", "rank.test"):
        sizes = [int(size) for size in (whole / f"{name}.query").read_text().split()]
        rows, half = (whole / name).read_text().splitlines(keepends=True), len(sizes) // 2
        for span, part, of_it in (
            (1, slice(None, half), slice(None, sum(sizes[:half]))),
            (2, slice(half, None), slice(sum(sizes[:half]), None)),
        ):
            folder = root / "logs" / str(span)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("".join(rows[of_it]))
            (folder / f"{name}.query").write_text("".join(f"{size}\n" for size in sizes[part]))
    if kubeflow_replay.USER:
        for each in (new, root, *root.rglob("*")):
            os.chown(each, int(kubeflow_replay.USER), int(kubeflow_replay.USER))
    yield root
    if kubeflow_replay.USER:
        shutil.rmtree(new)


def _config(root: pathlib.Path, folder: pathlib.Path) -> ranking_config.RankingConfig:
    raw = {
        "name": "lightgbm",
        "data": {
            "input": {split: f"{root}/logs/{{SPAN}}/rank.{split}" for split in ("train", "test")},
            "format": "letor",
            "group_sizes": ".query",
            "order": "grouped",
            "window": {"spans": 2},
            "splits": {"validation": 0.2},
        },
        "items": {"f[1-300]": {"transform": ["z_score"]}},
        "model": real_sets.SMALL_MODEL,
        "training": real_sets.SHORT_TRAINING,
        "serving": {"signatures": ["list_example"], "default": "list_example", "parity_lists": 16},
        "push": {"base": f"{folder}/serving", "version": "next"},
        "kubeflow": {"beam_args": ["--direct_num_workers=1"]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ranking.yaml").write_text(yaml.safe_dump(raw))
    return ranking_config.load(folder / "ranking.yaml")


class Cluster(NamedTuple):
    """Two runs of the compiled pipeline."""

    text: str  # the YAML
    runs: list[str]  # their ids
    commands: list[Sequence[str]]  # of the second one's containers


@pytest.fixture(scope="module")
def cluster(root) -> Cluster:
    """A first run with a span given, then one of the newest."""
    text = compiler.compile(_config(root, root), "registry/ranking:1", str(root)).yaml
    ids = [kubeflow_replay.run(text, root, parameters) for parameters in ({"span": "1"}, {})]
    return Cluster(text, ids, kubeflow_replay.commands())


@pytest.fixture(scope="module")
def here(root, tmp_path_factory) -> pathlib.Path:
    """The folder of the same two runs by the local runner."""
    folder = tmp_path_factory.mktemp("local")
    config = _config(root, folder)
    for span in SPANS:
        raw = yaml.safe_load((folder / "ranking.yaml").read_text())
        raw["data"]["span"] = span
        (folder / "ranking.yaml").write_text(yaml.safe_dump(raw))
        process.run_here(folder / "ranking.yaml", folder)
    assert config.push is not None
    return folder


def _store(folder: pathlib.Path) -> lineage_store.Store:
    return lineage_store.connect(str(folder / "metadata.sqlite"))


def _written(folder: pathlib.Path) -> metadata_store.MetadataStore:
    config = ranking_config.load(folder / "ranking.yaml")
    return metadata_store.MetadataStore(config_connection(config, folder))


def test_both_runs_push_what_they_trained(root, cluster):
    assert list(versions.ServingBase(root / "serving").directories())[-1] >= 1
    newest, first = origin.runs(_store(root))
    assert [first.id, newest.id] == cluster.runs
    assert [(each.state, each.steps, each.cached) for each in (first, newest)] == [("done", 10, 0)] * 2
    assert (first.spans, newest.spans) == ((1,), (1, 2))
    assert first.pushed == "1"


def test_the_served_scores_are_those_of_training(root, cluster):
    import keras
    import tensorflow as tf
    import tensorflow_transform as tft

    from tfx_ranking.components.scorers.inputs import network_inputs

    store = _store(root)
    served = root / "serving" / "1"
    steps = {each.node: each for each in origin.upstream(store, str(served)).executions}

    def uri(node: str, channel: str) -> str:
        [made] = [link.artifact for link in steps[node].outputs if link.name == channel]
        return store.artifacts([made])[made].uri

    config = ranking_config.load(root / "ranking.yaml")
    records = list(read_records(split_files(uri("RankingExampleGen", "examples"), "test")))
    spec = tft.TFTransformOutput(uri("Transform", "transform_graph")).transformed_feature_spec()
    network = keras.saving.load_model(pathlib.Path(uri("RankingTrainer", "model")) / "Format-Keras" / "ranker.keras")
    by_id = {}
    for record in read_records(split_files(uri("Transform", "transformed_examples"), "test")):
        parsed = tf.io.parse_example([record], spec)
        fed = {name: value for name, value in parsed.items() if name.startswith(("items/", "context/"))}
        by_id[parsed["group_id"].numpy()[0]] = network(network_inputs(fed), training=False).numpy()
    ids = decode(records, {"group_id": columns(config)["group_id"]}).context["group_id"]
    expected = np.concatenate([by_id[each] for each in ids])
    scores, _ = serving_client.fresh_process_score(served, "list_example", records)
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-5 * max(1.0, np.ptp(expected)))


def test_metric_and_lineage_are_the_local_runs(root, cluster, here):
    """The answers hold the metric, to 0.005."""
    assert answers(_store(root), "lightgbm", root / "serving") == answers(_store(here), "lightgbm", here / "serving")


def test_a_span_leads_to_the_models_made_of_it(root, cluster, here):
    """What the local runs say, of clusters' runs."""
    for span, models in ((1, 2), (2, 1)):
        answer = impact.of_span(_store(root), span)
        assert [each.how for each in answer.models] == [each.how for each in impact.of_span(_store(here), span).models]
        assert len([each for each in answer.models if each.how == "trained"]) == models


def test_the_types_are_those_of_local_runs(root, cluster, here):
    """So that one store may hold both."""

    def types(folder: pathlib.Path) -> tuple[set, set, set, dict]:
        store = metadata_store.MetadataStore(config_connection(ranking_config.load(folder / "ranking.yaml"), folder))
        parameters = {}
        for each in store.get_executions():
            parameters[each.type.rpartition(".")[2]] = {*each.custom_properties} - {"heartbeat"}
        return (
            {each.name for each in store.get_execution_types()},
            {each.name for each in store.get_artifact_types()},
            {each.name for each in store.get_context_types()} - {"execution_cache"},
            parameters,
        )

    on_cluster, locally = types(root), types(here)
    assert on_cluster[:3] == locally[:3]
    # The parameters of a run are there beside what they lead to.
    assert on_cluster[3].pop("RankingExampleGen") - {"span"} == locally[3].pop("RankingExampleGen")
    assert on_cluster[3].pop("RankingTrainer") - {"learning_rate"} == locally[3].pop("RankingTrainer")
    assert on_cluster[3] == locally[3]


def test_a_step_whose_command_is_broken_fails_the_run(root, cluster):
    executor = "tfx_ranking.components.example_gen.RankingExampleGen_Executor"
    assert executor in cluster.text
    before = versions.ServingBase(root / "serving").directories()
    with pytest.raises(kubeflow_replay.Failed, match="RankingExampleGen"):
        kubeflow_replay.run(cluster.text.replace(executor, f"{executor}_gone"), root, {})
    newest = origin.runs(_store(root))[0]
    assert newest.state == "failed"
    assert "RankingExampleGen_Executor_gone" in newest.reason
    assert versions.ServingBase(root / "serving").directories() == before


def test_the_run_names_input_that_is_missing(root, cluster):
    with pytest.raises(kubeflow_replay.Failed, match=r"data\.input: no span 7"):
        kubeflow_replay.run(cluster.text, root, {"span": "7"})
    newest = origin.runs(_store(root))[0]
    assert (newest.state, "no span 7" in newest.reason) == ("failed", True)


def test_a_step_that_died_is_not_left_running(root, cluster, tmp_path):
    """Killed as soon as ML Metadata has it running; the same step again, as Kubeflow's retry does it, ends it."""
    [command] = [each for each in cluster.commands if each[each.index("--node") + 1] == "RankingTrainer"]
    store, log = _written(root), tmp_path / "log"
    with tempfile.TemporaryDirectory() as empty, log.open("w") as output:
        killed = kubeflow_replay.start(command, empty, stdout=output, stderr=output)
        end = time.monotonic() + 120
        while not (running := [each for each in store.get_executions() if each.last_known_state == each.RUNNING]):
            assert killed.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert kubeflow_replay.start(command, empty, stdout=output, stderr=output).wait() == 0, log.read_text()
    [died] = store.get_executions_by_id([running[0].id])
    assert died.last_known_state == died.FAILED
    assert died.custom_properties["reason"].string_value == runs.DIED
    assert not [each for each in store.get_executions() if each.last_known_state == each.RUNNING]
