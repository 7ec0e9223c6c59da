"""One step of a compiled pipeline, in its container: runs the component, and tells ML Metadata what a local run would.

Enters: Kubeflow's executor input (where inputs lie, where outputs go, parameters).  Leaves: the outputs, Kubeflow's
executor output, and in ML Metadata an execution with inputs, outputs, contexts and state of the types that TFX's own
runners write, a failed one too.  The one idea: Kubeflow moves the bytes, ML Metadata knows the artifacts: an input is
looked up there by its uri, so it arrives with all that its maker said of it.

    python -m tfx_ranking.pipelines.kubeflow.step --pipeline shop --nodes A,B --node A --type … --metadata {…}
        --executor_class_path … --json_serialized_invocation_args {{$}} [BEAM ARGUMENT ...]
"""

import argparse
import contextlib
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

# Where Kubeflow's launcher puts what it has fetched, and looks for what it is to store.
_LOCAL = {"gs://": "/gcs/", "s3://": "/s3/", "minio://": "/minio/"}
_PATIENCE, _AGAIN = 120.0, 5.0  # seconds: with a store that is away, from one try to the next
Artifacts = dict[str, list[Any]]


def run(arguments: argparse.Namespace, beam_args: Sequence[str]) -> None:
    """Runs the step; what it raises is in ML Metadata before it comes here."""
    asked = pipeline_spec_pb2.ExecutorInput()
    json_format.Parse(arguments.json_serialized_invocation_args, asked, ignore_unknown_fields=True)
    described = pipeline_spec_pb2.ComponentInputsSpec()
    json_format.Parse(arguments.json_serialized_inputs_spec_args, described, ignore_unknown_fields=True)
    parameters = kubeflow_protos.parse_execution_properties(asked.inputs.parameter_values, {}, described)
    run_id = str(parameters.pop(RUN, ""))
    if not run_id or run_id.startswith("{{"):
        raise RankingError(f"{RUN}: expected the run's id; got {run_id!r}. Kubeflow Pipelines 2 fills it in.")
    connection = json_format.ParseDict(fill_variables(json.loads(arguments.metadata)), mlmd.ConnectionConfig())
    open_or_make(connection)  # its tables are there now, whoever made them
    here = _Place(arguments.pipeline, run_id, arguments.nodes.split(","), arguments.node, arguments.type)
    outputs = _new(asked)
    with _recorded(connection, here, asked, parameters, outputs) as (execution, inputs, parameters):
        _execute(arguments.executor_class_path, beam_args, here, execution, inputs, outputs, parameters)
    _write_output(asked.outputs.output_file, outputs)


class _Place:
    """What the step is part of."""

    def __init__(self, pipeline: str, run: str, nodes: Sequence[str], node: str, type_name: str) -> None:
        self.pipeline, self.run, self.nodes, self.node = pipeline, run, nodes, node
        self.type = mlmd.ExecutionType(name=type_name)

    def contexts(self) -> pipeline_pb2.NodeContexts:
        """As TFX's compiler has them."""
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


@contextlib.contextmanager
def _recorded(
    connection: Any, here: _Place, asked: Any, parameters: Mapping[str, Any], outputs: Artifacts
) -> Iterator[tuple[int, Artifacts, dict[str, Any]]]:
    """Registers the execution, and publishes how it ended; gives its id, its inputs, and its parameters with what is
    there now."""
    with metadata.Metadata(connection) as handle:
        contexts = context_lib.prepare_contexts(handle, here.contexts())
        run_records.record_nodes(handle.store, here.run, here.nodes)
        earlier = execution_lib.get_executions_associated_with_all_contexts(handle, contexts)  # tries of this step
        run_records.end_dead_executions(handle.store, here.pipeline, locked=False, again=[each.id for each in earlier])
        inputs, seen, why = {}, dict(parameters), None
        try:
            of_run = handle.store.get_context_by_type_and_name("pipeline_run", here.run).id
            inputs = {
                name: [_known(handle.store, of_run, each.uri) for each in listed.artifacts]
                for name, listed in asked.inputs.artifacts.items()
            }
            seen = external_state.refresh_parameters(here.node, parameters, handle.store)
        except Exception as error:  # it is this step that fails, which is recorded as any other failure below
            why = error
        execution = execution_publish_utils.register_execution(
            handle, here.type, contexts, inputs, {**seen, heartbeat.HEARTBEAT: time.time()}
        )
    try:
        if why is not None:
            raise why
        with heartbeat.write_heartbeats(connection, execution.id):
            yield execution.id, inputs, seen
    except BaseException as error:
        with metadata.Metadata(connection) as handle:
            execution_publish_utils.publish_failed_execution(handle, contexts, execution.id)
            run_records.record_failure(handle.store, here.run, run_records.failure_text(error), execution.id)
        raise  # without waiting: a container that is to end is killed soon
    _insist(
        connection,
        lambda handle: execution_publish_utils.publish_succeeded_execution(handle, execution.id, contexts, outputs),
    )


