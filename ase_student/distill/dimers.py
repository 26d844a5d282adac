"""Sample complexes of molecules at several distances, with each molecule alone beside them."""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import asdict, fields
from pathlib import Path

from ase_student.dataset import write_dataset
from ase_student.distill import provenance
from ase_student.distill.dimer_scans import Settings, scan_complexes
from ase_student.distill.dynamics import identity
from ase_student.distill.scan_driver import add_driver, driver, told
from ase_student.distill.scan_molecules import add_species_arguments, read_sets

DEFAULT_SETS = ("nci", "small", "aromatic", "linear")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command line of ``dimers``."""
    default = Settings()
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
    settings = Settings(**{one.name: getattr(arguments, one.name) for one in fields(Settings)})
    sets, skipped = read_sets(arguments)
    complexes = scan_complexes(sets, settings, driver(arguments))
    counts = dict(Counter(complexes.sources))
    metadata = {
        **provenance.metadata(arguments.command, "rdkit", "chemicals"),
        "structure_sources": [*arguments.sets, *(path.name for path in arguments.smiles)],
        "sampling": {
            **asdict(settings), "part": arguments.part, "split_seed": arguments.split_seed,
            "max_atoms": arguments.max_atoms, "driver": identity(arguments.dynamics),
        },
        "skipped_molecules": skipped,
        "dropped": dict(complexes.dropped),
        "sources": counts,
    }  # fmt: skip
    write_dataset(arguments.output, complexes.columns(), metadata=metadata)
    return (
        f"{arguments.output}: {len(complexes.structures)} structures in {complexes.n_groups} "
        f"groups ({told(counts)}); dropped {told(complexes.dropped)}."
    )
