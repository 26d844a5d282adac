"""Geometries of molecules: random displacement, contacts between molecules, packing."""

from __future__ import annotations

import numpy as np
from ase.data import vdw_alvarez
from numpy.typing import NDArray

from ase_student.dynamics.langevin import Positions
from ase_student.dynamics.rotations import random_rotation


def displaced(positions: Positions, sigma: float, rng: np.random.Generator) -> Positions:
    """Return positions with independent Gaussian displacements of `sigma` Å per coordinate."""
    return positions + rng.normal(scale=sigma, size=positions.shape)


def shift_to_contact(
    numbers: NDArray[np.int64],
    positions: Positions,
    moving: NDArray[np.bool_],
    *,
    direction: Positions,
    contact: float,
) -> Positions:
    """Return positions with some atoms shifted along a line until they touch the other atoms.

    Parameters
    ----------
    numbers : (n_atoms,) int64
    positions : (n_atoms, 3) float64, Å
    moving : (n_atoms,) bool
    direction : (3,) float64
        Unit vector, pointing away from the resting atoms.
    contact : float
        Shortest distance between moving and resting atoms afterwards, as a fraction of the sum of
        their van der Waals radii: about 0.7 in a hydrogen bond, 1 where molecules just touch.
    """
    radii = vdw_alvarez.vdw_radii[numbers]
    limits = contact * (radii[moving, None] + radii[~moving])
    return shift_to_limits(positions, moving, direction, limits=limits)


def shift_to_limits(
    positions: Positions,
    moving: NDArray[np.bool_],
    direction: Positions,
    *,
    limits: float | NDArray[np.float64],
) -> Positions:
    """Return positions with some atoms shifted along a line until the first two atoms touch.

    Parameters
    ----------
    positions : (n_atoms, 3) float64, Å
    moving : (n_atoms,) bool
    direction : (3,) float64
        Unit vector, pointing away from the resting atoms.
    limits : float or (n_moving, n_resting) float64, Å
        Distance at which two atoms touch. If no two atoms meet, positions stay the same.
    """
    separations = positions[moving][:, None] - positions[~moving]
    # |separation + t direction| = limit: beyond the largest root no atoms are too close.
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
    """Return molecules side by side, added from random directions and rotated at random.

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
            direction=random_direction(rng),
            contact=rng.uniform(0.75, 1.0),
        )
        placed = placed - placed.mean(0)
    return placed
