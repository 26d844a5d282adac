"""Distil a student from a teacher, one step at a time or all by a recipe."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from ase_student.distill.steps import PROGRAM, STEPS, run_step, step_module


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step and print its summary; return 2 if what was given is wrong."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    argv = sys.argv[1:] if argv is None else argv
    try:
        for name, text in STEPS.items():
            module = step_module(name)
            module.add_arguments(steps.add_parser(name, help=text, description=module.__doc__))
        print(run_step(parser.parse_args(argv), argv))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
