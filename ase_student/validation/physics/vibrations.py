"""Harmonic frequencies of molecules, from the student and from the teacher."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

from ase_student.potentials.base import Potential
from ase_student.validation.physics.checks import Check, Subject, ask
from ase_student.validation.physics.relaxation import relaxed

N_MOLECULES = 3
LARGEST = 30
STEP = 0.01
#: Frequencies below this, cm⁻¹, are not compared: rotations of whole molecules and of groups.
LOWEST = 200.0
#: Largest force at the minimum, eV/Å.
FMAX = 0.01


def frequencies(potential: Potential, atoms: Atoms) -> NDArray[np.float64]:
    """Return the harmonic frequencies of a molecule at a minimum in cm⁻¹, ascending.

    Parameters
    ----------
    potential : Potential
    atoms : Atoms

    Returns
    -------
    (3 n_atoms,) float64
        Imaginary frequencies are negative.
    """
    size = 3 * len(atoms)
    displaced = []
    for coordinate in range(size):
        for sign in (1.0, -1.0):
            copy = atoms.copy()
            copy.positions.reshape(-1)[coordinate] += sign * STEP
            displaced.append(copy)
    forces = np.array([answer.forces.ravel() for answer in ask(potential, displaced)])
    hessian = -(forces[0::2] - forces[1::2]) / (2.0 * STEP)
    masses = np.repeat(atoms.get_masses(), 3)
    weighted = 0.5 * (hessian + hessian.T) / np.sqrt(np.outer(masses, masses))
    eigenvalues = np.linalg.eigvalsh(weighted)
    # From eigenvalues in eV/Å²/amu to hbar ω in eV, then to cm⁻¹.
    quanta = units._hbar * 1e10 / np.sqrt(units._e * units._amu)
    energies: NDArray[np.float64] = np.sign(eigenvalues) * np.sqrt(abs(eigenvalues)) * quanta
    return energies / units.invcm


def check_vibrations(subject: Subject, teacher: Potential) -> list[Check]:
    """Return the mean difference of frequencies, each potential at its own minimum."""
    chosen = {
        name: atoms for name, atoms in subject.molecules.items() if 3 <= len(atoms) <= LARGEST
    }
    names = sorted(chosen, key=lambda name: len(chosen[name]))[:N_MOLECULES]
    if not names:
        detail = f"no molecules of 3 to {LARGEST} atoms"
        return [Check("frequencies against the teacher", None, detail=detail)]
    starts = [chosen[name] for name in names]
    of_teacher = relaxed(teacher, starts, FMAX, steps=1000)
    # The student starts from the teacher's minimum, so that it reaches the same conformer.
    of_student = relaxed(subject.precise, of_teacher, FMAX, steps=1000)
    curves: dict[str, dict[str, list[float]]] = {}
    differences: list[float] = []
    for name, theirs, ours in zip(names, of_teacher, of_student, strict=True):
        expected, predicted = frequencies(teacher, theirs), frequencies(subject.precise, ours)
        curves[name] = {
            "teacher": np.round(expected, 1).tolist(),
            "student": np.round(predicted, 1).tolist(),
        }
        compared = expected > LOWEST
        differences.extend(np.abs(predicted - expected)[compared].tolist())
    detail = (
        f"mean of {len(differences)} frequencies above {LOWEST:g} cm⁻¹ of {len(names)} molecules; "
        f"largest {max(differences):.0f} cm⁻¹"
    )
    mean = float(np.mean(differences))
    return [
        Check("frequencies against the teacher", None, mean, None, "cm⁻¹", detail, {"of": curves})
    ]
