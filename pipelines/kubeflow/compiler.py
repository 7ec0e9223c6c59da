"""The ranking pipeline as a file that Kubeflow Pipelines 2 runs, each component in a container of its own.

Enters: a config, an image, a root.  Leaves: KFP's pipeline spec as plain values, YAML, and what a cluster could not
reach.  The one idea: TFX compiles the DAG; what its compiler leaves out is added here: resources, retries, and an entry
point that keeps TFX's lineage.
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
RUN = "pipeline_run"  # the parameter that holds the run's id, beside each component's own
_STORES = ("gs://", "s3://", "minio://")  # that Kubeflow's launcher fetches artifacts from, and stores them in
_PART = "[a-z0-9]+([._-]+[a-z0-9]+)*"  # of an image's name; before them a host, after them a tag, a digest
_IMAGE = re.compile(rf"([A-Za-z0-9.-]+(:\d+)?/)?{_PART}(/{_PART})*(:\w[\w.-]{{0,127}})?(@sha256:[0-9a-f]{{64}})?")
_ARGUMENT = 120_000  # bytes of parameters; with the artifacts they are one argument, for which Linux has 128 KB
_RUN_ID = "{{$.pipeline_job_uuid}}"  # filled in by Kubeflow where it is all of a constant


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A pipeline that Kubeflow can run."""

    name: str  # Kubeflow's, of lower-case letters, digits and hyphens
    spec: Mapping[str, Any]  # KFP's PipelineSpec as JSON has it
    platform: Mapping[str, Any]  # what is Kubernetes' alone, KFP's PlatformSpec; {} for nothing
    has_password: bool  # the store's, in the clear

    @property
    def yaml(self) -> str:
        """The file's text; the same config gives the same."""
        import yaml

        head = f"# {self.name}: a ranking pipeline for Kubeflow Pipelines 2, compiled by tfx-ranking.\n"
        parts = [each for each in (self.spec, self.platform) if each]
        return head + "---\n".join(yaml.safe_dump(dict(each), sort_keys=True, width=120) for each in parts)


def compile(config: RankingConfig, image: str, root: str, modules: pathlib.Path = pathlib.Path()) -> Compiled:
    """Compiles the pipeline.

    image: a container image with tfx-ranking and the user's own modules.  root: the folder of its artifacts that all
    containers reach, in an object store.  modules: the folder here of the user's own modules.
    Raises RankingError where the package `kfp` is missing, for a name or an image that Kubeflow cannot take, and for
    more features than a container can be told of.
    """
    require_kfp()
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"--image: expected an image's name, as in registry.example.com/ranking:1; got {image!r}.")
    name = kubeflow_name(config.name)
    with quiet_imports("TensorFlow and TFX, about 20 s"):
        from tfx.orchestration import pipeline
        from tfx.orchestration.data_types import RuntimeParameter
        from tfx.orchestration.kubeflow.v2 import kubeflow_v2_dag_runner

        from tfx_ranking.pipelines.external_state import deferred_state
        from tfx_ranking.pipelines.ranking_pipeline import ranking_components

    connection = json_format.MessageToDict(_store_of(config, root))
    ours = ["--pipeline", config.name, "--metadata", json.dumps(connection, ensure_ascii=False, sort_keys=True)]
    runner = kubeflow_v2_dag_runner.KubeflowV2DagRunner(
        kubeflow_v2_dag_runner.KubeflowV2DagRunnerConfig(
            default_image=image, default_commands=list(ENTRYPOINT), use_pipeline_spec_2_1=True
        )
    )
    with own_code.importable(config.own_code.values(), modules):
        components = ranking_components(config, deferred_state(config))
    types = {each.id: each.type for each in components}
    ours += ["--nodes", ",".join(types)]
    job = runner.run(
        pipeline.Pipeline(
            pipeline_name=name,
            pipeline_root=root,
            components=components,
            beam_pipeline_args=list(config.kubeflow.beam_args),
            enable_cache=False,  # the file holds constants: the cache could not see that the data have changed
        ),
        write_out=False,
    )
    spec = job["pipelineSpec"]
    spec["defaultPipelineRoot"] = root
    runtime = [v for each in components for v in each.exec_properties.values() if isinstance(v, RuntimeParameter)]
    for each in runtime:  # TFX leaves the defaults out, and Kubeflow would ask for each
        given = {"defaultValue": each.default, "isOptional": True}
        spec["root"]["inputDefinitions"]["parameters"][each.name] |= given
    for node, task in spec["root"]["dag"]["tasks"].items():
        component = spec["components"][node]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        container["args"] = [*ours, "--node", node, "--type", types[node], *container["args"]]
        _refuse_long(node, task)
        _add_run_id(task, component)
        _add_resources(task, container, config.kubeflow.container(node))
        if config.kubeflow.env:
            container["env"] = [{"name": key, "value": value} for key, value in sorted(config.kubeflow.env.items())]
    platform = _secrets(config.kubeflow.secrets, list(spec["deploymentSpec"]["executors"]))
    return Compiled(name, spec, platform, bool(_password(connection)))


