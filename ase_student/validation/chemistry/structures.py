"""Structures that experiments start from: read from the package, and made by RDKit and a teacher.

``torsions.extxyz`` holds fragments at each angle, ``conformers.extxyz`` conformers of flexible
molecules. They are kept, because RDKit's geometries differ from version to version.
"""

from __future__ import annotations

from importlib.resources import as_file, files

from ase import Atoms
from ase.io import read


def read_structures(file: str) -> dict[str, list[Atoms]]:
    """Return the structures of a file of this package by their names, in its order."""
    with as_file(files(__package__) / "data" / file) as path:
        frames = read(path, index=":", format="extxyz")
    found: dict[str, list[Atoms]] = {}
    for atoms in frames:
        found.setdefault(atoms.info["name"], []).append(atoms)
    return found
