"""The commands for Kubeflow Pipelines: `compile`, `submit`; `schedule --kubeflow` is with the other `schedule`.

Holds no logic; nothing heavy is imported before a command needs it.
"""

import argparse
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example, more)` gives a command's parser."""
    compile = command(
        "compile",
        _compile,
        "Write a pipeline as a file that Kubeflow Pipelines 2 runs.",
        "tfx-ranking compile ranking.yaml --image registry/ranking:1 --root s3://ranking/shop -o pipeline.yaml",
    )
    compile.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    compile.add_argument("--image", required=True, help="container image with tfx-ranking and your own modules")
    compile.add_argument(
        "--root", required=True, help="folder of the artifacts in an object store: gs://, s3:// or minio://"
    )
    compile.add_argument(
        "--output", "-o", type=pathlib.Path, default=pathlib.Path("pipeline.yaml"), help="(default: pipeline.yaml)"
    )
    compile.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATTERN",
        help="input files in place of the config's; may be given again; SPLIT=PATTERN for one split's",
    )
    compile.add_argument("--push-base", metavar="BASE", help="push destination in place of the config's")
    compile.add_argument(
        "--metadata", metavar="STORE", help="ML Metadata in place of the config's: a ConnectionConfig in JSON"
    )
    compile.add_argument("--json", action="store_true", help="print JSON")
    submit = command(
        "submit",
        _submit,
        "Upload a compiled pipeline to Kubeflow Pipelines and run it; what is there already is not doubled.",
        "tfx-ranking submit pipeline.yaml --host https://kubeflow.example.com/pipeline",
    )
    submit.add_argument("file", type=pathlib.Path, help="what `tfx-ranking compile` wrote")
    cluster_options(submit)


def cluster_options(parser: argparse._ActionsContainer) -> None:
    """Where a pipeline runs and with what, for the commands that talk to Kubeflow."""
    parser.add_argument("--host", help="of Kubeflow Pipelines' API (default: as kfp.Client finds it)")
    parser.add_argument("--namespace", help="of Kubernetes, where Kubeflow is shared by several users")
    parser.add_argument("--experiment", help="(default: the pipeline's name)")
    parser.add_argument("--span", default=None, help="of the data (default: as compiled, the newest)")
    parser.add_argument("--learning-rate", type=float, default=None, help="(default: as compiled)")
    parser.add_argument("--dry-run", action="store_true", help="print the calls; make none")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _compile(arguments: argparse.Namespace) -> int:
    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.pipelines.kubeflow import compiler

    compiler.require_kfp()
    config = compiler.reachable(
        ranking_config.load(arguments.config), arguments.input, arguments.push_base, arguments.metadata
    )
    warnings = compiler.unseen(config, arguments.root)
    for each in warnings:
        print(f"warning: {each}", file=sys.stderr)
    compiled = compiler.compile(config, arguments.image, arguments.root, arguments.config.absolute().parent)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.output, "w", opener=private if compiled.has_password else None) as file:
        file.write(compiled.yaml)
    tasks = list(compiled.spec["root"]["dag"]["tasks"])
    if arguments.json:
        said = {"file": str(arguments.output), "pipeline": compiled.name, "components": tasks}
        print(json.dumps({**said, "warnings": list(warnings)}, indent=2))
    else:
        print(f"{arguments.output}: pipeline {compiled.name}, {len(tasks)} components")
        mended = "  # when the warnings are mended" if warnings else ""
        print(f"next:    tfx-ranking submit {arguments.output}{mended}")
    return 0


def private(path: str, flags: int) -> int:
    """Opens a file that nobody else may read."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _submit(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.kubeflow import client as kubeflow_client

    return tell(kubeflow_client.submit(arguments.file, client(arguments), asked(arguments)), arguments.json)


def client(arguments: argparse.Namespace) -> Any:
    """What `arguments` say of the cluster, or a stand-in that makes no call."""
    from tfx_ranking.pipelines.kubeflow import client as kubeflow_client

    if arguments.dry_run:
        return kubeflow_client.Unconnected()
    return kubeflow_client.connect(arguments.host)


def asked(arguments: argparse.Namespace) -> Any:
    """The experiment and the parameters of a run.  Raises UsageError for one that no run could use."""
    from tfx_ranking.components.errors import UsageError
    from tfx_ranking.pipelines.kubeflow import client as kubeflow_client

    if arguments.span and not arguments.span.isdecimal():
        raise UsageError(f"--span: expected a number, or nothing for the newest; got {arguments.span!r}.")
    if arguments.learning_rate is not None and not 0 < arguments.learning_rate < math.inf:
        raise UsageError(f"--learning-rate: expected a number above 0; got {arguments.learning_rate}.")

    given = {"span": arguments.span, "learning_rate": arguments.learning_rate}
    parameters = {name: value for name, value in given.items() if value is not None}
    return kubeflow_client.Asked(arguments.experiment, arguments.namespace, parameters)


def tell(done: Sequence[Any], as_json: bool) -> int:
    """Prints what was done, a line each."""
    if as_json:
        print(json.dumps([each._asdict() for each in done], indent=2))
    else:
        for each in done:
            print(each)
    return 0
