"""The student or teacher that moves atoms in scans and liquids."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ase_student.data.splits import PARTS
from ase_student.distill.molecules.smiles import read_smiles
from ase_student.distill.molecules.species import Species, select_species
from ase_student.distill.recipes.options import ModelName
from ase_student.distill.sampling.scan_molecules import SETS, is_in_part
from ase_student.potentials.base import BatchedForces
from ase_student.potentials.registry import batched_forces

DEFAULT_DRIVER = "ultra-tiny"


def add_driver(parser: argparse.ArgumentParser) -> None:
    """Describe the option that names the driver."""
    parser.add_argument(
        "--dynamics", type=ModelName, default=DEFAULT_DRIVER, metavar="NAME",
        help="what moves the atoms: a student (name or path) or a teacher "
        f"(default: {DEFAULT_DRIVER})",
    )  # fmt: skip


def driver(arguments: argparse.Namespace) -> BatchedForces:
    """Return the forces of the driver that a command line names, on one thread."""
    return batched_forces(arguments.dynamics, threads=1)


def told(counts: Mapping[str, int]) -> str:
    """Return counts in one line."""
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing"


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
    """Return the molecules of each set that a command line names, and counts of those left out.

    Raises
    ------
    ValueError
        If no molecule of a set may be used.
    """
    if arguments.max_atoms < 2:
        raise ValueError(f"--max-atoms is {arguments.max_atoms}; it must be at least 2.")
    sources = {name: SETS[name]() for name in arguments.sets}
    sources |= {str(path): read_smiles(path) for path in arguments.smiles}
    sets: list[list[Species]] = []
    skipped: Counter[str] = Counter()
    for name, smiles in sources.items():
        found, left_out = select_species(smiles, arguments.max_atoms, None, 0)
        skipped.update(left_out)
        kept = [one for one in found if is_in_part(one.key, arguments.part, arguments.split_seed)]
        if not kept:
            part = "" if arguments.part is None else f" of the {arguments.part} part"
            raise ValueError(
                f"the set '{name}' has no suitable molecule{part} of at most "
                f"{arguments.max_atoms} atoms; leave it out, or raise --max-atoms."
            )
        skipped[f"not in the {arguments.part} part"] += len(found) - len(kept)
        sets.append(kept)
    return sets, dict(+skipped)
