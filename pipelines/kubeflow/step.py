"""Runs one step of a compiled pipeline in its container, and records it in ML Metadata as a local run would.

Input: Kubeflow's executor input (inputs, outputs, parameters).  Output: the artifacts, Kubeflow's executor output, and
an execution in ML Metadata, also if the step fails: its inputs, outputs, contexts and state have the types of TFX's own
runners.  Kubeflow moves the bytes, but ML Metadata has the artifacts' properties: the step looks each input up there by
its URI, so that the component gets the properties that an earlier step has set.

    python -m tfx_ranking.pipelines.kubeflow.step --pipeline shop --nodes A,B --node A --type … --metadata {…}
        --executor_class_path … --json_serialized_invocation_args {{$}} [BEAM ARGUMENT ...]
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2
from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.components.base import base_beam_executor
from tfx.orchestration import data_types_utils, metadata
from tfx.orchestration.kubeflow.v2.container import kubeflow_v2_entrypoint_utils as kubeflow_protos
from tfx.orchestration.portable import (
    beam_executor_operator,
    data_types,
    execution_publish_utils,
    outputs_utils,
    python_executor_operator,
)
from tfx.orchestration.portable.mlmd import context_lib, execution_lib
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2
from tfx.types import artifact_utils
from tfx.utils import import_utils

from tfx_ranking.components.errors import RankingError
from tfx_ranking.components.exported import receipt
from tfx_ranking.pipelines import external_state
from tfx_ranking.pipelines.kubeflow.compiler import RUN
from tfx_ranking.pipelines.metadata import heartbeat, run_records
from tfx_ranking.pipelines.metadata.connection import fill_variables, open_or_make

# The folders where Kubeflow's launcher puts the artifacts that it fetches, and looks for those that it uploads.
_LOCAL = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}
_RETRY_FOR, _RETRY_EVERY = 120.0, 5.0  # seconds, if ML Metadata does not answer
Artifacts = dict[str, list[Any]]


@dataclasses.dataclass(frozen=True)
class _ContainerStep:
    """Which step of which run this is."""

    pipeline: str
    run: str
    nodes: Sequence[str]  # all steps of the pipeline
    node: str  # this one
    type_name: str  # of its executions in ML Metadata

    def contexts(self) -> pipeline_pb2.NodeContexts:
        """The contexts of pipeline, run and node, as TFX's compiler makes them."""
        contexts = pipeline_pb2.NodeContexts()
        for kind, name in (
            ("pipeline", self.pipeline),
            ("pipeline_run", self.run),
            ("node", f"{self.pipeline}.{self.node}"),
        ):
            context = contexts.contexts.add()
            context.type.name = kind
            context.name.field_value.string_value = name
        return contexts


@dataclasses.dataclass(frozen=True)
class _StepExecution:
    """A registered execution of a step: all that the executor needs."""

    id: int
    inputs: Artifacts
    outputs: Artifacts
    parameters: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Executor:
    """The class that does the component's work."""

    class_path: str
    beam_args: Sequence[str]


def run(arguments: argparse.Namespace, beam_args: Sequence[str]) -> None:
    """Runs the step.  If it raises, ML Metadata has the failure already."""
    request = pipeline_spec_pb2.ExecutorInput()
    json_format.Parse(arguments.json_serialized_invocation_args, request, ignore_unknown_fields=True)
    inputs_spec = pipeline_spec_pb2.ComponentInputsSpec()
    json_format.Parse(arguments.json_serialized_inputs_spec_args, inputs_spec, ignore_unknown_fields=True)
    parameters = kubeflow_protos.parse_execution_properties(request.inputs.parameter_values, {}, inputs_spec)
    run_id = str(parameters.pop(RUN, ""))
    if not run_id or run_id.startswith("{{"):
        raise RankingError(f"{RUN}: expected the run's id; got {run_id!r}. Only Kubeflow Pipelines 2 fills it in.")
    connection = json_format.ParseDict(fill_variables(json.loads(arguments.metadata)), mlmd.ConnectionConfig())
    open_or_make(connection)  # makes the tables, if this is the first step that needs them
    step = _ContainerStep(
        pipeline=arguments.pipeline,
        run=run_id,
        nodes=arguments.nodes.split(","),
        node=arguments.node,
        type_name=arguments.type,
    )
    with _recorded(connection, step, request, parameters) as execution:
        _execute(_Executor(arguments.executor_class_path, beam_args), step, execution)
    _write_output(request.outputs.output_file, execution.outputs)


