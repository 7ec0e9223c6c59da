"""The command that retrains when there is a reason: `retrain`.

Holds no logic; nothing heavy is imported before the command needs it.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from tfx_ranking.pipelines.cli import run_commands

CODES = """exit codes:
  0    pushed (with --dry-run: would train)
  10   nothing to do
  11   trained, not blessed: the live model stays
  12   data refused: nothing was trained, the live model stays
  1    failed
  2    wrong usage
  130  interrupted; the same command goes on from what was done"""


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command; `command(name, function, help, example, more)` gives a command's parser."""
    retrain = command(
        "retrain",
        _retrain,
        "Train on new data when there is a reason to, and push what is no worse. For cron, systemd and Kubernetes.",
        "tfx-ranking retrain ranking.yaml",
        CODES,
    )
    retrain.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    retrain.add_argument("--root", type=pathlib.Path, help="folder of the artifacts (default: the config's)")
    retrain.add_argument(
        "--dry-run", action="store_true", help="check the new data and say what would happen and why; train nothing"
    )
    retrain.add_argument("--json", action="store_true", help="print JSON; how it goes is told on standard error")
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
        if begun.stop_asked and job.check is not None:  # in the check's last component: no training begins
            raise KeyboardInterrupt
        ended = [retraining.Ended(**each) for each in begun.ended]
        if begun.process.returncode == 0:
            return ended
        failed = next((f"{step.node} failed: " for step in steps if step.state in ("failed", "running")), "")
        reason = begun.failure or f"the process ended with code {begun.process.returncode}"
        failure = retraining.Ended(begun.run_id, f"{failed}{reason} Log: {begun.log}", begun.of_the_data)
        return [*ended, *[failure] * (len(job.sources) - len(ended))]

    outcome = retraining.retrain(
        arguments.config,
        root,
        run,
        arguments.dry_run,
        decided=lambda decision: say(views.decision_text(decision)),
    )
    if arguments.json:
        print(json.dumps(views.outcome_json(outcome), indent=2))
    elif outcome.exit in (retraining.Exit.FAILED, retraining.Exit.DATA_REFUSED):
        print(outcome.line, file=sys.stderr)
    else:
        say(outcome.line)
    return int(outcome.exit)