def reachable(
    config: RankingConfig, inputs: Sequence[str] = (), base: str | None = None, metadata: str | None = None
) -> RankingConfig:
    """The config with what a cluster reaches in place of what this machine does.

    inputs: file patterns, or `split=pattern`.  base: push destination.  metadata: ML Metadata's ConnectionConfig in
    JSON, or a SQLite file.
    Raises UsageError for what the config would refuse in `ranking.yaml`.
    """
    if inputs:
        by_split: dict[str, list[str]] = {}
        for each in inputs:
            split, equals, pattern = each.partition("=")
            named = bool(equals) and split in SPLIT_NAMES
            by_split.setdefault(split if named else "", []).append(pattern if named else each)
        if "" in by_split and len(by_split) > 1:
            raise UsageError(f"--input: expected patterns, or SPLIT=PATTERN for each; got {', '.join(inputs)}.")
        found: Any = {split: tuple(patterns) for split, patterns in by_split.items()}
        config = _replaced(config, "--input", data=(config.data, {"input": found.get("", found)}))
    if base is not None:
        config = _replaced(config, "--push-base", push=(config.push or Push(base=base), {"base": base}))
    if metadata is not None:
        said = {"connection": _connection(metadata)} if metadata.lstrip().startswith("{") else {"sqlite": metadata}
        config = _replaced(config, "--metadata", metadata=(Metadata(), said))
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
    """Kubeflow's name of a pipeline.  Raises RankingError for one that has no letter and no digit to begin with.

    >>> kubeflow_name("Shop_Search.2")
    'shop-search-2'
    """
    legal = re.sub(r"[^a-z0-9-]", "-", name.lower())[:128]
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", legal):
        raise RankingError(f"name: Kubeflow's names begin with a letter or a digit of ASCII; got {name!r}.")
    return legal


def require_kfp() -> None:
    """Raises RankingError, with what to install, where Kubeflow's client is missing."""
    import importlib.util

    if importlib.util.find_spec("kfp") is None:
        raise RankingError(f"the package kfp is not installed; install it with: {INSTALL}")


def _refuse_long(node: str, task: Mapping[str, Any]) -> None:
    """Kubeflow hands a step its parameters as one argument."""
    given = [each.get("runtimeValue", {}).get("constant", "") for each in task["inputs"]["parameters"].values()]
    size = sum(len(json.dumps(each)) for each in given)
    if size > _ARGUMENT:
        raise RankingError(
            f"{node}: its part of the config takes {size:,} bytes, and a container gets {_ARGUMENT:,} at most. Mostly "
            "that is its features: those that are numbers may stand in one column, as a vector (shape: [n])."
        )


def _add_run_id(task: dict[str, Any], component: dict[str, Any]) -> None:
    parameters = component.setdefault("inputDefinitions", {}).setdefault("parameters", {})
    parameters[RUN] = {"parameterType": "STRING"}
    given = task.setdefault("inputs", {}).setdefault("parameters", {})
    given[RUN] = {"runtimeValue": {"constant": _RUN_ID}}


