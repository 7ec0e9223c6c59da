"""The commands that change and list what serves: `push`, `rollback`, `versions`.

Holds no logic; nothing heavy is imported before a command needs it.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from tfx_ranking.pipelines.cli.lineage_commands import store_options


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example, more)` gives a command's parser."""
    push = command(
        "push",
        _push,
        "Make a model the version that TensorFlow Serving serves: tried first, then all at once.",
        "tfx-ranking push artifacts/shop/SignatureExporter/model/8 serving/shop",
        "exit codes: 0 it serves, 1 not pushed, and why, 2 wrong usage",
    )
    push.add_argument("directory", metavar="DIR", help="a SavedModel, an exporter's artifact, or a folder of versions")
    _base(push)
    push.add_argument(
        "--force",
        action="store_true",
        help="push it though it was rolled back, is not blessed, or breaks clients (never one that answers wrongly)",
    )
    store_options(push, ", where it is recorded")
    rollback = command(
        "rollback",
        _rollback,
        "Let serve what served before: its bytes as a new, higher version, since TensorFlow Serving serves the "
        "highest; where a models.config is kept, its label `stable` moves instead.",
        "tfx-ranking rollback serving/shop",
        "exit codes: 0 it serves, 1 nothing changed, and why, 2 wrong usage",
    )
    _base(rollback)
    rollback.add_argument(
        "--to",
        type=int,
        metavar="VERSION",
        help="the version to go back to (default: the newest below the live one that was not rolled back itself)",
    )
    store_options(rollback, ", where it is recorded")
    versions = command(
        "versions",
        _versions,
        "List the versions under a folder that TensorFlow Serving looks at, newest first.",
        "tfx-ranking versions serving/shop",
    )
    _base(versions)
    store_options(versions, ", asked how a model was judged where the destination's ledger does not say")


def _base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("base", metavar="BASE", help="the folder of versions, or one in an object store (gs://…)")


def _push(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.pushing import by_hand

    done = by_hand.push(arguments.directory, arguments.base, arguments.force, arguments.metadata)
    return _tell(done, arguments.json)


def _rollback(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.pushing import by_hand

    return _tell(by_hand.roll_back(arguments.base, arguments.to, arguments.metadata), arguments.json)


def _tell(done: Any, as_json: bool) -> int:
    if as_json:
        said = {**dataclasses.asdict(done.pushed), "directory": str(done.pushed.directory), "reason": done.reason}
        said |= {"execution": done.execution, "not_recorded": done.not_recorded, "summary": done.summary}
        print(json.dumps(said, indent=2))
    else:
        print(f"{done.summary}: {done.pushed.directory}")
        if done.pushed.checked:
            print(f"tried:    {done.pushed.checked}")
        if done.pushed.pruned:
            print(f"deleted:  {', '.join(map(str, done.pushed.pruned))}")
        if done.execution is not None:
            print(f"recorded: execution {done.execution} in ML Metadata")
    for problem in (done.pushed.problem, done.not_recorded and f"not recorded: {done.not_recorded}"):
        if problem:
            print(f"tfx-ranking: {problem}", file=sys.stderr)
    return 0


def _versions(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.metadata.connection import try_to_write
    from tfx_ranking.pipelines.pushing import version_table

    store, _ = try_to_write(arguments.metadata)
    found = version_table.versions(arguments.base, store)
    if arguments.json:
        print(json.dumps(version_table.as_json(found), indent=2))
    else:
        print(version_table.text(found) if found else f"{arguments.base}: no version stands there")
    return 0
