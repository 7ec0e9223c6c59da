"""The command that retrains on a schedule: `schedule`.

Holds no logic; nothing heavy is imported before the command needs it.
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

_MEANT = """One run at a time, `run` and `retrain` by hand included; runs that were missed are caught up by one. SIGTERM
ends the service when the component that is running has ended, a second one at once; the next start goes on.

With --kubeflow a compiled pipeline is uploaded and its recurring run made, if it is not there already; times are of the
cluster's clock, and nothing stays in the foreground.

exit codes: 0 stopped (status: told), 1 refused (status: there is no schedule), 2 wrong usage"""


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example, more)` gives a command's parser."""
    schedule = command(
        "schedule",
        _schedule,
        "Retrain on a schedule: as a service in the foreground, of which `schedule status` tells, or on Kubeflow.",
        'tfx-ranking schedule ranking.yaml --cron "0 3 * * *"',
        _MEANT,
    )
    schedule.usage = _USAGE
    schedule.add_argument(
        "config", metavar="CONFIG", help="ranking.yaml; or `status`; with --kubeflow a compiled pipeline"
    )
    schedule.add_argument(
        "of", metavar="CONFIG", nargs="?", type=pathlib.Path, help="after `status` (default: ranking.yaml)"
    )
    schedule.add_argument(
        "--cron", default="", metavar="EXPRESSION", help="minute, hour, day of the month, month, weekday"
    )
    schedule.add_argument(
        "--every",
        default="",
        metavar="SPAN",
        help="a number and s, m, h, d or w; the first run begins at once, on Kubeflow after it",
    )
    schedule.add_argument("--timezone", default="", metavar="ZONE", help="as in Europe/Berlin (default: the machine's)")
    schedule.add_argument("--retries", type=int, default=2, help="after a run that failed (default: 2)")
    schedule.add_argument(
        "--retry-after",
        default="5m",
        metavar="SPAN",
        help="before the first of them; before each further one twice as long (default: 5m)",
    )
    schedule.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="HOOK",
        help="an http(s) address that gets JSON by POST, or a command that gets it on standard input, when a run "
        "pushed a model, failed, or made none that may be pushed; may be given again",
    )
    schedule.add_argument("--root", type=pathlib.Path, help="folder of the artifacts (default: the config's)")
    on_cluster = schedule.add_argument_group("with --kubeflow")
    on_cluster.add_argument("--kubeflow", action="store_true", help="make a recurring run of Kubeflow Pipelines")
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

    asked = arguments.config == "status"
    if arguments.of and not asked:
        raise UsageError(f"expected one config, or status and a config; got {arguments.config} {arguments.of}.")
    file = (arguments.of or pathlib.Path("ranking.yaml")) if asked else pathlib.Path(arguments.config)
    config = ranking_config.load(file)
    root = (arguments.root or file.absolute().parent).absolute()
    artifacts = artifacts_root(config, root)
    if asked:
        found = schedule_history.status(config.name, artifacts / "schedule", artifacts / run_records.LOCK)
        print(json.dumps(schedule_history.as_json(found), indent=2) if arguments.json else schedule_history.text(found))
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
    from tfx_ranking.pipelines.kubeflow import client as kubeflow_client
    from tfx_ranking.pipelines.retraining import schedule_plan

    schedule_plan.trigger_of(arguments.cron, arguments.every)  # refused here, not by the cluster
    every = int(schedule_plan.seconds(arguments.every, "--every")) if arguments.every else None
    client, asked = kubeflow_commands.client(arguments), kubeflow_commands.asked(arguments)
    done = kubeflow_client.schedule(pathlib.Path(arguments.config), client, asked, arguments.cron or None, every)
    return kubeflow_commands.tell(done, arguments.json)


def _refuse_mixture(arguments: argparse.Namespace) -> None:
    """What the service knows Kubeflow does not, and the other way round."""
    from tfx_ranking.components.errors import UsageError

    service = {"--timezone": "", "--retries": 2, "--retry-after": "5m", "--notify": [], "--root": None}
    cluster = {"--host": None, "--namespace": None, "--experiment": None, "--span": None, "--learning-rate": None}
    alien = service if arguments.kubeflow else {**cluster, "--dry-run": False}
    for option, default in alien.items():
        if getattr(arguments, option[2:].replace("-", "_")) != default:
            where = "without" if arguments.kubeflow else "with"
            raise UsageError(f"{option} goes {where} --kubeflow.")
