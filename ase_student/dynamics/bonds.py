"""Bonds and clashes of atoms, and changes of bonds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_student.dynamics.langevin import Positions
from ase_student.neighbors import neighbor_matrix

# Thresholds of the distance of two atoms, from short to long, as multiples of the sum of their
# covalent radii (Cordero et al., Dalton Trans. 2008, 2832). They differ on purpose: to end a
# trajectory needs clearer evidence than to leave out a frame.

#: Closer atoms clash, bonded or not: such a structure is unphysical.
CLASH = 0.6
#: Two atoms that were not bonded have formed a bond if they are closer than this. It is the
#: distance of the energy minimum, so that atoms that only share a proton do not count.
FORMED = 1.0
#: Two atoms are bonded below this: the longest bonds reach 1.15, the shortest hydrogen bonds 1.5.
BONDED = 1.25
#: Two atoms that were farther apart than this were not bonded. Between `BONDED` and this the state
#: is undecided, and a later bond does not count as new.
UNBOUND = 1.45
#: In tests of a student, a bond is broken beyond this, 2.3 Å for C-C and 1.45 Å for O-H. At 600 K
#: no bond vibration reaches it, because it costs about 2 eV, 40 times the thermal energy.
BROKEN = 1.5
#: In sampling, a bond is lost only beyond this, 2.74 Å for C-C: stretched bonds should be in the
#: training data.
LOST = 1.8


@dataclass(frozen=True, eq=False)
class Topology:
    """The bonds of a structure, to find later changes and clashes.

    Attributes
    ----------
    first, second : (n_bonds,) int64
        Atoms of each bond, in both directions.
    offsets : (n_bonds, 3) float64, Å
        Lattice translation of the second atom's image. In dynamics positions are not wrapped, so
        that it stays the same for each bond.
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
        """Return a description of a broken, formed or collapsed bond; None if there is none.

        Parameters
        ----------
        atoms : Atoms
            The structure at a later time, with atoms not wrapped into the cell.
        """
        stretches = self.stretches(atoms)
        if len(stretches) and stretches.max() > BROKEN:
            worst = int(stretches.argmax())
            return _in_words(
                atoms, self.first[worst], self.second[worst], stretches[worst], "broke"
            )
        first, second, _, ratios = _close_pairs(atoms, FORMED)
        limits = np.where(self.is_bonded[first, second], CLASH, FORMED)
        changed = np.flatnonzero(ratios < limits)
        if not len(changed):
            return None
        worst = int(changed[ratios[changed].argmin()])
        verb = "formed" if ratios[worst] >= CLASH else "collapsed"
        return _in_words(atoms, first[worst], second[worst], ratios[worst], verb)


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


def _in_words(atoms: Atoms, i: int, j: int, ratio: float, verb: str) -> str:
    i, j = min(i, j), max(i, j)
    symbols = atoms.symbols
    length = ratio * covalent_radii[atoms.numbers[[i, j]]].sum()
    return f"the bond {symbols[i]}{i}-{symbols[j]}{j} {verb} ({length:.2f} Å)"


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
        # Two atoms are at the same position.
        return True
    vectors = positions[matrix.neighbors] + matrix.offsets(cell) - positions[:, None]
    limits = CLASH * (radii[:, None] + radii[matrix.neighbors])
    return bool((np.linalg.norm(vectors, axis=-1) < limits).any())


def came_apart(numbers: NDArray[np.int64], original: Positions, current: Positions) -> bool:
    """Return whether a bond was lost between two sets of positions of the same atoms."""
    i, j = np.triu_indices(len(numbers), 1)
    bond = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
    bound = np.linalg.norm(original[i] - original[j], axis=1) < BONDED * bond
    is_lost = np.linalg.norm(current[i] - current[j], axis=1) > LOST * bond
    return bool((bound & is_lost).any())


def is_cluster(molecules: str, atoms: Atoms) -> bool:
    """Return whether a structure consists of several molecules that would drift apart."""
    # A crystal may have a dot in its name.
    return "." in molecules and not atoms.pbc.any()


def is_physical(original: Atoms, current: Atoms) -> bool:
    """Return whether a structure is physical: finite, no clash, and in molecules no lost bond."""
    if not np.isfinite(current.positions).all():
        return False
    if clashes(current.numbers, current.positions, current.cell.array, current.pbc):
        return False
    # In a crystal, atoms may change places.
    is_molecular = not original.pbc.any()
    return not (
        is_molecular and came_apart(original.numbers, original.positions, current.positions)
    )


def newly_bound(original: Atoms, current: Atoms) -> int:
    """Return the number of atoms of a molecule with new bonds; zero for crystals.

    A new bond in a student's dynamics shows that its energy is wrong there.
    """
    if original.pbc.any():
        return 0
    radii = covalent_radii[original.numbers]
    bonds = radii[:, None] + radii
    np.fill_diagonal(bonds, 0.0)
    was_apart = original.get_all_distances() > UNBOUND * bonds
    is_bound = current.get_all_distances() < BONDED * bonds
    return int((was_apart & is_bound).any(axis=1).sum())
