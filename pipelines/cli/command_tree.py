"""The command `tfx-ranking`: joins questions and renderers, holds no logic.

The commands stand in the `cli_…` files.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from typing import Any

from tfx_ranking.pipelines.cli import (
    kubeflow_commands,
    lineage_commands,
    model_commands,
    push_commands,
    retrain_command,
    run_commands,
    schedule_command,
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
        from tfx_ranking.components.errors import RankingError, UsageError

        if not isinstance(error, (RankingError, OSError)):
            raise
        print(f"tfx-ranking: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def parser() -> argparse.ArgumentParser:
    """The tree of commands."""
    tree = _Commands(prog="tfx-ranking", description="Learning to rank on TFX, from logs to a served model.")
    tree.add_argument("--version", action=_Version, nargs=0, help="print the versions of tfx-ranking and TFX")
    commands = tree.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)

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

    for group in (
        run_commands,
        model_commands,
        lineage_commands,
        push_commands,
        retrain_command,
        schedule_command,
        kubeflow_commands,
    ):
        group.add(command)
    return tree


class _Commands(argparse.ArgumentParser):
    """Of a command that there is not it says the nearest one; argparse lists them all."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from tfx_ranking.components.errors import did_you_mean

            hint = did_you_mean(value, action.choices) or "; tfx-ranking --help lists them all."
            raise argparse.ArgumentError(None, f"there is no command {value!r}{hint}")


class _Version(argparse.Action):
    """Asks for the versions only when they are asked for: they are looked up in files."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        print(f"tfx-ranking {metadata.version('tfx-ranking')}, TFX {metadata.version('tfx')}")
        parser.exit()


if __name__ == "__main__":
    raise SystemExit(main())
