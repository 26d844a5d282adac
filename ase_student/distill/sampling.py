"""Geometries of a molecule: Langevin dynamics, random displacement, clusters, contacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from ase import units
from ase.data import atomic_masses, covalent_radii, vdw_alvarez
from numpy.typing import NDArray

from ase_student.neighbors import neighbor_matrix

Positions = NDArray[np.float64]
Forces = Callable[[Positions], Positions]

#: Two atoms closer than this fraction of the sum of their covalent radii clash.
CLASH_RATIO = 0.6
#: Two atoms are bound below the first fraction of that sum, and no longer above the second.
BOUND_RATIO = 1.25
APART_RATIO = 1.8
#: Masses do not change which configurations a thermostat visits, so hydrogen is made heavier, which
#: allows a longer step and so more distance between frames at the same cost.
HYDROGEN_MASS = 4.0
TIMESTEP = 2.0 * units.fs
FRICTION = 0.02 / units.fs
#: Restoring force, eV/Å², on atoms of a cluster that leave its first radius.
CONFINEMENT = 0.1
#: Step downhill, Å per eV/Å (less than two over the stiffest bond's force constant), and its limit.
DESCENT = 0.01
LONGEST_DESCENT = 0.05


def langevin(
    numbers: NDArray[np.int64],
    positions: Positions,
    forces: Forces,
    temperature: float | Positions,
    rng: np.random.Generator,
) -> Iterator[Positions]:
    """Yield positions of Langevin dynamics, one step after the other, for ever.

    Splitting BAOAB (Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34), whose
    configurations are those of the temperature even at long steps.

    Parameters
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
        Where to begin; velocities are drawn for the temperature.
    forces : callable
        Forces in eV/Å at any positions.
    temperature : float or (n_atoms, 1) float64, K
        With one per atom, many molecules can be moved as one system.
    rng : numpy.random.Generator
    """
    masses = np.where(numbers == 1, HYDROGEN_MASS, atomic_masses[numbers])[:, None]
    thermal = np.sqrt(units.kB * temperature / masses)
    keep = np.exp(-FRICTION * TIMESTEP)
    kick = thermal * np.sqrt(1 - keep**2)
    half = 0.5 * TIMESTEP
    velocities = thermal * rng.normal(size=positions.shape)
    half_accelerations = half * forces(positions) / masses
    while True:
        velocities = velocities + half_accelerations
        positions = positions + half * velocities
        velocities = keep * velocities + kick * rng.normal(size=positions.shape)
        positions = positions + half * velocities
        half_accelerations = half * forces(positions) / masses
        velocities = velocities + half_accelerations
        yield positions


def wall(positions: Positions, radius: float) -> Positions:
    """Return forces (n_atoms, 3) that draw atoms back, harmonically, into a sphere about the mean.

    Inside the sphere nothing is changed.
    """
    from_center = positions - positions.mean(0)
    distance = np.linalg.norm(from_center, axis=1, keepdims=True)
    outside = np.maximum(distance - radius, 0.0)
    forces: Positions = -CONFINEMENT * from_center * outside / np.maximum(distance, 1e-9)
    return forces


def radius_of(positions: Positions) -> float:
    """Return the radius of the sphere about the mean position that just holds all atoms."""
    return float(np.linalg.norm(positions - positions.mean(0), axis=1).max())


def confined(forces: Forces, positions: Positions) -> Forces:
    """Return `forces` plus a soft wall that keeps a cluster as close as it is at `positions`."""
    radius = radius_of(positions)
    return lambda positions: forces(positions) + wall(positions, radius)


def descended(positions: Positions, forces: Forces, n_steps: int) -> Positions:
    """Return positions after some steps downhill, none of which moves an atom far.

    A gentle start for dynamics from a geometry that another force field or a person made.
    """
    for _ in range(n_steps):
        step = DESCENT * forces(positions)
        length = np.linalg.norm(step, axis=1, keepdims=True)
        positions = positions + step * np.minimum(1.0, LONGEST_DESCENT / np.maximum(length, 1e-9))
    return positions


def after(steps: Iterator[Positions], n_steps: int) -> Positions:
    """Return the positions that dynamics reaches after some steps.

    Dynamics that diverges ends in positions that are not finite; it raises nothing.
    """
    with np.errstate(all="ignore"):
        for _ in range(n_steps - 1):
            next(steps)
        return next(steps)


def displaced(positions: Positions, sigma: float, rng: np.random.Generator) -> Positions:
    """Return positions with independent Gaussian displacements of `sigma` Å per coordinate."""
    return positions + rng.normal(scale=sigma, size=positions.shape)


def clashes(
    numbers: NDArray[np.int64],
    positions: Positions,
    cell: Positions | None = None,
    pbc: NDArray[np.bool_] | None = None,
) -> bool:
    """Say whether any two atoms, or images, are closer than `CLASH_RATIO` allows.

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
        return bool((distances < CLASH_RATIO * (radii[i] + radii[j])).any())
    try:
        matrix = neighbor_matrix(positions, cell, pbc, 2 * CLASH_RATIO * radii.max())
    except ValueError:
        # Two atoms on one spot.
        return True
    vectors = positions[matrix.neighbors] + matrix.offsets(cell) - positions[:, None]
    limits = CLASH_RATIO * (radii[:, None] + radii[matrix.neighbors])
    return bool((np.linalg.norm(vectors, axis=-1) < limits).any())


