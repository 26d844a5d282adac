"""Say how wrong students are, where, and whether their physics holds."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from ase.calculators.calculator import InputError

from ase_student.validation.settings import parser, settings_of
from ase_student.validation.validate import validate


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print its table; return 2 if what was given is wrong."""
    argv = sys.argv[1:] if argv is None else argv
    found = parser()
    arguments = found.parse_args(argv)
    try:
        print(validate(settings_of(arguments, f"{found.prog} {shlex.join(argv)}")))
    except (ValueError, OSError, ImportError, InputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
