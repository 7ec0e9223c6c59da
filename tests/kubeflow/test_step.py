"""A container's entry point, with artifacts in an object store: Kubeflow's launcher carries them, here a few lines do.

The launcher keeps `s3://bucket/x` at `/s3/bucket/x` ($ARTIFACT_LOCAL_PATH before it) and stores no empty folders.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components import trainer
from tfx_ranking.components.config import own_code
from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines import external_state
from tfx_ranking.pipelines.kubeflow import step
from tfx_ranking.pipelines.lineage import origin
from tfx_ranking.pipelines.lineage import store as lineage_store
from tfx_ranking.pipelines.metadata import heartbeat

ROOT = "s3://bucket/shop"
NODE = "tests.Copy"


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("ARTIFACT_LOCAL_PATH", str(tmp_path / "container"))
    return Cluster(tmp_path)


class Cluster:
    """Runs steps, each in a container of its own as far as files go."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.container, self.bucket, self.folder = folder / "container" / "s3", folder / "bucket", folder
        self.connection = {"sqlite": {"filenameUri": str(folder / "store" / "metadata.sqlite"), "connectionMode": 3}}

    def step(self, name: str, *inputs: str, run: str = "run-1", **parameters: object) -> dict:
        """Runs one; its output is `<ROOT>/<name>/model`.  Gives Kubeflow's executor output."""
        shutil.rmtree(self.container, ignore_errors=True)
        if self.bucket.exists():
            shutil.copytree(self.bucket, self.container)
        step.run(argparse.Namespace(**self.arguments(name, *inputs, run=run, **parameters)), [])
        for file in self.container.rglob("*"):
            if file.is_file():
                target = self.bucket / file.relative_to(self.container)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        return json.loads((self.folder / name / "output.json").read_text())

    def arguments(self, name: str, *inputs: str, run: str, **parameters: object) -> dict[str, str]:
        """What Kubeflow calls one with."""
        executor_input = {
            "inputs": {
                "parameterValues": {"pipeline_run": run, **parameters},
                "artifacts": {f"from_{each}": {"artifacts": [{"uri": f"{ROOT}/{each}/model"}]} for each in inputs},
            },
            "outputs": {
                "artifacts": {"model": {"artifacts": [{"uri": f"{ROOT}/{name}/model", "type": _MODEL}]}},
                "outputFile": str(self.folder / name / "output.json"),
            },
        }
        return {
            "pipeline": "shop",
            "nodes": "first,second",
            "node": name,
            "type": NODE,
            "metadata": json.dumps(self.connection),
            "executor_class_path": "tiny_executor.Copy",
            "json_serialized_invocation_args": json.dumps(executor_input),
            "json_serialized_inputs_spec_args": "{}",
        }

    @property
    def store(self) -> metadata_store.MetadataStore:
        connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = self.connection["sqlite"]["filenameUri"]
        return metadata_store.MetadataStore(connection)


_MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}


def test_components_see_files_and_ml_metadata_the_store(cluster):
    cluster.step("first")
    output = cluster.step("second", "first")
    first, second = cluster.store.get_artifacts()
    assert [first.uri, second.uri] == [f"{ROOT}/first/model", f"{ROOT}/second/model"]
    assert second.custom_properties["held"].string_value == "1"  # the receipt of the first, fetched
    assert second.custom_properties["from_first"].string_value == first.uri, "not the container's own path"
    [artifact] = output["artifacts"]["model"]["artifacts"]
    assert artifact["uri"] == second.uri
    receipt = json.loads((cluster.bucket / "bucket/shop/second/model/receipt.json").read_text())
    assert receipt["artifacts"]["from_first"] == [{"id": first.id, "type": "Model", "uri": first.uri}]
    assert str(cluster.folder) not in json.dumps(receipt)


def test_what_kubeflow_itself_records_in_the_same_store_is_not_taken_for_ours(cluster):
    """Its launcher writes each output once more, of types of its own, after the step has ended."""
    cluster.step("first")
    store = cluster.store
    theirs = mlmd.Artifact(
        type_id=store.put_artifact_type(mlmd.ArtifactType(name="tfx.Model")),
        uri=f"{ROOT}/first/model",
        state=mlmd.Artifact.LIVE,
    )
    [theirs.id] = store.put_artifacts([theirs])
    cluster.step("second", "first")
    [execution] = [
        each for each in store.get_executions() if each.id == max(each.id for each in store.get_executions())
    ]
    taken = {each.artifact_id for each in store.get_events_by_execution_ids([execution.id]) if each.type == each.INPUT}
    [first] = [each.id for each in store.get_artifacts_by_type("Model") if each.uri == theirs.uri]
    assert taken == {first} != {theirs.id}
    lineage = origin.upstream(lineage_store.connect(cluster.connection["sqlite"]["filenameUri"]), f"{ROOT}/first/model")
    assert ([each.id for each in lineage.subject], [each.node for each in lineage.executions]) == ([first], ["first"])


def test_a_store_that_is_away_when_a_step_has_ended_is_waited_for(cluster, monkeypatch):
    monkeypatch.setattr(step, "_RETRY_EVERY", 0.2)
    cluster.step("first", away=str(cluster.folder / "store"))
    [execution] = cluster.store.get_executions()
    assert execution.last_known_state == execution.COMPLETE
    [made] = cluster.store.get_artifacts()
    assert made.state == made.LIVE


