"""Structures of an ASE database, read lazily."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.db import connect
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

NAMES = {name: name for name in ("numbers", "positions", "cell", "energy", "forces", "stress")}


class DatabaseFrames:
    """An ASE database, SQLite (``.db``) or JSON.

    Labels are what a calculator left in each row, or key-value pairs and data called
    ``REF_energy`` and so on; the key ``source`` or ``config_type`` says how a row was sampled.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
    metadata : dict
        That of the database.

    Raises
    ------
    ValueError
        If the file is no database, or has no rows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # ASE's databases answer a damaged file with errors of many kinds.
        try:
            self._database = connect(path)
            rows = [(row.id, row.natoms) for row in self._database.select(include_data=False)]
            metadata = dict(self._database.metadata)
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(f"{path.name}: is no ASE database, or damaged ({said}).") from None
        if not rows:
            raise ValueError(f"{path.name}: the database has no rows.")
        self._ids = [identity for identity, _ in rows]
        self.sizes: NDArray[np.int64] = np.array([size for _, size in rows], dtype=np.int64)
        self.metadata: dict[str, Any] = metadata

    def close(self) -> None:
        """Do nothing: ASE opens the database for each query."""

    def read(self, indices: Sequence[int]) -> list[Frame | LeftOut]:
        """Return the rows of ascending indices, each checked."""
        return [self._read_one(index) for index in indices]

    def _read_one(self, index: int) -> Frame | LeftOut:
        place = f"{self.path.name}: row {index} (id {self._ids[index]})"
        try:
            row = self._database.get(id=self._ids[index])
            atoms = row.toatoms()
            labels = {name: _label(row, name) for name in KEYS}
        except Exception as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())
            return LeftOut(index, f"{place} cannot be read ({said}).")
        atoms.calc = None
        pairs = row.key_value_pairs
        source = next((str(pairs[key]) for key in SOURCE_KEYS if key in pairs), "")
        return checked(Frame(index, atoms, **labels, source=source or UNKNOWN_SOURCE), place, NAMES)


def _label(row: Any, name: str) -> Any:
    for key in KEYS[name]:
        value = row.get(key)
        if value is None:
            value = row.data.get(key)
        if value is not None:
            return as_label(name, value)
    return None
