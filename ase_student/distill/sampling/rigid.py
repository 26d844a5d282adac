"""Descent in energy of many complexes, with each molecule moved as a rigid body."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.dynamics.langevin import Positions
from ase_student.potentials.base import Potential, forces_of

#: Displacement per force, Å per eV/Å: less than 2 divided by the force constant of the stiffest
#: contact. Longest step of an atom, Å.
MOBILITY = 0.15
LONGEST_STEP = 0.1


def descended_rigidly(
    structures: Sequence[Atoms],
    fragments: Sequence[NDArray[np.int64]],
    driver: Potential,
    *,
    n_steps: Sequence[int],
) -> list[Positions]:
    """Return positions after steps downhill that keep the geometry of every molecule.

    Each molecule is moved along the sum of its forces and rotated about its center by their torque.
    If forces are not known, positions become NaN.

    Parameters
    ----------
    structures : sequence of ase.Atoms
        Not periodic. They are not changed.
    fragments : sequence of (n_atoms,) int64
        The molecule that each atom belongs to, ascending from 0.
    driver : Potential
        See :func:`ase_student.potentials.registry.load_potential`.
    n_steps : sequence of int
        Number of steps of each structure.
    """
    positions = [atoms.positions.copy() for atoms in structures]
    for step in range(max(n_steps, default=0)):
        moving = [i for i, n in enumerate(n_steps) if step < n and np.isfinite(positions[i]).all()]
        if not moving:
            break
        current = [Atoms(structures[i].numbers, positions[i]) for i in moving]
        for i, force in zip(moving, forces_of(driver, current), strict=True):
            for k in range(int(fragments[i].max()) + 1):
                is_own = fragments[i] == k
                positions[i][is_own] = _moved(positions[i][is_own], force[is_own])
    return positions


def _moved(positions: Positions, forces: Positions) -> Positions:
    """Return the positions of one molecule after a step."""
    center = positions.mean(0)
    arms = positions - center
    largest = max(float((arms**2).sum(1).max()), 1e-12)
    shift = MOBILITY * forces.sum(0)
    # At the end of the longest arm, a rotation has the same mobility as a translation.
    rotation_vector = MOBILITY * np.cross(arms, forces).sum(0) / largest
    shift *= min(1.0, LONGEST_STEP / max(float(np.linalg.norm(shift)), 1e-12))
    rotation_vector *= min(
        1.0, LONGEST_STEP / max(float(np.linalg.norm(rotation_vector) * np.sqrt(largest)), 1e-12)
    )
    return arms @ rotation(rotation_vector).T + center + shift


def rotation(vector: Positions) -> NDArray[np.float64]:
    """Return the matrix of the rotation about a vector by its length in radians (Rodrigues)."""
    angle = float(np.linalg.norm(vector))
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix: NDArray[np.float64] = (
        np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross
    )
    return matrix
