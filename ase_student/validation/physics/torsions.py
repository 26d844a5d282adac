"""Energies of student and teacher along rotations about single bonds."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.dynamics.bonds import Topology
from ase_student.potentials.base import Potential
from ase_student.validation.physics.checks import Check, Subject, ask

N_MOLECULES = 3
N_ANGLES = 24
#: Geometries whose teacher's energy is this far above the lowest, eV, are clashes and are not
#: compared.
HIGHEST = 2.0


def rotatable_bond(atoms: Atoms) -> tuple[int, int, NDArray[np.bool_]] | None:
    """Return the bond that divides a molecule most evenly, and the atoms on its second side.

    None if every bond is in a ring or ends in a lone atom.
    """
    topology = Topology.of(atoms)
    best: tuple[int, int, NDArray[np.bool_]] | None = None
    best_size = 1
    for i, j in zip(topology.first.tolist(), topology.second.tolist(), strict=True):
        if i >= j or 1 in atoms.numbers[[i, j]]:
            continue
        side = _side(topology.is_bonded, i, j)
        if side is None:
            continue
        size = int(min(side.sum(), _side_size(topology.is_bonded, j, i)))
        if size > best_size:
            best, best_size = (i, j, side), size
    return best


def _side(is_bonded: NDArray[np.bool_], i: int, j: int) -> NDArray[np.bool_] | None:
    """Return the atoms connected to j if the bond to i is cut; None if i is still connected."""
    reached = np.zeros(len(is_bonded), dtype=bool)
    reached[j] = True
    bonds = is_bonded.copy()
    bonds[i, j] = bonds[j, i] = False
    while True:
        larger = reached | bonds[reached].any(axis=0)
        if larger[i]:
            return None
        if (larger == reached).all():
            return reached
        reached = larger


def _side_size(is_bonded: NDArray[np.bool_], i: int, j: int) -> int:
    side = _side(is_bonded, i, j)
    return 0 if side is None else int(side.sum())


def scan(atoms: Atoms, bond: tuple[int, int, NDArray[np.bool_]]) -> list[Atoms]:
    """Return a molecule with one side of a bond rotated about it, over the full circle."""
    i, j, side = bond
    frames = []
    for angle in 360.0 * np.arange(N_ANGLES) / N_ANGLES:
        copy = atoms.copy()
        turned = copy[side]
        turned.rotate(angle, atoms.positions[j] - atoms.positions[i], center=atoms.positions[j])
        copy.positions[side] = turned.positions
        frames.append(copy)
    return frames


def check_torsions(subject: Subject, teacher: Potential) -> list[Check]:
    """Return the root mean square difference of energies along rigid rotations.

    Energies are relative to their mean along each scan.
    """
    name = "torsion scans against the teacher"
    bonds = {key: rotatable_bond(atoms) for key, atoms in subject.molecules.items()}
    chosen = [(key, bond) for key, bond in bonds.items() if bond is not None][:N_MOLECULES]
    if not chosen:
        return [Check(name, None, detail="no molecule with a bond to turn about")]
    curves = {}
    squares: list[float] = []
    for key, bond in chosen:
        frames = scan(subject.molecules[key], bond)
        expected = np.array([answer.energy for answer in ask(teacher, frames)])
        predicted = np.array([answer.energy for answer in ask(subject.precise, frames)])
        compared = expected <= expected.min() + HIGHEST
        expected -= expected[compared].mean()
        predicted -= predicted[compared].mean()
        squares.extend((predicted - expected)[compared] ** 2)
        curves[key] = {
            "teacher": np.round(expected, 5).tolist(),
            "student": np.round(predicted, 5).tolist(),
            "compared": compared.tolist(),
        }
    rmse = 1000.0 * float(np.sqrt(np.mean(squares)))
    detail = f"{len(squares)} geometries of {len(chosen)} molecules, below {HIGHEST:g} eV"
    angles = (360.0 * np.arange(N_ANGLES) / N_ANGLES).tolist()
    return [Check(name, None, rmse, None, "meV", detail, {"angles": angles, "of": curves})]
