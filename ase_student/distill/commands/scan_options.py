"""What the commands that sample scans, liquids and crystals have in common."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ase_student import provenance
from ase_student.data.hdf5 import write_dataset
from ase_student.data.splits import PARTS
from ase_student.data.structures import Structures
from ase_student.distill.molecules.species import Species
from ase_student.distill.recipes.options import ModelName
from ase_student.distill.sampling import scan_molecules
from ase_student.distill.sampling.sample import in_words
from ase_student.distill.sampling.scan_molecules import SETS
from ase_student.potentials.base import Potential
from ase_student.potentials.registry import identity, load_potential

DEFAULT_DRIVER = "ultra-tiny"


def add_species_arguments(parser: argparse.ArgumentParser, default: Sequence[str]) -> None:
    """Describe the options that say which molecules to take."""
    group = parser.add_argument_group("molecules")
    group.add_argument(
        "--set", nargs="+", choices=list(SETS), default=list(default), metavar="NAME", dest="sets",
        help=f"sets to draw from, each as often as the others: {', '.join(SETS)} "
        f"(default: {' '.join(default)})",
    )  # fmt: skip
    group.add_argument(
        "--smiles", nargs="+", type=Path, default=[], metavar="FILE",
        help="text with one SMILES per line; each file is one more set",
    )  # fmt: skip
    group.add_argument(
        "--max-atoms", type=int, default=30, metavar="N", help="largest molecule (default: 30)"
    )
    add_part_arguments(group)


def add_part_arguments(parser: argparse._ActionsContainer) -> None:
    """Describe the options that say which part of the split to take."""
    parser.add_argument("--part", choices=PARTS, help="molecules of this part of the split only")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split (default: 0)")


def read_sets(arguments: argparse.Namespace) -> tuple[list[list[Species]], dict[str, int]]:
    """Return the molecules of each set that a command line names, and counts of those left out."""
    return scan_molecules.read_sets(
        arguments.sets,
        arguments.smiles,
        arguments.max_atoms,
        part=arguments.part,
        split_seed=arguments.split_seed,
    )


def add_driver(parser: argparse.ArgumentParser) -> None:
    """Describe the option that names the driver, the student or teacher that moves atoms."""
    parser.add_argument(
        "--dynamics", type=ModelName, default=DEFAULT_DRIVER, metavar="NAME",
        help="what moves the atoms: a student (name or path) or a teacher "
        f"(default: {DEFAULT_DRIVER})",
    )  # fmt: skip


def driver(arguments: argparse.Namespace) -> Potential:
    """Return the driver that a command line names, on one thread."""
    return load_potential(arguments.dynamics, threads=1)


def write_sampled(
    arguments: argparse.Namespace,
    structures: Structures,
    settings: Mapping[str, Any],
    *,
    made_of: Sequence[str],
    dropped: Mapping[str, int],
    skipped: Mapping[str, int],
) -> str:
    """Write sampled structures with how they were made, and return their counts in one line.

    Parameters
    ----------
    arguments : argparse.Namespace
        Of a command with `add_driver` and the options of a part of the split.
    structures : Structures
    settings : mapping
        How they were sampled.
    made_of : sequence of str
        Sets, files or names of the molecules.
    dropped, skipped : mapping of str to int
        Structures and molecules that were left out, by reason.
    """
    counts = dict(Counter(structures.sources or ()))
    sampling = {
        **settings,
        "part": arguments.part,
        "split_seed": arguments.split_seed,
        "driver": {"name": arguments.dynamics, **identity(arguments.dynamics)},
    }
    metadata = {
        **provenance.metadata(arguments.command, "rdkit", "chemicals"),
        "structure_sources": list(made_of),
        "sampling": sampling,
        "skipped_molecules": dict(skipped),
        "dropped": dict(dropped),
        "sources": counts,
    }
    write_dataset(arguments.output, structures, metadata=metadata)
    return f"{in_words(counts)}; dropped {in_words(+Counter(dropped))}"
