"""Read and write labeled structures in one HDF5 file.

Structures and labels are concatenated columns; ``splits`` hold the start of each structure. Lengths
are in Å, energies in eV, forces in eV/Å, stresses in eV/Å³ (Voigt order, positive in tension).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.checks import ATOMIC_ENERGIES_TOLERANCE as ATOMIC_ENERGIES_TOLERANCE
from ase_student.data.checks import check
from ase_student.data.hdf5_layout import ATOMIC_PROPERTIES as ATOMIC_PROPERTIES
from ase_student.data.hdf5_layout import decoded_attribute, import_h5py, open_hdf5
from ase_student.data.structures import Labels, Structures
from ase_student.files import replaced_when_complete


def write_dataset(
    path: str | os.PathLike[str],
    structures: Structures,
    labels: Labels | None = None,
    *,
    metadata: Mapping[str, Any] | None = None,
    failures: Mapping[int, str] | None = None,
) -> None:
    """Write structures and their labels to one HDF5 file.

    The file is written under a temporary name, read back with every check of `Dataset`, and only
    then renamed.

    Parameters
    ----------
    path : path
        An existing file is replaced.
    structures : Structures
    labels : Labels, optional
    metadata : mapping, optional
        Written as attributes of ``/metadata``; lists and mappings as JSON, None is left out.
    failures : mapping of int to str, optional
        Why the teacher has no label for a structure.

    Raises
    ------
    ValueError
        If the written file fails a check.
    """
    h5py = import_h5py()
    path = Path(path)
    with replaced_when_complete(path) as temporary:
        with h5py.File(temporary, "w") as file:
            _write_structures(file.create_group("structures"), structures)
            if labels is not None:
                _write_labels(file.create_group("labels"), labels)
            if failures is not None:
                group = file.create_group("failures")
                group["structure_indices"] = np.array(list(failures), dtype=np.int64)
                _write_strings(group, "reasons", list(failures.values()))
            attributes = file.create_group("metadata").attrs
            for key, value in (metadata or {}).items():
                if value is None:
                    continue
                plain = isinstance(value, (str, bool, int, float))
                attributes[key] = value if plain else json.dumps(value)
        with Dataset(temporary, name=path.name):
            pass


def _write_structures(group: Any, structures: Structures) -> None:
    _write_column(group, "atomic_numbers", structures.numbers.astype(np.int64))
    _write_column(group, "atomic_numbers_splits", structures.splits.astype(np.int64))
    _write_column(group, "positions", structures.positions.astype(np.float64))
    _write_column(group, "cells", structures.cells.astype(np.float64))
    _write_column(group, "pbc", structures.pbc.astype(bool))
    for name in ("sources", "molecules"):
        values = getattr(structures, name)
        if values is not None:
            _write_strings(group, name, values)
    if structures.fragments is not None:
        _write_column(group, "fragments", structures.fragments.astype(np.int64))


def _write_labels(group: Any, labels: Labels) -> None:
    _write_column(group, "energy", labels.energies.astype(np.float64))
    _write_column(group, "forces", labels.forces.astype(np.float32))
    _write_column(group, "forces_splits", labels.splits.astype(np.int64))
    _write_column(group, "structure_indices", labels.structure_indices.astype(np.int64))
    if labels.atomic_energies is not None:
        _write_column(group, "atomic_energies", labels.atomic_energies.astype(np.float64))
    for name in ATOMIC_PROPERTIES:
        if (values := getattr(labels, name)) is not None:
            _write_column(group, name, values.astype(np.float32))
    if labels.stress is not None:
        _write_column(group, "stress", labels.stress.astype(np.float64))
        mask = np.ones(len(labels), bool) if labels.stress_mask is None else labels.stress_mask
        _write_column(group, "stress_mask", mask.astype(bool))


def _write_column(group: Any, name: str, data: NDArray[Any]) -> None:
    # The checksum detects damaged bytes; HDF5 has none for an empty dataset.
    options = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
    group.create_dataset(name, data=data, **(options if data.size else {}))


def _write_strings(group: Any, name: str, values: Sequence[str]) -> None:
    text = import_h5py().string_dtype("utf-8")
    group.create_dataset(name, data=np.array(values, dtype=object), dtype=text)


class Dataset:
    """A labeled data set, read lazily.

    Opening it checks the layout and every value once, in blocks; afterwards only requested data is
    read. Structures without labels are allowed: those of a file that is not labeled yet, and those
    for which the teacher failed.

    Parameters
    ----------
    path : path
    name : str, optional
        Name of the file in error messages.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is not HDF5 or is not consistent: the message names the file, the dataset and
        the index.
    """

    def __init__(self, path: str | os.PathLike[str], name: str | None = None) -> None:
        self.path = Path(path)
        self._file = open_hdf5(self.path, name or self.path.name)
        try:
            check(self._file, name or self.path.name)
        except BaseException:
            self._file.close()
            raise
        self._splits = self._file["structures/atomic_numbers_splits"][:]
        self._label_of: dict[int, int] = {}
        if "labels" in self._file:
            indices = self._file["labels/structure_indices"][:].tolist()
            self._label_of = {index: row for row, index in enumerate(indices)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __len__(self) -> int:
        """Return the number of structures, labeled or not."""
        return len(self._splits) - 1

    @property
    def n_labels(self) -> int:
        """Number of structures that have labels."""
        return len(self._label_of)

    @property
    def metadata(self) -> dict[str, Any]:
        """The attributes of ``/metadata``; those written as JSON are decoded."""
        if "metadata" not in self._file:
            return {}
        attributes = self._file["metadata"].attrs.items()
        return {key: decoded_attribute(value) for key, value in attributes}

    @property
    def failures(self) -> dict[int, str]:
        """Why the teacher has no label for a structure, by the structure's index."""
        if "failures" not in self._file:
            return {}
        group = self._file["failures"]
        reasons = group["reasons"].asstr()[:]
        return dict(zip(group["structure_indices"][:].tolist(), reasons.tolist(), strict=True))

    def atoms(self, index: int) -> Atoms:
        """Return structure `index` as ``ase.Atoms``."""
        index = range(len(self))[index]
        return self.read_structures(index, index + 1).atoms(0)

    def labels(self, index: int) -> dict[str, Any] | None:
        """Return energy, forces and, if present, stress and atomic energies of structure `index`.

        None if the teacher gave no label for it.
        """
        row = self._label_of.get(range(len(self))[index])
        if row is None:
            return None
        labels = self.read_labels(row, row + 1)
        result: dict[str, Any] = {"energy": float(labels.energies[0]), "forces": labels.forces}
        if (stress := labels.stress_of(0)) is not None:
            result["stress"] = stress
        if labels.atomic_energies is not None and labels.n_atomic_energies:
            result["energies"] = labels.atomic_energies
        return result

    def read_structures(self, start: int = 0, stop: int | None = None) -> Structures:
        """Return the columns of structures `start` up to `stop`, read at once."""
        start, stop, _ = slice(start, stop).indices(len(self))
        stop = max(start, stop)
        first, last = self._splits[start], self._splits[stop]
        group = self._file["structures"]
        return Structures(
            numbers=group["atomic_numbers"][first:last],
            splits=self._splits[start : stop + 1] - first,
            positions=group["positions"][first:last],
            cells=group["cells"][start:stop],
            pbc=group["pbc"][start:stop],
            sources=_strings(group, "sources", start, stop),
            molecules=_strings(group, "molecules", start, stop),
            fragments=group["fragments"][start:stop] if "fragments" in group else None,
        )

    def read_labels(self, start: int = 0, stop: int | None = None) -> Labels:
        """Return the columns of labels `start` up to `stop`, read at once.

        Their ``structure_indices`` count from the beginning of the file.
        """
        start, stop, _ = slice(start, stop).indices(self.n_labels)
        stop = max(start, stop)
        if "labels" not in self._file:
            no_rows, no_splits = np.zeros(0, np.int64), np.zeros(1, np.int64)
            return Labels(no_rows, no_rows.astype(float), no_splits, np.zeros((0, 3), np.float32))
        group = self._file["labels"]
        splits = group["forces_splits"][start : stop + 1]
        atoms = slice(splits[0], splits[-1])
        return Labels(
            structure_indices=group["structure_indices"][start:stop],
            energies=group["energy"][start:stop],
            splits=splits - splits[0],
            forces=group["forces"][atoms],
            stress=group["stress"][start:stop] if "stress" in group else None,
            stress_mask=group["stress_mask"][start:stop] if "stress_mask" in group else None,
            **{
                name: group[name][atoms] if name in group else None
                for name in ("atomic_energies", *ATOMIC_PROPERTIES)
            },
        )


def _strings(group: Any, name: str, start: int, stop: int) -> tuple[str, ...] | None:
    return tuple(group[name].asstr()[start:stop].tolist()) if name in group else None
