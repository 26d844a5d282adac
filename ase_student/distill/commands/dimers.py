"""Sample complexes of molecules at several distances, with each molecule alone beside them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from ase_student.distill.commands.scan_options import (
    add_driver,
    add_species_arguments,
    driver,
    read_sets,
    write_sampled,
)
from ase_student.distill.sampling.dimer_scans import DimerScanSettings, scan_complexes
from ase_student.distill.settings import add_settings, settings_from

DEFAULT_SETS = ("nci", "small", "aromatic", "linear")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``dimers``."""
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    add_settings(parser, DimerScanSettings)
    add_species_arguments(parser, DEFAULT_SETS)
    add_driver(parser)


def run(arguments: argparse.Namespace) -> str:
    """Sample complexes as the command line says, write them, and return a summary."""
    settings = settings_from(arguments, DimerScanSettings)
    sets, skipped = read_sets(arguments)
    complexes = scan_complexes(sets, settings, driver(arguments))
    counts = write_sampled(
        arguments,
        complexes.columns(),
        {**asdict(settings), "max_atoms": arguments.max_atoms},
        made_of=[*arguments.sets, *(path.name for path in arguments.smiles)],
        dropped=complexes.dropped,
        skipped=skipped,
    )
    return f"{arguments.output}: {complexes.n_groups} groups of {counts}."
