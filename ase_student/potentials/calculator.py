"""Teachers: whatever can label structures with energies and forces.

Those with a name here live in modules of their own, because what they need is large and optional.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.data import chemical_symbols

from ase_student.potentials.base import Failure, Label, is_crystal, one_line
from ase_student.potentials.single_point import as_number, with_calculator


class CalculatorTeacher:
    """Any ASE calculator, one structure at a time.

    The calculator is reset for each structure. One that keeps something all the same, such as a
    wave function to start from, may give answers that depend, within its convergence, on what it
    was asked before.

    Parameters
    ----------
    name : str
    make : callable
        Returns the calculator. It is called again after a failure, which may have left the old
        calculator in a bad state.
    settings : dict
    elements : collection of int, optional
        Atomic numbers that it knows; by default those are left to the calculator.

    Raises
    ------
    ValueError
        If the calculator says that it has no energies or no forces.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        settings: dict[str, Any],
        elements: Collection[int] | None = None,
    ) -> None:
        self.name = name
        self.settings = settings
        self.elements = None if elements is None else frozenset(elements)
        self._make = make
        self._calculator = make()
        self._properties = getattr(self._calculator, "implemented_properties", ())
        lacks = [name for name in ("energy", "forces") if name not in self._properties]
        if lacks and self._properties:
            raise ValueError(
                f"teacher '{name}' gives no {' and no '.join(lacks)}, only "
                f"{', '.join(self._properties)}; a student learns from energy and forces."
            )

    def label(self, structures: Sequence[Atoms]) -> list[Label | Failure]:
        """Return one label, or the reason why there is none, for each structure."""
        return [self._label_one(atoms) for atoms in structures]

    def _label_one(self, atoms: Atoms) -> Label | Failure:
        if (failure := foreign(atoms, self.elements)) is not None:
            return failure
        # A calculator is third-party code: whatever it raises must not stop a long job.
        try:
            return self._evaluate(atoms)
        except Exception as error:
            self._calculator = self._make()
            return Failure(one_line(error))

    def _evaluate(self, atoms: Atoms) -> Label:
        if hasattr(self._calculator, "reset"):
            self._calculator.reset()
        atoms = with_calculator(atoms, self._calculator)
        energy = _energy(atoms, "free_energy" in self._properties)
        forces = np.array(atoms.get_forces())
        stress = None
        if is_crystal(atoms):
            with suppress(NotImplementedError):
                stress = np.array(atoms.get_stress())
        energies = charges = None
        if "energies" in self._properties:
            with suppress(NotImplementedError):
                energies = np.array(atoms.get_potential_energies())
        if "charges" in self._properties:
            with suppress(NotImplementedError):
                charges = np.array(atoms.get_charges())
        return Label(energy, forces, stress, energies, charges)


def _energy(atoms: Atoms, has_free_energy: bool) -> float:
    """Return the energy whose derivatives the forces are, eV.

    With smeared occupations of electronic states that is the free energy, not the energy
    extrapolated to zero width.
    """
    if has_free_energy:
        with suppress(PropertyNotImplementedError):
            return as_number(atoms.get_potential_energy(force_consistent=True))
    return as_number(atoms.get_potential_energy())


def foreign(atoms: Atoms, elements: frozenset[int] | None) -> Failure | None:
    """Return a failure if a structure has elements that a teacher does not know."""
    if elements is None or elements.issuperset(atoms.numbers.tolist()):
        return None
    unknown = sorted(set(atoms.numbers.tolist()) - elements)
    return Failure(f"has {symbols_of(unknown)}, which the teacher does not know")


def symbols_of(elements: Collection[int]) -> str:
    """Return the symbols of elements, by atomic number."""
    return ", ".join(chemical_symbols[number] for number in sorted(elements))
