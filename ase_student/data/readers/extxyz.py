"""Reader of extended XYZ files; it reads lazily.

The file is scanned once for the start of each frame; ASE parses a frame when it is read.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read
from numpy.typing import NDArray

from ase_student.data.readers.base import (
    SOURCE_KEYS,
    UNKNOWN_SOURCE,
    Frame,
    LeftOut,
    checked,
)
from ase_student.data.readers.label_keys import LabelKeys, choose_keys, labels_of
from ase_student.files import type_and_message

#: Names in the comment line of a frame, and names of its columns.
_NAME = re.compile(rb'(?:^|\s)"?([^\s="{}\[\]]+)"?\s*=')
_COLUMN = re.compile(rb"[:=\"]([^\s:=\"]+):[RILS]:\d+")
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

    Labels are from one family of keys, see :mod:`ase_student.data.readers.label_keys`; ``source``
    or ``config_type`` tells how a frame was sampled.

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
        If a frame does not begin with its number of atoms, is incomplete, or holds a zero byte.
    """

    def __init__(self, path: Path, keys: LabelKeys | None = None) -> None:
        self.path = path
        names: Counter[str] = Counter()
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
                for index in range(size + 1):
                    content = file.readline()
                    if b"\0" in content:
                        raise ValueError(
                            f"{path.name}: line {line + index + 1} holds a zero byte, which no "
                            "text has: the file is damaged, or of another format."
                        )
                    if index == 0:
                        names.update(_names(content))
                    if not content:
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
        self.keys = choose_keys(names, keys, path.name)

    def _size(self, text: bytes, index: int, line: int) -> int:
        try:
            # Some editors begin a file with a byte order mark.
            size = int(text.removeprefix(codecs.BOM_UTF8))
        except ValueError:
            size = -1
        if size < 0:
            shown = text.strip()[:40].decode("utf-8", "replace")
            raise ValueError(
                f"{self.path.name}: frame {index} (line {line}) must begin with its number of "
                f"atoms; it begins with '{shown}'."
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
        # ASE's parser raises exceptions of many types for invalid text.
        try:
            atoms: Any = read(StringIO(text.decode("utf-8-sig")), format="extxyz", index=0)
            labels = labels_of(atoms, self.keys)
        except Exception as error:
            reason = type_and_message(error)
            return LeftOut(index, f"{place} cannot be read ({reason}).")
        source = next((str(atoms.info[key]) for key in SOURCE_KEYS if key in atoms.info), "")
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        return checked(Frame(index, bare, **labels, source=source or UNKNOWN_SOURCE), place, NAMES)


def _names(comment: bytes) -> set[str]:
    """Return the names in the comment line of a frame, without the values."""
    outside = re.sub(rb'=\s*("[^"]*"|\{[^}]*\}|\[[^\]]*\])', b"= ", comment)
    names = {*_NAME.findall(outside), *_COLUMN.findall(comment)}
    return {name.decode("utf-8", "replace") for name in names}
