"""The command line. Each command is a module with `register(commands)`; this file only finds and runs it.

Exit codes: 0 success, 2 a mistake of the user's (one line on stderr), 1 a fault of ours (traceback); of a run also 69, 71 and 75
(a process gone or hanging, no memory left, interrupted: docs/failures.md).
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from rrg.errors import RunError, UserError

# One line per command module; a module is imported only when its command is asked for, so that `rrg --help` stays instant.
COMMANDS = {
    "prepare": "from a source of films and reports to shards",
    "config": "show, diff and explain recipes",
    "train": "train a recipe, or carry on with its run",
    "generate": "write reports for a split",
    "retrieve": "films find reports and reports find films",
    "zeroshot": "findings by prompts alone",
    "score": "score a predictions file, with controls and intervals",
    "compare": "systems side by side, with tests",
    "metrics": "clinical metrics in environments of their own",
    "sweep": "many settings and seeds of a recipe, as jobs",
    "view": "one HTML page of a run",
    "export": "a run as a folder to hand on, with a model card",
    "plan": "bytes, traffic and time of every strategy, ahead of time",
    "bench": "measure the parts beside what others use",
    "preflight": "can a run start on these nodes",
    "doctor": "what this machine has and what rrg will use",
}


class _Help(argparse.HelpFormatter):
    """argparse leaves no room for the indentation of commands: the longest would stand on a line of its own."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += self._indent_increment


class _Parser(argparse.ArgumentParser):
    """argparse, but a wrong word is one line, not a page of usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        raise UserError(f"{self.prog}: {message} (see '{self.prog} --help')")


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    """Options and `key=value` overrides in any order; argparse alone wants the latter in one place."""
    options, rest = parser.parse_known_args(arguments)
    unknown = [word for word in rest if word.startswith("-") or "=" not in word or not hasattr(options, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    parser = _Parser(
        prog="rrg",
        description="Train radiology report generators: films in, a written report out.",
        formatter_class=_Help,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser, required=True)
    asked = next((word for word in arguments if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        if name == asked:
            importlib.import_module(f"rrg.cli.{name}").register(commands)
        else:
            commands.add_parser(name, help=summary)
    try:
        options = _parse(parser, arguments)
        return int(options.run(options) or 0)
    except UserError as error:
        sys.stdout.flush()
        sys.stderr.write(f"rrg: {' '.join(str(error).split())}\n")
        return 2
    except RunError as ended:
        sys.stdout.flush()
        sys.stderr.write(f"rrg: {ended}\n")
        return ended.code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
