"""Sample molecules with one of their bonds turned through a full circle."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ase_student.data.structures import Structures
from ase_student.distill.commands.scan_options import (
    add_driver,
    add_species_arguments,
    driver,
    read_sets,
    write_sampled,
)
from ase_student.distill.sampling.torsion_scans import TorsionScanSettings, scan_torsions
from ase_student.distill.settings import add_settings, settings_from

DEFAULT_SETS = ("nci", "flexible")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``torsions``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    add_settings(parser, TorsionScanSettings)
    add_species_arguments(parser, DEFAULT_SETS)
    add_driver(parser)


def run(arguments: argparse.Namespace) -> str:
    """Sample torsions as the command line says, write them, and return a summary."""
    settings = settings_from(arguments, TorsionScanSettings)
    sets, skipped = read_sets(arguments)
    frames = scan_torsions(sets, settings, driver(arguments))
    counts = write_sampled(
        arguments,
        Structures.from_atoms(frames.structures, frames.sources, frames.molecules),
        {**asdict(settings), "max_atoms": arguments.max_atoms},
        made_of=[*arguments.sets, *(path.name for path in arguments.smiles)],
        dropped=frames.dropped,
        skipped=skipped,
    )
    return f"{arguments.output}: {len(set(frames.molecules))} molecules, {counts}."
