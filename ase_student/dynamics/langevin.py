"""Langevin dynamics and steps downhill, for a structure or for many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import Atoms, units
from ase.data import atomic_masses
from numpy.typing import NDArray

#: Number of steps whose noise is drawn together. Each such block has a random generator of its own:
#: the noise of a step does not depend on where a run was interrupted.
NOISE_STEPS = 100

Positions = NDArray[np.float64]
Forces = Callable[[Positions], Positions]
#: The configurations that a thermostat samples do not depend on masses. Heavier hydrogen allows
#: longer steps, and so more different frames at the same cost.
HYDROGEN_MASS = 4.0
TIMESTEP = 2.0 * units.fs
FRICTION = 0.02 / units.fs
#: Force constant, eV/Å², of the wall for atoms of a cluster beyond its initial radius.
CONFINEMENT = 0.1
#: Step downhill, Å per eV/Å (less than 2 divided by the force constant of the stiffest bond), and
#: the longest step, Å.
DESCENT = 0.01
LONGEST_DESCENT = 0.05


class Baoab:
    """The splitting BAOAB of Langevin dynamics.

    The distribution of its configurations is accurate even for long steps (Leimkuhler and Matthews,
    Appl. Math. Res. eXpress 2013, 34). A step consists of `accelerated` with the old forces,
    `moved`, and `accelerated` with the forces at the new positions.

    Parameters
    ----------
    masses : (n_atoms, 1) float64, u
    temperature : float or (n_atoms, 1) float64, K
    timestep, friction : float, ASE units
    """

    def __init__(
        self,
        masses: NDArray[np.float64],
        temperature: float | NDArray[np.float64],
        timestep: float,
        *,
        friction: float,
    ) -> None:
        self._masses = masses
        self._half = 0.5 * timestep
        self._keep = np.exp(-friction * timestep)
        self._thermal = np.sqrt(units.kB * temperature / masses)
        self._kick = self._thermal * np.sqrt(1.0 - self._keep**2)

    def draw(self, rng: np.random.Generator, n_atoms: int) -> NDArray[np.float64]:
        """Return random velocities (n_atoms, 3) at the temperature, in ASE units."""
        velocities: NDArray[np.float64] = self._thermal * rng.normal(size=(n_atoms, 3))
        return velocities

    def accelerated(
        self, velocities: NDArray[np.float64], forces: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Return velocities after half a step of the forces in eV/Å (the B of the name)."""
        return velocities + self._half * forces / self._masses

    def moved(
        self, positions: Positions, velocities: NDArray[np.float64], noise: NDArray[np.float64]
    ) -> tuple[Positions, NDArray[np.float64]]:
        """Return positions and velocities after drift, thermostat and drift (AOA).

        Parameters
        ----------
        positions : (n_atoms, 3) float64, Å
        velocities : (n_atoms, 3) float64, ASE units
        noise : (n_atoms, 3) float64
            Standard normal random numbers.
        """
        positions = positions + self._half * velocities
        velocities = self._keep * velocities + self._kick * noise
        return positions + self._half * velocities, velocities


