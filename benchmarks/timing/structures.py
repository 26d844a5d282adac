"""Structures of the benchmarks: molecules of 16 atoms, separate molecules, liquids, by size."""

from __future__ import annotations

import itertools
import math

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.testing import AMMONIA, SPACING, WATER, structure

__all__ = ["SIZES", "anisole", "condensed", "molecular", "moved", "waters"]

SIZES = (10, 21, 100, 1000, 10_000)

# Near the minima of the MMFF94 force field.
_ANISOLE = [
    [2.694, 0.099, -0.036],
    [1.662, -0.875, -0.124],
    [0.375, -0.413, -0.098],
    [-0.018, 0.922, 0.007],
    [-1.377, 1.255, 0.021],
    [-2.346, 0.258, -0.069],
    [-1.959, -1.076, -0.174],
    [-0.604, -1.408, -0.188],
    [2.662, 0.788, -0.886],
    [2.646, 0.641, 0.915],
    [3.654, -0.426, -0.070],
    [0.705, 1.727, 0.079],
    [-1.677, 2.297, 0.104],
    [-3.401, 0.520, -0.057],
    [-2.710, -1.859, -0.244],
    [-0.305, -2.450, -0.271],
]
# Distance between molecules that don't interact, Å; the longest molecule is 7.6 Å.
_APART = 15.0


def anisole() -> Atoms:
    """Return a molecule of 16 atoms."""
    return Atoms("COC6H8", positions=_ANISOLE)


def _acetone() -> Atoms:
    """Return a molecule of 10 atoms."""
    from ase.build import molecule

    return molecule("CH3COCH3")


def molecular(n_atoms: int) -> Atoms:
    """Return a structure of molecules that don't interact; atoms have about 15 neighbors.

    Parameters
    ----------
    n_atoms : int
        10 (acetone), 21 (aspirin) or a multiple of 100 (four aspirin and one anisole per 100).
    """
    if n_atoms == 10:
        return _acetone()
    if n_atoms == 21:
        return structure("aspirin")
    if n_atoms < 100 or n_atoms % 100:
        raise ValueError(f"n_atoms must be 10, 21 or a multiple of 100; given {n_atoms}.")
    kinds = [*[structure("aspirin")] * 4, anisole()] * (n_atoms // 100)
    side = math.ceil(len(kinds) ** (1 / 3))
    sites = _APART * _grid((side, side, side))[: len(kinds)]
    return Atoms(
        np.concatenate([atoms.numbers for atoms in kinds]),
        np.concatenate([atoms.positions + site for atoms, site in zip(kinds, sites, strict=True)]),
    )


def condensed(n_atoms: int) -> Atoms:
    """Return a periodic box of water with up to two ammonia; atoms have about 53 neighbors.

    Parameters
    ----------
    n_atoms : int
        At least 3, and not 5. One or two ammonia are added if it is not a multiple of three.
    """
    n_ammonia = n_atoms % 3
    n_waters = (n_atoms - 4 * n_ammonia) // 3
    if n_waters < 0 or n_atoms < 3:
        raise ValueError(f"n_atoms must be at least 3, and not 5; given {n_atoms}.")
    return _box(["OH2"] * n_waters + ["NH3"] * n_ammonia)


def waters(n_molecules: int) -> Atoms:
    """Return a periodic box of water at the density of the liquid, a start for dynamics.

    The density is right if the molecules fill the grid, as 64 (4 × 4 × 4) and 512 do.
    """
    return _box(["OH2"] * n_molecules)


def moved(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a copy in which every atom is moved, by far less than a skin.

    Calculators return stored results for atoms that did not move.
    """
    copy = atoms.copy()
    copy.positions += 1e-4 * rng.standard_normal(copy.positions.shape)
    return copy


def _box(molecules: list[str]) -> Atoms:
    """Return molecules on a grid with small random displacements and hydrogen bonds."""
    shape = _shape(len(molecules))
    sites = SPACING * _grid(shape)[: len(molecules)]
    sites += np.random.default_rng(0).normal(scale=0.05, size=sites.shape)
    geometries = {"OH2": WATER, "NH3": AMMONIA}
    positions = np.concatenate(
        [site + geometries[name] for site, name in zip(sites, molecules, strict=True)]
    )
    return Atoms("".join(molecules), positions, cell=SPACING * np.array(shape), pbc=True)


def _shape(n_sites: int) -> tuple[int, int, int]:
    """Return the smallest grid with at least `n_sites` sites that is not much longer than wide."""
    sides = range(1, math.ceil(n_sites ** (1 / 3)) + 3)
    shapes = [
        shape
        for shape in itertools.combinations_with_replacement(sides, 3)
        if shape[2] <= 2 * shape[0] + 1 and math.prod(shape) >= n_sites
    ]
    return min(shapes, key=lambda shape: (math.prod(shape), shape[2] - shape[0]))


def _grid(shape: tuple[int, int, int]) -> NDArray[np.float64]:
    axes = np.meshgrid(*map(np.arange, shape), indexing="ij")
    return np.stack(axes, axis=-1).reshape(-1, 3).astype(np.float64)
