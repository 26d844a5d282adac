"""What the commands that sample scans, liquids and crystals have in common."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ase_student.dataset import Structures, write_dataset
from ase_student.distill import provenance
from ase_student.distill.dynamics import BatchedForces, batched_forces, identity
from ase_student.distill.options import ModelName

DEFAULT_DRIVER = "ultra-tiny"


def add_driver(parser: argparse.ArgumentParser) -> None:
    """Describe the option that names the driver, the student or teacher that moves atoms."""
    parser.add_argument(
        "--dynamics", type=ModelName, default=DEFAULT_DRIVER, metavar="NAME",
        help="what moves the atoms: a student (name or path) or a teacher "
        f"(default: {DEFAULT_DRIVER})",
    )  # fmt: skip


def driver(arguments: argparse.Namespace) -> BatchedForces:
    """Return the forces of the driver that a command line names, on one thread."""
    return batched_forces(arguments.dynamics, threads=1)


def write_sampled(
    arguments: argparse.Namespace,
    structures: Structures,
    settings: Mapping[str, Any],
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
    return f"{_told(counts)}; dropped {_told(dropped)}"


def _told(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.items() if n) or "nothing"