def test_sigterm_ends_a_step_that_takes_errors_for_answers(cluster):
    arguments = {**cluster.arguments("first", run="run-1"), "executor_class_path": "tiny_executor.Stubborn"}
    options = [word for name, value in arguments.items() for word in (f"--{name}", value)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(pathlib.Path(__file__).parent.parent / "support"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "tfx_ranking.pipelines.kubeflow.step", *options],
        env={**environment, "ARTIFACT_LOCAL_PATH": str(cluster.folder / "container")},
        stderr=subprocess.PIPE,
        text=True,
    )
    file, end = pathlib.Path(cluster.connection["sqlite"]["filenameUri"]), time.monotonic() + 120
    while not (file.exists() and cluster.store.get_executions()) and time.monotonic() < end:
        time.sleep(0.1)
    time.sleep(1)  # into the executor
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 1
    assert errors.splitlines()[-1].startswith("first failed: Stopped: from outside (SIGTERM)")
    [execution] = cluster.store.get_executions()
    assert execution.last_known_state == execution.FAILED
    assert execution.custom_properties["reason"].string_value.startswith("Stopped: from outside (SIGTERM)")


def test_it_is_part_of_pipeline_run_and_node(cluster):
    cluster.step("first")
    [execution] = cluster.store.get_executions()
    assert (execution.type, execution.last_known_state) == (NODE, execution.COMPLETE)
    assert heartbeat.HEARTBEAT in execution.custom_properties
    names = {each.type: each.name for each in cluster.store.get_contexts_by_execution(execution.id)}
    assert names == {"pipeline": "shop", "pipeline_run": "run-1", "node": "shop.first"}


def test_an_input_whose_folder_is_empty_is_none_in_the_container(cluster):
    """As LiveModel's, where nothing serves."""
    cluster.step("first")
    shutil.rmtree(cluster.bucket)
    cluster.step("second", "first")
    assert cluster.store.get_artifacts()[1].custom_properties["held"].string_value == "0"


def test_a_step_that_fails_is_recorded_and_leaves_nothing(cluster):
    with pytest.raises(ValueError, match="as its parameter wants"):
        cluster.step("first", fail="yes")
    [execution] = cluster.store.get_executions()
    assert execution.last_known_state == execution.FAILED
    assert execution.custom_properties["reason"].string_value == "ValueError: as its parameter wants"
    assert not [each for each in cluster.store.get_artifacts() if each.state == each.LIVE]
    assert not list(cluster.container.rglob("receipt.json")), "half of an output must not be stored"


def test_the_run_lists_the_steps_that_have_not_begun_and_a_second_try_mends_it(cluster):
    def run():
        (record,) = origin.runs(lineage_store.connect(cluster.connection["sqlite"]["filenameUri"]))
        return record.state, record.reason, record.steps

    with pytest.raises(ValueError, match="as its parameter wants"):
        cluster.step("first", fail="yes")
    assert run() == ("failed", "first: ValueError: as its parameter wants", 1)
    cluster.step("first")
    assert run() == ("unfinished", "not started: second", 1)
    cluster.step("second", "first")
    assert run() == ("done", "", 2)


def test_only_the_step_that_failed_has_its_reason(cluster):
    """Kubeflow runs steps side by side; another one that fails says its own."""
    with pytest.raises(ValueError, match="as its parameter wants"):
        cluster.step("first", fail="yes")
    store = cluster.store
    [execution] = store.get_executions()
    del execution.custom_properties["reason"]
    store.put_executions([execution])
    with pytest.raises(ValueError, match="as its parameter wants"):
        cluster.step("second", fail="yes")
    assert ["reason" in each.custom_properties for each in cluster.store.get_executions()] == [False, True]


def test_an_input_that_the_store_does_not_know(cluster):
    """Each container with a store of its own: the second step says it, and that is recorded."""
    with pytest.raises(RankingError, match=r"s3://bucket/shop/first/model: ML Metadata has no finished artifact"):
        cluster.step("second", "first")
    [execution] = cluster.store.get_executions()
    assert execution.last_known_state == execution.FAILED


@pytest.mark.parametrize("run", ["", "{{$.pipeline_job_uuid}}"])
def test_a_run_without_an_id_is_refused(cluster, run):
    with pytest.raises(RankingError, match="Kubeflow Pipelines 2 fills it in"):
        cluster.step("first", run=run)


def test_the_users_code_is_the_images(tmp_path, monkeypatch):
    """What the compiling machine had says nothing of it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_code.py").write_text("def f(): pass\n")
    custom_config = {"config": {}, "code": "as compiled"}
    parameters = {"preprocessing_fn": "own_code.f", "custom_config": json.dumps(custom_config)}
    resolved = json.loads(external_state.refresh_parameters("Transform", parameters, None)["custom_config"])
    assert resolved == {"config": {}, "code": own_code.digest("transform.preprocessing_fn", "own_code.f")}
    ours = external_state.refresh_parameters(
        "Transform", {**parameters, "preprocessing_fn": external_state.DEFAULT_PREPROCESSING_FN}, None
    )
    assert json.loads(ours["custom_config"])["code"] == ""
    schema = tmp_path / "schema.pbtxt"
    schema.write_text("")

    def digest() -> str:
        parameters = {"schema_file": str(schema), "digest": ""}
        return external_state.refresh_parameters("ImportSchemaGen", parameters, None)["digest"]

    first = digest()
    schema.write_text('feature { name: "price" }')
    assert "" != first != digest()


def test_the_learning_rate_of_a_run_is_its_trainings():
    raw = {
        "name": "shop",
        "data": {"input": "*.csv", "format": "csv", "group_id": "q"},
        "items": {"price": {}},
        "training": {"learning_rate": 0.0625},
    }
    config = ranking_config.parse(raw).select(*trainer.READS)
    resolved = external_state.refresh_parameters("RankingTrainer", {"config": config, "learning_rate": 0.25}, None)
    assert ranking_config.from_selection(config).training.learning_rate == 0.0625
    assert ranking_config.from_selection(resolved["config"]).training.learning_rate == 0.25
