"""Uncertainty of a student's forces, and selection of the structures that a teacher labels."""

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

#: Two frames are similar if the root mean square difference of their interatomic distances is below
#: this, Å.
SIMILAR = 0.05
#: Largest number of uncertain frames of a trajectory, as long as other trajectories have any left.
MAX_PER_TRAJECTORY = 4


@dataclass(frozen=True)
class Uncertainties:
    """Uncertainties of the forces on some structures.

    Attributes
    ----------
    outside : (n,) int64
        Number of atoms outside of the training ranges: too close to another atom, with too many or
        too few neighbors, or with too large a force.
    values : (n,) float64
        Larger is more uncertain. For several students, the spread of their forces in eV/Å; for a
        single student, the largest force as a fraction of the largest force on that element in
        training.
    """

    outside: NDArray[np.int64]
    values: NDArray[np.float64]

    def order(self) -> NDArray[np.int64]:
        """Return indices, the most uncertain first: those with atoms outside, then by value."""
        return np.lexsort((-self.values, self.outside == 0))

    @classmethod
    def joined(cls, parts: Sequence[Uncertainties]) -> Uncertainties:
        """Return the uncertainties of several sets of structures, joined."""
        return cls(
            np.concatenate([part.outside for part in parts]),
            np.concatenate([part.values for part in parts]),
        )


def estimate_uncertainties(
    structures: Sequence[Atoms], students: Sequence[StudentCalculator], limits: Limits
) -> Uncertainties:
    """Return the uncertainties of the forces of the first of some students.

    Parameters
    ----------
    structures : sequence of Atoms
    students : sequence of StudentCalculator
        At least one student; the others should be trained like the first, with another seed.
    limits : Limits
        Limits from the training ranges of the first student.
    """
    forces = [forces_of(StudentPotential(student), structures) for student in students]
    outside = [
        _n_outside(atoms, array, limits) for atoms, array in zip(structures, forces[0], strict=True)
    ]
    if len(students) == 1:
        values = [
            _largest(atoms, array, limits)
            for atoms, array in zip(structures, forces[0], strict=True)
        ]
    else:
        # If a student has no finite forces, the uncertainty is infinite.
        spreads = [_spread(np.stack(answers)) for answers in zip(*forces, strict=True)]
        values = [spread if np.isfinite(spread) else np.inf for spread in spreads]
    return Uncertainties(np.array(outside, dtype=np.int64), np.array(values, dtype=np.float64))


def _n_outside(atoms: Atoms, forces: NDArray[np.float64], limits: Limits) -> int:
    if not np.isfinite(forces).all():
        return len(atoms)
    numbers, cell = atoms.numbers.astype(np.int64), atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, limits.seen.cutoff)
    findings = limits.find(numbers, atoms.positions, matrix.neighbors, matrix.offsets(cell))
    findings += limits.find_forces(numbers, forces)
    return len({atom for finding in findings for atom in finding.atoms})


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
    """Choose structures to label: some at random, and the most uncertain of the others.

    No structure is chosen that is similar to a chosen structure of the same trajectory. No
    trajectory gives more than `MAX_PER_TRAJECTORY` uncertain structures as long as others have any
    left.

    Parameters
    ----------
    structures : sequence of Atoms
    trajectories : sequence of int
        The trajectory that each structure belongs to.
    uncertainties : Uncertainties
    n_doubtful, n_random : int
        Number of uncertain and of random structures; fewer are returned if there are not enough.
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
    for limit in (MAX_PER_TRAJECTORY, len(structures)):
        for index in uncertainties.order().tolist():
            if len(doubtful) == n_doubtful:
                break
            if n_of[trajectories[index]] < limit and chosen.add(index):
                doubtful.append(index)
                n_of[trajectories[index]] += 1
    return doubtful, random


class _Chosen:
    """Distances of the structures chosen so far, by trajectory."""

    def __init__(self, structures: Sequence[Atoms], trajectories: Sequence[int]) -> None:
        self._structures, self._trajectories = structures, trajectories
        self._distances: dict[int, list[NDArray[np.float64]]] = defaultdict(list)

    def add(self, index: int) -> bool:
        """Choose a structure unless it is like a chosen structure; return whether it is chosen."""
        distances = self._structures[index].get_all_distances(mic=True)
        chosen = self._distances[self._trajectories[index]]
        if any(np.sqrt(np.mean((distances - earlier) ** 2)) < SIMILAR for earlier in chosen):
            return False
        chosen.append(distances)
        return True


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Return Spearman's rank correlation of two columns.

    None if there are fewer than three rows, or if a column is constant.
    """
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    ranks = [np.argsort(np.argsort(column)).astype(np.float64) for column in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])
