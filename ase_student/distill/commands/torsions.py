"""Sample molecules with one of their bonds turned through a full circle."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
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

DEFAULT_SETS = ("nci", "flexible")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``torsions``."""
    default = TorsionScanSettings()
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--frames", type=int, default=default.frames, metavar="N",
        help=f"how many frames (default: {default.frames})",
    )  # fmt: skip
    parser.add_argument(
        "--angles", type=int, default=default.angles, metavar="N",
        help=f"angles of each scan, equally spaced (default: {default.angles})",
    )  # fmt: skip
    add_species_arguments(parser, DEFAULT_SETS)
    add_driver(parser)
    parser.add_argument("--seed", type=int, default=default.seed)


def run(arguments: argparse.Namespace) -> str:
    """Sample torsions as the command line says, write them, and return a summary."""
    names = [one.name for one in fields(TorsionScanSettings)]
    settings = TorsionScanSettings(**{name: getattr(arguments, name) for name in names})
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
