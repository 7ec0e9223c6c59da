"""Defines the commands that answer questions from ML Metadata: `runs`, `lineage`, `served`, `impact`, `models`, `diff`.

What each command asks and how it prints the answer is a row of `lineage_questions.QUESTIONS`.  This module defines the
options only, so that `tfx-ranking --help` does not load ML Metadata.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; for `command` see `command_tree.parser`."""
    runs = _question(command, "runs", "List the pipeline's runs, newest first.", "tfx-ranking runs --limit 5")
    runs.add_argument("--limit", type=int, default=20, help="how many runs to list (default: 20; 0 lists all)")
    _options(runs)
    lineage = _question(
        command,
        "lineage",
        "Show the steps, files, configs and packages that a model or any other artifact was made from.",
        "tfx-ranking lineage serving/shop/1795275762",
    )
    lineage.add_argument(
        "item",
        metavar="ITEM",
        help="a model's directory (also a copy of it), a version, an artifact's id, a run's id or a URI",
    )
    lineage.add_argument("--down", action="store_true", help="show instead what was made from it")
    _options(lineage)
    served = _question(
        command,
        "served",
        "Show which version served at a time, and the data that it was trained on.",
        "tfx-ranking served --at yesterday serving/shop",
    )
    served.add_argument("base", help="the push destination: the folder of versions, as in push.base of ranking.yaml")
    served.add_argument(
        "--at",
        default="now",
        metavar="TIME",
        help="a date (the whole day), a date and time (local time if it has no time zone), `yesterday`, or a weekday "
        "such as `tuesday` (default: now)",
    )
    _options(served)
    impact = _question(
        command,
        "impact",
        "Show every model that was trained on, evaluated on or pushed from some data or a run, and which one is live.",
        "tfx-ranking impact --span 17",
    )
    source = impact.add_mutually_exclusive_group(required=True)
    source.add_argument("--span", type=int, help="the span number of the data")
    source.add_argument("--file", help="an input file of the examples: its path, the end of its path, or its digest")
    source.add_argument("--run", metavar="ID", help="a run; shows what was made from the outputs of this run")
    _options(impact)
    models = _question(
        command,
        "models",
        "List the pushed versions with their run, data and metric, newest first.",
        "tfx-ranking models serving/shop",
    )
    models.add_argument("base", nargs="?", help="list one push destination only (default: all)")
    models.add_argument("--limit", type=int, default=20, help="how many versions to list (default: 20; 0 lists all)")
    _options(models)
    diff = _question(
        command,
        "diff",
        "Show what differs between two runs or two models, and what could explain the change of the metric.",
        "tfx-ranking diff serving/shop/1795275762 serving/shop/1795362162",
    )
    diff.add_argument(
        "before", help="the older one: a run's id, or a model's directory, version, digest or artifact id"
    )
    diff.add_argument("after", help="the newer one, in the same form")
    _options(diff)


def store_options(parser: argparse.ArgumentParser, purpose: str = "") -> None:
    """Adds `--metadata` and `--json`.

    purpose: what the command needs ML Metadata for; "" for the commands that only query it.
    """
    parser.add_argument(
        "--metadata",
        metavar="STORE",
        help=f"ML Metadata{purpose}: a SQLite file, or a ConnectionConfig in JSON (default: the one of ./ranking.yaml, "
        "or ./metadata.sqlite)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _options(parser: argparse.ArgumentParser) -> None:
    store_options(parser)
    parser.add_argument(
        "--html", metavar="FILE", type=pathlib.Path, help="write the answer as an HTML page, complete in one file"
    )


def _question(
    command: Callable[..., argparse.ArgumentParser], name: str, help: str, example: str
) -> argparse.ArgumentParser:
    return command(name, functools.partial(_answer, name), help, example)


def _answer(name: str, arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.cli.lineage_questions import QUESTIONS

    question = QUESTIONS[name]
    answer = question.ask(arguments)
    if arguments.html:
        arguments.html.write_text(question.page(*answer), encoding="utf-8")
    if arguments.json:
        print(json.dumps(question.json(*answer), indent=2))
    else:
        print(f"wrote {arguments.html}" if arguments.html else question.text(*answer))
    return 0
