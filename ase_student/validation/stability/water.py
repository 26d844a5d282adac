"""Boxes of liquid water from which dynamics starts."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from ase_student.dynamics.rotations import random_rotation
from ase_student.testing import SPACING, WATER

#: End of the names of such boxes.
WATERS = "periodic waters"


def water_box(n_per_side: int, seed: int = 0) -> Atoms:
    """Return water molecules at the density of the liquid, on a grid, with random orientations.

    Parameters
    ----------
    n_per_side : int
        4 makes a periodic cube of 64 waters, 12.4 Å wide.
    seed : int
    """
    rng = np.random.default_rng(seed)
    axis = np.arange(n_per_side)
    sites = SPACING * np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    positions = [site + WATER @ random_rotation(rng) for site in sites]
    side = SPACING * n_per_side
    return Atoms("OH2" * len(sites), np.concatenate(positions), cell=[side] * 3, pbc=True)
