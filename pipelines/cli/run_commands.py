"""Defines the commands that run a pipeline, `run` and `demo`, and `config-schema`.

Input: parsed arguments.  Output: printed text, and an exit code.  Each handler imports what it needs when it runs.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; for `command` see `command_tree.parser`."""
    run = command(
        "run",
        _run,
        "Run the pipeline that ranking.yaml describes: train, evaluate and push a ranker.",
        "tfx-ranking run ranking.yaml",
    )
    run.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    run.add_argument("--root", type=pathlib.Path, help="folder for the artifacts (default: the folder of ranking.yaml)")
    runner_options(run)
    demo = command(
        "demo", _demo, "Train, evaluate and push a ranker on simulated product-search logs.", "tfx-ranking demo"
    )
    demo.add_argument(
        "--root", type=pathlib.Path, default=pathlib.Path("demo"), help="folder to write to (default: demo)"
    )
    runner_options(demo)
    command(
        "config-schema",
        _config_schema,
        "Print the JSON schema of ranking.yaml, for completion and checks in your editor.",
        "tfx-ranking config-schema > ranking.schema.json",
    )


def runner_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the commands that run a pipeline."""
    parser.set_defaults(if_interrupted="the same command continues after the finished steps")
    parser.add_argument(
        "--orchestrator", choices=("beam", "local"), default="beam", help="the TFX runner (default: beam)"
    )
    parser.add_argument(
        "--beam-arg",
        action="append",
        default=[],
        metavar="ARG",
        help="an argument for every Beam component; can be repeated",
    )


def _run(arguments: argparse.Namespace) -> int:
    root = arguments.root or arguments.config.absolute().parent
    return _run_pipeline(arguments.config, root.absolute(), arguments)


def _run_pipeline(config_file: pathlib.Path, root: pathlib.Path, arguments: argparse.Namespace) -> int:
    import rich.console

    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.components.ingestion import sources
    from tfx_ranking.pipelines.metadata.connection import config_connection
    from tfx_ranking.pipelines.running import local, progress

    config = ranking_config.load(config_file)
    sources.check_patterns(config.data)  # the run checks this too, but only after TFX is loaded
    console = rich.console.Console()
    run = local.start(config_file.absolute(), root, arguments.orchestrator, arguments.beam_arg)
    console.print(f"log: {run.log}", soft_wrap=True, highlight=False)
    steps = progress.follow(run, config_connection(config, root), console)
    if run.process.returncode == 0:
        console.print(progress.outcome(config, steps), soft_wrap=True, highlight=False)
        return 0
    failed = next((f"{step.node} failed: " for step in steps if step.state in ("failed", "running")), "")
    reason = run.failure or f"the process ended with code {run.process.returncode}"
    print(f"\n{failed}{reason}\nlog: {run.log}", file=sys.stderr)
    return 1


def _demo(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import demo

    root = arguments.root.absolute()
    code = _run_pipeline(demo.prepare(root), root, arguments)
    if code == 0:
        print("\ncomparing with the true relevance; this takes half a minute\n", flush=True)
        print(demo.summarise(root))
    return code


def _config_schema(arguments: argparse.Namespace) -> int:
    from tfx_ranking.components.config import reference

    print(json.dumps(reference.json_schema(), indent=2, ensure_ascii=False))
    return 0
