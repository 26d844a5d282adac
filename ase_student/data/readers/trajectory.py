"""Reader of ASE trajectories; it reads lazily."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io.trajectory import TrajectoryReader
from numpy.typing import NDArray

from ase_student.data.readers.ase_db import NAMES
from ase_student.data.readers.base import SOURCE_KEYS, UNKNOWN_SOURCE, Frame, LeftOut, checked
from ase_student.data.readers.label_keys import LabelKeys, choose_keys, labels_of, names_in
from ase_student.files import type_and_message


class TrajectoryFrames:
    """An ASE trajectory, ``.traj``.

    Labels are the results of a calculator in each frame, of one family of keys
    (:mod:`ase_student.data.readers.label_keys`).

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
        If the file is not a trajectory, is damaged or has no frames.
    """

    def __init__(self, path: Path, keys: LabelKeys | None = None) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        # ASE raises exceptions of many types for damaged files.
        try:
            self._file = TrajectoryReader(str(path))
            sizes, names = [], []
            for index in range(len(self._file)):
                atoms = self._file[index]
                sizes.append(len(atoms))
                names.append(_names(atoms))
        except Exception as error:
            reason = type_and_message(error)
            raise ValueError(
                f"{path.name}: is not an ASE trajectory, or is damaged ({reason})."
            ) from None
        if not sizes:
            raise ValueError(f"{path.name}: holds no frames.")
        self.sizes: NDArray[np.int64] = np.array(sizes, dtype=np.int64)
        self.keys = choose_keys(names_in(names), keys, path.name)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the frames of ascending indices, each checked."""
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> Frame | LeftOut:
        place = f"{self.path.name}: frame {index}"
        try:
            atoms = self._file[index]
            labels = labels_of(atoms, self.keys)
        except Exception as error:
            reason = type_and_message(error)
            return LeftOut(index, f"{place} cannot be read ({reason}).")
        source = next((str(atoms.info[key]) for key in SOURCE_KEYS if key in atoms.info), "")
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        return checked(Frame(index, bare, **labels, source=source or UNKNOWN_SOURCE), place, NAMES)


def _names(atoms: Atoms) -> set[str]:
    """Return the names of the results, information and arrays of a frame."""
    results = set() if atoms.calc is None else set(atoms.calc.results)
    return {*results, *atoms.info, *atoms.arrays}
