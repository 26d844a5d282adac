"""Minimization of many molecules side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from ase_student.potentials.base import Potential
from ase_student.validation.physics.checks import ask

#: FIRE (Bitzek et al., Phys. Rev. Lett. 97, 170201, 2006), with the paper's parameters; distances
#: in Å and unit masses.
LARGEST_MOVE = 0.1
FIRST_STEP, LONGEST_STEP = 0.05, 0.25
N_BEFORE_FASTER = 5
FASTER, SLOWER, MIXING, LESS_MIXING = 1.1, 0.5, 0.1, 0.99


def relaxed(
    potential: Potential, structures: Sequence[Atoms], fmax: float = 0.05, *, steps: int = 300
) -> list[Atoms]:
    """Return structures relaxed to, or toward, the nearest minimum of a potential.

    Parameters
    ----------
    potential : Potential
    structures : sequence of Atoms
        Cells stay as they are.
    fmax : float, eV/Å
        A structure is converged when no force on an atom is above this.
    steps : int
        Largest number of steps; a structure that has not converged by then is returned as it is.
    """
    moved = [atoms.copy() for atoms in structures]
    states = [_FireState(atoms) for atoms in moved]
    resting = [False] * len(moved)
    for _ in range(steps):
        active = [index for index, rests in enumerate(resting) if not rests]
        if not active:
            break
        answers = ask(potential, [moved[index] for index in active])
        for index, answer in zip(active, answers, strict=True):
            largest = np.linalg.norm(answer.forces, axis=1).max()
            resting[index] = bool(largest <= fmax)
            if not resting[index]:
                states[index].move(answer.forces)
    return moved


class _FireState:
    def __init__(self, atoms: Atoms) -> None:
        self.atoms = atoms
        self.velocities = np.zeros((len(atoms), 3))
        self.step, self.mixing, self.n_downhill = FIRST_STEP, MIXING, 0

    def move(self, forces: np.ndarray) -> None:
        """Make one step of FIRE."""
        if (forces * self.velocities).sum() > 0.0:
            along = np.linalg.norm(self.velocities) * forces / np.linalg.norm(forces)
            self.velocities = (1.0 - self.mixing) * self.velocities + self.mixing * along
            if self.n_downhill > N_BEFORE_FASTER:
                self.step = min(self.step * FASTER, LONGEST_STEP)
                self.mixing *= LESS_MIXING
            self.n_downhill += 1
        else:
            self.velocities[:] = 0.0
            self.step, self.mixing, self.n_downhill = self.step * SLOWER, MIXING, 0
        self.velocities = self.velocities + self.step * forces
        shifts = self.step * self.velocities
        longest = float(np.linalg.norm(shifts))
        self.atoms.positions += shifts * min(1.0, LARGEST_MOVE / max(longest, 1e-12))
