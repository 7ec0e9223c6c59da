"""Runs the service of `tfx-ranking schedule` as a process, with a command that the test chooses.

python schedule_service.py PLAN_AS_JSON
"""

import functools
import json
import pathlib
import sys

from tfx_ranking.components.errors import RankingError
from tfx_ranking.pipelines.retraining import schedule_plan, schedule_service

if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    plan = schedule_plan.SchedulePlan(
        **{
            **settings,
            "folder": pathlib.Path(settings["folder"]),
            "run_lock": pathlib.Path(settings["run_lock"]),
            "command": tuple(settings["command"]),
        }
    )
    try:
        sys.exit(schedule_service.serve(plan, functools.partial(print, flush=True)))
    except RankingError as error:
        sys.exit(f"refused: {error}")
