"""Structures and their labels as concatenated columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.hdf5_layout import ATOMIC_PROPERTIES


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
        Rows are lattice vectors; zero if a structure has none.
    pbc : (n, 3) bool
    sources, molecules : tuple of str, or None
        How each structure was sampled, and the canonical SMILES of its molecules, joined by '.'.
    fragments : (n, 2) int64, or None
        Which structures are complexes and which are their fragments: the number of the group, and
        the number of the fragment in the group, from 0, or -1 for a complex. The atoms of a complex
        are those of all fragments, in their order and geometries. Several complexes may share
        fragments, as in a scan of the distance. (-1, -1) for structures without a group.
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
        *,
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
        """Whether each structure has three periodic axes, and so a stress, (n,) bool."""
        return self.pbc.all(axis=1) & (np.linalg.matrix_rank(self.cells) == 3)

    def atoms(self, index: int) -> Atoms:
        """Return one structure as ``ase.Atoms``."""
        atoms = slice(*self.splits[index : index + 2])
        return Atoms(
            self.numbers[atoms], self.positions[atoms], cell=self.cells[index], pbc=self.pbc[index]
        )

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Structures:
        """Return the structures with the given indices, in that order."""
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
    """Labels of structures from a teacher, as concatenated columns.

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
        Which rows of ``stress`` are valid.
    atomic_energies : (n_atoms,) float64, eV, or None
        Contributions of the atoms to the energy, in the rows of the forces; NaN for all atoms of a
        structure for which the teacher gave none.
    charges, hirshfeld_ratios : (n_atoms,) float32, or None
        Partial charges, e, and ratios of the atoms' volumes to those of free atoms; rows and NaN as
        in `atomic_energies`.
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
        """Return the labels in the given rows, in that order; structure indices are unchanged."""
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
    """Return the rows of the given entries of a concatenated column, and their splits."""
    sizes = splits[indices + 1] - splits[indices]
    new_splits = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = np.arange(new_splits[-1]) + np.repeat(splits[indices] - new_splits[:-1], sizes)
    return rows, new_splits
