"""Sample molecules with one of their bonds turned through a full circle."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

from ase_student.dataset import Structures, write_dataset
from ase_student.distill import provenance
from ase_student.distill.dynamics import identity
from ase_student.distill.scan_driver import add_driver, driver, told
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
    counts = dict(Counter(frames.sources))
    metadata = {
        **provenance.metadata(arguments.command, "rdkit", "chemicals"),
        "structure_sources": [*arguments.sets, *(path.name for path in arguments.smiles)],
        "sampling": {
            **asdict(settings), "part": arguments.part, "split_seed": arguments.split_seed,
            "max_atoms": arguments.max_atoms, "driver": identity(arguments.dynamics),
        },
        "skipped_molecules": skipped,
        "dropped": dict(frames.dropped),
        "sources": counts,
    }  # fmt: skip
    columns = Structures.from_atoms(frames.structures, frames.sources, frames.molecules)
    write_dataset(arguments.output, columns, metadata=metadata)
    return (
        f"{arguments.output}: {len(frames.structures)} frames of {len(set(frames.molecules))} "
        f"molecules; dropped {told(frames.dropped)}."
    )
