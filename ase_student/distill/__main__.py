"""Distil a student from a teacher, one step at a time."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

#: Each step is a module of its name here with `add_arguments(parser)`, where the file to write, if
#: it is one, is called `output`, and `run(arguments) -> str`, which returns a summary.
STEPS = {
    "structures": "sample structures of molecules and clusters",
    "label": "let a teacher label structures",
    "train": "train a student on the labels",
    "bundle": "add ONNX file and model card to a trained student",
    "subset": "take held-out structures out of a labelled file",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one step and print its summary; return 2 if what was given is wrong."""
    try:
        modules = {name: _module(name) for name in STEPS}
    except ImportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    parser = argparse.ArgumentParser(prog="python -m ase_student.distill", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for name, module in modules.items():
        module.add_arguments(steps.add_parser(name, help=STEPS[name], description=module.__doc__))
    argv = sys.argv[1:] if argv is None else argv
    arguments = parser.parse_args(argv)
    arguments.command = f"{parser.prog} {shlex.join(argv)}"
    try:
        if "output" in arguments:
            check_output(arguments.output)
        print(modules[arguments.step].run(arguments))
    except (ValueError, OSError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: run the same command again.", file=sys.stderr)
        return 130
    return 0


def _module(step: str) -> Any:
    try:
        return import_module(f"ase_student.distill.{step}")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("ase_student"):
            raise
        raise ImportError(
            f'distillation needs {error.name}: pip install "ase-student[distill]"'
        ) from error


def check_output(path: Path) -> None:
    """Raise before the work rather than after it if a file cannot be written."""
    if not path.absolute().parent.is_dir():
        raise FileNotFoundError(f"no folder '{path.absolute().parent}' to write '{path.name}' to.")
    if path.is_dir():
        raise IsADirectoryError(f"'{path}' is a folder; give the name of a file.")


if __name__ == "__main__":
    sys.exit(main())
