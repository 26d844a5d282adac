"""Check speed against a baseline, keep results, draw them, put them into the README."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ase_student import cli
from timing.check import SlowerError

PROGRAM = "python benchmarks"
#: Each is a module here with `add_arguments(parser)` and `run(arguments) -> str`.
COMMANDS = {
    "check": "compare a handful of cases with the baseline",
    "plot": "draw latency and throughput over batch size and over atoms",
    "keep": "condense results to what is worth committing",
    "history": "add a student to the history of releases, or draw speed and error over versions",
    "readme": "put committed results into the README, and draw errors against costs",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 2 if what was given is wrong, 1 if something became slower."""
    parser = cli.Parser(prog=PROGRAM, description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        module = _module(name)
        module.add_arguments(commands.add_parser(name, help=text, description=module.__doc__))
    arguments = parser.parse_args(argv)
    return cli.run(lambda: _run(arguments), interrupted="interrupted: nothing was written.")


def _run(arguments: argparse.Namespace) -> int:
    try:
        cli.say(_module(arguments.command).run(arguments))
    except SlowerError as error:
        cli.say(f"slower:\n{error}", sys.stderr)
        return 1
    return 0


def _module(name: str) -> Any:
    return import_module(f"timing.{name}")
