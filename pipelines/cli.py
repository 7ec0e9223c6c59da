"""The command `tfx-ranking`: joins questions and renderers, holds no logic.

The commands stand in the `cli_…` files.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from tfx_ranking.pipelines import (
    cli_kubeflow,
    cli_lineage,
    cli_model,
    cli_pipeline,
    cli_push,
    cli_retrain,
    cli_schedule,
)

_EXITS = "exit codes: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; gives its exit code: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted."""
    parsed = parser().parse_args(arguments)
    try:
        code = int(parsed.command(parsed) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        goes_on = f"; {parsed.if_interrupted}" if "if_interrupted" in parsed else ""
        print(f"\ninterrupted{goes_on}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        from tfx_ranking.components.errors import RankingError

        if not isinstance(error, (RankingError, OSError)):
            raise
        print(f"tfx-ranking: {error}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The tree of commands."""
    tree = argparse.ArgumentParser(
        prog="tfx-ranking", description="Learning to rank on TFX, from logs to a served model."
    )
    commands = tree.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, what: Any, help: str, example: str, more: str = _EXITS) -> argparse.ArgumentParser:
        """more: what else its help says, its exit codes among it."""
        sub = commands.add_parser(
            name,
            help=help,
            description=textwrap.fill(help, 100),
            epilog=f"example: {example}\n\n{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=what)
        return sub

    for group in (cli_pipeline, cli_model, cli_lineage, cli_push, cli_retrain, cli_schedule, cli_kubeflow):
        group.add(command)
    return tree


if __name__ == "__main__":
    raise SystemExit(main())
