"""Common interface of students, teachers and ASE calculators for energies and forces."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError, PropertyNotImplementedError
from numpy.typing import NDArray

from ase_student.files import type_and_message
from ase_student.potentials.single_point import as_number, with_calculator

#: Largest length of the reason of a refusal: messages of some libraries contain whole tables.
_REASON_LENGTH = 300


@dataclass(frozen=True)
class Evaluation:
    """Energy, forces and more of one structure.

    Attributes
    ----------
    energy : float, eV
    forces : (n_atoms, 3) float64, eV/Å
    stress : (6,) float64, eV/Å³, or None
        Voigt order, positive in tension; None unless the structure is periodic along three axes.
    energies : (n_atoms,) float, eV, or None
        Parts of the energy that belong to the atoms, if the potential has them.
    charges : (n_atoms,) float, e, or None
        Partial charges, if the potential has them.
    hirshfeld_ratios : (n_atoms,) float, or None
        Volume of each atom in the structure relative to that of the free atom, if the potential has
        them; dispersion models use them.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None = None
    energies: NDArray[np.floating] | None = None
    charges: NDArray[np.floating] | None = None
    hirshfeld_ratios: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Refusal:
    """Reason why a potential gives no energy and forces for a structure."""

    reason: str


Answer = Evaluation | Refusal


class Potential(Protocol):
    """A model that evaluates many structures at once; refused structures do not affect the others.

    Attributes
    ----------
    name : str
    """

    name: str

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        ...


class Teacher(Potential, Protocol):
    """A potential that labels structures, with settings that identify it.

    Attributes
    ----------
    name : str
        Name by which it was loaded.
    settings : dict
        Version and settings that determine its labels; teachers with equal settings give equal
        labels.
    elements : frozenset of int, or None
        Atomic numbers that it knows; None, or no such attribute, if they are not known.
    """

    settings: dict[str, Any]
    elements: frozenset[int] | None


class StudentPotential:
    """A student as a potential, which evaluates all structures in a call of ``calculate_many``."""

    def __init__(self, calculator: Any) -> None:
        self.name: str = calculator.info.name
        self.calculator = calculator

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        try:
            results = self.calculator.calculate_many(structures)
        except InputError as error:
            # One structure cannot be computed: divide the list until it is the only one.
            if len(structures) == 1:
                return [Refusal(str(error).removeprefix("structure 0: "))]
            middle = len(structures) // 2
            return [*self.evaluate(structures[:middle]), *self.evaluate(structures[middle:])]
        return [
            Evaluation(result["energy"], result["forces"], result.get("stress"))
            for result in results
        ]


class CalculatorPotential:
    """Any ASE calculator as a potential, which evaluates structures one after another."""

    def __init__(self, calculator: Any) -> None:
        self.name = type(calculator).__name__
        self.calculator = calculator

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        return [self._answer(atoms) for atoms in structures]

    def _answer(self, atoms: Atoms) -> Answer:
        # A calculator is third-party code: its errors must not stop a long job.
        try:
            return self._evaluate(with_calculator(atoms, self.calculator))
        except Exception as error:
            return Refusal(one_line(error))

    def _evaluate(self, atoms: Atoms) -> Evaluation:
        """Return the results for a structure with the calculator attached."""
        energy = _energy(atoms)
        forces = np.array(atoms.get_forces(), dtype=np.float64)
        stress = None
        if is_crystal(atoms):
            with suppress(NotImplementedError):
                stress = np.array(atoms.get_stress(), dtype=np.float64)
        return Evaluation(energy, forces, stress)


def as_potential(source: Any) -> Potential:
    """Return a student calculator, a teacher or any ASE calculator as a potential.

    Raises
    ------
    TypeError
        If it is none of these.
    """
    if hasattr(source, "evaluate") and hasattr(source, "name"):
        return source
    if hasattr(source, "calculate_many"):
        return StudentPotential(source)
    if hasattr(source, "get_potential_energy"):
        return CalculatorPotential(source)
    raise TypeError(f"a calculator or a teacher is needed; given {type(source).__name__}.")


def forces_of(potential: Potential, structures: Sequence[Atoms]) -> list[NDArray[np.float64]]:
    """Return the forces (n_atoms, 3) in eV/Å of each structure; NaN for refused structures."""
    answers = potential.evaluate(structures)
    return [
        np.asarray(answer.forces, dtype=np.float64)
        if isinstance(answer, Evaluation)
        else np.full((len(atoms), 3), np.nan)
        for atoms, answer in zip(structures, answers, strict=True)
    ]


def is_crystal(atoms: Atoms) -> bool:
    """Return whether a structure is periodic along three axes, so that it has a stress."""
    return bool(atoms.pbc.all()) and atoms.cell.rank == 3


def one_line(error: Exception) -> str:
    """Return the type and message of an exception, in one line that is not too long."""
    text = type_and_message(error)
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]} …"


def _energy(atoms: Atoms) -> float:
    """Return the energy whose derivatives the forces are, eV.

    With smeared occupations of electronic states that is the free energy, not the energy
    extrapolated to zero width.
    """
    if "free_energy" in getattr(atoms.calc, "implemented_properties", ()):
        with suppress(PropertyNotImplementedError):
            return as_number(atoms.get_potential_energy(force_consistent=True))
    return as_number(atoms.get_potential_energy())