def came_apart(numbers: NDArray[np.int64], before: Positions, after: Positions) -> bool:
    """Say whether any two atoms that were bound to each other no longer are."""
    i, j = np.triu_indices(len(numbers), 1)
    bond = covalent_radii[numbers[i]] + covalent_radii[numbers[j]]
    bound = np.linalg.norm(before[i] - before[j], axis=1) < BOUND_RATIO * bond
    apart = np.linalg.norm(after[i] - after[j], axis=1) > APART_RATIO * bond
    return bool((bound & apart).any())


def random_rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a rotation matrix, uniform over all orientations."""
    matrix, triangle = np.linalg.qr(rng.normal(size=(3, 3)))
    # The signs make the distribution uniform (Mezzadri, Notices AMS 54, 592, 2007).
    matrix = matrix * np.sign(np.diag(triangle))
    return matrix if np.linalg.det(matrix) > 0 else -matrix


def shift_to_contact(
    numbers: NDArray[np.int64],
    positions: Positions,
    moving: NDArray[np.bool_],
    direction: Positions,
    contact: float,
) -> Positions:
    """Return positions after some atoms are moved along a line until they touch the others.

    Parameters
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    moving : (n_atoms,) bool
    direction : (3,) float64
        Unit vector, from the resting atoms outwards.
    contact : float
        Shortest distance between moving and resting atoms afterwards, as a fraction of the sum of
        their van der Waals radii: about 0.7 in a hydrogen bond, 1 where molecules just touch.
    """
    radii = vdw_alvarez.vdw_radii[numbers]
    limits = contact * (radii[moving, None] + radii[~moving])
    return shift_to_limits(positions, moving, direction, limits)


def shift_to_limits(
    positions: Positions,
    moving: NDArray[np.bool_],
    direction: Positions,
    limits: float | NDArray[np.float64],
) -> Positions:
    """Return positions after some atoms are moved along a line until one touches the others.

    Parameters
    ----------
    positions : (n_atoms, 3) float64, Å
    moving : (n_atoms,) bool
    direction : (3,) float64
        Unit vector, from the resting atoms outwards.
    limits : float or (n_moving, n_resting) float64, Å
        Distance at which two atoms touch. Positions stay as they are if no two meet on this line.
    """
    separations = positions[moving][:, None] - positions[~moving]
    # |separation + t direction| = limit: beyond the larger root of every pair nothing is too close.
    along = separations @ direction
    discriminants = along**2 - (separations**2).sum(-1) + np.square(limits)
    if not (discriminants >= 0).any():
        return positions
    roots = -along[discriminants >= 0] + np.sqrt(discriminants[discriminants >= 0])
    shifted = positions.copy()
    shifted[moving] += roots.max() * direction
    return shifted


def random_direction(rng: np.random.Generator) -> Positions:
    """Return a unit vector, uniform over the sphere."""
    vector: Positions = rng.normal(size=3)
    unit: Positions = vector / np.linalg.norm(vector)
    return unit


def packed(
    numbers: list[NDArray[np.int64]], positions: list[Positions], rng: np.random.Generator
) -> Positions:
    """Return molecules side by side: each comes from a random direction and turns at random.

    Parameters
    ----------
    numbers : list of (n_atoms,) int64
    positions : list of (n_atoms, 3) float64, Å
    rng : numpy.random.Generator
    """
    placed_numbers = numbers[0]
    placed = positions[0] - positions[0].mean(0)
    for more_numbers, more_positions in zip(numbers[1:], positions[1:], strict=True):
        turned = (more_positions - more_positions.mean(0)) @ random_rotation(rng)
        n_before = len(placed)
        placed_numbers = np.concatenate([placed_numbers, more_numbers])
        placed = shift_to_contact(
            placed_numbers,
            np.concatenate([placed, turned]),
            np.arange(len(placed_numbers)) >= n_before,
            random_direction(rng),
            rng.uniform(0.75, 1.0),
        )
        placed = placed - placed.mean(0)
    return placed
