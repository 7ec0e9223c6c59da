"""Compiles the ranking pipeline to a file that Kubeflow Pipelines 2 runs, with one container for each component.

Input: a config, an image and a root.  Output: KFP's pipeline spec as plain values and as YAML, and warnings about paths
that a cluster cannot reach.  TFX compiles the DAG.  This module adds what TFX's compiler leaves out: resources,
retries, variables, and an entry point that keeps TFX's lineage.
"""

import copy
import dataclasses
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from ml_metadata.proto import metadata_store_pb2

from tfx_ranking.components.config import RankingConfig, own_code
from tfx_ranking.components.config.data_section import SPLIT_NAMES
from tfx_ranking.components.config.push_sections import Push
from tfx_ranking.components.config.ranking_config import Metadata
from tfx_ranking.components.errors import RankingError, Refused, UsageError, as_sentence
from tfx_ranking.pipelines.metadata.connection import VARIABLE, config_connection
from tfx_ranking.pipelines.quiet import quiet_imports

ENTRYPOINT = ("python", "-m", "tfx_ranking.pipelines.kubeflow.step")
INSTALL = "pip install 'tfx-ranking[kubeflow]' (in a checkout: pip install '.[kubeflow]')"
RUN = "pipeline_run"  # the parameter with the run's id, which each component gets besides its own
_STORES = ("gs://", "s3://", "minio://")  # the object stores that Kubeflow's launcher can read and write
_PART = "[a-z0-9]+([._-]+[a-z0-9]+)*"  # one part of an image's path; a host may precede it, a tag or digest follow
_IMAGE = re.compile(rf"([A-Za-z0-9.-]+(:\d+)?/)?{_PART}(/{_PART})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?")
_ARGUMENT = 120_000  # bytes of parameters; with the artifacts they are one argument, which Linux limits to 128 KB
_RUN_ID = "{{$.pipeline_job_uuid}}"  # Kubeflow replaces it, if the constant consists of nothing else


@dataclasses.dataclass(frozen=True)
class CompiledPipeline:
    """A pipeline that Kubeflow can run."""

    name: str  # Kubeflow's name: lower-case letters, digits and hyphens
    spec: Mapping[str, Any]  # KFP's PipelineSpec, as in its JSON form
    platform: Mapping[str, Any]  # KFP's PlatformSpec, with the settings for Kubernetes; {} if there are none
    has_password: bool  # whether it contains ML Metadata's password as plain text

    @property
    def yaml(self) -> str:
        """The file's text.  Compiling the same config again gives the same text."""
        import yaml

        head = f"# {self.name}: a ranking pipeline for Kubeflow Pipelines 2, compiled by tfx-ranking.\n"
        parts = [each for each in (self.spec, self.platform) if each]
        return head + "---\n".join(yaml.safe_dump(dict(each), sort_keys=True, width=120) for each in parts)


def compile(config: RankingConfig, image: str, root: str, modules: pathlib.Path = pathlib.Path()) -> CompiledPipeline:
    """Compiles the pipeline.

    image: a container image that has tfx-ranking and the user's modules.  root: the folder for the artifacts, in an
    object store that all containers reach.  modules: the folder with the user's modules on this machine.
    Raises RankingError if the package `kfp` is missing, if Kubeflow cannot take the pipeline's name or the image, or if
    the config has more features than fit into one argument of a container.
    """
    require_kfp()
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"--image: expected an image's name, as in registry.example.com/ranking:1; got {image!r}.")
    components = _components(config, modules)
    spec = _compile_dag(config, components, image, root)
    _add_defaults(spec, components)
    connection = json_format.MessageToDict(_store_connection(config, root))
    _complete_tasks(spec, config, connection, {each.id: each.type for each in components})
    platform = _secrets(config.kubeflow.secrets, list(spec["deploymentSpec"]["executors"]))
    return CompiledPipeline(
        name=kubeflow_name(config.name), spec=spec, platform=platform, has_password=bool(_password(connection))
    )


def _components(config: RankingConfig, modules: pathlib.Path) -> list[Any]:
    """The pipeline's TFX components, with everything that is found at run time left open."""
    kubeflow_name(config.name)  # refuses a wrong name before TFX is loaded
    with quiet_imports("TensorFlow and TFX, about 20 s"):
        from tfx_ranking.pipelines.external_state import deferred_state
        from tfx_ranking.pipelines.ranking_pipeline import ranking_components

    with own_code.importable(config.own_code.values(), modules):
        return list(ranking_components(config, deferred_state(config)))


def _compile_dag(config: RankingConfig, components: list[Any], image: str, root: str) -> dict[str, Any]:
    """TFX's own compilation: the tasks, their inputs and outputs, and the command of each container."""
    from tfx.orchestration import pipeline
    from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, default_commands=list(ENTRYPOINT), use_pipeline_spec_2_1=True
        )
    )
    job = runner.run(
        pipeline.Pipeline(
            pipeline_name=kubeflow_name(config.name),
            pipeline_root=root,
            components=components,
            beam_pipeline_args=list(config.kubeflow.beam_args),
            enable_cache=False,  # the file holds constants, from which the cache cannot see that the data has changed
        ),
        write_out=False,
    )
    spec: dict[str, Any] = job["pipelineSpec"]
    spec["defaultPipelineRoot"] = root
    return spec


