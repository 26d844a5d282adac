"""Check that forces and stress are the derivatives of the energy."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms

from ase_student.potentials.base import Evaluation, Potential
from ase_student.testing import TOLERANCES
from ase_student.validation.physics.checks import Check, Subject, ask, judged

SEED = 0
N_DIRECTIONS = 3
#: Steps of the finite differences of fourth order, in Å or as a strain. Energies in float32 need
#: longer steps and larger limits (eV/Å and eV/Å³).
STEP = 2e-4
STEP_FLOAT32 = 0.01
FORCES_FLOAT32 = 0.01
STRESS_FLOAT32 = 0.001
OFFSETS = np.array([-2.0, -1.0, 1.0, 2.0])
WEIGHTS = np.array([1.0, -8.0, 8.0, -1.0]) / 12.0


def check_derivatives(subject: Subject) -> list[Check]:
    """Return the deviations of forces and stress from finite differences of the energy."""
    step = STEP if subject.is_precise else STEP_FLOAT32
    forces: dict[str, float] = {}
    stress: dict[str, float] = {}
    rng = np.random.default_rng(SEED)
    for name, atoms in subject.structures.items():
        answer = ask(subject.precise, [atoms])[0]
        forces[name] = force_deviation(subject.precise, atoms, answer, step=step, rng=rng)
        if answer.stress is not None:
            stress[name] = _stress_deviation(subject.precise, atoms, answer, step)
    exact = subject.is_precise
    return [
        judged(
            "forces against finite differences",
            forces,
            TOLERANCES.finite_difference_forces if exact else FORCES_FLOAT32,
            unit="eV/Å",
        ),
        judged(
            "stress against finite differences",
            stress,
            TOLERANCES.finite_difference_stress if exact else STRESS_FLOAT32,
            unit="eV/Å³",
        ),
    ]


def slopes(potential: Potential, makes: list[Callable[[float], Atoms]], step: float) -> list[float]:
    """Return the derivative at zero of the energy of each ``make(x)``."""
    structures = [make(offset * step) for make in makes for offset in OFFSETS]
    energies = np.array([answer.energy for answer in ask(potential, structures)])
    derivatives: list[float] = (energies.reshape(-1, len(OFFSETS)) @ WEIGHTS / step).tolist()
    return derivatives


def force_deviation(
    potential: Potential, atoms: Atoms, answer: Evaluation, *, step: float, rng: np.random.Generator
) -> float:
    """Return the largest deviation along random directions in which all atoms move."""
    directions = rng.normal(size=(N_DIRECTIONS, len(atoms), 3))
    directions /= np.linalg.norm(directions, axis=(1, 2), keepdims=True)

    def along(direction: np.ndarray) -> Callable[[float], Atoms]:
        def make(x: float) -> Atoms:
            copy = atoms.copy()
            copy.positions += x * direction
            return copy

        return make

    numerical = slopes(potential, [along(direction) for direction in directions], step)
    analytical = -(directions * answer.forces).sum(axis=(1, 2))
    return float(np.abs(np.array(numerical) - analytical).max())


def _stress_deviation(potential: Potential, atoms: Atoms, answer: Evaluation, step: float) -> float:
    """Return the largest deviation of a component of the stress."""
    assert answer.stress is not None
    voigt = {(0, 0): 0, (1, 1): 1, (2, 2): 2, (1, 2): 3, (0, 2): 4, (0, 1): 5}

    def along(row: int, column: int) -> Callable[[float], Atoms]:
        strain = np.zeros((3, 3))
        strain[row, column] += 0.5
        strain[column, row] += 0.5

        def make(x: float) -> Atoms:
            copy = atoms.copy()
            copy.set_cell(atoms.cell.array @ (np.eye(3) + x * strain))
            copy.positions = atoms.positions @ (np.eye(3) + x * strain)
            return copy

        return make

    components = list(combinations_with_replacement(range(3), 2))
    numerical = slopes(potential, [along(*component) for component in components], step)
    volume = atoms.get_volume()
    analytical = [answer.stress[voigt[component]] for component in components]
    return float(np.abs(np.array(numerical) / volume - analytical).max())
