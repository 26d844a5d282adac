"""Ask an ASE calculator for what it computes, and not for what ASE makes of it.

ASE sets forces on constrained atoms to zero, and some constraints add an energy of their own. A
frame of an ASE database keeps its constraints. None of that belongs to labels.
"""

from typing import Any

import numpy as np
from ase import Atoms

__all__ = ["as_number", "with_calculator"]


def with_calculator(atoms: Atoms, calculator: Any) -> Atoms:
    """Return a copy of a structure without constraints that a calculator is attached to."""
    copy = atoms.copy()
    copy.set_constraint()
    copy.calc = calculator
    return copy


def as_number(value: Any, name: str = "energy") -> float:
    """Return a number that may be in an array of one element.

    Raises
    ------
    ValueError
        If there are more or fewer elements, or they are no numbers.

    Examples
    --------
    >>> as_number(np.array([[-1.5]]))
    -1.5
    """
    values = np.asarray(value, dtype=np.float64)
    if values.size != 1:
        raise ValueError(f"{name} has shape {values.shape}; a single number is needed.")
    return float(values.reshape(()))