@contextlib.contextmanager
def _recorded(
    connection: Any, step: _ContainerStep, request: Any, parameters: Mapping[str, Any]
) -> Iterator[_StepExecution]:
    """Registers the execution, and records how the block ends.

    request: Kubeflow's ExecutorInput.  parameters: as compiled; the execution gets those resolved in this container.
    """
    outputs = _new_outputs(request)
    with metadata.Metadata(connection) as handle:
        contexts = context_lib.prepare_contexts(handle, step.contexts())
        run_records.record_nodes(handle.store, step.run, step.nodes)
        earlier = execution_lib.get_executions_associated_with_all_contexts(handle, contexts)  # tries of this step
        run_records.end_dead_executions(handle.store, step.pipeline, locked=False, again=[each.id for each in earlier])
        inputs, resolved, failure = {}, dict(parameters), None
        try:
            run_context = handle.store.get_context_by_type_and_name("pipeline_run", step.run).id
            inputs = {
                name: [_published(handle.store, run_context, each.uri) for each in listed.artifacts]
                for name, listed in request.inputs.artifacts.items()
            }
            resolved = external_state.refresh_parameters(step.node, parameters, handle.store)
        except Exception as error:  # raised again below, where it is recorded like any other failure of the step
            failure = error
        execution = execution_publish_utils.register_execution(
            handle,
            mlmd.ExecutionType(name=step.type_name),
            contexts,
            inputs,
            {**resolved, heartbeat.HEARTBEAT: time.time()},
        )
    try:
        if failure is not None:
            raise failure
        with heartbeat.write_heartbeats(connection, execution.id):
            yield _StepExecution(id=execution.id, inputs=inputs, outputs=outputs, parameters=resolved)
    except BaseException as error:
        with metadata.Metadata(connection) as handle:
            execution_publish_utils.publish_failed_execution(handle, contexts, execution.id)
            run_records.record_failure(handle.store, step.run, run_records.failure_text(error), execution.id)
        raise  # no retries here: a container that is being stopped is killed soon
    _publish_patiently(
        connection,
        lambda handle: execution_publish_utils.publish_succeeded_execution(handle, execution.id, contexts, outputs),
    )


def _publish_patiently(connection: Any, publish: Callable[[Any], object]) -> None:
    """Publishes, and tries again for a while: a short failure of the store must not lose hours of work."""
    end = time.monotonic() + _RETRY_FOR
    while True:
        try:
            with metadata.Metadata(connection) as handle:
                publish(handle)
            return
        except (RuntimeError, errors.StatusError):
            if time.monotonic() > end:
                raise
            time.sleep(_RETRY_EVERY)


def _new_outputs(request: Any) -> Artifacts:
    """The step's output artifacts, at the URIs that Kubeflow chose, and without the ids that TFX invents for them."""
    parsed = kubeflow_protos.parse_raw_artifact_dict(request.outputs.artifacts, {})
    outputs: Artifacts = {}
    for name, listed in parsed.items():
        outputs[name] = [type(each)() for each in listed]
        for artifact, each in zip(outputs[name], listed):
            artifact.uri = each.uri
    return outputs


def _published(store: Any, run_context: int, uri: str) -> Any:
    """The artifact that an earlier step of this run published at a URI.  Raises RankingError if there is none.

    run_context: the id of the run's context.  Artifacts outside it do not count: Kubeflow's launcher may record the
    same URI in the same store.
    """
    of_run = store.get_artifacts_by_context(run_context)
    published = [each for each in of_run if each.uri == uri and each.state == mlmd.Artifact.LIVE]
    if not published:
        raise RankingError(
            f"{uri}: ML Metadata has no finished artifact of this run at this URI. All steps of a run must use the "
            "same store; run `tfx-ranking compile` with a --metadata that every container reaches."
        )
    newest = max(published, key=lambda each: each.id)
    [kind] = store.get_artifact_types_by_id([newest.type_id])
    return artifact_utils.deserialize_artifact(kind, newest)


