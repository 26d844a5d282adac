"""Read and write labelled structures in one HDF5 file.

Structures and labels are concatenated columns; ``splits`` say where each structure begins. Lengths
are in Å, energies in eV, forces in eV/Å, stresses in eV/Å³ (Voigt order, positive in tension).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.dataset_checks import ATOMIC_ENERGIES_TOLERANCE as ATOMIC_ENERGIES_TOLERANCE
from ase_student.dataset_checks import ATOMIC_PROPERTIES as ATOMIC_PROPERTIES
from ase_student.dataset_checks import check, import_h5py, open_hdf5
from ase_student.files import replaced_when_complete


@dataclass(frozen=True)
class Structures:
    """Structures as concatenated columns.

    Attributes
    ----------
    numbers : (n_atoms,) int64
    splits : (n + 1,) int64
        Structure i owns the atoms from ``splits[i]`` up to ``splits[i + 1]``.
    positions : (n_atoms, 3) float64, Å
    cells : (n, 3, 3) float64, Å
        Rows are lattice vectors; zero where a structure has none.
    pbc : (n, 3) bool
    sources, molecules : tuple of str, or None
        How each structure was sampled, and the canonical SMILES it is made of.
    fragments : (n, 2) int64, or None
        Which structures are complexes and which are their fragments: the number of a group, and
        which fragment of the group a structure is, from 0. A complex of the group has -1 there; its
        atoms are those of all fragments, in their order and geometries. Fragments may be shared by
        several complexes, as in a scan of the distance. (-1, -1) for structures of no group.
    """

    numbers: NDArray[np.int64]
    splits: NDArray[np.int64]
    positions: NDArray[np.float64]
    cells: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    sources: tuple[str, ...] | None = None
    molecules: tuple[str, ...] | None = None
    fragments: NDArray[np.int64] | None = None

    @classmethod
    def from_atoms(
        cls,
        structures: Sequence[Atoms],
        sources: Sequence[str] | None = None,
        molecules: Sequence[str] | None = None,
        fragments: Sequence[tuple[int, int]] | None = None,
    ) -> Structures:
        """Return the columns of a list of ``ase.Atoms``."""
        sizes = [len(atoms) for atoms in structures]
        empty: list[NDArray[Any]] = [np.zeros((0, 3))]
        return cls(
            numbers=np.concatenate([np.zeros(0, int), *(atoms.numbers for atoms in structures)]),
            splits=np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]),
            positions=np.concatenate(empty + [atoms.positions for atoms in structures]),
            cells=np.array([atoms.cell.array for atoms in structures]).reshape(-1, 3, 3),
            pbc=np.array([atoms.pbc for atoms in structures], dtype=bool).reshape(-1, 3),
            sources=None if sources is None else tuple(sources),
            molecules=None if molecules is None else tuple(molecules),
            fragments=None
            if fragments is None
            else np.array(fragments, dtype=np.int64).reshape(-1, 2),
        )

    def __len__(self) -> int:
        return len(self.splits) - 1

    @property
    def are_crystals(self) -> NDArray[np.bool_]:
        """Which structures are periodic along three axes, so that they have a stress, (n,) bool."""
        return self.pbc.all(axis=1) & (np.linalg.matrix_rank(self.cells) == 3)

    def atoms(self, index: int) -> Atoms:
        """Return one structure as ``ase.Atoms``."""
        atoms = slice(*self.splits[index : index + 2])
        return Atoms(
            self.numbers[atoms], self.positions[atoms], cell=self.cells[index], pbc=self.pbc[index]
        )

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Structures:
        """Return the structures of these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        rows, splits = _rows_of(self.splits, chosen)
        return Structures(
            numbers=self.numbers[rows],
            splits=splits,
            positions=self.positions[rows],
            cells=self.cells[chosen],
            pbc=self.pbc[chosen],
            sources=None if self.sources is None else tuple(self.sources[i] for i in chosen),
            molecules=None if self.molecules is None else tuple(self.molecules[i] for i in chosen),
            fragments=None if self.fragments is None else self.fragments[chosen],
        )


