"""Run a student's own dynamics, select frames where it is likely to be wrong, and label them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ase_student.distill.active_learning.exploration import Exploration, ExplorationSettings
from ase_student.distill.active_learning.grow import grow
from ase_student.distill.commands import label
from ase_student.distill.options import Option, output_file, positional
from ase_student.distill.settings import options_of, settings_from
from ase_student.potentials.registry import load_teacher

OPTIONS = (
    positional(
        "runs",
        "folder of a run, weights, or name of a student; a second one, of another seed, "
        "shows where the first is likely to be wrong",
        nargs="+",
        metavar="RUN",
    ),
    output_file(),
    Option("teacher", "as for the step 'label'", required=True, metavar="NAME"),
    Option(
        "start-structures",
        "HDF5 files that the student was trained on; only the training part of its split is used",
        Path,
        nargs="+",
        required=True,
        metavar="FILE",
    ),
    *options_of(ExplorationSettings),
    *label.LABELING,
    Option("device", "of the student", default="auto"),
    Option("threads", "CPU threads of the student", int),
)


def run(arguments: argparse.Namespace) -> str:
    """Grow as the command line says and return a summary."""
    settings = settings_from(arguments, ExplorationSettings)
    label.check_labeling(arguments)
    for path in arguments.start_structures:
        if not path.is_file():
            raise FileNotFoundError(f"no data set at '{path}'.")
    output: Path = arguments.output
    teacher = load_teacher(arguments.teacher)
    growth = Exploration(
        [str(run) for run in arguments.runs],
        arguments.start_structures,
        settings,
        folder=output.with_name(f"{output.name}.partial"),
        labels={
            "teacher": {"name": teacher.name, **teacher.settings},
            "max_force": arguments.max_force,
        },
        device=arguments.device,
        threads=arguments.threads,
    )
    metadata = grow(
        growth,
        teacher,
        output,
        max_force=arguments.max_force,
        command=arguments.command,
        processes=arguments.processes,
        scheduler=arguments.scheduler,
    )
    return f"{output}: {label.summary(metadata, teacher.name)}\n{summary(metadata['grow'])}"


def summary(report: dict[str, Any]) -> str:
    """Return the report of `grow` in words."""
    lines = [
        f"{report['astray']} of {report['trajectories']} trajectories became unstable, "
        f"{report['outside']} of {report['frames']} frames lie outside the training data"
    ]
    lines += [
        f"{name} frames: force RMSE {report[name]['force_rmse']:.3f} eV/Å (median "
        f"{report[name]['force_rmse_median']:.3f}, largest error {report[name]['force_max']:.2f}), "
        f"{report[name]['structures']} structures"
        for name in ("doubtful", "random")
        if report[name]["structures"]
    ]
    if report["ratio"] is not None:
        lines.append(
            f"median error of doubtful frames: {report['ratio']:.2f} times that of random ones"
        )
    if report["correlation"] is not None:
        lines.append(f"rank correlation of uncertainty and error: {report['correlation']:.2f}")
    return "\n".join(f"  {line}" for line in lines)
