"""Defines the commands for Kubeflow Pipelines: `compile` and `submit`.

Input: parsed arguments.  Output: a compiled file, or what was created on the cluster.  `schedule --kubeflow` is in
`schedule_command`.  Each handler imports what it needs when it runs.
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
    """Adds the commands; for `command` see `command_tree.parser`."""
    compiling = command(
        "compile",
        _compile,
        "Write a pipeline as a file that Kubeflow Pipelines 2 runs.",
        "tfx-ranking compile ranking.yaml --image registry/ranking:1 --root s3://ranking/shop -o pipeline.yaml",
    )
    compiling.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    compiling.add_argument(
        "--image", required=True, help="container image that has tfx-ranking and your own modules installed"
    )
    compiling.add_argument(
        "--root", required=True, help="folder for the artifacts in an object store: gs://, s3:// or minio://"
    )
    compiling.add_argument(
        "--output",
        "-o",
        type=pathlib.Path,
        default=pathlib.Path("pipeline.yaml"),
        help="the file to write (default: pipeline.yaml)",
    )
    compiling.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="PATTERN",
        help="input files to use instead of data.input; SPLIT=PATTERN for the files of one split; can be repeated",
    )
    compiling.add_argument("--push-base", metavar="BASE", help="push destination to use instead of push.base")
    compiling.add_argument(
        "--metadata",
        metavar="STORE",
        help="ML Metadata to use instead of the config's: a ConnectionConfig in JSON",
    )
    compiling.add_argument("--json", action="store_true", help="print JSON")
    submit = command(
        "submit",
        _submit,
        "Upload a compiled pipeline to Kubeflow Pipelines and run it; nothing is uploaded or started twice.",
        "tfx-ranking submit pipeline.yaml --host https://kubeflow.example.com/pipeline",
    )
    submit.add_argument("file", type=pathlib.Path, help="a file that `tfx-ranking compile` wrote")
    cluster_options(submit)


def cluster_options(parser: argparse._ActionsContainer) -> None:
    """Adds the options of the commands that connect to Kubeflow Pipelines."""
    parser.add_argument("--host", help="address of the Kubeflow Pipelines API (default: the one kfp.Client() uses)")
    parser.add_argument("--namespace", help="your Kubernetes namespace, if several users share Kubeflow")
    parser.add_argument("--experiment", help="name of the experiment (default: the pipeline's name)")
    parser.add_argument("--span", default=None, help="span of the data to train on (default: the newest)")
    parser.add_argument(
        "--learning-rate", type=float, default=None, help="learning rate (default: the one in the compiled file)"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the calls to Kubeflow without making them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _compile(arguments: argparse.Namespace) -> int:
    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.pipelines.kubeflow import compiler

    compiler.require_kfp()
    config = compiler.reachable(
        ranking_config.load(arguments.config), arguments.input, arguments.push_base, arguments.metadata
    )
    warnings = compiler.unreachable(config, arguments.root)
    for each in warnings:
        print(f"warning: {each}", file=sys.stderr)
    compiled = compiler.compile(config, arguments.image, arguments.root, arguments.config.absolute().parent)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    with open(arguments.output, "w", opener=_open_private if compiled.has_password else None) as file:
        file.write(compiled.yaml)
    tasks = list(compiled.spec["root"]["dag"]["tasks"])
    if arguments.json:
        facts = {"file": str(arguments.output), "pipeline": compiled.name, "components": tasks}
        print(json.dumps({**facts, "warnings": list(warnings)}, indent=2))
    else:
        print(f"{arguments.output}: pipeline {compiled.name}, {len(tasks)} components")
        after = "  # after you have fixed the warnings" if warnings else ""
        print(f"next:    tfx-ranking submit {arguments.output}{after}")
    return 0


def _open_private(path: str, flags: int) -> int:
    """Opens a file that only its owner may read."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _submit(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.kubeflow import cluster

    return print_results(cluster.submit(arguments.file, client(arguments), run_options(arguments)), arguments.json)


def client(arguments: argparse.Namespace) -> Any:
    """The client for the cluster that the options name; with --dry-run a `DryRunClient`."""
    from tfx_ranking.pipelines.kubeflow import cluster

    return cluster.DryRunClient() if arguments.dry_run else cluster.connect(arguments.host)


def run_options(arguments: argparse.Namespace) -> Any:
    """The run's experiment, namespace and parameters.  Raises UsageError for a wrong parameter."""
    from tfx_ranking.components.errors import UsageError
    from tfx_ranking.pipelines.kubeflow import cluster

    if arguments.span and not arguments.span.isdecimal():
        raise UsageError(f"--span: expected a number, or nothing for the newest; got {arguments.span!r}.")
    if arguments.learning_rate is not None and not 0 < arguments.learning_rate < math.inf:
        raise UsageError(f"--learning-rate: expected a number above 0; got {arguments.learning_rate}.")

    parameters = {"span": arguments.span, "learning_rate": arguments.learning_rate}
    parameters = {name: value for name, value in parameters.items() if value is not None}
    return cluster.RunOptions(arguments.experiment, arguments.namespace, parameters)


def print_results(results: Sequence[Any], as_json: bool) -> int:
    """Prints one line for each `cluster.Resource`.  Returns the exit code, 0."""
    if as_json:
        print(json.dumps([each._asdict() for each in results], indent=2))
    else:
        for each in results:
            print(each)
    return 0
