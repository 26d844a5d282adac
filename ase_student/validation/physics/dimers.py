"""Two atoms repel each other at short distance, for every pair of elements."""

from __future__ import annotations

import numpy as np
from ase.data import covalent_radii
from numpy.typing import NDArray

from ase_student.validation.physics.checks import Check, Subject, ask
from ase_student.validation.physics.cutoff import dimer, pair_name, pairs_of

SHORTEST = 0.5
N_POINTS = 56
#: Energies fall with the distance up to this fraction of the sum of covalent radii, and up to this
#: distance at least. The shortest bonds there are (N2, CO, H2) are longer.
WALL_RATIO = 0.72
SHORTEST_WALL = 0.65
#: A fall of less than this between two points is no hole, eV.
SMALLEST_HOLE = 1e-3


def check_dimers(subject: Subject) -> list[Check]:
    """Return the deepest hole: how far an energy falls as two atoms are pushed together.

    The curves run from 0.5 Å to half an Å beyond the cutoff.
    """
    distances = np.linspace(SHORTEST, subject.cutoff + 0.5, N_POINTS)
    curves: dict[str, list[float]] = {}
    holes: dict[str, float] = {}
    places: dict[str, str] = {}
    for pair in pairs_of(subject.elements):
        answers = ask(subject.precise, [dimer(pair, float(one)) for one in distances])
        energies = np.array([answer.energy for answer in answers])
        apart = energies[-1]
        wall = max(WALL_RATIO * float(covalent_radii[list(pair)].sum()), SHORTEST_WALL)
        name = pair_name(pair)
        holes[name], place = _deepest_hole(energies[distances <= wall])
        places[name] = f"{distances[place]:.1f} Å, {energies[place] - apart:.1f} eV"
        curves[name] = np.round(energies - apart, 6).tolist()
    found = [name for name, hole in holes.items() if not hole <= SMALLEST_HOLE]
    worst = max(holes, key=lambda name: holes[name]) if holes else ""
    return [
        Check(
            "holes in dimer curves",
            not found if holes else None,
            holes.get(worst),
            SMALLEST_HOLE,
            "eV",
            f"{'; '.join(f'{name} at {places[name]}' for name in found)} above separate atoms"
            if found
            else f"none for {len(holes)} pairs",
            {"distances": np.round(distances, 6).tolist(), "energies": curves},
        )
    ]


def _deepest_hole(energies: NDArray[np.float64]) -> tuple[float, int]:
    """Return how deep the deepest hole of a wall is, and where its bottom is.

    A hole is where energies of ascending distances rise again after they fell: its depth is that of
    the lowest energy so far below what comes after it.
    """
    lowest = np.minimum.accumulate(energies)
    depths = energies - lowest
    end = int(depths.argmax())
    return float(depths[end]), int(energies[: end + 1].argmin())
