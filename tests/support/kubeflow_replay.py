"""A compiled pipeline run as Kubeflow Pipelines would: read, ordered and filled in by KFP's own code, each container's
command a process of its own.

KFP 2.16 brings all of it (`kfp.local`); KFP 2.5 has the executor inputs and the placeholders, and no order of tasks.
The containers' process sees an empty working directory, no variable of this one's, and the image's Python.
"""

import graphlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest.mock
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import forked_python
import yaml
from kfp import components, local
from kfp.local import executor_input_utils, executor_output_utils, placeholder_utils, status, subprocess_task_handler
from kfp.local.task_handler_interface import ITaskHandler

# Whose process runs the containers, and by which Python: an image's, where one was made.
USER, PYTHON = os.environ.get("TFX_RANKING_IMAGE", f":{sys.executable}").split(":", 1)


class Failed(Exception):
    """A container ended with an error; the text is its last output."""


def run(
    text: str,
    root: pathlib.Path,
    parameters: Mapping[str, Any],
    modules: pathlib.Path | None = None,
    secrets: Mapping[str, str] = {},
) -> str:
    """Runs a compiled pipeline; gives the run's id.

    text: the YAML.  root: the pipeline root, a folder that `USER` may write to.  modules: a folder of the user's own,
    which the image has on PYTHONPATH.  secrets: Kubernetes', by SECRET/KEY.
    """
    _Container.output, _Container.commands, _Container.modules = "", [], modules
    _Container.variables = _variables(text, secrets)
    pipeline = components.load_component_from_text(text)
    local.init(runner=local.SubprocessRunner(use_venv=False), pipeline_root=str(root))
    try:
        if importlib.util.find_spec("kfp.local.pipeline_orchestrator"):
            with unittest.mock.patch.object(subprocess_task_handler, "SubprocessTaskHandler", _Container):
                pipeline(**parameters)
        else:
            _in_order(pipeline.pipeline_spec, parameters, str(root))
    except RuntimeError as error:
        raise Failed(f"{error}\n{_Container.output}") from error
    return _Container.run_id()


def commands() -> list[Sequence[str]]:
    """What the containers of the last run were given."""
    return list(_Container.commands)


def as_user(user: str) -> list[str]:
    """What a command begins with that another user is to run; "" for this one."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []


def _variables(text: str, secrets: Mapping[str, str]) -> dict[str, str]:
    """What Kubernetes sets in each container, all of them alike: the file's own variables, and those of secrets."""
    spec, *platform = yaml.safe_load_all(text)
    containers = [each["container"] for each in spec["deploymentSpec"]["executors"].values()]
    variables = {each["name"]: each["value"] for container in containers for each in container.get("env", ())}
    for each in platform:
        for executor in each["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
            for secret in executor["secretAsEnv"]:
                variables |= {
                    k["envVar"]: secrets[f"{secret['secretName']}/{k['secretKey']}"] for k in secret["keyToEnv"]
                }
    return variables


def start(
    command: Sequence[str],
    folder: str | pathlib.Path,
    modules: pathlib.Path | None = None,
    variables: Mapping[str, str] = {},
    **how: Any,
) -> subprocess.Popen[str]:
    """A container's process: in a folder with nothing in it, of this process's variables none."""
    if USER:
        os.chown(folder, int(USER), int(USER))
    environment = _environment(folder, modules, variables)
    return subprocess.Popen([*as_user(USER), *command], cwd=folder, env=environment, text=True, **how)


def _environment(
    folder: str | pathlib.Path, modules: pathlib.Path | None, variables: Mapping[str, str]
) -> dict[str, str]:
    environment = {
        "PATH": f"{pathlib.Path(PYTHON).parent}:/usr/bin:/bin",
        "HOME": str(folder),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **variables,
    }
    return {**environment, "PYTHONPATH": str(modules)} if modules else environment


class _Container(ITaskHandler):
    """Stands in for a container runtime."""

    output = ""
    modules: ClassVar[pathlib.Path | None] = None
    variables: ClassVar[Mapping[str, str]] = {}
    commands: ClassVar[list[Sequence[str]]] = []

    def __init__(self, image: str, full_command: list[str], pipeline_root: str, runner: Any) -> None:
        self.command = full_command

    def run(self) -> status.Status:
        _Container.commands.append(self.command)
        # The first container of a run is the command itself; the others need not import TFX again.
        real = USER or len(_Container.commands) == 1 or self.command[:2] != ["python", "-m"]
        with tempfile.TemporaryDirectory() as folder:
            if real:
                pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
                process = start(self.command, folder, self.modules, self.variables, **pipe)
                output, code = process.communicate()[0], process.returncode
            else:
                environment = _environment(folder, self.modules, self.variables)
                done = forked_python.run(self.command[1:], folder, environment)
                output, code = done.stdout, done.returncode
            _Container.output = output[-4000:]
        return status.Status.FAILURE if code else status.Status.SUCCESS

    @classmethod
    def run_id(cls) -> str:
        executor_input = cls.commands[0][cls.commands[0].index("--json_serialized_invocation_args") + 1]
        return str(json.loads(executor_input)["inputs"]["parameterValues"]["pipeline_run"])


def _in_order(spec: Any, values: Mapping[str, Any], root: str) -> None:
    """What KFP 2.5 leaves to its backend: which task comes when, and what of whom it takes."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    inputs = spec.root.input_definitions.parameters
    parameters = {name: executor_output_utils.pb2_value_to_python(each.default_value) for name, each in inputs.items()}
    parameters |= values
    resource = executor_input_utils.get_local_pipeline_resource_name(spec.pipeline_info.name)
    run_id = placeholder_utils.make_random_id()
    executors = json_format.MessageToDict(spec.deployment_spec)["executors"]
    tasks, outputs = spec.root.dag.tasks, {}
    for name in graphlib.TopologicalSorter({n: set(t.dependent_tasks) for n, t in tasks.items()}).static_order():
        component = spec.components[tasks[name].component_ref.name]
        arguments = {}
        for key, source in tasks[name].inputs.parameters.items():
            if source.component_input_parameter:
                arguments[key] = parameters[source.component_input_parameter]
            else:
                constant = executor_output_utils.pb2_value_to_python(source.runtime_value.constant)
                arguments[key] = run_id if constant == "{{$.pipeline_job_uuid}}" else constant
        task_root = executor_input_utils.construct_local_task_root(root, resource, name)
        without = pipeline_spec_pb2.ComponentSpec()
        without.CopyFrom(component)
        without.input_definitions.ClearField("artifacts")  # which KFP 2.5 refuses to fill in
        executor_input = executor_input_utils.construct_executor_input(without, arguments, task_root)
        for key, source in tasks[name].inputs.artifacts.items():
            taken = source.task_output_artifact
            executor_input.inputs.artifacts[key].artifacts.add(
                uri=outputs[taken.producer_task][taken.output_artifact_key].uri
            )
        container = executors[component.executor_label]["container"]
        command = placeholder_utils.replace_placeholders(
            [*container["command"], *container["args"]],
            executor_input_utils.executor_input_to_dict(executor_input, component),
            resource,
            name,
            root,
        )
        if _Container(container["image"], command, root, None).run() is status.Status.FAILURE:
            raise RuntimeError(f"{name} failed")
        outputs[name] = executor_output_utils.get_outputs_for_task(executor_input, component)
