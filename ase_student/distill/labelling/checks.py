"""Requests to a teacher, and checks of its answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_student.data.hdf5 import ATOMIC_ENERGIES_TOLERANCE
from ase_student.potentials.base import Answer, Evaluation, Refusal, Teacher, one_line
from ase_student.potentials.single_point import as_number


def ask(teacher: Teacher, structures: Sequence[Atoms], max_force: float) -> list[Answer]:
    """Return the checked answers of a teacher; any error that it raises becomes a refusal.

    Raises
    ------
    ValueError
        If the number of answers is not the number of structures.
    """
    try:
        answers = teacher.evaluate(structures)
    except Exception as error:
        return [Refusal(one_line(error))] * len(structures)
    if len(answers) != len(structures):
        raise ValueError(
            f"teacher '{teacher.name}' gave {len(answers)} answers to {len(structures)} structures."
        )
    pairs = zip(answers, structures, strict=True)
    return [checked(answer, atoms, max_force) for answer, atoms in pairs]


def checked(answer: Answer, atoms: Atoms, max_force: float) -> Answer:
    """Return the label, or a refusal if the label is invalid.

    A student learns from energy, forces and stress: if one of them is invalid, the structure gets
    no label. Per-atom energies are optional, and for some calculators they are not parts of the
    energy: if they are not finite or do not add up to the energy they are left out, and the label
    is kept. Charges and Hirshfeld ratios are left out if they are not one finite number per atom.

    Parameters
    ----------
    answer : Evaluation or Refusal
    atoms : ase.Atoms
        The structure that the answer is for.
    max_force : float, eV/Å
    """
    if isinstance(answer, Refusal):
        return answer
    reason = _invalid_reason(answer, len(atoms), max_force)
    if reason is not None:
        return Refusal(reason)
    # Some calculators give arrays of one element.
    energy, energies = as_number(answer.energy), answer.energies
    if energies is not None and not _add_up(energies, energy, len(atoms)):
        energies = None
    return dataclasses.replace(
        answer,
        energy=energy,
        energies=energies,
        charges=_of_atoms(answer.charges, len(atoms)),
        hirshfeld_ratios=_of_atoms(answer.hirshfeld_ratios, len(atoms)),
    )


def _of_atoms(values: NDArray[np.floating] | None, n_atoms: int) -> NDArray[np.floating] | None:
    """Return the values if they are one finite number for each atom, else None."""
    if values is None or np.shape(values) != (n_atoms,) or not np.isfinite(values).all():
        return None
    return values


def _invalid_reason(label: Evaluation, n_atoms: int, max_force: float) -> str | None:
    """Return why a label is invalid, or None if it is valid."""
    if np.size(label.energy) != 1:
        return f"energy of shape {np.shape(label.energy)}"
    if np.shape(label.forces) != (n_atoms, 3):
        return f"forces of shape {np.shape(label.forces)} for {n_atoms} atoms"
    if not np.isfinite(as_number(label.energy)):
        return f"energy is {label.energy}"
    if not np.isfinite(label.forces).all():
        return "forces are not finite"
    if label.stress is not None and np.shape(label.stress) != (6,):
        return f"stress of shape {np.shape(label.stress)}"
    if label.stress is not None and not np.isfinite(label.stress).all():
        return "stress is not finite"
    norms = np.linalg.norm(label.forces, axis=1)
    worst = int(norms.argmax())
    if norms[worst] > max_force:
        return f"force on atom {worst} is {norms[worst]:.4g} eV/Å, above the limit of {max_force:g}"
    return None


def _add_up(energies: NDArray[np.floating], energy: float, n_atoms: int) -> bool:
    """Return whether per-atom energies add up to the energy."""
    if np.shape(energies) != (n_atoms,):
        return False
    return bool(abs(np.sum(energies) - energy) <= ATOMIC_ENERGIES_TOLERANCE * n_atoms)
