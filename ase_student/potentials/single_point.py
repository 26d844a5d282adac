"""Single-point results of an ASE calculator, without the effects of constraints.

ASE sets forces on constrained atoms to zero, and some constraints add an energy of their own.
Frames of an ASE database keep their constraints. Labels must not contain these effects.
"""

from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["as_number", "with_calculator"]


def with_calculator(atoms: Atoms, calculator: Any) -> Atoms:
    """Return a copy of a structure without constraints, with a calculator attached."""
    copy = atoms.copy()
    copy.set_constraint()
    copy.calc = calculator
    return copy


def as_number(value: Any, name: str = "energy") -> float:
    """Return a number, which may be given as an array with one element.

    Raises
    ------
    ValueError
        If the number of elements is not one, or it is not a number.

    Examples
    --------
    >>> as_number(np.array([[-1.5]]))
    -1.5
    """
    values = np.asarray(value, dtype=np.float64)
    if values.size != 1:
        raise ValueError(f"{name} has shape {values.shape}; a single number is needed.")
    return float(values.reshape(()))
