"""Reader of ASE databases; it reads lazily."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.db import connect
from numpy.typing import NDArray

from ase_student.data.readers.base import (
    SOURCE_KEYS,
    UNKNOWN_SOURCE,
    Frame,
    LeftOut,
    checked,
)
from ase_student.data.readers.label_keys import (
    WORDS,
    LabelKeys,
    choose_keys,
    label_of,
    names_in,
)
from ase_student.data.readers.units import unit_of
from ase_student.files import type_and_message

#: Number of rows whose names decide which labels are read.
ROWS_LOOKED_AT = 100
NAMES = {name: name for name in ("numbers", "positions", "cell", "energy", "forces", "stress")}


class DatabaseFrames:
    """An ASE database, SQLite (``.db``) or JSON.

    Labels are the results of a calculator in each row, or key-value pairs and data, of one family
    of keys (:mod:`ase_student.data.readers.label_keys`). Labels are converted from the units that
    the metadata give in SchNetPack's format. The key ``source`` or ``config_type`` tells how a row
    was sampled.

    Attributes
    ----------
    path : path
    sizes : (n,) int64
    metadata : dict
        Metadata of the database.
    keys : LabelKeys
        Names of the labels in the file, chosen from the first 100 rows.

    Raises
    ------
    ValueError
        If the file is not a database, has no rows, or has labels in unknown units.
    """

    def __init__(self, path: Path, keys: LabelKeys | None = None) -> None:
        self.path = path
        # ASE raises exceptions of many types for damaged databases.
        try:
            self._database = connect(path)
            rows = [(row.id, row.natoms) for row in self._database.select(include_data=False)]
            metadata = dict(self._database.metadata)
            names = names_in(_names(row) for row in self._database.select(limit=ROWS_LOOKED_AT))
        except Exception as error:
            reason = type_and_message(error)
            raise ValueError(
                f"{path.name}: is not an ASE database, or is damaged ({reason})."
            ) from None
        if not rows:
            raise ValueError(f"{path.name}: the database has no rows.")
        self._ids = [identity for identity, _ in rows]
        self.sizes: NDArray[np.int64] = np.array([size for _, size in rows], dtype=np.int64)
        self.metadata: dict[str, Any] = metadata
        self.keys = choose_keys(names, keys, path.name)
        self._units = {name: self._unit(name) for name in WORDS}

    def _unit(self, name: str) -> float:
        """Return the unit of a label, from SchNetPack's metadata, in ASE's units."""
        length = str(self.metadata.get("_distance_unit", "Ang"))
        units = self.metadata.get("_property_unit_dict") or {}
        unit = units.get(getattr(self.keys, name) or "")
        if unit is None or unit == "":
            return 1.0
        try:
            value = unit_of(str(unit))
        except ValueError:
            raise ValueError(
                f"{self.path.name}: '{getattr(self.keys, name)}' is in '{unit}', which is not "
                f"known; convert it to ASE's units: eV, eV/Å and eV/Å³."
            ) from None
        if length not in ("Ang", "Angstrom", "A", "Å"):
            raise ValueError(f"{self.path.name}: lengths are in '{length}'; convert them to Å.")
        return value

    @property
    def states_units(self) -> bool:
        """Whether the metadata give units, so that labels are converted."""
        return bool(self.metadata.get("_property_unit_dict"))

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
            labels = {name: self._label(row, name, atoms) for name in WORDS}
        except Exception as error:
            reason = type_and_message(error)
            return LeftOut(index, f"{place} cannot be read ({reason}).")
        atoms.calc = None
        # With constraints, ASE's methods would set labels of constrained atoms to zero.
        atoms.set_constraint()
        pairs = row.key_value_pairs
        source = next((str(pairs[key]) for key in SOURCE_KEYS if key in pairs), "")
        return checked(Frame(index, atoms, **labels, source=source or UNKNOWN_SOURCE), place, NAMES)

    def _label(self, row: Any, name: str, atoms: Atoms) -> Any:
        key = getattr(self.keys, name)
        if key is None:
            return None
        value = row.get(key)
        if value is None:
            value = row.data.get(key)
        label = label_of(name, value, self.keys, atoms=atoms)
        return None if label is None else label * self._units[name]


def _names(row: Any) -> set[str]:
    """Return the names of the results and data of a row."""
    results = {name for name in ("energy", "free_energy", "forces", "stress") if name in row}
    return {*results, *row.key_value_pairs, *row.data}