@dataclass(frozen=True)
class Labels:
    """What a teacher says about structures, as concatenated columns.

    Attributes
    ----------
    structure_indices : (n,) int64
        The structure that each label belongs to.
    energies : (n,) float64, eV
        One total energy per structure.
    splits : (n + 1,) int64
        Label i owns the forces from ``splits[i]`` up to ``splits[i + 1]``.
    forces : (n_atoms, 3) float32, eV/Å
    stress : (n, 6) float64, eV/Å³, or None
        Voigt order xx, yy, zz, yz, xz, xy; positive in tension.
    stress_mask : (n,) bool, or None
        Which rows of ``stress`` are real.
    atomic_energies : (n_atoms,) float64, eV, or None
        Parts of the energy that belong to the atoms, rows as those of the forces; NaN for all
        atoms of a structure where the teacher gave none.
    charges, hirshfeld_ratios : (n_atoms,) float32, or None
        Partial charges, e, and ratios of the atoms' volumes to those of free atoms; rows and NaN as
        with the energies of atoms.
    """

    structure_indices: NDArray[np.int64]
    energies: NDArray[np.float64]
    splits: NDArray[np.int64]
    forces: NDArray[np.float32]
    stress: NDArray[np.float64] | None = None
    stress_mask: NDArray[np.bool_] | None = None
    atomic_energies: NDArray[np.float64] | None = None
    charges: NDArray[np.float32] | None = None
    hirshfeld_ratios: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.structure_indices)

    def stress_of(self, row: int) -> NDArray[np.float64] | None:
        """Return the stress of a label, (6,), eV/Å³, or None if it has none."""
        if self.stress is None or (self.stress_mask is not None and not self.stress_mask[row]):
            return None
        return np.asarray(self.stress[row])

    @property
    def n_atomic_energies(self) -> int:
        """Number of labels that have atomic energies."""
        if self.atomic_energies is None:
            return 0
        return int(np.isfinite(self.atomic_energies[self.splits[:-1]]).sum())

    def take(self, rows: Sequence[int] | NDArray[np.integer]) -> Labels:
        """Return the labels of these rows, in this order, for the structures they were for."""
        chosen = np.asarray(rows, dtype=np.int64)
        atoms, splits = _rows_of(self.splits, chosen)
        return Labels(
            structure_indices=self.structure_indices[chosen],
            energies=self.energies[chosen],
            splits=splits,
            forces=self.forces[atoms],
            stress=None if self.stress is None else self.stress[chosen],
            stress_mask=None if self.stress_mask is None else self.stress_mask[chosen],
            **{
                name: None if column is None else column[atoms] for name, column in self._of_atoms()
            },
        )

    def _of_atoms(self) -> list[tuple[str, NDArray[Any] | None]]:
        """Return the optional columns with one number for each atom."""
        return [(name, getattr(self, name)) for name in ("atomic_energies", *ATOMIC_PROPERTIES)]


def _rows_of(
    splits: NDArray[np.int64], indices: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows that belong to some entries of a concatenated column, and their splits."""
    sizes = splits[indices + 1] - splits[indices]
    new_splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = np.arange(new_splits[-1]) + np.repeat(splits[indices] - new_splits[:-1], sizes)
    return rows, new_splits


def write_dataset(
    path: str | os.PathLike[str],
    structures: Structures,
    labels: Labels | None = None,
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
        Becomes attributes of ``/metadata``; lists and mappings are written as JSON, None is not
        written.
    failures : mapping of int to str, optional
        Why the teacher has no label for a structure.

    Raises
    ------
    ValueError
        If what was given could not be read back.
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
    # The checksum tells damaged bytes from real ones; HDF5 has none for an empty dataset.
    options = {"compression": "gzip", "compression_opts": 1, "shuffle": True, "fletcher32": True}
    group.create_dataset(name, data=data, **(options if data.size else {}))


def _write_strings(group: Any, name: str, values: Sequence[str]) -> None:
    text = import_h5py().string_dtype("utf-8")
    group.create_dataset(name, data=np.array(values, dtype=object), dtype=text)


class Dataset:
    """A labelled data set, read lazily.

    Opening it checks the layout and every value once, in blocks; afterwards only what is asked for
    is read. Structures without labels (a file fresh from sampling, or the teacher's failures) are
    allowed.

    Parameters
    ----------
    path : path
    name : str, optional
        What error messages call the file.

    Raises
    ------
    FileNotFoundError
    ValueError
        If the file is not HDF5 or does not hold together: the message names the file, the dataset
        and the index.
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
        """Return the number of structures, labelled or not."""
        return len(self._splits) - 1

    @property
    def n_labels(self) -> int:
        """Number of structures that have labels."""
        return len(self._label_of)

    @property
    def metadata(self) -> dict[str, Any]:
        """The attributes of ``/metadata``, those written as JSON decoded."""
        if "metadata" not in self._file:
            return {}
        return {key: _decoded(value) for key, value in self._file["metadata"].attrs.items()}

    @property
    def failures(self) -> dict[int, str]:
        """Why the teacher has no label, by structure."""
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
        """Return energy, forces and, if there are any, stress and energies of structure `index`.

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
            none, one = np.zeros(0, np.int64), np.zeros(1, np.int64)
            return Labels(none, none.astype(float), one, np.zeros((0, 3), np.float32))
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


def _decoded(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _strings(group: Any, name: str, start: int, stop: int) -> tuple[str, ...] | None:
    return tuple(group[name].asstr()[start:stop].tolist()) if name in group else None