class Walker:
    """A structure under Langevin dynamics, moved by forces that are computed elsewhere.

    A step of :class:`Baoab` is done in two parts, so that the forces of many walkers can be
    computed together in between.

    Parameters
    ----------
    atoms : Atoms
        Copied. Masses are those of ASE, also for hydrogen.
    temperature : float, K
    timestep, friction : float, ASE units
    seed : sequence of int
        Seed of the initial velocities and the noise.

    Attributes
    ----------
    atoms : Atoms
        Current structure; positions are never wrapped.
    velocities : (n_atoms, 3) float64, ASE units
    """

    def __init__(
        self, atoms: Atoms, temperature: float, timestep: float, *, friction: float, seed: list[int]
    ) -> None:
        self.atoms = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        self.target = temperature
        self._seed = seed
        self._masses = self.atoms.get_masses()[:, None]
        self._splitting = Baoab(self._masses, temperature, timestep, friction=friction)
        self._block, self._noise = -1, np.zeros((0, len(atoms), 3))
        rng = np.random.default_rng([*seed, 0])
        self.velocities: NDArray[np.float64] = self._splitting.draw(rng, len(atoms))

    def move(self, step: int, forces: NDArray[np.float64]) -> None:
        """Move to the positions after a step, with the forces in eV/Å before the step."""
        block, row = divmod(step, NOISE_STEPS)
        if block != self._block:
            rng = np.random.default_rng([*self._seed, block + 1])
            self._block, self._noise = block, rng.normal(size=(NOISE_STEPS, len(self.atoms), 3))
        accelerated = self._splitting.accelerated(self.velocities, forces)
        self.atoms.positions, self.velocities = self._splitting.moved(
            self.atoms.positions, accelerated, self._noise[row]
        )

    def arrive(self, forces: NDArray[np.float64]) -> None:
        """Complete a step with the forces in eV/Å at the new positions."""
        self.velocities = self._splitting.accelerated(self.velocities, forces)

    @property
    def temperature(self) -> float:
        """Kinetic temperature in K; with steps of 1 fs about 2 % below that of the positions."""
        twice_kinetic = float((self._masses * self.velocities**2).sum())
        return twice_kinetic / (3 * len(self.atoms) * units.kB)


def langevin(
    numbers: NDArray[np.int64],
    positions: Positions,
    forces: Forces,
    temperature: float | Positions,
    rng: np.random.Generator,
) -> Iterator[Positions]:
    """Yield the positions after each step of Langevin dynamics, without end.

    See :class:`Baoab` for the integrator.

    Parameters
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
        Initial positions; velocities are drawn for the temperature.
    forces : callable
        Forces in eV/Å at any positions.
    temperature : float or (n_atoms, 1) float64, K
        With a value per atom, many molecules can be moved as one system.
    rng : numpy.random.Generator
    """
    masses = np.where(numbers == 1, HYDROGEN_MASS, atomic_masses[numbers])[:, None]
    splitting = Baoab(masses, temperature, TIMESTEP, friction=FRICTION)
    velocities = splitting.draw(rng, len(positions))
    current = forces(positions)
    while True:
        velocities = splitting.accelerated(velocities, current)
        noise = rng.normal(size=positions.shape)
        positions, velocities = splitting.moved(positions, velocities, noise)
        current = forces(positions)
        velocities = splitting.accelerated(velocities, current)
        yield positions


def wall(positions: Positions, radius: float) -> Positions:
    """Return harmonic forces (n_atoms, 3) that keep atoms in a sphere about their mean position.

    Inside the sphere they are zero.
    """
    from_center = positions - positions.mean(0)
    distance = np.linalg.norm(from_center, axis=1, keepdims=True)
    outside = np.maximum(distance - radius, 0.0)
    forces: Positions = -CONFINEMENT * from_center * outside / np.maximum(distance, 1e-9)
    return forces


def radius_of(positions: Positions) -> float:
    """Return the radius of the smallest sphere about the mean position that holds all atoms."""
    return float(np.linalg.norm(positions - positions.mean(0), axis=1).max())


def confined(forces: Forces, positions: Positions) -> Forces:
    """Return `forces` plus a soft wall with the radius that the cluster has at `positions`."""
    radius = radius_of(positions)
    return lambda positions: forces(positions) + wall(positions, radius)


def descended(positions: Positions, forces: Forces, n_steps: int) -> Positions:
    """Return positions after some short steps downhill.

    Dynamics can then start from geometries of another force field, or drawn by hand.
    """
    for _ in range(n_steps):
        step = DESCENT * forces(positions)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        positions = positions + step * np.minimum(1.0, LONGEST_DESCENT / np.maximum(length, 1e-9))
    return positions


def positions_after(steps: Iterator[Positions], n_steps: int) -> Positions:
    """Return the positions that dynamics reaches after some steps.

    If the dynamics diverge, the positions are not finite; no error is raised.
    """
    with np.errstate(all="ignore"):
        for _ in range(n_steps - 1):
            next(steps)
        return next(steps)
