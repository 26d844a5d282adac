"""How doubtful a student's forces are on a structure, and which structures to ask a teacher for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.calculator import StudentCalculator
from ase_student.extrapolation.limits import Limits
from ase_student.neighbors import neighbor_matrix
from ase_student.potentials.base import StudentPotential, forces_of

#: Root mean square difference of interatomic distances, Å, below which two frames teach the same.
ALIKE = 0.05
#: Doubtful frames that are taken of one trajectory before others get their turn.
MOST_OF_ONE = 4


@dataclass(frozen=True)
class Uncertainties:
    """What is held against the forces on some structures.

    Attributes
    ----------
    outside : (n,) int64
        Atoms that lie outside of what training saw: too close to another one, with too many or too
        few neighbors, or with too large a force.
    values : (n,) float64
        Larger is more doubtful. Of several students, the spread of their forces in eV/Å; of one,
        the largest force as a fraction of the largest that training saw on that element.
    """

    outside: NDArray[np.int64]
    values: NDArray[np.float64]

    def order(self) -> NDArray[np.int64]:
        """Return indices, the most doubtful first: those outside, then by value."""
        return np.lexsort((-self.values, self.outside == 0))

    @classmethod
    def joined(cls, parts: Sequence[Uncertainties]) -> Uncertainties:
        """Return several as one."""
        return cls(
            np.concatenate([part.outside for part in parts]),
            np.concatenate([part.values for part in parts]),
        )


def estimate_uncertainties(
    structures: Sequence[Atoms], students: Sequence[StudentCalculator], limits: Limits
) -> Uncertainties:
    """Return what is held against the forces of the first of some students.

    Parameters
    ----------
    structures : sequence of Atoms
    students : sequence of StudentCalculator
        One or more; the others should have been trained like the first, but from another seed.
    limits : Limits
        What the first student's training saw.
    """
    forces = [forces_of(StudentPotential(student), structures) for student in students]
    outside = [
        _n_outside(atoms, own, limits) for atoms, own in zip(structures, forces[0], strict=True)
    ]
    if len(students) == 1:
        values = [
            _largest(atoms, own, limits) for atoms, own in zip(structures, forces[0], strict=True)
        ]
    else:
        # Where one of them has no forces, nothing is more doubtful.
        spreads = [_spread(np.stack(answers)) for answers in zip(*forces, strict=True)]
        values = [spread if np.isfinite(spread) else np.inf for spread in spreads]
    return Uncertainties(np.array(outside, dtype=np.int64), np.array(values, dtype=np.float64))


def _n_outside(atoms: Atoms, forces: NDArray[np.float64], limits: Limits) -> int:
    if not np.isfinite(forces).all():
        return len(atoms)
    numbers, cell = atoms.numbers.astype(np.int64), atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, limits.seen.cutoff)
    found = limits.find(numbers, atoms.positions, matrix.neighbors, matrix.offsets(cell))
    found += limits.find_forces(numbers, forces)
    return len({atom for one in found for atom in one.atoms})


def _largest(atoms: Atoms, forces: NDArray[np.float64], limits: Limits) -> float:
    largest = limits.seen.forces[atoms.numbers, 1]
    ratio = float((np.linalg.norm(forces, axis=1) / np.maximum(largest, 1e-9)).max())
    return ratio if np.isfinite(ratio) else np.inf


def _spread(forces: NDArray[np.float64]) -> float:
    """Return the standard deviation over students, root mean square over all components."""
    return float(np.sqrt(forces.var(axis=0).mean()))


def select(
    structures: Sequence[Atoms],
    trajectories: Sequence[int],
    uncertainties: Uncertainties,
    *,
    n_doubtful: int,
    n_random: int,
    rng: np.random.Generator,
) -> tuple[list[int], list[int]]:
    """Choose structures to learn from: some at random, and of the others the most doubtful.

    Nothing is chosen that is much like another choice from its trajectory. No trajectory gives
    more than `MOST_OF_ONE` doubtful structures as long as others have any left.

    Parameters
    ----------
    structures : sequence of Atoms
    trajectories : sequence of int
        The trajectory that each structure is of.
    uncertainties : Uncertainties
    n_doubtful, n_random : int
        How many of each; fewer come back if there are not as many.
    rng : numpy.random.Generator

    Returns
    -------
    doubtful, random : list of int
    """
    chosen = _Chosen(structures, trajectories)
    random: list[int] = []
    for index in rng.permutation(len(structures)).tolist():
        if len(random) == n_random:
            break
        if chosen.add(index):
            random.append(index)
    doubtful: list[int] = []
    n_of: Counter[int] = Counter()
    for most in (MOST_OF_ONE, len(structures)):
        for index in uncertainties.order().tolist():
            if len(doubtful) == n_doubtful:
                break
            if n_of[trajectories[index]] < most and chosen.add(index):
                doubtful.append(index)
                n_of[trajectories[index]] += 1
    return doubtful, random


class _Chosen:
    """Structures chosen so far, by the trajectory they are of."""

    def __init__(self, structures: Sequence[Atoms], trajectories: Sequence[int]) -> None:
        self._structures, self._trajectories = structures, trajectories
        self._distances: dict[int, list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, index: int) -> bool:
        """Choose a structure, unless one like it has been chosen; say whether it was."""
        distances = self._structures[index].get_all_distances(mic=True)
        others = self._distances[self._trajectories[index]]
        if any(np.sqrt(np.mean((distances - other) ** 2)) < ALIKE for other in others):
            return False
        others.append(distances)
        return True


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Spearman's correlation of two columns, None where it says nothing."""
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    ranks = [np.argsort(np.argsort(column)).astype(np.float64) for column in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
