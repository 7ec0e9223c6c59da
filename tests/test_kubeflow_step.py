"""A container's entry point, with artifacts in an object store: Kubeflow's launcher carries them, here a few lines do.

The launcher keeps `s3://bucket/x` at `/s3/bucket/x` ($ARTIFACT_LOCAL_PATH before it) and stores no empty folders.
"""

import argparse
import json
import pathlib
import shutil

import pytest
from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2 as mlmd

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines import heartbeat, kubeflow_step, lineage, lineage_store, world

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
        self.connection = {"sqlite": {"filenameUri": str(folder / "metadata.sqlite"), "connectionMode": 3}}

    def step(self, name: str, *inputs: str, run: str = "run-1", **parameters: object) -> dict:
        """Runs one; its output is `<ROOT>/<name>/model`.  Gives Kubeflow's executor output."""
        shutil.rmtree(self.container, ignore_errors=True)
        if self.bucket.exists():
            shutil.copytree(self.bucket, self.container)
        asked = {
            "inputs": {
                "parameterValues": {"pipeline_run": run, **parameters},
                "artifacts": {f"from_{each}": {"artifacts": [{"uri": f"{ROOT}/{each}/model"}]} for each in inputs},
            },
            "outputs": {
                "artifacts": {"model": {"artifacts": [{"uri": f"{ROOT}/{name}/model", "type": _MODEL}]}},
                "outputFile": str(self.folder / name / "output.json"),
            },
        }
        arguments = argparse.Namespace(
            pipeline="shop",
            nodes="first,second",
            node=name,
            type=NODE,
            metadata=json.dumps(self.connection),
            executor_class_path="tiny_executor.Copy",
            json_serialized_invocation_args=json.dumps(asked),
            json_serialized_inputs_spec_args="{}",
        )
        kubeflow_step.run(arguments, [])
        for file in self.container.rglob("*"):
            if file.is_file():
                target = self.bucket / file.relative_to(self.container)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
        return json.loads((self.folder / name / "output.json").read_text())

    @property
    def store(self) -> metadata_store.MetadataStore:
        connection = mlmd.ConnectionConfig()
        connection.sqlite.filename_uri = self.connection["sqlite"]["filenameUri"]
        return metadata_store.MetadataStore(connection)


_MODEL = {"instanceSchema": "title: tfx.Model\ntype: object\n"}


def test_components_see_files_and_ml_metadata_the_store(cluster):
    cluster.step("first")
    said = cluster.step("second", "first")
    first, second = cluster.store.get_artifacts()
    assert [first.uri, second.uri] == [f"{ROOT}/first/model", f"{ROOT}/second/model"]
    assert second.custom_properties["held"].string_value == "1"  # the receipt of the first, fetched
    assert second.custom_properties["from_first"].string_value == first.uri, "not the container's own path"
    [told] = said["artifacts"]["model"]["artifacts"]
    assert told["uri"] == second.uri
    receipt = json.loads((cluster.bucket / "bucket/shop/second/model/receipt.json").read_text())
    assert receipt["artifacts"]["from_first"] == [{"id": first.id, "type": "Model", "uri": first.uri}]
    assert str(cluster.folder) not in json.dumps(receipt)


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
    with pytest.raises(ValueError, match="told to"):
        cluster.step("first", fail="yes")
    [execution] = cluster.store.get_executions()
    assert execution.last_known_state == execution.FAILED
    assert execution.custom_properties["reason"].string_value == "ValueError: told to"
    assert not [each for each in cluster.store.get_artifacts() if each.state == each.LIVE]
    assert not list(cluster.container.rglob("receipt.json")), "half of an output must not be stored"


def test_the_run_tells_what_has_not_begun_and_a_second_try_mends_it(cluster):
    def run():
        (found,) = lineage.runs(lineage_store.connect(cluster.connection["sqlite"]["filenameUri"]))
        return found.state, found.reason, found.steps

    with pytest.raises(ValueError, match="told to"):
        cluster.step("first", fail="yes")
    assert run() == ("failed", "first: ValueError: told to", 1)
    cluster.step("first")
    assert run() == ("unfinished", "not begun: second", 1)
    cluster.step("second", "first")
    assert run() == ("done", "", 2)


def test_only_the_step_that_failed_has_its_reason(cluster):
    """Kubeflow runs steps side by side; another one that fails says its own."""
    with pytest.raises(ValueError, match="told to"):
        cluster.step("first", fail="yes")
    store = cluster.store
    [execution] = store.get_executions()
    del execution.custom_properties["reason"]
    store.put_executions([execution])
    with pytest.raises(ValueError, match="told to"):
        cluster.step("second", fail="yes")
    assert ["reason" in each.custom_properties for each in cluster.store.get_executions()] == [False, True]


def test_an_input_that_the_store_does_not_know(cluster):
    """Each container with a store of its own: the second step says it, and that is recorded."""
    with pytest.raises(RankingError, match=r"s3://bucket/shop/first/model: ML Metadata knows no finished artifact"):
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
    told = {"config": {}, "code": "as compiled"}
    parameters = {"preprocessing_fn": "own_code.f", "custom_config": json.dumps(told)}
    found = json.loads(world.found("Transform", parameters, None)["custom_config"])
    assert found == {"config": {}, "code": world.code("own_code.f")}
    ours = world.found("Transform", {**parameters, "preprocessing_fn": world.OURS}, None)
    assert json.loads(ours["custom_config"])["code"] == ""
    schema = tmp_path / "schema.pbtxt"
    schema.write_text("")
    first = world.found("ImportSchemaGen", {"schema_file": str(schema), "digest": ""}, None)["digest"]
    schema.write_text('feature { name: "price" }')
    assert "" != first != world.found("ImportSchemaGen", {"schema_file": str(schema), "digest": ""}, None)["digest"]
