"""Structures that a thermostat moves, many side by side."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

#: Steps whose noise is drawn at once. A generator of its own for every block makes the noise of a
#: step independent of where a run was interrupted.
NOISE_STEPS = 100


class Walker:
    """One structure under Langevin dynamics, moved by forces that come from outside.

    Splitting BAOAB (Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34) in two halves, so
    that the forces of many walkers can be computed at once in between.

    Parameters
    ----------
    atoms : Atoms
        Copied. Masses are those of ASE, hydrogen's included.
    temperature : float, K
    timestep, friction : float, ASE units
    seed : sequence of int
        Of the initial velocities and the noise.

    Attributes
    ----------
    atoms : Atoms
        Where it is now; positions are never wrapped.
    velocities : (n_atoms, 3) float64, ASE units
    """

    def __init__(
        self, atoms: Atoms, temperature: float, timestep: float, friction: float, seed: list[int]
    ) -> None:
        self.atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        self.target = temperature
        self._seed = seed
        self._masses = self.atoms.get_masses()[:, None]
        self._half = 0.5 * timestep
        self._keep = np.exp(-friction * timestep)
        self._thermal = np.sqrt(units.kB * temperature / self._masses)
        self._kick = self._thermal * np.sqrt(1.0 - self._keep**2)
        self._block, self._noise = -1, np.zeros((0, len(atoms), 3))
        rng = np.random.default_rng([*seed, 0])
        self.velocities: NDArray[np.float64] = self._thermal * rng.normal(size=(len(atoms), 3))

    def move(self, step: int, forces: NDArray[np.float64]) -> None:
        """Move to the positions after a step, by the forces in eV/Å before it."""
        block, row = divmod(step, NOISE_STEPS)
        if block != self._block:
            rng = np.random.default_rng([*self._seed, block + 1])
            self._block, self._noise = block, rng.normal(size=(NOISE_STEPS, len(self.atoms), 3))
        velocities = self.velocities + self._half * forces / self._masses
        self.atoms.positions += self._half * velocities
        velocities = self._keep * velocities + self._kick * self._noise[row]
        self.atoms.positions += self._half * velocities
        self.velocities = velocities

    def arrive(self, forces: NDArray[np.float64]) -> None:
        """Complete a step by the forces in eV/Å at the new positions."""
        self.velocities = self.velocities + self._half * forces / self._masses

    @property
    def temperature(self) -> float:
        """Kinetic temperature in K; at steps of 1 fs some 2 % below that of the positions."""
        twice_kinetic = float((self._masses * self.velocities**2).sum())
        return twice_kinetic / (3 * len(self.atoms) * units.kB)
