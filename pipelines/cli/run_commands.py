"""The commands that run a pipeline: `run`, `demo`; and `config-schema`.

Holds no logic; nothing heavy is imported before a command needs it.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Callable


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example, more)` gives a command's parser."""
    run = command("run", _run, "Run the pipeline of a config.", "tfx-ranking run ranking.yaml")
    run.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    run.add_argument("--root", type=pathlib.Path, help="folder for the artifacts (default: the config's)")
    runner_options(run)
    demo = command(
        "demo", _demo, "Train, evaluate and push a ranker on simulated product-search logs.", "tfx-ranking demo"
    )
    demo.add_argument("--root", type=pathlib.Path, default=pathlib.Path("demo"), help="folder to fill (default: demo)")
    runner_options(demo)
    command(
        "config-schema",
        _config_schema,
        "Print the JSON schema of ranking.yaml for editors.",
        "tfx-ranking config-schema > ranking.schema.json",
    )


def runner_options(parser: argparse.ArgumentParser) -> None:
    """How a pipeline is run, for the commands that run one."""
    parser.set_defaults(if_interrupted="the same command continues after the finished steps")
    parser.add_argument(
        "--orchestrator", choices=("beam", "local"), default="beam", help="which TFX runner (default: beam)"
    )
    parser.add_argument(
        "--beam-arg", action="append", default=[], metavar="ARG", help="passed on to every Beam component"
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
    sources.refuse_absent(config.data)  # the run looks too, when it has loaded TFX
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
        print("\ncomparing with the true relevance, which takes half a minute\n", flush=True)
        print(demo.summarise(root))
    return code


def _config_schema(arguments: argparse.Namespace) -> int:
    from tfx_ranking.components.config import reference

    print(json.dumps(reference.json_schema(), indent=2, ensure_ascii=False))
    return 0
