"""Displace, strain and move given structures: those of files, crystals and surfaces."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from ase_student.distill.commands.sampling_options import (
    DEFAULT,
    PROCESSES,
    SEED,
    STEPS,
    TEMPERATURES,
    number_option,
    sample_and_write,
    sampling_settings,
)
from ase_student.distill.commands.scan_options import PART
from ase_student.distill.options import ModelName, Option, grouped, output_file
from ase_student.distill.sampling.builders import all_origins
from ase_student.distill.sampling.rattle import groups_of
from ase_student.distill.sampling.settings import MMFF94

#: Structures to begin with; all that is given is joined.
_STARTS = grouped(
    "structures",
    Option(
        "file",
        "all structures of files that ASE reads, molecules or periodic",
        Path,
        nargs="+",
        default=(),
        metavar="FILE",
    ),
    Option(
        "crystal",
        "formula:structure:a:c as ase.build.bulk takes them, such as NaCl:rocksalt:5.64; for "
        "elements 'Cu' is enough",
        nargs="+",
        default=(),
        metavar="SPEC",
    ),
    Option(
        "surface",
        "element:face:size:vacuum such as Cu:fcc111:2,2,4:10, and :a for the lattice constant",
        nargs="+",
        default=(),
        metavar="SPEC",
    ),
    Option("repeat", "repeat each along its periodic axes", int, nargs=3, least=1, metavar="N"),
    Option(
        "foreign",
        "the structures are unlike those of any use and only keep the student stable: their "
        "errors are reported separately, and they do not count as seen in training",
        bool,
        default=False,
    ),
    *PART,
)
_SAMPLING = grouped(
    "what to make of each structure",
    number_option("displaced", "frames with displaced atoms, of each scale"),
    Option(
        "displacements",
        "scales in Å; of each come as many frames as --displaced says",
        float,
        nargs="+",
        default=DEFAULT.displacements,
        metavar="S",
    ),
    Option(
        "strain",
        "largest component of the random strain of periodic structures",
        float,
        default=DEFAULT.strain,
        metavar="S",
    ),
    number_option("md", "frames from dynamics"),
    Option(
        "dynamics",
        "what moves the atoms, if --md is not 0: a student (name or path) or a teacher",
        ModelName,
        metavar="NAME",
    ),
    TEMPERATURES,
    STEPS,
    SEED,
)
OPTIONS = (output_file(), *_STARTS, *_SAMPLING, PROCESSES)


def run(arguments: argparse.Namespace) -> str:
    """Sample structures as the command line says, write them, and return a summary."""
    _check(arguments)
    settings = sampling_settings(arguments)
    origins = all_origins(
        arguments.file,
        arguments.crystal,
        arguments.surface,
        repeat=arguments.repeat or [1, 1, 1],
    )
    if settings.md and settings.dynamics == MMFF94:
        raise ValueError(
            f"{MMFF94} cannot move structures of files, crystals and surfaces: choose a student or "
            "a teacher by --dynamics, or give --md 0."
        )
    return sample_and_write(
        arguments,
        settings,
        made_of=[*(path.name for path in arguments.file), *arguments.crystal, *arguments.surface],
        described=f"{len(origins)} given structures",
        groups=groups_of(origins, settings),
        processes=arguments.processes,
    )


def _check(arguments: argparse.Namespace) -> None:
    """Raise ValueError if there is nothing to begin with, or a length is not allowed."""
    if not (arguments.file or arguments.crystal or arguments.surface):
        raise ValueError("no structures: give --file, --crystal or --surface.")
    for scale in arguments.displacements:
        if not 0 < scale < math.inf:
            raise ValueError(f"--displacements has {scale:g}; each must be above 0 Å.")
    if not 0 <= arguments.strain < 1:
        raise ValueError(f"--strain is {arguments.strain:g}; it must be at least 0 and below 1.")
