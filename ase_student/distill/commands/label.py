"""Label structures with a teacher; the same command continues an interrupted run."""

from __future__ import annotations

import argparse
from typing import Any

from ase_student.distill.labelling.label import MAX_FORCE, label_structures
from ase_student.distill.options import Option, output_file, positional
from ase_student.potentials.registry import TEACHERS, load_teacher

#: Kinds of failures in the summary.
_REASONS_SHOWN = 3


#: Options of every command that labels.
LABELING = (
    Option(
        "max-force",
        "give no label to structures with a larger force, eV/Å",
        float,
        default=MAX_FORCE,
        metavar="F",
    ),
    Option(
        "processes",
        "label in N processes; if more than one, with one thread each",
        int,
        default=1,
        least=1,
        metavar="N",
    ),
    Option("scheduler", "label on the workers of this Dask scheduler", metavar="ADDRESS"),
)
OPTIONS = (
    positional("structures", "HDF5 file of structures"),
    output_file(),
    Option(
        "teacher", f"{', '.join(TEACHERS)} or package.module:Class", required=True, metavar="NAME"
    ),
    Option("first", "label the first N structures only", int, least=1, metavar="N"),
    *LABELING,
)


def check_labeling(arguments: argparse.Namespace) -> None:
    """Raise ValueError if the options of `LABELING` are invalid."""
    if not arguments.max_force > 0:
        raise ValueError(f"--max-force is {arguments.max_force:g}; it must be above 0 eV/Å.")
    if arguments.processes > 1 and arguments.scheduler is not None:
        raise ValueError("--processes and --scheduler exclude each other; give one of them.")


def run(arguments: argparse.Namespace) -> str:
    """Label as the command line says and return a summary."""
    check_labeling(arguments)
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
    """Return the report of `label_structures` in one line."""
    text = f"{report['n_labels']} structures labeled by {teacher}"
    if 0 < report["n_atomic_energies"] < report["n_labels"]:
        text += f", {report['n_atomic_energies']} of them with atomic energies"
    if report["n_without_stress"]:
        text += f", {report['n_without_stress']} crystals of them without stress"
    text += f", {report['n_failures']} failed"
    reasons = [f"{n} × {reason}" for reason, n in report["failure_reasons"].items()]
    if len(reasons) > _REASONS_SHOWN:
        reasons[_REASONS_SHOWN:] = ["others for other reasons, see /failures in the file"]
    return f"{text}: {'; '.join(reasons)}." if reasons else f"{text}."
