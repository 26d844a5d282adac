"""One way to ask for energies and forces, whoever answers: student, teacher or ASE calculator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import Atoms
from ase.calculators.calculator import InputError
from numpy.typing import NDArray

from ase_student.calculator import StudentCalculator
from ase_student.potentials.single_point import as_number, with_calculator

#: Longest reason of a failure that is kept: some libraries print whole tables.
_REASON_LENGTH = 300
#: Forces (n_atoms, 3) in eV/Å of each structure; NaN where there are none.
BatchedForces = Callable[[Sequence[Atoms]], list[NDArray[np.float64]]]


@dataclass(frozen=True)
class Evaluation:
    """What a potential says about one structure.

    Attributes
    ----------
    energy : float, eV
    forces : (n_atoms, 3) float64, eV/Å
    stress : (6,) float64, eV/Å³, or None
        Voigt order, positive in tension.
    """

    energy: float
    forces: NDArray[np.float64]
    stress: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a potential says nothing about a structure."""

    reason: str


Answer = Evaluation | Refusal


class Potential(Protocol):
    """Anything that answers for many structures at once; one it refuses costs no other its answer.

    Attributes
    ----------
    name : str
    """

    name: str

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        ...


class StudentPotential:
    """A student, all structures in one ``calculate_many``."""

    def __init__(self, calculator: Any) -> None:
        self.name: str = calculator.info.name
        self.calculator = calculator

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        try:
            results = self.calculator.calculate_many(structures)
        except InputError as error:
            if len(structures) == 1:
                return [Refusal(str(error).removeprefix("structure 0: "))]
            middle = len(structures) // 2
            return [*self.evaluate(structures[:middle]), *self.evaluate(structures[middle:])]
        return [
            Evaluation(result["energy"], result["forces"], result.get("stress"))
            for result in results
        ]


class TeacherPotential:
    """A teacher of :mod:`ase_student.potentials.calculator`."""

    def __init__(self, teacher: Any) -> None:
        self.name: str = teacher.name
        self.teacher = teacher

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        return [
            Refusal(label.reason)
            if hasattr(label, "reason")
            else Evaluation(
                as_number(label.energy),
                np.asarray(label.forces, dtype=np.float64),
                None if label.stress is None else np.asarray(label.stress, dtype=np.float64),
            )
            for label in self.teacher.label(list(structures))
        ]


class CalculatorPotential:
    """Any ASE calculator, one structure after the other."""

    def __init__(self, calculator: Any) -> None:
        self.name = type(calculator).__name__
        self.calculator = calculator

    def evaluate(self, structures: Sequence[Atoms]) -> list[Answer]:
        """Return one answer for each structure."""
        return [self._evaluate_one(atoms) for atoms in structures]

    def _evaluate_one(self, atoms: Atoms) -> Answer:
        atoms = with_calculator(atoms, self.calculator)
        # A calculator is third-party code: whatever it raises must not stop a long job.
        try:
            energy = as_number(atoms.get_potential_energy())
            forces = np.array(atoms.get_forces(), dtype=np.float64)
            stress = None
            if atoms.pbc.all() and atoms.cell.rank == 3:
                with suppress(NotImplementedError):
                    stress = np.array(atoms.get_stress(), dtype=np.float64)
        except Exception as error:
            return Refusal(" ".join(f"{type(error).__name__}: {error}".split()))
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
    if hasattr(source, "label"):
        return TeacherPotential(source)
    raise TypeError(f"a calculator or a teacher is needed; given {type(source).__name__}.")


@dataclass(frozen=True)
class Label:
    """What a teacher says about one structure.

    Attributes
    ----------
    energy : float, eV
    forces : (n_atoms, 3) float, eV/Å
    stress : (6,) float, eV/Å³, or None
        Voigt order, positive in tension; None unless the structure is periodic along three axes.
    energies : (n_atoms,) float, eV, or None
        Parts of the energy that belong to the atoms, where the teacher has such.
    charges : (n_atoms,) float, e, or None
        Partial charges, where the teacher has such.
    hirshfeld_ratios : (n_atoms,) float, or None
        Volume of each atom in the structure relative to that of the free atom, where the teacher
        has such; dispersion models start from them.
    """

    energy: float
    forces: NDArray[np.floating]
    stress: NDArray[np.floating] | None = None
    energies: NDArray[np.floating] | None = None
    charges: NDArray[np.floating] | None = None
    hirshfeld_ratios: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Failure:
    """Why a teacher has no label for a structure."""

    reason: str


class Teacher(Protocol):
    """Anything that labels structures.

    Attributes
    ----------
    name : str
        What it was asked for by.
    settings : dict
        Version and settings that decide its labels; two teachers with equal settings agree.
    elements : frozenset of int, or None
        Atomic numbers that it knows; None, or not there, if that cannot be told.
    """

    name: str
    settings: dict[str, Any]
    elements: frozenset[int] | None

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        ...


def is_crystal(atoms: Atoms) -> bool:
    """Say whether a structure is periodic along three axes, so that it has a stress."""
    return bool(atoms.pbc.all()) and atoms.cell.rank == 3


def one_line(error: Exception) -> str:
    """Return what an exception says, in one line that is not too long."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text if len(text) <= _REASON_LENGTH else f"{text[:_REASON_LENGTH]} …"


def student_forces(student: StudentCalculator) -> BatchedForces:
    """Return the forces of a student as a function of many structures."""

    def forces(structures: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        try:
            return [result["forces"] for result in student.calculate_many(structures)]
        except InputError:
            # One of them cannot be computed: halve the list until it stands alone.
            if len(structures) == 1:
                return [np.full((len(structures[0]), 3), np.nan)]
            middle = len(structures) // 2
            return forces(structures[:middle]) + forces(structures[middle:])

    return forces


def teacher_forces(teacher: Teacher) -> BatchedForces:
    """Return the forces of a teacher as a function of many structures."""

    def forces(structures: Sequence[Atoms]) -> list[NDArray[np.float64]]:
        return [
            np.asarray(answer.forces, dtype=np.float64)
            if isinstance(answer, Label)
            else np.full((len(atoms), 3), np.nan)
            for atoms, answer in zip(structures, teacher.label(structures), strict=True)
        ]

    return forces
