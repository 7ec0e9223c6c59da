"""The commands that look at a model and use it: `inspect`, `rank`, `request`.

Holds no logic; nothing heavy is imported before a command needs it.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; `command(name, function, help, example, more)` gives a command's parser."""
    inspect = command(
        "inspect", _inspect, "Show what an exported or pushed model holds.", "tfx-ranking inspect serving/shop"
    )
    inspect.add_argument("directory", type=pathlib.Path, help="a SavedModel, or a folder of versions")
    rank = command(
        "rank",
        _rank,
        "Score a file of any input format with an exported or pushed model.",
        "tfx-ranking rank serving/shop logs/today.csv --output ranked.parquet",
    )
    rank.add_argument("directory", type=pathlib.Path, help="a SavedModel, or a folder of versions (the live one)")
    rank.add_argument("input", nargs="+", help="file or pattern, gzip or plain; no labels are needed")
    rank.add_argument(
        "--output", type=pathlib.Path, help="FILE.csv, FILE.jsonl or FILE.parquet (default: CSV on standard output)"
    )
    _reading_options(rank)
    request = command(
        "request",
        _request,
        "Make a request that can be sent to TensorFlow Serving as it stands.",
        "tfx-ranking request serving/shop --signature predict --from logs/today.csv --row 7",
    )
    request.add_argument("directory", type=pathlib.Path, help="a SavedModel, or a folder of versions (the live one)")
    request.add_argument("--signature", default="serving_default", help="what to call (default: serving_default)")
    request.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="where the list is (default: the sample that travels with the model)",
    )
    request.add_argument(
        "--row", type=int, help="the list that this row or record belongs to, from 1, the header not counted"
    )
    request.add_argument("--group", help="the list with this group id")
    request.add_argument("--lists", type=int, default=1, help="how many lists, from that one on (default: 1)")
    request.add_argument(
        "--output",
        choices=("bytes", "curl", "grpc", "all"),
        default="curl",
        help="a serialized PredictRequest, a curl command, a Python program, or all three (default: curl)",
    )
    request.add_argument(
        "--to", type=pathlib.Path, help="file to write, of all three a folder (default: standard output)"
    )
    _reading_options(request)


def _reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", help="the input's format, as data.format in ranking.yaml (default: told by the file's name)"
    )
    parser.add_argument(
        "--config", type=pathlib.Path, help="a ranking.yaml whose data section says how the input is read"
    )


def _inspect(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.asking import inspection

    print(inspection.render(inspection.inspect(arguments.directory)))
    return 0


def _rank(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.asking import scoring

    scoring.rank(arguments.directory, arguments.input, arguments.output, arguments.format, arguments.config)
    return 0


def _request(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines.asking import list_choice, ready_requests

    choice = list_choice.Choice(arguments.row, arguments.group, arguments.lists)
    made = ready_requests.make(
        arguments.directory, arguments.signature, arguments.source, choice, arguments.format, arguments.config
    )
    for line in made.left_out:
        print(line, file=sys.stderr)
    for file in ready_requests.write(made, arguments.output, arguments.to):
        print(file)
    return 0
