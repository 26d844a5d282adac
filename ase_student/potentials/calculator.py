"""Teachers made from ASE calculators, which label structures with energies and forces.

Bundled teachers are in modules of their own, because the packages that they need are large and
optional.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_student.potentials.base import Answer, CalculatorPotential, Evaluation, Refusal


class CalculatorTeacher(CalculatorPotential):
    """Any ASE calculator as a teacher, which evaluates one structure at a time.

    The calculator is reset for each structure. If a calculator keeps something after a reset, such
    as a wave function to start from, its results may depend, within its convergence, on earlier
    structures.

    Parameters
    ----------
    name : str
    make : callable
        Function that returns the calculator. It is called again after a failure, because the old
        calculator may be in an invalid state.
    settings : dict
    elements : collection of int, optional
        Atomic numbers that it knows; by default the calculator decides.

    Raises
    ------
    ValueError
        If the calculator states that it gives no energies or no forces.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Any],
        settings: dict[str, Any],
        *,
        elements: Collection[int] | None = None,
    ) -> None:
        super().__init__(make())
        self.name = name
        self.settings = settings
        self.elements = None if elements is None else frozenset(elements)
        self._make = make
        self._properties = getattr(self.calculator, "implemented_properties", ())
        lacks = [name for name in ("energy", "forces") if name not in self._properties]
        if lacks and self._properties:
            raise ValueError(
                f"teacher '{name}' gives no {' and no '.join(lacks)}, only "
                f"{', '.join(self._properties)}; a student learns from energy and forces."
            )

    def _answer(self, atoms: Atoms) -> Answer:
        if (refusal := refusal_of_elements(atoms, self.elements)) is not None:
            return refusal
        answer = super()._answer(atoms)
        if isinstance(answer, Refusal):
            self.calculator = self._make()
        return answer

    def _evaluate(self, atoms: Atoms) -> Evaluation:
        if hasattr(self.calculator, "reset"):
            self.calculator.reset()
        evaluation = super()._evaluate(atoms)
        energies = charges = None
        if "energies" in self._properties:
            with suppress(NotImplementedError):
                energies = np.array(atoms.get_potential_energies())
        if "charges" in self._properties:
            with suppress(NotImplementedError):
                charges = np.array(atoms.get_charges())
        return replace(evaluation, energies=energies, charges=charges)


def refusal_of_elements(atoms: Atoms, elements: frozenset[int] | None) -> Refusal | None:
    """Return a refusal if a structure has elements that a teacher does not know."""
    if elements is None or elements.issuperset(atoms.numbers.tolist()):
        return None
    unknown = sorted(set(atoms.numbers.tolist()) - elements)
    return Refusal(f"has {symbols_of(unknown)}, which the teacher does not know")


def symbols_of(elements: Collection[int]) -> str:
    """Return the symbols of elements, by atomic number."""
    return ", ".join(chemical_symbols[number] for number in sorted(elements))
