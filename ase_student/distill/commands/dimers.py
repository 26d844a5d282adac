"""Sample complexes of molecules at several distances, with each molecule alone beside them."""

from __future__ import annotations

import argparse
from dataclasses import asdict, fields
from pathlib import Path

from ase_student.distill.commands.scan_options import (
    add_driver,
    add_species_arguments,
    driver,
    read_sets,
    write_sampled,
)
from ase_student.distill.sampling.dimer_scans import DimerScanSettings, scan_complexes

DEFAULT_SETS = ("nci", "small", "aromatic", "linear")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``dimers``."""
    default = DimerScanSettings()
    parser.add_argument("-o", "--output", type=Path, required=True, help="HDF5 file to write")
    parser.add_argument(
        "--complexes", type=int, default=default.complexes, metavar="N",
        help=f"how many complexes (default: {default.complexes}); their molecules come with them",
    )  # fmt: skip
    parser.add_argument(
        "--points", type=int, default=default.points, metavar="N",
        help="distances of each pair, which share the geometries of the molecules "
        f"(default: {default.points})",
    )  # fmt: skip
    parser.add_argument(
        "--trimers", type=float, default=default.trimers, metavar="S",
        help=f"share of complexes of three molecules (default: {default.trimers})",
    )  # fmt: skip
    parser.add_argument(
        "--max-complex-atoms", type=int, default=default.max_complex_atoms, metavar="N",
        help=f"largest complex (default: {default.max_complex_atoms})",
    )  # fmt: skip
    add_species_arguments(parser, DEFAULT_SETS)
    add_driver(parser)
    parser.add_argument("--seed", type=int, default=default.seed)


def run(arguments: argparse.Namespace) -> str:
    """Sample complexes as the command line says, write them, and return a summary."""
    names = [one.name for one in fields(DimerScanSettings)]
    settings = DimerScanSettings(**{name: getattr(arguments, name) for name in names})
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
