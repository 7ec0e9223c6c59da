"""Defines the command that retrains on a schedule: `schedule`.

Input: parsed arguments.  Output: a service that runs in the foreground, its status, or a recurring run of Kubeflow.
Its handlers import what they need when they run.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable

from tfx_ranking.pipelines.cli import kubeflow_commands

_USAGE = """tfx-ranking schedule CONFIG (--cron "0 3 * * *" | --every 6h) [--timezone ZONE] [--retries N]
                            [--retry-after SPAN] [--notify HOOK] [--root ROOT]
       tfx-ranking schedule status [CONFIG] [--json] [--root ROOT]
       tfx-ranking schedule PIPELINE --kubeflow (--cron "0 3 * * *" | --every 6h) [--host HOST] [--namespace NAME]
                            [--experiment NAME] [--span N] [--learning-rate RATE] [--dry-run] [--json]"""

_DETAILS = """One run at a time: the service also waits for a `run` or `retrain` that you start by hand. If it misses
several runs, it runs once for all of them. On SIGTERM it waits for the current component and then stops; on a second
SIGTERM it stops at once. When you start it again, it continues the run.

With --kubeflow the command uploads a compiled pipeline, creates its recurring run if there is none yet, and ends. The
cluster's clock counts.

exit codes: 0 stopped (with status: printed), 1 refused (with status: there is no schedule), 2 wrong usage"""


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the command; for `command` see `command_tree.parser`."""
    schedule = command(
        "schedule",
        _schedule,
        "Retrain on a schedule: as a service in the foreground, or on Kubeflow. `schedule status` shows its state.",
        'tfx-ranking schedule ranking.yaml --cron "0 3 * * *"',
        _DETAILS,
    )
    schedule.usage = _USAGE
    schedule.add_argument(
        "config", metavar="CONFIG", help="ranking.yaml, or the word `status`; with --kubeflow a compiled pipeline"
    )
    schedule.add_argument(
        "of",
        metavar="CONFIG",
        nargs="?",
        type=pathlib.Path,
        help="the config to show the status of (default: ranking.yaml)",
    )
    schedule.add_argument(
        "--cron",
        default="",
        metavar="EXPRESSION",
        help="five fields as in crontab: minute, hour, day of the month, month, weekday",
    )
    schedule.add_argument(
        "--every",
        default="",
        metavar="SPAN",
        help="a number and s, m, h, d or w, such as 6h; the first run begins at once, on Kubeflow after one SPAN",
    )
    schedule.add_argument(
        "--timezone", default="", metavar="ZONE", help="a time zone such as Europe/Berlin (default: the machine's)"
    )
    schedule.add_argument("--retries", type=int, default=2, help="how often to repeat a failed run (default: 2)")
    schedule.add_argument(
        "--retry-after",
        default="5m",
        metavar="SPAN",
        help="how long to wait before the first retry; each further wait is twice as long (default: 5m)",
    )
    schedule.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="HOOK",
        help="an http(s) address that receives JSON by POST, or a command that receives it on standard input, after a "
        "run that pushed a model, that failed, or whose model or data was refused; can be repeated",
    )
    schedule.add_argument(
        "--root", type=pathlib.Path, help="folder for the artifacts (default: the folder of ranking.yaml)"
    )
    on_cluster = schedule.add_argument_group("with --kubeflow")
    on_cluster.add_argument("--kubeflow", action="store_true", help="create a recurring run on Kubeflow Pipelines")
    kubeflow_commands.cluster_options(on_cluster)


def _schedule(arguments: argparse.Namespace) -> int:
    _refuse_mixture(arguments)
    if arguments.kubeflow:
        return _recurring(arguments)
    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.components.errors import UsageError
    from tfx_ranking.pipelines.metadata import run_records
    from tfx_ranking.pipelines.metadata.connection import artifacts_root
    from tfx_ranking.pipelines.retraining import schedule_history

    wants_status = arguments.config == "status"
    if arguments.of and not wants_status:
        raise UsageError(f"expected one config, or status and a config; got {arguments.config} {arguments.of}.")
    file = (arguments.of or pathlib.Path("ranking.yaml")) if wants_status else pathlib.Path(arguments.config)
    config = ranking_config.load(file)
    root = (arguments.root or file.absolute().parent).absolute()
    artifacts = artifacts_root(config, root)
    if wants_status:
        status = schedule_history.status(config.name, artifacts / "schedule", artifacts / run_records.LOCK)
        as_json = schedule_history.as_json
        print(json.dumps(as_json(status), indent=2) if arguments.json else schedule_history.text(status))
        return 0

    from tfx_ranking.pipelines.retraining import schedule_plan
    from tfx_ranking.pipelines.retraining import schedule_service as schedule

    plan = schedule_plan.SchedulePlan(
        name=config.name,
        folder=artifacts / "schedule",
        run_lock=artifacts / run_records.LOCK,
        command=schedule.retrain_command(config, file.absolute(), root),
        cron=arguments.cron,
        every=arguments.every,
        timezone=arguments.timezone,
        retries=arguments.retries,
        retry_after=arguments.retry_after,
        notify=tuple(arguments.notify),
    )
    return schedule.serve(plan, functools.partial(print, flush=True))


def _recurring(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.kubeflow import cluster
    from tfx_ranking.pipelines.retraining import schedule_plan

    schedule_plan.trigger_of(arguments.cron, arguments.every)  # so that we refuse a wrong one before the cluster does
    every = int(schedule_plan.seconds(arguments.every, "--every")) if arguments.every else None
    client, options = kubeflow_commands.client(arguments), kubeflow_commands.run_options(arguments)
    results = cluster.schedule(pathlib.Path(arguments.config), client, options, arguments.cron or None, every)
    return kubeflow_commands.print_results(results, arguments.json)


def _refuse_mixture(arguments: argparse.Namespace) -> None:
    """Refuses options of the service with --kubeflow, and options of the cluster without it."""
    from tfx_ranking.components.errors import UsageError

    service = {"--timezone": "", "--retries": 2, "--retry-after": "5m", "--notify": [], "--root": None}
    cluster = {"--host": None, "--namespace": None, "--experiment": None, "--span": None, "--learning-rate": None}
    refused = service if arguments.kubeflow else {**cluster, "--dry-run": False}
    for option, default in refused.items():
        if getattr(arguments, option[2:].replace("-", "_")) != default:
            where = "without" if arguments.kubeflow else "with"
            raise UsageError(f"{option} goes {where} --kubeflow.")