def _execute(executor: _Executor, step: _ContainerStep, execution: _StepExecution) -> None:
    """Runs the executor on local paths, as TFX's launcher does, and sets the properties of the output artifacts."""
    inputs, outputs = execution.inputs, execution.outputs
    uris = {_local(each.uri): each.uri for each in _all(inputs, outputs)}
    for each in _all(inputs, outputs):
        each.uri = _local(each.uri)
    outputs_utils.make_output_dirs(outputs)
    with tempfile.TemporaryDirectory() as folder:
        info = data_types.ExecutionInfo(
            execution_id=execution.id,
            input_dict=inputs,
            output_dict=outputs,
            exec_properties=execution.parameters,
            execution_output_uri=os.path.join(folder, "output"),
            stateful_working_dir=os.path.join(folder, "stateful"),
            tmp_dir=os.path.join(folder, "tmp", ""),
            pipeline_node=pipeline_pb2.PipelineNode(node_info=pipeline_pb2.NodeInfo(id=step.node)),
            pipeline_info=pipeline_pb2.PipelineInfo(id=step.pipeline),
            pipeline_run_id=step.run,
        )
        token = receipt.stored.set(uris)
        try:
            result = _operator(executor).run_executor(info)
        except BaseException:
            outputs_utils.remove_output_dirs(outputs)  # so that the launcher uploads no incomplete output
            raise
        finally:
            receipt.stored.reset(token)
    if result.execution_result.code:
        raise RankingError(result.execution_result.result_message)
    for name, listed in data_types_utils.unpack_executor_output_artifacts(result.output_artifacts).items():
        for artifact, changed in zip(outputs[name], listed):
            artifact.set_mlmd_artifact(changed)
    outputs_utils.tag_output_artifacts_with_version(outputs)
    for artifact in _all(inputs, outputs):
        artifact.uri = uris[artifact.uri]
        for value in artifact.mlmd_artifact.custom_properties.values():
            if value.string_value in uris:
                value.string_value = uris[value.string_value]


def _operator(executor: _Executor) -> Any:
    """TFX's operator that runs the executor: one for Beam, or one for plain Python."""
    python = executable_spec_pb2.PythonClassExecutableSpec(class_path=executor.class_path)
    if not issubclass(import_utils.import_class_by_path(executor.class_path), base_beam_executor.BaseBeamExecutor):
        return python_executor_operator.PythonExecutorOperator(python)
    spec = executable_spec_pb2.BeamExecutableSpec(python_executor_spec=python)
    for argument in executor.beam_args:
        spec.beam_pipeline_args_placeholders.add().value.string_value = argument
    return beam_executor_operator.BeamExecutorOperator(spec)


def _all(*groups: Artifacts) -> Iterator[Any]:
    return (artifact for artifacts in groups for listed in artifacts.values() for artifact in listed)


def _local(uri: str) -> str:
    """The path in the container of an artifact in an object store; the path of a mounted folder does not change.

    >>> _local("s3://bucket/shop/model"), _local("/mnt/shop/model")
    ('/s3/bucket/shop/model', '/mnt/shop/model')
    """
    for scheme, folder in _LOCAL.items():
        if uri.startswith(scheme):
            return os.environ.get("ARTIFACT_LOCAL_PATH", "") + folder + uri.removeprefix(scheme)
    return uri


def _write_output(file: str, outputs: Artifacts) -> None:
    """Writes Kubeflow's executor output, for Kubeflow's own pages; the next step reads ML Metadata instead."""
    output = pipeline_spec_pb2.ExecutorOutput()
    for name, artifacts in kubeflow_protos.translate_executor_output(outputs, {}).items():
        output.artifacts[name].CopyFrom(artifacts)
    path = pathlib.Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_format.MessageToJson(output))


class Stopped(BaseException):
    """Kubernetes stops the container.  Not an Exception, because some components catch those and continue."""


def _stop(*_: Any) -> None:
    raise Stopped("from outside (SIGTERM): somebody ended the run, or Kubernetes needs the machine.")


def main() -> None:
    """Runs the step that the command line describes, and logs to standard error."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser(allow_abbrev=False)  # all other arguments are Beam's
    for name in (
        *("--pipeline", "--nodes", "--node", "--type", "--metadata"),  # ours
        *("--executor_class_path", "--json_serialized_invocation_args", "--json_serialized_inputs_spec_args"),  # TFX's
    ):
        parser.add_argument(name, required=True)
    arguments, beam_args = parser.parse_known_args()
    sys.argv[1:] = []  # TFX would pass the rest of them to Beam
    signal.signal(signal.SIGTERM, _stop)
    try:
        run(arguments, beam_args)
    except (Exception, Stopped) as error:
        traceback.print_exc()
        print(f"{arguments.node} failed: {run_records.failure_text(error)}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
