"""The compiled pipeline, looked at: what a cluster gets to run."""

import dataclasses
import fnmatch
import json
import os
import pathlib
import subprocess
import sys

import pytest
import run_support
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from tfx_ranking.components import config as ranking_config
from tfx_ranking.components.config.kubeflow_section import COMPONENTS
from tfx_ranking.components.errors import ConfigError, RankingError, UsageError
from tfx_ranking.pipelines.cli import command_tree
from tfx_ranking.pipelines.kubeflow import compiler

GOLDEN = pathlib.Path(__file__).with_name("kubeflow_golden.yaml")
MYSQL = {"mysql": {"host": "db", "port": 3306, "database": "mlmd", "user": "tfx", "password": "${MLMD_PASSWORD}"}}
KUBEFLOW = {
    "beam_args": ["--direct_num_workers=1"],
    "env": {"AWS_ENDPOINT_URL": "http://minio.kubeflow:9000"},
    "secrets": {
        "AWS_ACCESS_KEY_ID": "minio/accesskey",
        "AWS_SECRET_ACCESS_KEY": "minio/secretkey",
        "MLMD_PASSWORD": "mlmd/password",
    },
}
CONTAINERS = {
    "RankingTrainer": {"cpu": 8, "memory": 32, "gpu": 1, "retries": 1},
    "Ranking*": {"cpu": 2.5},
    "*": {"retries": 2},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory) -> run_support.Shop:
    shop = run_support.open_shop(tmp_path_factory.mktemp("shop"))
    shop.set("kubeflow", {"containers": CONTAINERS, **KUBEFLOW})
    return shop


@pytest.fixture(scope="module")
def compiled(shop) -> compiler.CompiledPipeline:
    config = compiler.reachable(
        ranking_config.load(shop.config_file), ["gs://logs/*.csv"], "gs://serving/shop", json.dumps(MYSQL)
    )
    return compiler.compile(config, "registry/ranking:1", "gs://artifacts/shop", shop.folder)


@pytest.fixture(scope="module")
def executors(compiled) -> dict:
    return compiled.spec["deploymentSpec"]["executors"]


def test_there_are_containers_and_nothing_else(compiled, executors):
    assert len(executors) == 10
    for executor in executors.values():
        assert list(executor) == ["container"], "open-source Kubeflow has no resolvers"
        assert "lifecycle" not in executor["container"], "and ignores what runs before a container"
        assert executor["container"]["command"] == list(compiler.ENTRYPOINT)
        assert executor["container"]["image"] == "registry/ranking:1"


def test_the_dag_is_the_local_one(compiled):
    tasks = compiled.spec["root"]["dag"]["tasks"]
    assert set(tasks) == set(run_support.COMPONENTS)
    assert set(tasks) | {"ImportSchemaGen"} == set(COMPONENTS)  # in place of RankingSchemaGen
    assert tasks["RankingPusher"]["dependentTasks"] == ["RankingEvaluator", "SignatureExporter"]


def test_nothing_is_cached(compiled):
    assert all(
        "enableCache" not in task.get("cachingOptions", {}) for task in compiled.spec["root"]["dag"]["tasks"].values()
    )


def test_nothing_of_this_machine_is_resolved(compiled, shop):
    tasks = compiled.spec["root"]["dag"]["tasks"]
    assert "source" not in tasks["RankingExampleGen"]["inputs"]["parameters"]
    for name in ("LiveModel", "RankingPusher"):
        destination = tasks[name]["inputs"]["parameters"]["destination"]["runtimeValue"]["constant"]
        assert json.loads(destination) == {"base": "gs://serving/shop"}
    assert str(shop.folder) not in compiled.yaml


def test_span_and_learning_rate_are_parameters_of_a_run(compiled):
    assert compiled.spec["root"]["inputDefinitions"]["parameters"] == {
        "span": {"parameterType": "STRING", "defaultValue": "", "isOptional": True},
        "learning_rate": {"parameterType": "NUMBER_DOUBLE", "defaultValue": 0.001, "isOptional": True},
    }
    tasks = compiled.spec["root"]["dag"]["tasks"]
    assert tasks["RankingExampleGen"]["inputs"]["parameters"]["span"] == {"componentInputParameter": "span"}
    assert tasks["RankingTrainer"]["inputs"]["parameters"]["learning_rate"] == {
        "componentInputParameter": "learning_rate"
    }


