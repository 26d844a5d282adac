"""Sample surroundings of molecules in their crystals, strained and disturbed at random."""

from __future__ import annotations

import argparse

from ase_student.data.structures import Structures
from ase_student.distill.commands.sampling_options import SEED
from ase_student.distill.commands.scan_options import DRIVER, PART, driver, write_sampled
from ase_student.distill.options import Option, output_file
from ase_student.distill.sampling.molecular_crystals import CRYSTALS, sample_crystals
from ase_student.distill.sampling.scan_molecules import is_in_part

OPTIONS = (
    output_file(),
    Option("frames", "how many cut-outs", int, default=400, least=1, metavar="N"),
    Option(
        "crystal",
        f"which of {', '.join(CRYSTALS)} (default: all)",
        nargs="+",
        choices=tuple(CRYSTALS),
        metavar="NAME",
        dest="crystals",
    ),
    *PART,
    DRIVER,
    SEED,
)


def run(arguments: argparse.Namespace) -> str:
    """Sample crystals as the command line says, write them, and return a summary."""
    names = [
        name
        for name in arguments.crystals or CRYSTALS
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
