"""Measure references for the chemistry section, make its structures, write the README's table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_student import cli
from ase_student.calculator import StudentCalculator
from ase_student.potentials.base import as_potential
from ase_student.provenance import with_python
from ase_student.validation.chemistry import making, readme, references
from ase_student.validation.chemistry.run import EXPERIMENTS, measure

DATA = Path(__file__).parent / "data"
STRUCTURES = ("torsions.extxyz", "conformers.extxyz", "water.extxyz")
PACKAGES = ("ase", "numpy", "scipy")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    command_line = cli.Parser(
        prog="python -m ase_student.validation.chemistry", description=__doc__
    )
    commands = command_line.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("references", help="measure a teacher and keep its results")
    measure.add_argument("teacher", help="so3lr, gfn2-xtb, package.module:Class, …")
    measure.add_argument("-o", "--output", type=Path, default=DATA / references.FILE)
    measure.add_argument(
        "--only", action="append", choices=[experiment.name for experiment in EXPERIMENTS],
        help="an experiment; repeatable (default: all)",
    )  # fmt: skip
    measure.add_argument("--state", type=Path, help="folder that keeps completed experiments")
    table = commands.add_parser("readme", help="put results into the README")
    table.add_argument("results", type=Path, help="metrics.json of a validation with --chemistry")
    table.add_argument("--readme", type=Path, default=Path("README.md"))
    structures = commands.add_parser("structures", help="make the starting structures again")
    structures.add_argument("teacher")
    structures.add_argument("--student", default="tiny", help="whose dynamics makes the water")
    structures.add_argument("--only", action="append", choices=STRUCTURES, help="repeatable")
    structures.add_argument("-o", "--output", type=Path, default=DATA, help="folder")
    return command_line


def make_references(arguments: argparse.Namespace) -> str:
    """Run the experiments on a teacher, write its results, and return a summary."""
    from ase_student.potentials import registry

    teacher = registry.load_teacher(arguments.teacher)
    settings: dict[str, Any] = {**teacher.settings, **with_python(PACKAGES)}
    chosen = tuple(
        experiment
        for experiment in EXPERIMENTS
        if arguments.only is None or experiment.name in arguments.only
    )
    names = [experiment.name for experiment in chosen]
    references.check_nothing_is_lost(arguments.output, teacher.name, settings, experiments=names)
    measured = measure(as_potential(teacher), settings, chosen, folder=arguments.state)
    for name, values in measured.items():
        if "refused" in values:
            raise ValueError(f"{teacher.name} refuses {name}: {values['refused']}")
    references.write_references(
        arguments.output, teacher.name, settings, measured=measured, experiments=EXPERIMENTS
    )
    return f"{arguments.output}: {teacher.name}, {', '.join(measured)}"


def make_structures(arguments: argparse.Namespace) -> str:
    """Make all starting structures, write them, and return a summary."""
    from ase_student.potentials import registry

    teacher = as_potential(registry.load_teacher(arguments.teacher))
    student = as_potential(StudentCalculator(arguments.student, guard="off"))
    makers = {
        "torsions.extxyz": lambda: making.make_scans(teacher),
        "conformers.extxyz": lambda: making.make_conformers(teacher),
        "water.extxyz": lambda: making.make_water(student),
    }
    for file in arguments.only or makers:
        making.write_structures(arguments.output / file, makers[file]())
    return f"{arguments.output}: {', '.join(arguments.only or makers)}"


def put_into_readme(arguments: argparse.Namespace) -> str:
    """Write the table of the README and return a summary."""
    return readme.write_readme(arguments.results, arguments.readme)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and print a summary; return 2 if the input is invalid."""
    arguments = parser().parse_args(argv)
    commands = {
        "references": make_references,
        "readme": put_into_readme,
        "structures": make_structures,
    }
    return cli.run(lambda: cli.say(commands[arguments.command](arguments)))


if __name__ == "__main__":
    sys.exit(main())
