"""Defines the command that retrains when there is a reason to: `retrain`.

Input: parsed arguments.  Output: printed lines or JSON, and an exit code.  Its handler imports what it needs when it
runs.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from tfx_ranking.pipelines.cli import run_commands
from tfx_ranking.pipelines.retraining import exit_codes


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command; for `command` see `command_tree.parser`."""
    retrain = command(
        "retrain",
        _retrain,
        "Train on new data if there is a reason to, and push the new model if it is good enough. Made for cron, "
        "systemd and Kubernetes.",
        "tfx-ranking retrain ranking.yaml",
        exit_codes.help_text(),
    )
    retrain.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    retrain.add_argument(
        "--root", type=pathlib.Path, help="folder for the artifacts (default: the folder of ranking.yaml)"
    )
    retrain.add_argument(
        "--dry-run", action="store_true", help="check the new data and print what would happen and why; train nothing"
    )
    retrain.add_argument("--json", action="store_true", help="print JSON; progress goes to standard error")
    run_commands.runner_options(retrain)


def _retrain(arguments: argparse.Namespace) -> int:
    import rich.console

    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.pipelines.metadata.connection import config_connection
    from tfx_ranking.pipelines.retraining import decision as retraining
    from tfx_ranking.pipelines.retraining import views
    from tfx_ranking.pipelines.running import local, progress

    config = ranking_config.load(arguments.config)
    root = (arguments.root or arguments.config.absolute().parent).absolute()
    console = rich.console.Console(stderr=arguments.json)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    def run(job: Any) -> Any:
        begun = local.start(
            arguments.config.absolute(), root, arguments.orchestrator, arguments.beam_arg, dataclasses.asdict(job)
        )
        say(f"{'training' if job.check is None else 'checking the new data'}, log: {begun.log}")
        steps = progress.follow(begun, config_connection(config, root), console)
        if begun.stop_requested and job.check is not None:  # in the check's last component: no training begins
            raise KeyboardInterrupt
        results = [retraining.RunResult(**each) for each in begun.results]
        if begun.process.returncode == 0:
            return results
        failed = next((f"{step.node} failed: " for step in steps if step.state in ("failed", "running")), "")
        reason = begun.failure or f"the process ended with code {begun.process.returncode}"
        failure = retraining.RunResult(begun.run_id, f"{failed}{reason} Log: {begun.log}", begun.data_error)
        return [*results, *[failure] * (len(job.sources) - len(results))]

    outcome = retraining.retrain(
        arguments.config,
        root,
        run,
        arguments.dry_run,
        on_decision=lambda decision: say(views.decision_text(decision)),
    )
    if arguments.json:
        print(json.dumps(views.outcome_json(outcome), indent=2))
    elif outcome.exit in (exit_codes.Exit.FAILED, exit_codes.Exit.DATA_REFUSED):
        print(outcome.line, file=sys.stderr)
    else:
        say(outcome.line)
    return int(outcome.exit)
