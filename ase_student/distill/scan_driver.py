"""The student or teacher that moves atoms in scans and liquids."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from ase_student.distill.dynamics import BatchedForces, batched_forces
from ase_student.distill.options import ModelName

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
