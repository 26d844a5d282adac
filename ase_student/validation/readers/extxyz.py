"""Structures of an extended XYZ file, read lazily.

The file is scanned once for where each frame begins; a frame is parsed, by ASE, when it is asked
for.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from ase_student.validation.readers.base import (
    KEYS,
    SOURCE_KEYS,
    UNKNOWN_SOURCE,
    Frame,
    LeftOut,
    as_label,
    checked,
)

NAMES = {
    "numbers": "species",
    "positions": "pos",
    "cell": "Lattice",
    "energy": "energy",
    "forces": "forces",
    "stress": "stress",
}


class ExtxyzFrames:
    """An extended XYZ file.

    Labels are what ASE calls energy, forces and stress, or ``REF_energy`` and so on; ``source`` or
    ``config_type`` says how a frame was sampled.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
    metadata : dict
        Empty.

    Raises
    ------
    ValueError
        If a frame does not begin with its number of atoms, or is cut short.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.metadata: dict[str, Any] = {}
        sizes: list[int] = []
        starts: list[int] = []
        lines: list[int] = []
        line = 1
        with path.open("rb") as file:
            while text := file.readline():
                if not text.strip():
                    line += 1
                    continue
                lines.append(line)
                starts.append(file.tell() - len(text))
                size = self._size(text, len(sizes), line)
                for _ in range(size + 1):
                    if not file.readline():
                        raise ValueError(
                            f"{path.name}: frame {len(sizes)} (line {line}) has {size} atoms, "
                            "but the file ends within it."
                        )
                sizes.append(size)
                line += size + 2
            starts.append(file.tell())
        if not sizes:
            raise ValueError(f"{path.name}: holds no frames.")
        self.sizes: NDArray[np.int64] = np.array(sizes, dtype=np.int64)
        self._starts, self._lines = starts, lines

    def _size(self, text: bytes, index: int, line: int) -> int:
        try:
            size = int(text)
        except ValueError:
            size = -1
        if size < 0:
            given = text.strip()[:40].decode("utf-8", "replace")
            raise ValueError(
                f"{self.path.name}: frame {index} (line {line}) must begin with its number of "
                f"atoms; it begins with '{given}'."
            )
        return size

    def close(self) -> None:
        """Do nothing: the file is only open while it is read."""

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the frames of ascending indices, each checked."""
        with self.path.open("rb") as file:
            return [self._read_one(file, index) for index in indices]

    def _read_one(self, file: Any, index: int) -> Frame | LeftOut:
        place = f"{self.path.name}: frame {index} (line {self._lines[index]})"
        if self.sizes[index] == 0:
            return LeftOut(index, f"{place} has no atoms.")
        file.seek(self._starts[index])
        text = file.read(self._starts[index + 1] - self._starts[index])
        # ASE's parser answers what it cannot read with errors of many kinds.
        try:
            atoms: Any = read(StringIO(text.decode("utf-8")), format="extxyz", index=0)
            labels = {name: _label(atoms, name) for name in KEYS}
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            return LeftOut(index, f"{place} cannot be read ({said}).")
        source = next((str(atoms.info[key]) for key in SOURCE_KEYS if key in atoms.info), "")
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        return checked(Frame(index, bare, **labels, source=source or UNKNOWN_SOURCE), place, NAMES)


def _label(atoms: Atoms, name: str) -> Any:
    """Return a label of a frame under any of its names, None if there is none."""
    results = atoms.calc.results if atoms.calc is not None else {}
    for key in KEYS[name]:
        for place in (results, atoms.info, atoms.arrays):
            if key in place:
                return as_label(name, place[key])
    return None
