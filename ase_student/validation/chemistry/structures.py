"""Structures that experiments start from; made by RDKit and a teacher.

``torsions.extxyz`` holds fragments at each angle, ``conformers.extxyz`` conformers of flexible
molecules. They are stored in the package, because RDKit's geometries differ between versions.
"""

from __future__ import annotations

from importlib.resources import as_file, files

from ase import Atoms
from ase.io import read


def read_structures(file: str) -> dict[str, list[Atoms]]:
    """Return the structures of a file of this package by name, in the order of the file."""
    with as_file(files(__package__) / "data" / file) as path:
        frames = read(path, index=":", format="extxyz")
    structures: dict[str, list[Atoms]] = {}
    for atoms in frames:
        structures.setdefault(atoms.info["name"], []).append(atoms)
    return structures
