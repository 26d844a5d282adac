"""Check that the energy does not change under rotation, translation and permutation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms

from ase_student.testing import TOLERANCES
from ase_student.validation.physics.checks import Check, Subject, ask, judged

Change = Callable[[Atoms, np.random.Generator], Atoms]

SEED = 0
#: Number of random changes of each kind for each structure.
N_TRIES = 3


def rotated(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a structure in a random orientation; about half of the results are reflected."""
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ matrix)
    copy.positions = atoms.positions @ matrix
    return copy


def translated(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """Return a structure shifted far enough to show errors from rounding of coordinates."""
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
    """Return the largest change of the energy under each kind of change."""
    names = list(subject.structures)
    structures = list(subject.structures.values())
    original_answers = ask(subject.precise, structures)
    limit = (
        TOLERANCES.symmetry_energy_float64
        if subject.is_precise
        else TOLERANCES.symmetry_energy_float32
    )
    checks = []
    for name_of_change, change in CHANGES.items():
        rng = np.random.default_rng(SEED)
        changed = [change(atoms, rng) for _ in range(N_TRIES) for atoms in structures]
        answers = ask(subject.precise, changed)
        deviations = dict.fromkeys(names, 0.0)
        for index, answer in enumerate(answers):
            name = names[index % len(names)]
            difference = abs(answer.energy - original_answers[index % len(names)].energy)
            deviations[name] = max(deviations[name], difference)
        checks.append(judged(name_of_change, deviations, limit, unit="eV"))
    return checks
