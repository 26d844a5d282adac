"""Sample droplets: surroundings of molecules as in liquids, mixtures and solutions."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ase_student.data.structures import Structures
from ase_student.distill.commands.scan_options import (
    DRIVER,
    driver,
    read_sets,
    species_options,
    write_sampled,
)
from ase_student.distill.molecules.species import species_of
from ase_student.distill.options import Option, output_file
from ase_student.distill.sampling.liquid_boxes import (
    DENSITIES,
    LiquidSettings,
    sample_liquids,
)
from ase_student.distill.sampling.scan_molecules import is_in_part
from ase_student.distill.settings import options_of, settings_from

#: Sets of solutes.
DEFAULT_SETS = ("nci", "small", "aromatic")


OPTIONS = (
    output_file(),
    *options_of(LiquidSettings),
    Option(
        "liquid",
        f"liquids to take (default: all of {', '.join(DENSITIES)})",
        nargs="+",
        choices=tuple(DENSITIES),
        metavar="SMILES",
        dest="liquids",
    ),
    *species_options(DEFAULT_SETS),
    DRIVER,
)


def run(arguments: argparse.Namespace) -> str:
    """Sample droplets as the command line says, write them, and return a summary."""
    settings = settings_from(arguments, LiquidSettings)
    names = arguments.liquids or list(DENSITIES)
    liquids = [
        species_of(name, 100)
        for name in names
        if is_in_part(name, arguments.part, arguments.split_seed)
    ]
    if not liquids:
        raise ValueError(f"no liquid that was asked for belongs to the {arguments.part} part.")
    sets, skipped = read_sets(arguments)
    solutes = [solute for listed in sets for solute in listed]
    frames = sample_liquids(liquids, solutes, settings, driver=driver(arguments))
    counts = write_sampled(
        arguments,
        Structures.from_atoms(frames.structures, frames.sources, frames.molecules),
        {**asdict(settings), "max_atoms": arguments.max_atoms},
        made_of=[*(liquid.key for liquid in liquids), *arguments.sets],
        dropped=frames.dropped,
        skipped=skipped,
    )
    return f"{arguments.output}: {len(liquids)} liquids, {counts}."