def _insist(connection: Any, publish: Callable[[Any], object]) -> None:
    """Publishes; a store that is away for a moment is no reason to lose what took hours."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            with metadata.Metadata(connection) as handle:
                publish(handle)
            return
        except (RuntimeError, errors.StatusError):
            if time.monotonic() > end:
                raise
            time.sleep(_AGAIN)


def _new(asked: Any) -> Artifacts:
    """The artifacts that the step is to make, where Kubeflow wants them; not by the ids that TFX makes up for them."""
    named = kubeflow_protos.parse_raw_artifact_dict(asked.outputs.artifacts, {})
    made: Artifacts = {}
    for name, listed in named.items():
        made[name] = [type(each)() for each in listed]
        for artifact, each in zip(made[name], listed):
            artifact.uri = each.uri
    return made


def _known(store: Any, run: int, uri: str) -> Any:
    """The artifact that a step of this run left at a uri, as it published it: Kubeflow's launcher may write to the same
    store, and knows each uri, too.  run: its context.  Raises RankingError where no step did."""
    of_run = store.get_artifacts_by_context(run)
    there = [each for each in of_run if each.uri == uri and each.state == mlmd.Artifact.LIVE]
    if not there:
        raise RankingError(
            f"{uri}: ML Metadata knows no finished artifact of this run there. Each step of a run has to write "
            "to one store; give `tfx-ranking compile` a --metadata that every container reaches."
        )
    newest = max(there, key=lambda each: each.id)
    [kind] = store.get_artifact_types_by_id([newest.type_id])
    return artifact_utils.deserialize_artifact(kind, newest)


def _execute(
    class_path: str,
    beam_args: Sequence[str],
    here: _Place,
    execution: int,
    inputs: Artifacts,
    outputs: Artifacts,
    parameters: dict[str, Any],
) -> None:
    """Runs the executor as TFX's launcher does, on local paths; `outputs` has then what it said of them."""
    uris = {_local(each.uri): each.uri for each in _all(inputs, outputs)}
    for each in _all(inputs, outputs):
        each.uri = _local(each.uri)
    outputs_utils.make_output_dirs(outputs)
    python = executable_spec_pb2.PythonClassExecutableSpec(class_path=class_path)
    is_beam = issubclass(import_utils.import_class_by_path(class_path), base_beam_executor.BaseBeamExecutor)
    with tempfile.TemporaryDirectory() as folder:
        told = data_types.ExecutionInfo(
            execution_id=execution,
            input_dict=inputs,
            output_dict=outputs,
            exec_properties=parameters,
            execution_output_uri=os.path.join(folder, "output"),
            stateful_working_dir=os.path.join(folder, "stateful"),
            tmp_dir=os.path.join(folder, "tmp", ""),
            pipeline_node=pipeline_pb2.PipelineNode(node_info=pipeline_pb2.NodeInfo(id=here.node)),
            pipeline_info=pipeline_pb2.PipelineInfo(id=here.pipeline),
            pipeline_run_id=here.run,
        )
        token = receipt.stored.set(uris)
        try:
            if is_beam:
                spec = executable_spec_pb2.BeamExecutableSpec(python_executor_spec=python)
                for argument in beam_args:
                    spec.beam_pipeline_args_placeholders.add().value.string_value = argument
                done = beam_executor_operator.BeamExecutorOperator(spec).run_executor(told)
            else:
                done = python_executor_operator.PythonExecutorOperator(python).run_executor(told)
        except BaseException:
            outputs_utils.remove_output_dirs(outputs)  # nothing half done is stored
            raise
        finally:
            receipt.stored.reset(token)
    if done.execution_result.code:
        raise RankingError(done.execution_result.result_message)
    for name, listed in data_types_utils.unpack_executor_output_artifacts(done.output_artifacts).items():
        for artifact, said in zip(outputs[name], listed):
            artifact.set_mlmd_artifact(said)
    outputs_utils.tag_output_artifacts_with_version(outputs)
    for artifact in _all(inputs, outputs):
        artifact.uri = uris[artifact.uri]
        for value in artifact.mlmd_artifact.custom_properties.values():
            if value.string_value in uris:
                value.string_value = uris[value.string_value]


def _all(*of: Artifacts) -> Iterator[Any]:
    return (artifact for artifacts in of for listed in artifacts.values() for artifact in listed)


def _local(uri: str) -> str:
    """Where Kubeflow's launcher keeps what lies in an object store; a mounted folder is as it is.

    >>> _local("s3://bucket/shop/model"), _local("/mnt/shop/model")
    ('/s3/bucket/shop/model', '/mnt/shop/model')
    """
    for scheme, folder in _LOCAL.items():
        if uri.startswith(scheme):
            return os.environ.get("ARTIFACT_LOCAL_PATH", "") + folder + uri.removeprefix(scheme)
    return uri


def _write_output(file: str, outputs: Artifacts) -> None:
    """Kubeflow's executor output, which its own pages show; the next step asks ML Metadata."""
    said = pipeline_spec_pb2.ExecutorOutput()
    for name, artifacts in kubeflow_protos.translate_executor_output(outputs, {}).items():
        said.artifacts[name].CopyFrom(artifacts)
    path = pathlib.Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json_format.MessageToJson(said))


class Stopped(BaseException):
    """The container is to end: no failure of a component's, which some would take for an answer and go on."""


def _stopped(*_: Any) -> None:
    raise Stopped("from outside (SIGTERM): the run was ended, or its node was wanted otherwise.")


def main() -> None:
    """Runs the step that the command line names, and logs to standard error."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser(allow_abbrev=False)  # what else is there is Beam's
    for name in (
        *("--pipeline", "--nodes", "--node", "--type", "--metadata"),  # ours
        *("--executor_class_path", "--json_serialized_invocation_args", "--json_serialized_inputs_spec_args"),  # TFX's
    ):
        parser.add_argument(name, required=True)
    arguments, beam_args = parser.parse_known_args()
    sys.argv[1:] = []  # TFX hands what is left of them to Beam
    signal.signal(signal.SIGTERM, _stopped)
    try:
        run(arguments, beam_args)
    except (Exception, Stopped) as error:
        traceback.print_exc()
        print(f"{arguments.node} failed: {run_records.failure_text(error)}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
