"""Which atoms are bonded, and whether that has changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_student.neighbors import neighbor_matrix

#: Distances as multiples of the sum of two covalent radii (Cordero et al., Dalton Trans. 2008,
#: 2832). At the start, two atoms are bonded below the first: the longest bonds reach 1.15, and
#: hydrogen bonds begin at 1.5.
BONDED = 1.25
#: Later a bond is broken beyond this, 2.3 Å for C-C and 1.45 Å for O-H: at 600 K no vibration of a
#: bond comes near, because it costs some 2 eV, 40 times the thermal energy.
BROKEN = 1.5
#: Two atoms that were not bonded have formed a bond where they are closer than this: the distance
#: of the minimum, so that atoms that only share a proton have not.
FORMED = 1.0
#: Bonded or not, atoms are not closer than this.
FUSED = 0.6


@dataclass(frozen=True, eq=False)
class Topology:
    """The bonds of a structure, and where its atoms must not come.

    Attributes
    ----------
    first, second : (n_bonds,) int64
        Atoms of each bond, in both directions.
    offsets : (n_bonds, 3) float64, Å
        Lattice translation of the second atom's image. Positions of dynamics are not wrapped, so
        a bond keeps it.
    is_bonded : (n_atoms, n_atoms) bool
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    offsets: NDArray[np.float64]
    is_bonded: NDArray[np.bool_]

    @classmethod
    def of(cls, atoms: Atoms) -> Topology:
        """Return the bonds of a structure."""
        first, second, offsets, ratios = _close_pairs(atoms, BONDED)
        chosen = ratios < BONDED
        is_bonded = np.zeros((len(atoms), len(atoms)), dtype=bool)
        is_bonded[first[chosen], second[chosen]] = True
        return cls(first[chosen], second[chosen], offsets[chosen], is_bonded)

    def stretches(self, atoms: Atoms) -> NDArray[np.float64]:
        """Return the length of each bond, as a multiple of the sum of covalent radii."""
        vectors = atoms.positions[self.second] - atoms.positions[self.first] + self.offsets
        radii = covalent_radii[atoms.numbers]
        return np.linalg.norm(vectors, axis=1) / (radii[self.first] + radii[self.second])

    def change(self, atoms: Atoms) -> str | None:
        """Return what has become of the bonds in words, None if nothing.

        Parameters
        ----------
        atoms : Atoms
            The structure later, its atoms not wrapped into the cell since.
        """
        stretches = self.stretches(atoms)
        if len(stretches) and stretches.max() > BROKEN:
            worst = int(stretches.argmax())
            return _said(atoms, self.first[worst], self.second[worst], stretches[worst], "broke")
        first, second, _, ratios = _close_pairs(atoms, FORMED)
        limits = np.where(self.is_bonded[first, second], FUSED, FORMED)
        wrong = np.flatnonzero(ratios < limits)
        if not len(wrong):
            return None
        worst = int(wrong[ratios[wrong].argmin()])
        what = "formed" if ratios[worst] >= FUSED else "collapsed"
        return _said(atoms, first[worst], second[worst], ratios[worst], what)


def _close_pairs(
    atoms: Atoms, factor: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Return first and second atom, offset and relative distance of all pairs that may be bonded.

    Distances are relative to the sum of covalent radii, offsets in Å.
    """
    radii = covalent_radii[atoms.numbers]
    cell = atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, 2.0 * factor * radii.max())
    first, column = np.nonzero(~matrix.is_padding)
    second = matrix.neighbors[first, column]
    offsets = matrix.offsets(cell)[first, column]
    vectors = atoms.positions[second] - atoms.positions[first] + offsets
    distances = np.linalg.norm(vectors, axis=1)
    return first, second, offsets, distances / (radii[first] + radii[second])


def _said(atoms: Atoms, i: int, j: int, ratio: float, what: str) -> str:
    i, j = min(i, j), max(i, j)
    symbols = atoms.symbols
    length = ratio * covalent_radii[atoms.numbers[[i, j]]].sum()
    return f"the bond {symbols[i]}{i}-{symbols[j]}{j} {what} ({length:.2f} Å)"
