"""Which atoms are bonded or clash, and whether that has changed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_student.dynamics.langevin import Positions
from ase_student.neighbors import neighbor_matrix

# Distances of two atoms at which something is decided, from near to far, as multiples of the sum of
# their covalent radii (Cordero et al., Dalton Trans. 2008, 2832). They differ on purpose: what
# ends a trajectory needs more evidence than what leaves out a frame.

#: Closer atoms clash, bonded or not: such a structure is wrong.
CLASH = 0.6
#: Two atoms that were not bonded have formed a bond where they are closer than this: the distance
#: of the minimum, so that atoms that only share a proton have not.
FORMED = 1.0
#: Two atoms are bonded below this: the longest bonds reach 1.15, and hydrogen bonds begin at 1.5.
BONDED = 1.25
#: Two atoms that were farther apart than this were not bonded; between this and `BONDED` nothing
#: is said about new bonds.
UNBOUND = 1.45
#: A bond is broken beyond this where a student is judged, 2.3 Å for C-C and 1.45 Å for O-H: at
#: 600 K no vibration of a bond comes near, because it costs some 2 eV, 40 times the thermal energy.
BROKEN = 1.5
#: Where frames are sampled, a bond is lost only beyond this, 2.74 Å for C-C: stretched bonds belong
#: into training data.
APART = 1.8


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
            return _in_words(
                atoms, self.first[worst], self.second[worst], stretches[worst], "broke"
            )
        first, second, _, ratios = _close_pairs(atoms, FORMED)
        limits = np.where(self.is_bonded[first, second], CLASH, FORMED)
        wrong = np.flatnonzero(ratios < limits)
        if not len(wrong):
            return None
        worst = int(wrong[ratios[wrong].argmin()])
        what = "formed" if ratios[worst] >= CLASH else "collapsed"
        return _in_words(atoms, first[worst], second[worst], ratios[worst], what)


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


def _in_words(atoms: Atoms, i: int, j: int, ratio: float, what: str) -> str:
    i, j = min(i, j), max(i, j)
    symbols = atoms.symbols
    length = ratio * covalent_radii[atoms.numbers[[i, j]]].sum()
    return f"the bond {symbols[i]}{i}-{symbols[j]}{j} {what} ({length:.2f} Å)"


def clashes(
    numbers: NDArray[np.int64],
    positions: Positions,
    cell: Positions | None = None,
    pbc: NDArray[np.bool_] | None = None,
) -> bool:
    """Return whether any two atoms, or images, are closer than `CLASH` allows.

    Parameters
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    cell : (3, 3) float64, Å, optional
    pbc : (3,) bool, optional
    """
    radii = covalent_radii[numbers]
    if cell is None or pbc is None or not pbc.any():
        i, j = np.triu_indices(len(numbers), 1)
        distances = np.linalg.norm(positions[i] - positions[j], axis=1)
        return bool((distances < CLASH * (radii[i] + radii[j])).any())
    try:
        matrix = neighbor_matrix(positions, cell, pbc, 2 * CLASH * radii.max())
    except ValueError:
        # Two atoms on one spot.
        return True
    vectors = positions[matrix.neighbors] + matrix.offsets(cell) - positions[:, None]
    limits = CLASH * (radii[:, None] + radii[matrix.neighbors])
    return bool((np.linalg.norm(vectors, axis=-1) < limits).any())


def came_apart(numbers: NDArray[np.int64], before: Positions, after: Positions) -> bool:
    """Return whether any two atoms that were bound to each other no longer are."""
    i, j = np.triu_indices(len(numbers), 1)
    bond = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
    bound = np.linalg.norm(before[i] - before[j], axis=1) < BONDED * bond
    apart = np.linalg.norm(after[i] - after[j], axis=1) > APART * bond
    return bool((bound & apart).any())


def is_cluster(molecules: str, atoms: Atoms) -> bool:
    """Return whether a structure, by what it is made of, has parts that would fly apart."""
    # A crystal may have a dot in its name.
    return "." in molecules and not atoms.pbc.any()


def is_sane(before: Atoms, after: Atoms) -> bool:
    """Return whether a structure is still what it was: no clash, and in molecules no bond lost."""
    if not np.isfinite(after.positions).all():
        return False
    if clashes(after.numbers, after.positions, after.cell.array, after.pbc):
        return False
    # In a crystal, atoms may change places.
    is_molecular = not before.pbc.any()
    return not (is_molecular and came_apart(before.numbers, before.positions, after.positions))


def newly_bound(before: Atoms, after: Atoms) -> int:
    """Return how many atoms of a molecule are bound to others than before.

    Where a student finds a bond that nobody has shown to it, it has a hole. Zero in crystals.
    """
    if before.pbc.any():
        return 0
    radii = covalent_radii[before.numbers]
    bonds = radii[:, None] + radii
    np.fill_diagonal(bonds, 0.0)
    was_apart = before.get_all_distances() > UNBOUND * bonds
    is_bound = after.get_all_distances() < BONDED * bonds
    return int((was_apart & is_bound).any(axis=1).sum())
