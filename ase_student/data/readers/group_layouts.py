"""Layouts of HDF5 files with one group for each molecule: SPICE, ANI-1x, QM7-X.

P. Eastman et al., Sci. Data 10 (2023) 11 (SPICE); J. S. Smith et al., Sci. Data 7 (2020) 134
(ANI-1x); J. Hoja et al., Sci. Data 8 (2021) 43 (QM7-X). Names and units of their datasets are from
these papers and from the files.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ase import units

#: Largest depth of nested groups: QM7-X has a group for each molecule, which has a group for each
#: geometry.
DEEPEST = 3


@dataclass(frozen=True)
class GroupLayout:
    """Names of the datasets in the group of a molecule, and their units in ASE's units.

    Attributes
    ----------
    name : str
    numbers, positions, energy, forces : str
        Positions of one geometry, (n_atoms, 3), or of several, (n, n_atoms, 3).
    length : float, Å
    energy_unit : float, eV
    force_unit : float, eV/Å
        Negative if the file has gradients.
    """

    name: str
    numbers: str
    positions: str
    energy: str
    forces: str
    length: float
    energy_unit: float
    force_unit: float


_ATOMIC_FORCE = units.Hartree / units.Bohr
LAYOUTS = (
    GroupLayout(
        "SPICE", "atomic_numbers", "conformations", "dft_total_energy", "dft_total_gradient",
        units.Bohr, units.Hartree, -_ATOMIC_FORCE,
    ),
    GroupLayout(
        "ANI-1x", "atomic_numbers", "coordinates", "wb97x_dz.energy", "wb97x_dz.forces",
        1.0, units.Hartree, units.Hartree,
    ),
    GroupLayout("QM7-X", "atNUM", "atXYZ", "ePBE0+MBD", "totFOR", 1.0, 1.0, 1.0),
)  # fmt: skip


def groups_of(file: Any, depth: int = DEEPEST, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield path and group of every group that contains datasets; links are not followed."""
    h5py = importlib.import_module("h5py")
    group = file[path] if path else file
    inner = []
    has_data = False
    for key in group:
        if isinstance(group.get(key, getlink=True), h5py.HardLink):
            kind = group.get(key, getclass=True)
            has_data |= kind is h5py.Dataset
            if kind is h5py.Group:
                inner.append(key)
    if has_data:
        yield path or "/", group
    for key in inner if depth else []:
        yield from groups_of(file, depth - 1, f"{path}/{key}")


def layout_of(file: Any) -> GroupLayout | None:
    """Return the layout of an open HDF5 file, by its first group with data; None if unknown."""
    _, group = next(groups_of(file), ("", {}))
    for layout in LAYOUTS:
        if layout.numbers in group and layout.positions in group:
            return layout
    return None
