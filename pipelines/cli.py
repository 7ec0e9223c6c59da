"""The command `tfx-ranking`: joins questions and renderers, holds no logic.

Nothing heavy is imported before a command needs it.
"""

import argparse
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit code: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        code = int(parsed.command(parsed) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        goes_on = "; the same command goes on from what was done" if parsed.command in (_run, _demo) else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        from tfx_ranking.components.errors import RankingError

        if not isinstance(error, (RankingError, OSError)):
            raise
        print(f"tfx-ranking: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tfx-ranking", description="Learning to rank on TFX, from logs to a served model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: Any, help: str, example: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help, epilog=f"example: {example}")
        sub.set_defaults(command=what)
        return sub

    run = command("run", _run, "Run the pipeline of a config.", "tfx-ranking run ranking.yaml")
    run.add_argument("config", type=pathlib.Path, help="ranking.yaml")
    run.add_argument("--root", type=pathlib.Path, help="folder for the artifacts (default: the config's)")
    _runner_options(run)
    demo = command(
        "demo", _demo, "Train, evaluate and push a ranker on simulated product-search logs.", "tfx-ranking demo"
    )
    demo.add_argument("--root", type=pathlib.Path, default=pathlib.Path("demo"), help="folder to fill (default: demo)")
    _runner_options(demo)
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
    listed = command("runs", _runs, "List the pipeline's runs, newest first.", "tfx-ranking runs --limit 5")
    listed.add_argument("--limit", type=int, default=20, help="how many (default: 20; 0: all)")
    _store_options(listed)
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
    _store_options(lineage)
    schema = command(
        "config-schema",
        _config_schema,
        "Print the JSON schema of ranking.yaml for editors.",
        "tfx-ranking config-schema > ranking.schema.json",
    )
    del schema
    return parser


def _runner_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--orchestrator", choices=("beam", "local"), default="beam", help="which TFX runner (default: beam)"
    )
    parser.add_argument(
        "--beam-arg", action="append", default=[], metavar="ARG", help="passed on to every Beam component"
    )


def _store_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metadata",
        metavar="STORE",
        help="ML Metadata's sqlite file or ConnectionConfig in JSON (default: ranking.yaml's, or ./metadata.sqlite)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def _reading_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format", help="the input's format, as data.format in ranking.yaml (default: told by the file's name)"
    )
    parser.add_argument(
        "--config", type=pathlib.Path, help="a ranking.yaml whose data section says how the input is read"
    )


def _run(arguments: argparse.Namespace) -> int:
    root = arguments.root or arguments.config.absolute().parent
    return _run_pipeline(arguments.config, root.absolute(), arguments)


def _run_pipeline(config_file: pathlib.Path, root: pathlib.Path, arguments: argparse.Namespace) -> int:
    import rich.console

    from tfx_ranking.components import config as ranking_config
    from tfx_ranking.pipelines import local, progress, runs

    config = ranking_config.load(config_file)
    console = rich.console.Console()
    run = local.start(config_file.absolute(), root, arguments.orchestrator, arguments.beam_arg)
    console.print(f"log: {run.log}", soft_wrap=True, highlight=False)
    steps = progress.follow(run, runs.metadata_connection(config, root), console)
    if run.process.returncode == 0:
        console.print(progress.outcome(config, steps), soft_wrap=True, highlight=False)
        return 0
    failed = next((f"{step.node} failed: " for step in steps if step.state in ("failed", "running")), "")
    reason = run.failure or f"the process ended with code {run.process.returncode}"
    print(f"\n{failed}{reason}\nlog: {run.log}", file=sys.stderr)
    return 1


def _demo(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import demo

    root = arguments.root.absolute()
    code = _run_pipeline(demo.prepare(root), root, arguments)
    if code == 0:
        print("\ncomparing with the true relevance, which takes half a minute\n", flush=True)
        print(demo.summarise(root))
    return code


def _inspect(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import inspection

    print(inspection.render(inspection.inspect(arguments.directory)))
    return 0


def _rank(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import scoring

    scoring.rank(arguments.directory, arguments.input, arguments.output, arguments.format, arguments.config)
    return 0


def _request(arguments: argparse.Namespace) -> int:
    from tfx_ranking.pipelines import list_choice, ready_requests

    choice = list_choice.Choice(arguments.row, arguments.group, arguments.lists)
    made = ready_requests.make(
        arguments.directory, arguments.signature, arguments.source, choice, arguments.format, arguments.config
    )
    for line in made.left_out:
        print(line, file=sys.stderr)
    for file in ready_requests.write(made, arguments.output, arguments.to):
        print(file)
    return 0


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


def _config_schema(arguments: argparse.Namespace) -> int:
    from tfx_ranking.components import config

    print(json.dumps(config.json_schema(), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
