"""Check for charges, spins and odd numbers of electrons, which a student ignores."""

import warnings
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers

from ase_student.callers import stacklevel
from ase_student.extrapolation.environments import COVALENT
from ase_student.extrapolation.guard import OutsideTrainingError, OutsideTrainingWarning

__all__ = ["ElectronCheck", "ignored_electrons"]

# Largest absolute sum of partial charges that counts as neutral, e.
LARGEST_NEUTRAL = 0.1
#: Keys of ``atoms.info`` under which other packages look for a total charge or a spin.
CHARGE_KEYS = ("charge", "total_charge")
SPIN_KEYS = ("spin", "multiplicity", "spin_multiplicity", "total_spin")


class ElectronCheck:
    """Warns once, or raises each time, if a structure has charges or spins that are ignored.

    Parameters
    ----------
    name : str
        Name of the student.
    elements : tuple of int
        Elements that the student knows. Odd numbers of electrons are reported only if all of them
        form covalent bonds, which pair electrons.
    action : 'warn' or 'raise'
    """

    def __init__(self, name: str, elements: tuple[int, ...], action: str) -> None:
        self.name, self.action = name, action
        covalent = {atomic_numbers[symbol] for symbol in COVALENT}
        self._counts_electrons = covalent.issuperset(elements)
        self._reported: set[str] = set()

    def check(self, atoms: Atoms, prefix: str = "") -> None:
        """Check a structure; `prefix` begins the message.

        Raises
        ------
        OutsideTrainingError
            If something is ignored and the action is 'raise'.
        """
        for kind, text in ignored_electrons(atoms, self._counts_electrons).items():
            message = f"{prefix}outside of what student '{self.name}' was trained on: {text}."
            if self.action == "raise":
                raise OutsideTrainingError(message)
            if kind not in self._reported:
                self._reported.add(kind)
                warnings.warn(message, OutsideTrainingWarning, stacklevel=stacklevel())


def ignored_electrons(atoms: Atoms, counts_electrons: bool = True) -> dict[str, str]:
    """Return messages on the charge and spin of a structure that a student ignores, by kind.

    Parameters
    ----------
    atoms : Atoms
    counts_electrons : bool
        Whether an odd number of electrons is reported too.
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
    # A singlet has spin 0 and multiplicity 1; 'spin' is used for both quantities.
    if spin is not None and spin[1] not in (0.0, 1.0):
        ignored["spin"] = f"info['{spin[0]}'] is {spin[1]:g}, and it ignores spins"
    if counts_electrons and int(atoms.numbers.sum()) % 2:
        ignored["electrons"] = (
            f"{int(atoms.numbers.sum())} electrons are an odd number, so this is a radical or an "
            "ion, and it ignores electrons"
        )
    return ignored


def _number(info: dict[str, Any], keys: tuple[str, ...]) -> tuple[str, float] | None:
    """Return the first key whose value is a number, and the value; None if there is none."""
    for key in keys:
        value = info.get(key)
        if isinstance(value, (int, float, np.number)) and np.isfinite(value):
            return key, float(value)
    return None
