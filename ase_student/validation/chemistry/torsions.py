"""Energy profiles of rotations about single bonds in fragments of drugs, and their barriers.

Each potential relaxes each fragment at each angle, with the torsion held, from the geometries in
``data/torsions.extxyz``: minima of the teacher, made by ``python -m
ase_student.validation.chemistry structures``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from ase import Atoms

from ase_student.potentials.base import Potential
from ase_student.validation.chemistry.experiment import (
    KCAL,
    Figure,
    Measured,
    mean_absolute,
)
from ase_student.validation.chemistry.relaxation import minimize_with_torsion
from ase_student.validation.chemistry.structures import read_structures
from ase_student.validation.physics.checks import RefusedError

#: Fragments by name: SMILES in which the atoms 1 to 4 define the torsion. No fragment is chiral, so
#: that angles from 0 to 180° are sufficient.
FRAGMENTS = {
    "butane": "[CH3:1][CH2:2][CH2:3][CH3:4]",
    "ethyl methyl ether": "[CH3:1][CH2:2][O:3][CH3:4]",
    "1,2-difluoroethane": "[F:1][CH2:2][CH2:3][F:4]",
    "ethylbenzene": "[cH]1[cH][cH][cH][cH:1][c:2]1[CH2:3][CH3:4]",
    "biphenyl": "[cH]1[cH][cH][cH][cH:1][c:2]1-[c:3]1[cH:4][cH][cH][cH][cH]1",
    "2,2'-bipyridine": "[cH]1[cH][cH][cH][n:1][c:2]1-[c:3]1[n:4][cH][cH][cH][cH]1",
    "anisole": "[cH]1[cH][cH][cH][cH:1][c:2]1[O:3][CH3:4]",
    "thioanisole": "[cH]1[cH][cH][cH][cH:1][c:2]1[S:3][CH3:4]",
    "acetanilide": "[cH]1[cH][cH][cH][cH:1][c:2]1[NH:3][C:4](=O)C",
    "N-methylbenzamide": "[cH]1[cH][cH][cH][cH:1][c:2]1[C:3](=O)[NH:4]C",
    "methyl benzoate": "[cH]1[cH][cH][cH][cH:1][c:2]1[C:3](=O)[O:4]C",
    "methyl phenyl sulfone": "[cH]1[cH][cH][cH][cH:1][c:2]1[S:3](=O)(=O)[CH3:4]",
}
ANGLES = tuple(range(0, 181, 15))
#: Smallest height of a barrier of the teacher's profile above the minima on both sides, kcal/mol.
LOWEST_BARRIER = 0.5
#: The same barrier of another potential may be at an angle up to this many grid points away.
WINDOW = 1


@dataclass(frozen=True)
class Scan:
    """A fragment at each of the angles.

    Attributes
    ----------
    name : str
    torsion : tuple of four int
        Atoms.
    frames : tuple of Atoms
        One for each of `ANGLES`.
    """

    name: str
    torsion: tuple[int, ...]
    frames: tuple[Atoms, ...]


@cache
def scans() -> tuple[Scan, ...]:
    """Return the fragments that every potential starts from."""
    frames = read_structures("torsions.extxyz")
    return tuple(
        Scan(
            name,
            tuple(int(index) for index in frames[name][0].info["torsion"]),
            tuple(frames[name]),
        )
        for name in FRAGMENTS
    )


def measure(potential: Potential) -> Measured:
    """Return the energy at each of `ANGLES` above the lowest, in kcal/mol, by fragment.

    Raises
    ------
    RefusedError
        If the potential has no answer, or the minimization of a fragment does not converge.
    """
    frames = [atoms for scan in scans() for atoms in scan.frames]
    torsions = [scan.torsion for scan in scans() for _ in scan.frames]
    minima = minimize_with_torsion(potential, frames, torsions)
    profiles: dict[str, list[float]] = {}
    for scan, start in zip(scans(), range(0, len(frames), len(ANGLES)), strict=True):
        own = minima[start : start + len(ANGLES)]
        for angle, minimum in zip(ANGLES, own, strict=True):
            if not minimum.converged:
                raise RefusedError(f"{scan.name} at {angle}°: {minimum.reason}")
        energies = np.array([minimum.energy for minimum in own]) / KCAL
        profiles[scan.name] = np.round(energies - energies.min(), 4).tolist()
    return {"profiles": profiles}


def maxima(profile: Sequence[float]) -> list[int]:
    """Return the indices of barriers of a profile from 0 to 180° that is symmetric at both ends.

    A barrier is the highest point between two neighboring minima, at least `LOWEST_BARRIER` above
    both.

    Examples
    --------
    >>> maxima([5.5, 3.0, 0.9, 2.0, 3.4, 1.0, 0.0])
    [0, 4]
    """
    n = len(profile)
    # Extended by symmetry to the full circle, so that a barrier at an end has both of its sides.
    circle = [*profile, *profile[-2:0:-1]]
    indices = []
    for index in range(n):
        turned = circle[index:] + circle[:index]
        height = turned[0]
        sides = (
            _lowest_before_higher(turned[1:], height),
            _lowest_before_higher(turned[:0:-1], height),
        )
        is_first = turned[-1] < height or (index == 0 and turned[-1] <= height)
        if is_first and all(height - side >= LOWEST_BARRIER for side in sides):
            indices.append(index)
    return indices


def _lowest_before_higher(values: Sequence[float], height: float) -> float:
    """Return the lowest of the values before the first value that is above `height`."""
    lowest = height
    for value in values:
        if value > height:
            break
        lowest = min(lowest, value)
    return lowest


def barriers(profile: Sequence[float], places: Sequence[int]) -> list[float]:
    """Return the heights of barriers above the lowest energy of a profile.

    Parameters
    ----------
    profile : sequence of float
    places : sequence of int
        Indices of the barriers in the teacher's profile; the highest point within `WINDOW` counts.
    """
    lowest = min(profile)
    return [max(profile[max(0, place - WINDOW) : place + WINDOW + 1]) - lowest for place in places]


def compare(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return differences of barriers and of profiles from the teacher."""
    heights: dict[str, float] = {}
    relative: list[float] = []
    shapes: dict[str, float] = {}
    for name, theirs in ({} if teacher is None else teacher["profiles"]).items():
        ours = measured["profiles"][name]
        places = maxima(theirs)
        teacher_heights, student_heights = barriers(theirs, places), barriers(ours, places)
        differences = np.subtract(student_heights, teacher_heights)
        heights[name] = float(np.abs(differences).mean())
        relative.extend(differences / teacher_heights)
        shapes[name] = float(np.abs(_centered(ours) - _centered(theirs)).mean())
    mean_difference = None if not relative else round(100.0 * float(np.mean(relative)), 1)
    return [
        mean_absolute(BARRIERS, "kcal/mol", "teacher", differences=heights),
        Figure("torsion barriers, mean difference", mean_difference, "%", "teacher", len(relative)),
        mean_absolute(
            "torsion profiles, mean absolute difference", "kcal/mol", "teacher", differences=shapes
        ),
    ]


BARRIERS = "torsion barriers of drug fragments, mean absolute difference"


def _centered(profile: Sequence[float]) -> np.ndarray:
    values = np.array(profile)
    return values - values.mean()
