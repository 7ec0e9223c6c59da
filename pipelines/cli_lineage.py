"""The commands that ask ML Metadata: `runs`, `lineage`, `served`, `impact`, `models`.

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
    served = command(
        "served",
        _served,
        "Show which version served at a time, and from what data it was made.",
        "tfx-ranking served --at yesterday serving/shop",
    )
    served.add_argument("base", help="the destination: the folder of versions, as push.base names it")
    served.add_argument(
        "--at",
        default="now",
        metavar="TIME",
        help="a date (all of that day), a date-time (local unless it names its zone), yesterday, tuesday; default: now",
    )
    store_options(served)
    impact = command(
        "impact",
        _impact,
        "Show every model trained, evaluated or pushed from some data or a run, and which of them is live.",
        "tfx-ranking impact --span 17",
    )
    source = impact.add_mutually_exclusive_group(required=True)
    source.add_argument("--span", type=int, help="the number of the data's span")
    source.add_argument("--file", help="a file that examples were read from: its path, the end of it, or its digest")
    source.add_argument("--run", metavar="ID", help="what this run made itself")
    store_options(impact)
    models = command(
        "models",
        _models,
        "List the pushed versions with their run, data and metric, newest first.",
        "tfx-ranking models serving/shop",
    )
    models.add_argument("base", nargs="?", help="one destination (default: all)")
    store_options(models)


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


def _served(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import lineage_serving, lineage_serving_views, lineage_store

    since, until = lineage_serving.moment(arguments.at)
    found = lineage_serving.served(lineage_store.connect(arguments.metadata), arguments.base, since, until)
    views = lineage_serving_views
    print(
        json.dumps(views.served_json(found), indent=2) if arguments.json else views.served_text(found, arguments.base)
    )
    return 0


def _impact(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import lineage_impact, lineage_serving_views, lineage_store

    store = lineage_store.connect(arguments.metadata)
    if arguments.span is not None:
        found = lineage_impact.of_span(store, arguments.span)
    elif arguments.file is not None:
        found = lineage_impact.of_file(store, arguments.file)
    else:
        found = lineage_impact.of_run(store, arguments.run)
    views = lineage_serving_views
    print(json.dumps(views.impact_json(found), indent=2) if arguments.json else views.impact_text(found))
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import lineage_serving, lineage_serving_views, lineage_store

    store = lineage_store.connect(arguments.metadata)
    found = lineage_serving.models(store, arguments.base)
    live = lineage_serving.live(store, {change.base for change, _ in found})
    views = lineage_serving_views
    print(json.dumps(views.models_json(found, live), indent=2) if arguments.json else views.models_text(found, live))
    return 0
