"""Let a teacher label structures, in steps that survive an interruption."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ase_student.distill.labelling.label import MAX_FORCE, label_structures
from ase_student.potentials.registry import TEACHERS, load_teacher

#: So many kinds of failures are told in the summary.
_REASONS_TOLD = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``label``."""
    parser.add_argument("structures", type=Path, help="HDF5 file of structures")
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--teacher", required=True, metavar="NAME",
        help=f"{', '.join(TEACHERS)} or package.module:Class",
    )  # fmt: skip
    parser.add_argument("--first", type=int, metavar="N", help="label the first N structures only")
    add_labelling(parser, "1, of as many as torch takes")


def add_labelling(parser: argparse.ArgumentParser, one_process: str = "1") -> None:
    """Describe the options of every command that labels; `one_process` says what the default is."""
    parser.add_argument(
        "--max-force", type=float, default=MAX_FORCE, metavar="F",
        help=f"give no label where a force is larger, eV/Å (default: {MAX_FORCE:g})",
    )  # fmt: skip
    parser.add_argument(
        "--processes", type=int, default=1, metavar="N",
        help=f"label in N processes of one thread each (default: {one_process})",
    )  # fmt: skip
    parser.add_argument(
        "--scheduler", metavar="ADDRESS", help="label on the workers of this Dask scheduler"
    )


def check_labelling(arguments: argparse.Namespace) -> None:
    """Raise ValueError if the options of `add_labelling` cannot be meant."""
    if not arguments.max_force > 0:
        raise ValueError(f"--max-force is {arguments.max_force:g}; it must be above 0 eV/Å.")
    if arguments.processes < 1:
        raise ValueError(f"--processes is {arguments.processes}; it must be at least 1.")
    if arguments.processes > 1 and arguments.scheduler is not None:
        raise ValueError("--processes and --scheduler exclude each other; give one of them.")


def run(arguments: argparse.Namespace) -> str:
    """Label as the command line says and return a summary."""
    if arguments.first is not None and arguments.first < 1:
        raise ValueError(f"--first is {arguments.first}; it must be at least 1.")
    check_labelling(arguments)
    if not arguments.structures.exists():
        raise FileNotFoundError(f"no data set at '{arguments.structures}'.")
    if arguments.output.exists() and arguments.output.samefile(arguments.structures):
        raise ValueError(f"'{arguments.output}' is the file of structures; give another output.")
    teacher = load_teacher(arguments.teacher)
    report = label_structures(
        arguments.structures,
        teacher,
        arguments.output,
        first=arguments.first,
        max_force=arguments.max_force,
        command=arguments.command,
        processes=arguments.processes,
        scheduler=arguments.scheduler,
    )
    return f"{arguments.output}: {summary(report, teacher.name)}"


def summary(report: dict[str, Any], teacher: str) -> str:
    """Return in one line what `label_structures` reports."""
    text = f"{report['n_labels']} structures labelled by {teacher}"
    if 0 < report["n_atomic_energies"] < report["n_labels"]:
        text += f", {report['n_atomic_energies']} of them with atomic energies"
    if report["n_without_stress"]:
        text += f", {report['n_without_stress']} crystals of them without stress"
    text += f", {report['n_failures']} failed"
    reasons = [f"{n} × {reason}" for reason, n in report["failure_reasons"].items()]
    if len(reasons) > _REASONS_TOLD:
        reasons[_REASONS_TOLD:] = ["others for other reasons, see /failures in the file"]
    return f"{text}: {'; '.join(reasons)}." if reasons else f"{text}."
