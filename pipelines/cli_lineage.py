"""The commands that ask ML Metadata: `runs`, `lineage`.

Holds no logic; nothing heavy is imported before a command needs it.
"""

import argparse
import json
from collections.abc import Callable


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example)` gives a command's parser."""
    listed = command("runs", _runs, "List the pipeline's runs, newest first.", "tfx-ranking runs --limit 5")
    listed.add_argument("--limit", type=int, default=20, help="how many (default: 20; 0: all)")
    store_options(listed)
    lineage = command(
        "lineage",
        _lineage,
        "Show where a model, or any other artifact, came from: steps, files, configs, packages.",
        "tfx-ranking lineage serving/shop/1795275762",
    )
    lineage.add_argument(
        "asked",
        help="a model's directory (wherever it was copied to), a version, an artifact's id, a run's id or a uri",
    )
    lineage.add_argument("--down", action="store_true", help="what came of it instead")
    store_options(lineage)


def store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metadata",
        metavar="STORE",
        help="ML Metadata's sqlite file or ConnectionConfig in JSON (default: ranking.yaml's, or ./metadata.sqlite)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _runs(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import lineage, lineage_store, lineage_views

    found = lineage.runs(lineage_store.connect(arguments.metadata), arguments.limit or None)
    print(json.dumps(lineage_views.runs_json(found), indent=2) if arguments.json else lineage_views.runs_text(found))
    return 0


def _lineage(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import lineage, lineage_store, lineage_views

    question = lineage.downstream if arguments.down else lineage.upstream
    found = question(lineage_store.connect(arguments.metadata), arguments.asked)
    text = lineage_views.lineage_text
    print(json.dumps(lineage_views.lineage_json(found), indent=2) if arguments.json else text(found))
    return 0
