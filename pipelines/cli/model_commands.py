"""Defines the commands that use one model: `inspect`, `rank`, `request`.

Input: parsed arguments.  Output: printed text, or files.  Each handler imports what it needs when it runs.
"""

import argparse
import pathlib
import sys
from collections.abc import Callable

_DIRECTORY = "a SavedModel, or a folder of versions (uses the version that serves)"


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Adds the commands; for `command` see `command_tree.parser`."""
    inspect = command(
        "inspect",
        _inspect,
        "Show the signatures, features, origin and files of an exported or pushed model.",
        "tfx-ranking inspect serving/shop",
    )
    inspect.add_argument("directory", type=pathlib.Path, help=_DIRECTORY)
    rank = command(
        "rank",
        _rank,
        "Score a file of any input format with an exported or pushed model.",
        "tfx-ranking rank serving/shop logs/today.csv --output ranked.parquet",
    )
    rank.add_argument("directory", type=pathlib.Path, help=_DIRECTORY)
    rank.add_argument("input", nargs="+", help="a file or a pattern, also gzipped; labels are not needed")
    rank.add_argument(
        "--output",
        type=pathlib.Path,
        help="the file to write: FILE.csv, FILE.jsonl or FILE.parquet (default: CSV on standard output)",
    )
    _reading_options(rank)
    request = command(
        "request",
        _request,
        "Make a request that you can send to TensorFlow Serving without changes.",
        "tfx-ranking request serving/shop --signature predict --from logs/today.csv --row 7",
    )
    request.add_argument("directory", type=pathlib.Path, help=_DIRECTORY)
    request.add_argument(
        "--signature", default="serving_default", help="the signature to call (default: serving_default)"
    )
    request.add_argument(
        "--from",
        dest="source",
        metavar="FILE",
        help="the file to take the list from (default: the sample request inside the model)",
    )
    request.add_argument(
        "--row",
        type=int,
        help="send the list that this row or record belongs to; the first is 1, and a header does not count",
    )
    request.add_argument("--group", help="send the list with this group id")
    request.add_argument(
        "--lists", type=int, default=1, help="how many lists to send, beginning with the chosen one (default: 1)"
    )
    request.add_argument(
        "--output",
        choices=("bytes", "curl", "grpc", "all"),
        default="curl",
        help="bytes: a serialized PredictRequest; curl: a shell command; grpc: a Python program; all: these three "
        "(default: curl)",
    )
    request.add_argument(
        "--to", type=pathlib.Path, help="the file to write, or the folder for `all` (default: standard output)"
    )
    _reading_options(request)


def _reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        help="the format of the input, with a name that data.format of ranking.yaml takes (default: guessed from the "
        "file's name)",
    )
    parser.add_argument(
        "--config", type=pathlib.Path, help="a ranking.yaml whose data section describes how to read the input"
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
    request = ready_requests.make(
        arguments.directory, arguments.signature, arguments.source, choice, arguments.format, arguments.config
    )
    for line in request.left_out:
        print(line, file=sys.stderr)
    for file in ready_requests.write(request, arguments.output, arguments.to):
        print(file)
    return 0