def _add_defaults(spec: dict[str, Any], components: list[Any]) -> None:
    """Adds the defaults of the run's parameters.  TFX omits them, and then Kubeflow requires a value for each."""
    from tfx.orchestration.data_types import RuntimeParameter

    for component in components:
        for value in component.exec_properties.values():
            if isinstance(value, RuntimeParameter):
                default = {"defaultValue": value.default, "isOptional": True}
                spec["root"]["inputDefinitions"]["parameters"][value.name] |= default


def _complete_tasks(
    spec: dict[str, Any], config: RankingConfig, connection: Mapping[str, Any], types: Mapping[str, str]
) -> None:
    """Adds to each task the arguments of our entry point, the run's id, resources, retries and variables.

    types: node → its execution type in ML Metadata.
    """
    arguments = ["--pipeline", config.name, "--metadata", json.dumps(connection, ensure_ascii=False, sort_keys=True)]
    arguments += ["--nodes", ",".join(types)]
    for node, task in spec["root"]["dag"]["tasks"].items():
        component = spec["components"][node]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        container["args"] = [*arguments, "--node", node, "--type", types[node], *container["args"]]
        _refuse_long(node, task)
        _add_run_id(task, component)
        _add_resources(task, container, config.kubeflow.container(node))
        if config.kubeflow.env:
            container["env"] = [{"name": key, "value": value} for key, value in sorted(config.kubeflow.env.items())]


def reachable(
    config: RankingConfig, inputs: Sequence[str] = (), base: str | None = None, metadata: str | None = None
) -> RankingConfig:
    """Returns the config with paths that the cluster reaches in place of those of this machine.

    inputs: file patterns, or `split=pattern`.  base: push destination.  metadata: ML Metadata's ConnectionConfig in
    JSON, or a SQLite file.
    Raises UsageError for a value that `ranking.yaml` may not have either.
    """
    if inputs:
        by_split: dict[str, list[str]] = {}
        for each in inputs:
            split, equals, pattern = each.partition("=")
            has_split = bool(equals) and split in SPLIT_NAMES
            by_split.setdefault(split if has_split else "", []).append(pattern if has_split else each)
        if "" in by_split and len(by_split) > 1:
            raise UsageError(f"--input: expected patterns, or SPLIT=PATTERN for each; got {', '.join(inputs)}.")
        files: Any = {split: tuple(patterns) for split, patterns in by_split.items()}
        config = _replaced(config, "--input", data=(config.data, {"input": files.get("", files)}))
    if base is not None:
        config = _replaced(config, "--push-base", push=(config.push or Push(base=base), {"base": base}))
    if metadata is not None:
        is_json = metadata.lstrip().startswith("{")
        keys = {"connection": _connection(metadata)} if is_json else {"sqlite": metadata}
        config = _replaced(config, "--metadata", metadata=(Metadata(), keys))
    return config


def _replaced(config: RankingConfig, option: str, **sections: tuple[Any, dict[str, Any]]) -> RankingConfig:
    try:
        return dataclasses.replace(
            config, **{name: dataclasses.replace(section, **keys) for name, (section, keys) in sections.items()}
        )
    except Refused as refused:
        raise UsageError(f"{option}: {as_sentence(refused.message)}") from None


def _connection(metadata: str) -> dict[str, Any]:
    try:
        return json_format.MessageToDict(json_format.Parse(metadata, metadata_store_pb2.ConnectionConfig()))
    except json_format.ParseError as error:
        raise UsageError(f"--metadata: not ML Metadata's ConnectionConfig in JSON: {error}") from error


def kubeflow_name(name: str) -> str:
    """The pipeline's name as Kubeflow takes it.  Raises RankingError if it does not begin with a letter or a digit.

    >>> kubeflow_name("Shop_Search.2")
    'shop-search-2'
    """
    legal = re.sub(r"[^a-z0-9-]", "-", name.lower())[:128]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", legal):
        raise RankingError(f"name: for Kubeflow a name must begin with an ASCII letter or digit; got {name!r}.")
    return legal


def require_kfp() -> None:
    """Raises RankingError, which says what to install, if Kubeflow's client is missing."""
    import importlib.util

    if importlib.util.find_spec("kfp") is None:
        raise RankingError(f"the package kfp is not installed; install it with: {INSTALL}")


def _refuse_long(node: str, task: Mapping[str, Any]) -> None:
    """Raises RankingError if a task's parameters do not fit into one argument; Kubeflow passes them as one."""
    constants = [each.get("runtimeValue", {}).get("constant", "") for each in task["inputs"]["parameters"].values()]
    size = sum(len(json.dumps(each)) for each in constants)
    if size > _ARGUMENT:
        raise RankingError(
            f"{node}: its part of the config has {size:,} bytes; a container takes at most {_ARGUMENT:,}. The usual "
            "cause is many features: put the numeric ones into one column, as a vector (shape: [n])."
        )


