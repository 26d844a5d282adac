"""Reader of NumPy archives in the layout of rMD17: one molecule, many geometries.

The layout is that of the revised MD17 data set: A. S. Christensen and O. A. von Lilienfeld, Mach.
Learn.: Sci. Technol. 1 (2020) 045018. Its energies are in kcal/mol and its lengths in Å.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.readers.base import Frame, LeftOut, checked
from ase_student.data.readers.label_keys import LabelKeys
from ase_student.files import type_and_message

#: Names of arrays.
NUMBERS, POSITIONS, ENERGIES, FORCES = "nuclear_charges", "coords", "energies", "forces"
NAMES = {
    "numbers": NUMBERS, "positions": POSITIONS, "cell": "cell", "energy": ENERGIES,
    "forces": FORCES, "stress": "stress",
}  # fmt: skip
#: Largest allowed size of an unpacked archive, bytes.
LARGEST_CONTENT = 8 * 2**30
_LOOKS_LIKE_LABELS = re.compile("energ|force|stress|virial", re.IGNORECASE)


class NpzFrames:
    """A NumPy archive with the arrays of rMD17.

    ``nuclear_charges`` (n_atoms,), ``coords`` (n, n_atoms, 3), ``energies`` (n,) and ``forces``
    (n, n_atoms, 3). Numbers are returned in the units of the file.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
    metadata : dict
        Empty.
    keys : LabelKeys
        Names of the labels in the file.

    Raises
    ------
    ValueError
        If an array is missing, has another shape, or cannot be read.
    """

    def __init__(self, path: Path, keys: LabelKeys | None = None) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        label_keys = keys or LabelKeys(energy=ENERGIES, forces=FORCES)
        if label_keys.stress is not None:
            raise ValueError(f"{path.name}: the layout of rMD17 has no cells, so no stress.")
        # NumPy raises exceptions of many types for damaged archives.
        try:
            with np.load(path, allow_pickle=False) as archive:
                names = list(archive.files)
                size = sum(member.file_size for member in archive.zip.infolist())
                arrays: dict[str, NDArray[Any]] = {}
                if size <= LARGEST_CONTENT:
                    needed = {NUMBERS, POSITIONS, label_keys.energy, label_keys.forces}
                    arrays = {name: archive[name] for name in names if name in needed}
        except Exception as error:
            reason = type_and_message(error)
            raise ValueError(
                f"{path.name}: is not a NumPy archive, or is damaged ({reason})."
            ) from None
        if size > LARGEST_CONTENT:
            raise ValueError(
                f"{path.name}: unpacks to {size:,} bytes; allowed are {LARGEST_CONTENT:,}. "
                "Split it into several files."
            )
        self._check(arrays, names, label_keys)
        unused = [
            name
            for name in names
            if name not in (label_keys.energy, label_keys.forces)
            and _LOOKS_LIKE_LABELS.search(name)
        ]
        self.keys = LabelKeys(label_keys.energy, label_keys.forces, unused=tuple(sorted(unused)))
        self._arrays = arrays
        n, n_atoms = arrays[POSITIONS].shape[:2]
        self.sizes: NDArray[np.int64] = np.full(n, n_atoms, dtype=np.int64)

    def _check(self, arrays: dict[str, NDArray[Any]], names: list[str], keys: LabelKeys) -> None:
        """Raise ValueError unless all arrays are present and have consistent shapes."""
        labels = [name for name in (keys.energy, keys.forces) if name is not None]
        for name in (NUMBERS, POSITIONS, *labels):
            if name not in arrays:
                present = ", ".join(f"'{key}'" for key in sorted(names)) or "none"
                raise ValueError(
                    f"{self.path.name}: has no array '{name}'; the layout of rMD17 has "
                    f"'{NUMBERS}', '{POSITIONS}', '{ENERGIES}' and '{FORCES}'. There are: "
                    f"{present}."
                )
            if arrays[name].dtype.kind not in ("iu" if name == NUMBERS else "fiu"):
                raise ValueError(f"{self.path.name}: '{name}' has type {arrays[name].dtype}.")
        n, n_atoms = (*arrays[POSITIONS].shape, 0, 0)[:2]
        shapes: dict[str, list[tuple[int, ...]]] = {
            NUMBERS: [(n_atoms,)],
            POSITIONS: [(n, n_atoms, 3)],
        }
        if keys.energy:
            shapes[keys.energy] = [(n,), (n, 1)]
        if keys.forces:
            shapes[keys.forces] = [(n, n_atoms, 3)]
        for name, allowed in shapes.items():
            if arrays[name].shape not in allowed:
                raise ValueError(
                    f"{self.path.name}: '{name}' has shape {arrays[name].shape}; it must be "
                    f"{allowed[0]}, as '{POSITIONS}' has {arrays[POSITIONS].shape}."
                )
        if not n:
            raise ValueError(f"{self.path.name}: holds no structures.")

    def close(self) -> None:
        """Do nothing: everything is in memory."""

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the structures of ascending indices, each checked."""
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> Frame | LeftOut:
        atoms = Atoms()
        # Atoms(numbers) would fail for invalid atomic numbers.
        atoms.arrays["numbers"] = self._arrays[NUMBERS].astype(int)
        atoms.arrays["positions"] = self._arrays[POSITIONS][index].astype(np.float64)
        energy = forces = None
        if self.keys.energy is not None:
            energy = float(self._arrays[self.keys.energy][index].reshape(()))
        if self.keys.forces is not None:
            forces = self._arrays[self.keys.forces][index].astype(np.float64)
        place = f"{self.path.name}: structure {index}"
        return checked(Frame(index, atoms, energy, forces, None), place, NAMES)
