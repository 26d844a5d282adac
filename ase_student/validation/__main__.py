"""Report the errors of students, where they occur, and whether the physics is correct."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from ase_student import cli
from ase_student.validation.settings import parser, settings_of
from ase_student.validation.validate import validate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print its table; return 2 if the input is invalid."""
    argv = sys.argv[1:] if argv is None else argv
    options = parser()
    arguments = options.parse_args(argv)
    command = f"{options.prog} {shlex.join(argv)}"
    return cli.run(lambda: cli.say(validate(settings_of(arguments, command))))


if __name__ == "__main__":
    sys.exit(main())