def _add_run_id(task: dict[str, Any], component: dict[str, Any]) -> None:
    parameters = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
    parameters[RUN] = {"parameterType": "STRING"}
    values = task.setdefault("inputs", {}).setdefault("parameters", {})
    values[RUN] = {"runtimeValue": {"constant": _RUN_ID}}


def _add_resources(task: dict[str, Any], container: dict[str, Any], wanted: Any) -> None:
    resources: dict[str, Any] = {}
    for key, value in (("cpu", wanted.cpu), ("memory", wanted.memory)):
        if value is not None:
            resources |= {f"{key}Request": float(value), f"{key}Limit": float(value)}
    if wanted.gpu:
        resources["accelerator"] = {
            "type": wanted.gpu_type,
            "count": str(wanted.gpu),
        }  # JSON has int64 as text
    if resources:
        container["resources"] = resources
    if wanted.retries:
        # Without a maximum Kubeflow sends 0 to Argo, which counts from the first attempt's start and gives up.
        backoff = {"backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": f"{7 * 24 * 3600}s"}
        task["retryPolicy"] = {"maxRetryCount": wanted.retries, **backoff}


def _secrets(secrets: Mapping[str, str], executors: Sequence[str]) -> dict[str, Any]:
    """KFP's PlatformSpec that sets each container's variables from Kubernetes' secrets; {} without secrets."""
    by_secret: dict[str, list[dict[str, str]]] = {}
    for variable, where in sorted(secrets.items()):
        secret, _, key = where.partition("/")
        by_secret.setdefault(secret, []).append({"secretKey": key, "envVar": variable})
    as_env = [{"secretName": name, "keyToEnv": keys} for name, keys in by_secret.items()]
    of_each = {
        executor: {"secretAsEnv": copy.deepcopy(as_env)} for executor in executors
    }  # copies, so that YAML has no references
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": of_each}}}} if secrets else {}


def _store_connection(config: RankingConfig, root: str) -> Any:
    """ML Metadata's connection.  SQLite does not work with a root in an object store: `unreachable` warns about it."""
    return config_connection(config, pathlib.Path("." if "://" in root else root), fill=False)


def _password(connection: Mapping[str, Any]) -> str:
    """The connection's password if it is plain text; "" if there is none, or if it is a variable."""
    passwords = (each.get("password", "") for each in connection.values() if isinstance(each, Mapping))
    return next((each for each in passwords if not VARIABLE.fullmatch(each)), "")


def unreachable(config: RankingConfig, root: str) -> tuple[str, ...]:
    """Warnings about paths that the cluster probably cannot reach, each with what to do about it.  Needs no TFX.

    A container cannot read a local path, unless the cluster's owner mounts it into every container.
    """
    warnings = []
    for key, path, option in _paths(config):
        if "://" not in path:
            fix = f"; use {option} to name another" if option else ""
            warnings.append(f"{key}: {path} is a local path, which no container has unless it is mounted{fix}.")
    if not root.startswith(_STORES):
        warnings.append(f"--root: {root}: Kubeflow's launcher takes only {', '.join(_STORES)}.")
    return (*warnings, *_metadata_warnings(config, root))


def _paths(config: RankingConfig) -> list[tuple[str, str, str]]:
    """(key, path, the option of `compile` that replaces it or "") of each path that containers use."""
    patterns = config.data.input.values() if isinstance(config.data.input, dict) else [config.data.input]
    files = [each for some in patterns for each in ([some] if isinstance(some, str) else some)]
    paths = [("data.input", file, "--input") for file in files]
    paths += [("push.base", config.push.base, "--push-base")] if config.push else []
    paths += [("data.schema", config.data.schema, "")] if config.data.schema else []
    start = config.training.initialize_from
    paths += [("training.initialize_from.model", start.model, "")] if start else []
    return paths


def _metadata_warnings(config: RankingConfig, root: str) -> list[str]:
    warnings = []
    connection = _store_connection(config, root)
    server = getattr(connection, connection.WhichOneof("config"))
    if connection.HasField("sqlite"):
        warnings.append(
            f"metadata: {connection.sqlite.filename_uri} is a SQLite file, and each container would have its own: the "
            "run fails at its second step; use --metadata to name a MySQL or PostgreSQL that all of them reach."
        )
    elif getattr(server, "host", "") in ("localhost", "127.0.0.1", "::1"):
        warnings.append(f"metadata: {server.host} is each container itself; use --metadata to name another host.")
    settings = json_format.MessageToDict(connection)
    if _password(settings):
        warnings.append(
            "metadata: the file contains the password as plain text, and everybody who may see a run can read it; "
            "write '${MLMD_PASSWORD}' instead, and name its secret under kubeflow.secrets."
        )
    known = {*config.kubeflow.env, *config.kubeflow.secrets}
    for variable in sorted(set(VARIABLE.findall(json.dumps(settings))) - known):
        warnings.append(f"metadata: no container has the variable ${{{variable}}}; add it to kubeflow.secrets.")
    return warnings
