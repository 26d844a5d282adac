"""Check speed against a baseline, condense results, draw them, write them into the README."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ase_student import cli
from timing.check import SlowerError

PROGRAM = "python benchmarks"
#: Modules of this package, each with `add_arguments(parser)` and `run(arguments) -> str`.
COMMANDS = {
    "check": "compare the times of some cases with a baseline",
    "plot": "draw latency and throughput over batch size and over number of atoms",
    "keep": "condense results for committing",
    "history": "add a student to the history of releases, or draw speed and error over versions",
    "readme": "write committed results into the README, and draw errors against time",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return 2 if an argument is invalid, 1 if a case became slower."""
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
