"""Interface of the readers of labeled structures, and checks of what they read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from numpy.typing import NDArray

#: Source of structures whose file does not record how they were sampled.
UNKNOWN_SOURCE = "unknown"
SOURCE_KEYS = ("source", "config_type")


@dataclass(frozen=True)
class Frame:
    """One structure and its labels.

    Attributes
    ----------
    index : int
        Index in the file, from 0.
    atoms : Atoms
    energy : float, eV, or None
    forces : (n_atoms, 3) float64, eV/Å, or None
    stress : (6,) float64, eV/Å³, or None
    source : str
        How it was sampled.
    """

    index: int
    atoms: Atoms
    energy: float | None
    forces: NDArray[np.float64] | None
    stress: NDArray[np.float64] | None
    source: str = UNKNOWN_SOURCE


@dataclass(frozen=True)
class LeftOut:
    """A structure that cannot be used.

    Attributes
    ----------
    index : int
    reason : str
        A sentence that names the file, the dataset and the index.
    invalid : bool
        Whether the structure or its label is invalid; False if it only has no label.
    """

    index: int
    reason: str
    invalid: bool = True


class StructureReader(Protocol):
    """A file of structures.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
        Number of atoms in each structure, at least 0; may be wrong for invalid structures.
    metadata : dict
        Information in the file on its teacher and its origin.
    """

    path: Path
    sizes: NDArray[np.int64]
    metadata: dict[str, Any]

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the structures of ascending indices."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


def checked(frame: Frame, place: str, names: dict[str, str]) -> Frame | LeftOut:
    """Return the frame if all its values are valid, else the reason to leave it out.

    Parameters
    ----------
    frame : Frame
    place : str
        File and position of the frame in it, for the message.
    names : dict of str to str
        Names in the file of 'numbers', 'positions', 'cell', 'energy', 'forces' and 'stress'.
    """
    atoms, index = frame.atoms, frame.index
    if len(atoms) == 0:
        return LeftOut(index, f"{place}: {names['numbers']} has no atoms.")
    outside = np.flatnonzero((atoms.numbers < 1) | (atoms.numbers >= len(chemical_symbols)))
    if len(outside):
        atom = int(outside[0])
        problem = f"is {atoms.numbers[atom]} for atom {atom}, which is not an atomic number"
        return LeftOut(index, f"{place}: {names['numbers']} {problem}.")
    for key, values in (
        ("positions", atoms.positions),
        ("cell", atoms.cell.array),
        ("energy", frame.energy),
        ("forces", frame.forces),
        ("stress", frame.stress),
    ):
        if values is None:
            continue
        if key == "forces" and np.shape(values) != (len(atoms), 3):
            problem = f"has shape {np.shape(values)} for {len(atoms)} atoms"
            return LeftOut(index, f"{place}: {names[key]} {problem}.")
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row = f" of atom {bad[0][0]}" if key in ("positions", "forces") else ""
            return LeftOut(index, f"{place}: {names[key]}{row} is not finite.")
    if atoms.pbc.any() and not atoms.cell.array[atoms.pbc].any(axis=1).all():
        return LeftOut(index, f"{place}: {names['cell']} is zero along a periodic axis.")
    if frame.energy is None and frame.forces is None:
        return LeftOut(index, f"{place}: has neither energy nor forces.", invalid=False)
    return frame
