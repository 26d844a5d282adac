"""Sample complexes of molecules at several distances, with each molecule alone beside them."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ase_student.distill.commands.scan_options import (
    DRIVER,
    driver,
    read_sets,
    species_options,
    write_sampled,
)
from ase_student.distill.options import output_file
from ase_student.distill.sampling.dimer_scans import DimerScanSettings, scan_complexes
from ase_student.distill.settings import options_of, settings_from

DEFAULT_SETS = ("nci", "small", "aromatic", "linear")


OPTIONS = (output_file(), *options_of(DimerScanSettings), *species_options(DEFAULT_SETS), DRIVER)


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
