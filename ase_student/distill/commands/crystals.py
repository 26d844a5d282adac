"""Sample surroundings of molecules in their crystals, strained and disturbed at random."""

from __future__ import annotations

import argparse
from pathlib import Path

from ase_student.data.structures import Structures
from ase_student.distill.commands.scan_options import (
    add_driver,
    add_part_arguments,
    driver,
    write_sampled,
)
from ase_student.distill.sampling.molecular_crystals import CRYSTALS, sample_crystals
from ase_student.distill.sampling.scan_molecules import is_in_part


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``crystals``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--frames", type=int, default=400, metavar="N", help="how many cut-outs (default: 400)"
    )
    parser.add_argument(
        "--crystal", nargs="+", choices=list(CRYSTALS), metavar="NAME", dest="crystals",
        default=list(CRYSTALS), help=f"which of {', '.join(CRYSTALS)} (default: all)",
    )  # fmt: skip
    add_part_arguments(parser)
    add_driver(parser)
    parser.add_argument("--seed", type=int, default=0)


def run(arguments: argparse.Namespace) -> str:
    """Sample crystals as the command line says, write them, and return a summary."""
    if arguments.frames < 1:
        raise ValueError(f"--frames is {arguments.frames}; it must be at least 1.")
    names = [
        name
        for name in arguments.crystals
        if is_in_part(CRYSTALS[name].molecule, arguments.part, arguments.split_seed)
    ]
    if not names:
        raise ValueError(f"no crystal that was asked for belongs to the {arguments.part} part.")
    frames = sample_crystals(names, arguments.frames, arguments.seed, driver=driver(arguments))
    counts = write_sampled(
        arguments,
        Structures.from_atoms(frames.structures, frames.sources, frames.molecules),
        {"frames": arguments.frames, "seed": arguments.seed},
        made_of=names,
        dropped=frames.dropped,
        skipped={},
    )
    return f"{arguments.output}: {len(names)} crystals, {counts}."
