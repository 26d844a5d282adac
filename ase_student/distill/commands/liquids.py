"""Sample droplets: surroundings of molecules as in liquids, mixtures and solutions."""

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
from ase_student.distill.molecules.species import species_of
from ase_student.distill.sampling.liquid_boxes import (
    DENSITIES,
    LiquidSettings,
    sample_liquids,
)
from ase_student.distill.sampling.scan_molecules import is_in_part
from ase_student.distill.settings import add_settings, settings_from

#: Sets of solutes.
DEFAULT_SETS = ("nci", "small", "aromatic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``liquids``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    add_settings(parser, LiquidSettings)
    parser.add_argument(
        "--liquid", nargs="+", choices=list(DENSITIES), metavar="SMILES", dest="liquids",
        help=f"liquids to take (default: all of {', '.join(DENSITIES)})",
    )  # fmt: skip
    add_species_arguments(parser, DEFAULT_SETS)
    add_driver(parser)


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
    solutes = [one for listed in sets for one in listed]
    frames = sample_liquids(liquids, solutes, settings, driver=driver(arguments))
    counts = write_sampled(
        arguments,
        Structures.from_atoms(frames.structures, frames.sources, frames.molecules),
        {**asdict(settings), "max_atoms": arguments.max_atoms},
        made_of=[*(one.key for one in liquids), *arguments.sets],
        dropped=frames.dropped,
        skipped=skipped,
    )
    return f"{arguments.output}: {len(liquids)} liquids, {counts}."
