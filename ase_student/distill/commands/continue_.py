"""Move frames of earlier files on by some steps of another dynamics."""

from __future__ import annotations

import argparse

from ase_student.distill.commands.sampling_options import (
    PROCESSES,
    SEED,
    STEPS,
    TEMPERATURES,
    sample_and_write,
    sampling_settings,
)
from ase_student.distill.commands.scan_options import PART
from ase_student.distill.options import ModelName, Option, output_file, positional
from ase_student.distill.sampling.continuation import read_continuations
from ase_student.distill.sampling.settings import MMFF94

OPTIONS = (
    positional(
        "structures",
        "HDF5 files that another step of sampling wrote: each of their frames is moved on",
        nargs="+",
        metavar="FILE",
    ),
    output_file(),
    Option("frames", "how many of the frames (default: all)", int, least=1, metavar="N"),
    *PART,
    Option(
        "dynamics",
        "what moves the atoms: a student (name or path) or a teacher",
        ModelName,
        required=True,
        metavar="NAME",
    ),
    TEMPERATURES,
    STEPS,
    SEED,
    PROCESSES,
)


def run(arguments: argparse.Namespace) -> str:
    """Move frames on as the command line says, write them, and return a summary."""
    if arguments.dynamics == MMFF94:
        raise ValueError(
            f"{MMFF94} cannot move frames of files: choose a student or a teacher by --dynamics."
        )
    settings = sampling_settings(arguments)
    continuations = read_continuations(arguments.structures, settings, arguments.frames)
    return sample_and_write(
        arguments,
        settings,
        made_of=[path.name for path in arguments.structures],
        described=f"{len(continuations)} earlier frames",
        continuations=continuations,
        processes=arguments.processes,
    )
