"""Distil a student from a teacher, one step at a time or all by a recipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ase_student import cli
from ase_student.distill.options import add_options
from ase_student.distill.steps import PROGRAM, STEPS, run_step, step_module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step and print its summary; return 2 if what was given is wrong."""
    words = sys.argv[1:] if argv is None else argv
    return cli.run(lambda: _run(words))


def _run(argv: Sequence[str]) -> None:
    parser = cli.Parser(prog=PROGRAM, description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, text in STEPS.items():
        module = step_module(name)
        parser_of_step = steps.add_parser(name, help=text, description=module.__doc__)
        add_options(parser_of_step, module.OPTIONS)
    cli.say(run_step(parser.parse_args(argv), argv))


if __name__ == "__main__":
    sys.exit(main())
