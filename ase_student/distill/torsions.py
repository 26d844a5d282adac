"""Sample molecules with one of their bonds turned through a full circle."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path

from ase_student.dataset import Structures
from ase_student.distill.scan_command import add_driver, driver, write_sampled
from ase_student.distill.scan_molecules import add_species_arguments, read_sets
from ase_student.distill.torsion_scans import Settings, scan_torsions

DEFAULT_SETS = ("nci", "flexible")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``torsions``."""
    default = Settings()
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
    settings = Settings(**{one.name: getattr(arguments, one.name) for one in fields(Settings)})
    sets, skipped = read_sets(arguments)
    frames = scan_torsions(sets, settings, driver(arguments))
    counts = write_sampled(
        arguments,
        Structures.from_atoms(frames.structures, frames.sources, frames.molecules),
        {**asdict(settings), "max_atoms": arguments.max_atoms},
        [*arguments.sets, *(path.name for path in arguments.smiles)],
        frames.dropped,
        skipped,
    )
    return f"{arguments.output}: {len(set(frames.molecules))} molecules, {counts}."
