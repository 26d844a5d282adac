"""Options and output that the commands for scans, liquids and crystals share."""

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
from ase_student.distill.options import ModelName, Option, grouped
from ase_student.distill.sampling import scan_molecules
from ase_student.distill.sampling.sample import in_words
from ase_student.distill.sampling.scan_molecules import SETS
from ase_student.potentials.base import Potential
from ase_student.potentials.registry import identity, load_potential

PART = (
    Option("part", "only what belongs to this part of the split", choices=PARTS),
    Option("split-seed", "of the split", int, default=0, least=0),
)
#: The driver: the student or teacher that moves atoms.
DRIVER = Option(
    "dynamics",
    "what moves the atoms: a student (name or path) or a teacher",
    ModelName,
    default="ultra-tiny",
    metavar="NAME",
)


def species_options(default: Sequence[str]) -> tuple[Option, ...]:
    """Return the options that say which molecules to take, by default those of some sets."""
    return grouped(
        "molecules",
        Option(
            "set",
            f"sets to draw from, each as often as the others: {', '.join(SETS)}",
            nargs="+",
            choices=tuple(SETS),
            default=tuple(default),
            metavar="NAME",
            dest="sets",
        ),
        Option(
            "smiles",
            "text with one SMILES per line; each file is one more set",
            Path,
            nargs="+",
            default=(),
            metavar="FILE",
        ),
        Option("max-atoms", "largest molecule", int, default=30, metavar="N"),
        *PART,
    )


def read_sets(arguments: argparse.Namespace) -> tuple[list[list[Species]], dict[str, int]]:
    """Return the molecules of each set that a command line names, and counts of those left out."""
    return scan_molecules.read_sets(
        arguments.sets,
        arguments.smiles,
        arguments.max_atoms,
        part=arguments.part,
        split_seed=arguments.split_seed,
    )


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
        Of a command with the options `DRIVER` and `PART`.
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
