"""Sample two atoms alone at all distances, of every pair of elements."""

from __future__ import annotations

import argparse

from ase_student.distill.commands.sampling_options import (
    SEED,
    sample_and_write,
    sampling_settings,
)
from ase_student.distill.molecules.species import ELEMENTS
from ase_student.distill.options import Option, output_file
from ase_student.distill.sampling.diatomics import diatomics

OPTIONS = (
    output_file(),
    Option("distances", "how many of each pair", int, default=60, least=1, metavar="N"),
    Option("elements", "which to pair", nargs="+", default=tuple(ELEMENTS), metavar="X"),
    SEED,
)


def run(arguments: argparse.Namespace) -> str:
    """Sample diatomics as the command line says, write them, and return a summary."""
    elements = sorted(set(arguments.elements))
    return sample_and_write(
        arguments,
        sampling_settings(arguments),
        made_of=[f"{arguments.distances} distances of diatomics"],
        described=f"{len(elements) * (len(elements) + 1) // 2} pairs of elements",
        given=diatomics(elements, arguments.distances, arguments.seed),
    )
