"""Check that two atoms repel each other at short distance, for every pair of elements."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_student.validation.physics.checks import Check, Subject, ask
from ase_student.validation.physics.cutoff import dimer, pair_name, pairs_of

SHORTEST = 0.5
N_POINTS = 56
#: Energies must fall with the distance up to this fraction of the sum of covalent radii, and at
#: least up to this distance, Å. The shortest bonds that exist (N2, CO, H2) are longer.
WALL_RATIO = 0.72
SHORTEST_WALL = 0.65
#: Smaller decreases of the energy, eV, are not counted as holes.
SMALLEST_HOLE = 1e-3


def check_dimers(subject: Subject) -> list[Check]:
    """Return the deepest hole: the largest decrease of the energy as two atoms approach.

    The curves run from 0.5 Å to 0.5 Å beyond the cutoff.
    """
    distances = np.linspace(SHORTEST, subject.cutoff + 0.5, N_POINTS)
    curves: dict[str, list[float]] = {}
    holes: dict[str, float] = {}
    places: dict[str, str] = {}
    for pair in pairs_of(subject.elements):
        answers = ask(subject.precise, [dimer(pair, float(distance)) for distance in distances])
        energies = np.array([answer.energy for answer in answers])
        apart = energies[-1]
        wall = max(WALL_RATIO * float(covalent_radii[list(pair)].sum()), SHORTEST_WALL)
        name = pair_name(pair)
        holes[name], place = _deepest_hole(energies[distances <= wall])
        places[name] = f"{distances[place]:.1f} Å, {energies[place] - apart:.1f} eV"
        curves[name] = np.round(energies - apart, 6).tolist()
    with_hole = [name for name, hole in holes.items() if not hole <= SMALLEST_HOLE]
    worst = max(holes, key=lambda name: holes[name]) if holes else ""
    return [
        Check(
            "holes in dimer curves",
            not with_hole if holes else None,
            holes.get(worst),
            SMALLEST_HOLE,
            "eV",
            f"{'; '.join(f'{name} at {places[name]}' for name in with_hole)} above separate atoms"
            if with_hole
            else f"none for {len(holes)} pairs",
            {"distances": np.round(distances, 6).tolist(), "energies": curves},
        )
    ]


def _deepest_hole(energies: NDArray[np.float64]) -> tuple[float, int]:
    """Return the depth of the deepest hole of a repulsive wall, and the index of its bottom.

    Energies are ordered by ascending distance and should fall. A hole is where they rise again; its
    depth is the rise above the lowest energy at shorter distances.
    """
    lowest = np.minimum.accumulate(energies)
    depths = energies - lowest
    end = int(depths.argmax())
    return float(depths[end]), int(energies[: end + 1].argmin())