def _add_resources(task: dict[str, Any], container: dict[str, Any], wanted: Any) -> None:
    resources: dict[str, Any] = {}
    for key, value in (("cpu", wanted.cpu), ("memory", wanted.memory)):
        if value is not None:
            resources |= {f"{key}Request": float(value), f"{key}Limit": float(value)}
    if wanted.gpu:
        resources["accelerator"] = {"type": wanted.gpu_type, "count": str(wanted.gpu)}  # an int64, text in JSON
    if resources:
        container["resources"] = resources
    if wanted.retries:
        # Without a longest time Kubeflow says 0 to Argo, which counts it from the first attempt's start and gives up.
        backoff = {"backoffDuration": "60s", "backoffFactor": 2.0, "backoffMaxDuration": f"{7 * 24 * 3600}s"}
        task["retryPolicy"] = {"maxRetryCount": wanted.retries, **backoff}


def _secrets(secrets: Mapping[str, str], executors: Sequence[str]) -> dict[str, Any]:
    """What gives each container its variables out of Kubernetes' secrets."""
    by_secret: dict[str, list[dict[str, str]]] = {}
    for variable, where in sorted(secrets.items()):
        secret, _, key = where.partition("/")
        by_secret.setdefault(secret, []).append({"secretKey": key, "envVar": variable})
    given = [{"secretName": name, "keyToEnv": keys} for name, keys in by_secret.items()]
    of_each = {executor: {"secretAsEnv": copy.deepcopy(given)} for executor in executors}  # YAML without references
    return {"platforms": {"kubernetes": {"deploymentSpec": {"executors": of_each}}}} if secrets else {}


def _store_of(config: RankingConfig, root: str) -> Any:
    """ML Metadata's connection; below an object store there is no SQLite file, and `unseen` says so."""
    return config_connection(config, pathlib.Path("." if "://" in root else root), fill=False)


def _password(connection: Mapping[str, Any]) -> str:
    """The store's, where it stands in the clear; "" for none, or a variable's name."""
    passwords = (each.get("password", "") for each in connection.values() if isinstance(each, Mapping))
    return next((each for each in passwords if not VARIABLE.fullmatch(each)), "")


def unseen(config: RankingConfig, root: str) -> tuple[str, ...]:
    """What a cluster probably cannot reach, and what to do about it; needs no TFX.

    A local path is none that a container has, unless the cluster's owner mounts it into all of them."""
    patterns = config.data.input.values() if isinstance(config.data.input, dict) else [config.data.input]
    files = [each for some in patterns for each in ([some] if isinstance(some, str) else some)]
    paths = [("data.input", file, "--input") for file in files]
    paths += [("push.base", config.push.base, "--push-base")] if config.push else []
    paths += [("data.schema", config.data.schema, "")] if config.data.schema else []
    start = config.training.initialize_from
    paths += [("training.initialize_from.model", start.model, "")] if start else []
    said = []
    for key, path, option in paths:
        if "://" not in path:
            instead = f"; {option} names another" if option else ""
            said.append(f"{key}: {path} is a local path, which no container has unless it is mounted{instead}.")
    if not root.startswith(_STORES):
        said.append(f"--root: {root}: Kubeflow's launcher takes {', '.join(_STORES)} and nothing else.")
    connection = _store_of(config, root)
    server = getattr(connection, connection.WhichOneof("config"))
    if connection.HasField("sqlite"):
        said.append(
            f"metadata: {connection.sqlite.filename_uri} is a SQLite file, and each container would have one of its "
            "own: the run fails at its second step; --metadata names a MySQL or PostgreSQL that all of them reach."
        )
    elif getattr(server, "host", "") in ("localhost", "127.0.0.1", "::1"):
        said.append(f"metadata: {server.host} is each container itself; --metadata names another.")
    told = json_format.MessageToDict(connection)
    if _password(told):
        said.append(
            "metadata: the password stands in the file, and whoever may look at a run sees it there; write "
            "'${MLMD_PASSWORD}' in its place, and say under kubeflow.secrets which secret holds it."
        )
    held = {*config.kubeflow.env, *config.kubeflow.secrets}
    for variable in sorted(set(VARIABLE.findall(json.dumps(told))) - held):
        said.append(f"metadata: ${{{variable}}} is no variable of a container; name it under kubeflow.secrets.")
    return tuple(said)
