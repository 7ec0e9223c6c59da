"""Defines the command `tfx-ranking` and its subcommands.

Input: the words of a command line.  Output: an exit code.  The commands themselves are in the other modules of this
package.  They only parse options, call a function and print its result.

To add a command:
1. In the module of its group, such as `model_commands`, call `command(...)` in `add` and add the command's arguments.
   A new group is a new module with a function `add`; list it in `_GROUPS`.
2. Write its handler: a function from the parsed arguments to an exit code.  Import what the handler needs inside it, so
   that `tfx-ranking --help` stays fast.
3. Show a call of it in README.md or docs/; `tests/whole/test_documentation.py` fails until you do.
"""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
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

_GROUPS = (
    run_commands,
    model_commands,
    lineage_commands,
    push_commands,
    retrain_command,
    schedule_command,
    kubeflow_commands,
)
_EXIT_CODES = "exit codes: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.  Returns its exit code: 0 done, 1 failed or refused, 2 wrong usage, 130 interrupted."""
    parsed = parser().parse_args(arguments)
    try:
        code = int(parsed.command(parsed) or 0)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output, for example `| head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        hint = f"; {parsed.if_interrupted}" if "if_interrupted" in parsed else ""
        print(f"\ninterrupted{hint}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        from tfx_ranking.components.errors import RankingError, UsageError

        if not isinstance(error, (RankingError, OSError)):
            raise
        print(f"tfx-ranking: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def parser() -> argparse.ArgumentParser:
    """The parser of `tfx-ranking`, with every subcommand."""
    tree = _Parser(prog="tfx-ranking", description="Learning to rank on TFX, from logs to a served model.")
    tree.add_argument("--version", action=_PrintVersions, nargs=0, help="print the versions of tfx-ranking and TFX")
    commands = tree.add_subparsers(required=True, metavar="COMMAND", parser_class=argparse.ArgumentParser)

    def command(
        name: str, handler: Callable[[argparse.Namespace], int], help: str, example: str, more: str = _EXIT_CODES
    ) -> argparse.ArgumentParser:
        """Adds a subcommand and returns its parser.

        handler: gets the parsed arguments and returns the exit code.  help: one sentence.  example: one complete call.
        more: the rest of the help text; it must list the exit codes.
        """
        sub = commands.add_parser(
            name,
            help=help,
            description=textwrap.fill(help, 100),
            epilog=f"example: {example}\n\n{more}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.set_defaults(command=handler)
        return sub

    for group in _GROUPS:
        group.add(command)
    return tree


class _Parser(argparse.ArgumentParser):
    """Suggests the nearest command when a command is unknown; argparse alone would list all of them."""

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            from tfx_ranking.components.errors import did_you_mean

            hint = did_you_mean(value, action.choices) or "; tfx-ranking --help lists them all."
            raise argparse.ArgumentError(None, f"there is no command {value!r}{hint}")


class _PrintVersions(argparse.Action):
    """Prints the versions; looks them up only then, because that reads files."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from importlib import metadata

        print(f"tfx-ranking {metadata.version('tfx-ranking')}, TFX {metadata.version('tfx')}")
        parser.exit()


if __name__ == "__main__":
    raise SystemExit(main())
