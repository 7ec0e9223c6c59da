"""Defines the commands that change or list the versions in a serving folder: `push`, `rollback`, `versions`.

Input: parsed arguments.  Output: printed text or JSON.  Each handler imports what it needs when it runs.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from typing import Any

from tfx_ranking.pipelines.cli.lineage_commands import store_options


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; for `command` see `command_tree.parser`."""
    push = command(
        "push",
        _push,
        "Check a model, then make it the version that TensorFlow Serving serves, in one step.",
        "tfx-ranking push artifacts/shop/SignatureExporter/model/8 serving/shop",
        "exit codes: 0 the model serves, 1 not pushed (the reason is printed), 2 wrong usage",
    )
    push.add_argument(
        "directory", metavar="DIR", help="a SavedModel, an artifact of SignatureExporter, or a folder of versions"
    )
    _base(push)
    push.add_argument(
        "--force",
        action="store_true",
        help="push the model even if it was rolled back, is not blessed, or breaks clients; a model that answers its "
        "sample requests wrongly is never pushed",
    )
    store_options(push, " where the push is recorded")
    rollback = command(
        "rollback",
        _rollback,
        "Serve the previous model again. It is copied to a new, higher version, because TensorFlow Serving serves the "
        "highest one; with a models.config, the label `stable` moves instead.",
        "tfx-ranking rollback serving/shop",
        "exit codes: 0 the previous model serves, 1 nothing changed (the reason is printed), 2 wrong usage",
    )
    _base(rollback)
    rollback.add_argument(
        "--to",
        type=int,
        metavar="VERSION",
        help="the version to serve again (default: the newest one below the live version that was not itself rolled "
        "back)",
    )
    store_options(rollback, " where the rollback is recorded")
    versions = command(
        "versions",
        _versions,
        "List the versions in a serving folder, newest first.",
        "tfx-ranking versions serving/shop",
    )
    _base(versions)
    store_options(versions, " to read evaluation results from, if the ledger in the serving folder has none")


def _base(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", metavar="BASE", help="the folder of versions, also in an object store (s3://… or gs://…)"
    )


def _push(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.pushing import by_hand

    done = by_hand.push(arguments.directory, arguments.base, arguments.force, arguments.metadata)
    return _print(done, arguments.json)


def _rollback(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.pushing import by_hand

    return _print(by_hand.roll_back(arguments.base, arguments.to, arguments.metadata), arguments.json)


def _print(done: Any, as_json: bool) -> int:
    if as_json:
        facts = {**dataclasses.asdict(done.pushed), "directory": str(done.pushed.directory), "reason": done.reason}
        facts |= {"execution": done.execution, "not_recorded": done.not_recorded, "summary": done.summary}
        print(json.dumps(facts, indent=2))
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
    versions = version_table.versions(arguments.base, store)
    if arguments.json:
        print(json.dumps(version_table.as_json(versions), indent=2))
    else:
        print(version_table.text(versions) if versions else f"{arguments.base}: there is no version here")
    return 0
