"""Sample molecules with one of their bonds turned through a full circle."""

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
from ase_student.distill.options import output_file
from ase_student.distill.sampling.torsion_scans import TorsionScanSettings, scan_torsions
from ase_student.distill.settings import options_of, settings_from

DEFAULT_SETS = ("nci", "flexible")


OPTIONS = (output_file(), *options_of(TorsionScanSettings), *species_options(DEFAULT_SETS), DRIVER)


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
