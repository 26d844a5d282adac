"""A molecule turned, moved or listed in another order is the same molecule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from ase_student.testing import TOLERANCES
from ase_student.validation.physics.checks import Check, Subject, ask, judged

Change = Callable[[Atoms, np.random.Generator], Atoms]

SEED = 0
#: Turns, shifts and orders that each structure is tried in.
N_TRIES = 3


def rotated(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a structure in another orientation, reflected half of the time."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix)
    copy.positions = atoms.positions @ matrix
    return copy


def translated(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a structure elsewhere, far enough to show if coordinates are rounded."""
    copy = atoms.copy()
    copy.positions += rng.normal(scale=300.0, size=3)
    return copy


def permuted(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a structure with its atoms in another order."""
    copy: Atoms = atoms[rng.permutation(len(atoms))]
    return copy


CHANGES: dict[str, Change] = {
    "rotation and reflection": rotated,
    "translation": translated,
    "permutation": permuted,
}


def check_symmetries(subject: Subject) -> list[Check]:
    """Return how much energies change where they should not."""
    names = list(subject.structures)
    structures = list(subject.structures.values())
    before = ask(subject.precise, structures)
    limit = (
        TOLERANCES.symmetry_energy_float64
        if subject.is_precise
        else TOLERANCES.symmetry_energy_float32
    )
    checks = []
    for what, change in CHANGES.items():
        rng = np.random.default_rng(SEED)
        changed = [change(atoms, rng) for _ in range(N_TRIES) for atoms in structures]
        after = ask(subject.precise, changed)
        deviations = dict.fromkeys(names, 0.0)
        for index, answer in enumerate(after):
            name = names[index % len(names)]
            difference = abs(answer.energy - before[index % len(names)].energy)
            deviations[name] = max(deviations[name], difference)
        checks.append(judged(what, deviations, limit, unit="eV"))
    return checks
