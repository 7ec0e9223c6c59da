"""The commands that ask ML Metadata: `runs`, `lineage`, `served`, `impact`, `models`, `diff`.

Holds no logic; nothing heavy is imported before a command needs it.
"""

import argparse
import json
import pathlib
from collections.abc import Callable
from typing import Any


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example, more)` gives a command's parser."""
    listed = command("runs", _runs, "List the pipeline's runs, newest first.", "tfx-ranking runs --limit 5")
    listed.add_argument("--limit", type=int, default=20, help="how many (default: 20; 0: all)")
    _options(listed)
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
    _options(lineage)
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
    _options(served)
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
    _options(impact)
    models = command(
        "models",
        _models,
        "List the pushed versions with their run, data and metric, newest first.",
        "tfx-ranking models serving/shop",
    )
    models.add_argument("base", nargs="?", help="one destination (default: all)")
    models.add_argument("--limit", type=int, default=20, help="how many (default: 20; 0: all)")
    _options(models)
    diff = command(
        "diff",
        _diff,
        "Show what differs between two runs or two models, and what could explain the metric's change.",
        "tfx-ranking diff serving/shop/1795275762 serving/shop/1795362162",
    )
    diff.add_argument("before", help="a run's id, or a model: its directory, version, digest or artifact's id")
    diff.add_argument("after", help="the same")
    _options(diff)


def store_options(parser: argparse.ArgumentParser, what_for: str = "") -> None:
    """Which store, and JSON for programs; what_for: what the store is needed for, where it is not the question."""
    parser.add_argument(
        "--metadata",
        metavar="STORE",
        help=f"ML Metadata's sqlite file or ConnectionConfig in JSON{what_for} (default: ranking.yaml's, or "
        "./metadata.sqlite)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _options(parser: argparse.ArgumentParser) -> None:
    store_options(parser)
    parser.add_argument("--html", metavar="FILE", type=pathlib.Path, help="write a page that needs nothing else")


def _answer(
    arguments: argparse.Namespace, text: Callable[[], str], facts: Callable[[], Any], page: Callable[[], str]
) -> int:
    if arguments.html:
        arguments.html.write_text(page(), encoding="utf-8")
    if arguments.json:
        print(json.dumps(facts(), indent=2))
    else:
        print(f"wrote {arguments.html}" if arguments.html else text())
    return 0


def _runs(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.lineage import origin as lineage
    from tfx_ranking.pipelines.lineage import store as lineage_store
    from tfx_ranking.pipelines.lineage.views import origin_views

    found = lineage.runs(lineage_store.connect(arguments.metadata), arguments.limit or None)
    views = origin_views
    return _answer(
        arguments,
        lambda: views.runs_text(found),
        lambda: views.runs_json(found),
        lambda: views.runs_page(found),
    )


def _lineage(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.lineage import origin as lineage
    from tfx_ranking.pipelines.lineage import store as lineage_store
    from tfx_ranking.pipelines.lineage.views import origin_views

    question = lineage.downstream if arguments.down else lineage.upstream
    found = question(lineage_store.connect(arguments.metadata), arguments.asked)
    views = origin_views
    return _answer(
        arguments,
        lambda: views.lineage_text(found),
        lambda: views.lineage_json(found),
        lambda: views.lineage_page(found),
    )


def _served(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.lineage import served as lineage_serving
    from tfx_ranking.pipelines.lineage import store as lineage_store
    from tfx_ranking.pipelines.lineage.views import served_views

    since, until = lineage_serving.moment(arguments.at)
    found = lineage_serving.served(lineage_store.connect(arguments.metadata), arguments.base, since, until)
    views = served_views
    return _answer(
        arguments,
        lambda: views.served_text(found, arguments.base),
        lambda: views.served_json(found),
        lambda: views.served_page(found, arguments.base),
    )


def _impact(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.lineage import impact as lineage_impact
    from tfx_ranking.pipelines.lineage import store as lineage_store
    from tfx_ranking.pipelines.lineage.views import served_views

    store = lineage_store.connect(arguments.metadata)
    if arguments.span is not None:
        found = lineage_impact.of_span(store, arguments.span)
    elif arguments.file is not None:
        found = lineage_impact.of_file(store, arguments.file)
    else:
        found = lineage_impact.of_run(store, arguments.run)
    views = served_views
    return _answer(
        arguments,
        lambda: views.impact_text(found),
        lambda: views.impact_json(found),
        lambda: views.impact_page(found),
    )


def _models(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.lineage import served as lineage_serving
    from tfx_ranking.pipelines.lineage import store as lineage_store
    from tfx_ranking.pipelines.lineage.views import served_views

    store = lineage_store.connect(arguments.metadata)
    found = lineage_serving.models(store, arguments.base, arguments.limit)
    live = lineage_serving.live(store, {change.base for change, _ in found})
    views = served_views
    return _answer(
        arguments,
        lambda: views.models_text(found, live),
        lambda: views.models_json(found, live),
        lambda: views.models_page(found, live),
    )


def _diff(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.lineage import diff as lineage_diff
    from tfx_ranking.pipelines.lineage import store as lineage_store
    from tfx_ranking.pipelines.lineage.views import diff_views

    found = lineage_diff.diff(lineage_store.connect(arguments.metadata), arguments.before, arguments.after)
    views = diff_views
    return _answer(
        arguments,
        lambda: views.diff_text(found),
        lambda: views.diff_json(found),
        lambda: views.diff_page(found),
    )
