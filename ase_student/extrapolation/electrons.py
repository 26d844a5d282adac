"""Charges, spins and odd numbers of electrons, which a student does not see."""

import warnings
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ase_student.callers import stacklevel
from ase_student.extrapolation.environments import COVALENT
from ase_student.extrapolation.guard import OutsideTrainingError, OutsideTrainingWarning

__all__ = ["ElectronCheck", "ignored_electrons"]

# e. Partial charges of a neutral molecule add up to less.
LARGEST_NEUTRAL = 0.1
#: Keys of ``atoms.info`` under which other packages look for a total charge or a spin.
CHARGE_KEYS = ("charge", "total_charge")
SPIN_KEYS = ("spin", "multiplicity", "spin_multiplicity", "total_spin")


class ElectronCheck:
    """Warns once, or raises each time, where a structure asks for electrons that are ignored.

    Parameters
    ----------
    name : str
        Of the student.
    elements : tuple of int
        Those that it knows; electrons are counted if all have bonds that pair them.
    action : 'warn' or 'raise'
    """

    def __init__(self, name: str, elements: tuple[int, ...], action: str) -> None:
        self.name, self.action = name, action
        covalent = {atomic_numbers[symbol] for symbol in COVALENT}
        self._counts_electrons = covalent.issuperset(elements)
        self._told: set[str] = set()

    def check(self, atoms: Atoms, where: str = "") -> None:
        """Look at a structure; `where` begins the message.

        Raises
        ------
        OutsideTrainingError
            If there is something and the action is 'raise'.
        """
        for kind, text in ignored_electrons(atoms, self._counts_electrons).items():
            message = f"{where}outside of what student '{self.name}' was trained on: {text}."
            if self.action == "raise":
                raise OutsideTrainingError(message)
            if kind not in self._told:
                self._told.add(kind)
                warnings.warn(message, OutsideTrainingWarning, stacklevel=stacklevel())


def ignored_electrons(atoms: Atoms, counts_electrons: bool = True) -> dict[str, str]:
    """Return what a structure says of its electrons that a student ignores, by kind.

    Parameters
    ----------
    atoms : Atoms
    counts_electrons : bool
        Whether an odd number of electrons is one of these.
    """
    ignored = {}
    arrays, info = atoms.arrays, atoms.info
    if "initial_charges" in arrays:
        total = float(arrays["initial_charges"].sum())
        if abs(total) > LARGEST_NEUTRAL:
            ignored["charge"] = f"initial charges add up to {total:+g} e, and it ignores charges"
    if "initial_magmoms" in arrays and arrays["initial_magmoms"].any():
        ignored["spin"] = "there are initial magnetic moments, and it ignores them"
    charge = _number(info, CHARGE_KEYS) if info else None
    spin = _number(info, SPIN_KEYS) if info else None
    if charge is not None and abs(charge[1]) > LARGEST_NEUTRAL:
        ignored["charge"] = f"info['{charge[0]}'] is {charge[1]:+g}, and it ignores charges"
    # A singlet has spin 0 and multiplicity 1, and 'spin' is used for either.
    if spin is not None and spin[1] not in (0.0, 1.0):
        ignored["spin"] = f"info['{spin[0]}'] is {spin[1]:g}, and it ignores spins"
    if counts_electrons and int(atoms.numbers.sum()) % 2:
        ignored["electrons"] = (
            f"{int(atoms.numbers.sum())} electrons are an odd number, so this is a radical or an "
            "ion, and it does not see electrons"
        )
    return ignored


def _number(info: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, float] | None:
    """Return the first of some keys and its value, None if none is a number."""
    for key in keys:
        value = info.get(key)
        if isinstance(value, (int, float, np.number)) and np.isfinite(value):
            return key, float(value)
    return None