@pytest.mark.parametrize("component", run_support.COMPONENTS)
def test_a_container_gets_what_the_first_pattern_says(component, compiled, executors):
    expected_row = next(each for name, each in CONTAINERS.items() if fnmatch.fnmatchcase(component, name))
    expected = {}
    for key in ("cpu", "memory"):
        if key in expected_row:
            expected |= {f"{key}Limit": expected_row[key], f"{key}Request": expected_row[key]}
    if "gpu" in expected_row:
        expected["accelerator"] = {"type": "nvidia.com/gpu", "count": "1"}
    assert executors[f"{component}_executor"]["container"].get("resources", {}) == expected
    task = compiled.spec["root"]["dag"]["tasks"][component]
    assert task.get("retryPolicy", {}).get("maxRetryCount") == expected_row.get("retries")
    assert task.get("retryPolicy", {}).get("backoffMaxDuration", "x") != "0s"  # Argo would give up at once


def test_beam_components_get_the_beam_arguments(executors):
    beam = {name for name, each in executors.items() if "--direct_num_workers=1" in each["container"]["args"]}
    assert {"RankingExampleGen_executor", "StatisticsGen_executor", "Transform_executor"} <= beam


def test_every_container_has_the_variables(compiled, executors):
    """Secrets stand in a second document, which is Kubernetes' alone; here it is read by the protos of its reader."""
    platform = json_format.ParseDict(compiled.platform, pipeline_spec_pb2.PlatformSpec())
    deployment = platform.platforms["kubernetes"].deployment_spec
    by_executor = json_format.MessageToDict(deployment)["executors"]
    assert set(by_executor) == set(executors)
    for name, raw in by_executor.items():
        executor_config = json_format.ParseDict(raw, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
        keys = [(secret.secret_name, key) for secret in executor_config.secret_as_env for key in secret.key_to_env]
        assert {key.env_var: f"{secret}/{key.secret_key}" for secret, key in keys} == KUBEFLOW["secrets"]
        assert executors[name]["container"]["env"] == [
            {"name": "AWS_ENDPOINT_URL", "value": "http://minio.kubeflow:9000"}
        ]
    assert "&id" not in compiled.yaml, "no references within YAML, which not every reader follows"


def test_kubeflow_reads_it(compiled):
    pipeline = components.load_component_from_text(compiled.yaml)
    assert pipeline.pipeline_spec.pipeline_info.name == "shop"
    assert pipeline.pipeline_spec.default_pipeline_root == "gs://artifacts/shop"


def test_it_is_the_golden_one(compiled):
    """By structure; the versions of TFX and of the user's code aside.  `python tests/kubeflow/test_compiler.py` writes
    it again."""
    assert _structure(compiled.yaml) == list(yaml.safe_load_all(GOLDEN.read_text()))


def test_the_same_config_gives_the_same_file(compiled, shop):
    config = compiler.reachable(
        ranking_config.load(shop.config_file), ["gs://logs/*.csv"], "gs://serving/shop", json.dumps(MYSQL)
    )
    again = compiler.compile(config, "registry/ranking:1", "gs://artifacts/shop", shop.folder)
    assert again.yaml == compiled.yaml
    assert compiler.unreachable(config, "gs://artifacts/shop") == ()


def test_what_a_cluster_cannot_see_is_a_warning(shop, tmp_path, capsys):
    command = ["compile", str(shop.config_file), "--image", "registry/ranking:1", "--root", str(tmp_path / "root")]
    assert command_tree.main([*command, "-o", str(tmp_path / "new" / "pipeline.yaml")]) == 0
    printed = capsys.readouterr()
    where = (("data.input", "--input"), ("push.base", "--push-base"), ("metadata", "--metadata"), ("--root", "s3://"))
    for key, option in where:
        [line] = [line for line in printed.err.splitlines() if line.startswith(f"warning: {key}: ")]
        assert option in line
    assert "pipeline shop, 10 components" in printed.out
    first, _ = yaml.safe_load_all((tmp_path / "new" / "pipeline.yaml").read_text())
    assert first["pipelineInfo"] == {"name": "shop"}
    assert not (tmp_path / "root").exists(), "compiling writes nothing there"


def test_a_file_with_a_password_is_its_owners_alone(shop, tmp_path, capsys):
    command = ["compile", str(shop.config_file), "--image", "i", "--root", "s3://a/b", "-o"]
    plain = {"mysql": {**MYSQL["mysql"], "password": "s3cret"}}
    for name, store, mode in (("variable", MYSQL, 0o644), ("private", plain, 0o600)):
        more = ["--metadata", json.dumps(store)]
        umask = os.umask(0o022)
        try:
            assert command_tree.main([*command, str(tmp_path / name), *more]) == 0
        finally:
            os.umask(umask)
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
        warned = "the file contains the password as plain text" in capsys.readouterr().err
        assert warned == ("s3cret" in (tmp_path / name).read_text()) == (name == "private")


def test_a_variable_that_no_container_has_is_a_warning(shop):
    login = {"user": "${DB_USER}", "password": "${MLMD_PASSWORD}"}
    store = json.dumps({"mysql": {"host": "db", "database": "mlmd", **login}})
    config = compiler.reachable(ranking_config.load(shop.config_file), metadata=store)
    warnings = compiler.unreachable(config, "s3://a")
    assert [each for each in warnings if each.startswith("metadata:")] == [
        "metadata: no container has the variable ${DB_USER}; add it to kubeflow.secrets."
    ]


def test_a_store_that_is_every_containers_own_is_a_warning(shop):
    config = ranking_config.load(shop.config_file)
    local = {"mysql": {"host": "127.0.0.1", "database": "mlmd"}}
    for metadata, warning in (
        (json.dumps(local), "is each container itself"),
        (None, "the run fails at its second step"),
    ):
        changed = compiler.reachable(config, metadata=metadata)
        [line] = [line for line in compiler.unreachable(changed, "s3://a") if "metadata:" in line]
        assert warning in line
    elsewhere = compiler.reachable(config, metadata=json.dumps({"fake_database": {}}))
    warnings = compiler.unreachable(elsewhere, "s3://a")
    assert not [line for line in warnings if "metadata:" in line]


def test_files_of_splits(shop):
    config = ranking_config.load(shop.config_file)
    changed = compiler.reachable(config, ["train=gs://a/*.csv", "train=gs://b/*.csv", "test=gs://c/*.csv"])
    assert changed.data.input == {"train": ("gs://a/*.csv", "gs://b/*.csv"), "test": ("gs://c/*.csv",)}
    with pytest.raises(UsageError, match=r"--input: expected patterns, or SPLIT=PATTERN for each; got x, train=y"):
        compiler.reachable(config, ["x", "train=y"])
    with pytest.raises(UsageError, match=r"--input: expected a pattern for train"):
        compiler.reachable(config, ["test=y"])
    with pytest.raises(UsageError, match="--metadata: not ML Metadata's ConnectionConfig in JSON"):
        compiler.reachable(config, metadata='{"mysq": {}}')


@pytest.mark.parametrize(
    ("image", "taken"),
    [
        ("ranking", True),
        ("registry:5000/team/ranking-model:1.0_a", True),
        ("Registry.example.com/ranking@sha256:" + "0" * 64, True),
        ("My Image", False),
        ("registry/Ranking:1", False),
        ("ranking:", False),
        ("", False),
    ],
)
def test_the_image_is_a_name_that_a_registry_has(image, taken):
    assert bool(compiler._IMAGE.fullmatch(image)) == taken


def test_another_image_is_refused(shop, capsys):
    assert command_tree.main(["compile", str(shop.config_file), "--image", "My Image", "--root", "s3://a/b"]) == 2
    assert "--image: expected an image's name, as in registry.example.com/ranking:1; got 'My Image'" in (
        capsys.readouterr().err
    )


def test_more_features_than_one_argument_holds_are_refused(shop):
    config = ranking_config.load(shop.config_file)
    many = {f"f{i}": next(iter(config.items.values())) for i in range(4000)}
    message = r"^\w+: its part of the config has \d{3},\d{3} bytes; a container takes at most 120,000"
    with pytest.raises(RankingError, match=message):
        compiler.compile(dataclasses.replace(config, items=many), "i", "s3://a", shop.folder)


def test_a_name_that_kubeflow_cannot_take():
    assert compiler.kubeflow_name("Shop_Search.2") == "shop-search-2"
    with pytest.raises(RankingError, match="must begin with an ASCII letter or digit; got '_'"):
        compiler.kubeflow_name("_")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("RankingTraner", {}, "expected a component, or a pattern of some; did you mean 'RankingTrainer'?"),
        ("Transform", {"cpu": 0}, "kubeflow.containers.Transform.cpu: expected a number above 0; got 0"),
        ("Transform", {"retries": -1}, "kubeflow.containers.Transform.retries: expected 0 or more; got -1"),
    ],
)
def test_a_refused_container(key, value, message):
    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}}
    with pytest.raises(ConfigError) as refused:
        ranking_config.parse({**raw, "kubeflow": {"containers": {key: value}}})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"env": {"A-B": "x"}}, "kubeflow.env.A-B: expected the name of an environment variable"),
        ({"secrets": {"A": "mlmd"}}, "kubeflow.secrets.A: expected SECRET/KEY"),
        ({"secrets": {"A": "Mlmd/key"}}, "kubeflow.secrets.A: expected SECRET/KEY"),
        ({"secrets": {"A": "mlmd/key"}, "env": {"A": "x"}}, "kubeflow.secrets.A: the same variable is also under env"),
    ],
)
def test_refused_variables(section, message):
    raw = {"name": "a", "data": {"input": "x", "format": "csv"}, "items": {"f": {}}}
    with pytest.raises(ConfigError) as refused:
        ranking_config.parse({**raw, "kubeflow": section})
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "command",
    [
        ["compile", "ranking.yaml", "--image", "i", "--root", "r"],
        ["submit", "pipeline.yaml", "--dry-run"],
        ["schedule", "pipeline.yaml", "--kubeflow", "--every", "6h", "--dry-run"],
    ],
    ids=lambda command: command[0],
)
def test_without_kubeflows_client_it_says_what_to_install(command, tmp_path):
    script = f"""
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.split(".")[0] == "kfp" else find(name, *more)
from tfx_ranking.pipelines.cli import command_tree
code = command_tree.main({command!r})
assert not [name for name in sys.modules if name in ("tfx", "tensorflow")]
raise SystemExit(code)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert (
        "kfp is not installed; install it with: pip install 'tfx-ranking[kubeflow]' (in a checkout: pip install"
        in done.stderr
    )


def _structure(text: str) -> list[dict]:
    spec, *platform = yaml.safe_load_all(text)
    del spec["sdkVersion"]
    for task in spec["root"]["dag"]["tasks"].values():
        for name, value in task["inputs"].get("parameters", {}).items():
            constant = value.get("runtimeValue", {}).get("constant")
            if name == "custom_config":
                value["runtimeValue"]["constant"] = {**json.loads(constant), "code": "of the user's module"}
            elif name in ("config", "destination"):
                value["runtimeValue"]["constant"] = json.loads(constant)
    return [spec, *platform]


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        made = run_support.open_shop(pathlib.Path(folder))
        made.set("kubeflow", {"containers": CONTAINERS, **KUBEFLOW})
        raw = ranking_config.load(made.config_file)
        raw = compiler.reachable(raw, ["gs://logs/*.csv"], "gs://serving/shop", json.dumps(MYSQL))
        text = compiler.compile(raw, "registry/ranking:1", "gs://artifacts/shop", pathlib.Path(folder)).yaml
        GOLDEN.write_text(yaml.safe_dump_all(_structure(text)))
