"""Bonds and contacts that were common in training, in the form that the C++ engine uses."""

import numpy as np

from ase_student.engine.library import Usual
from ase_student.extrapolation.environments import (
    BOND_RATIO,
    ORDER_RATIO,
    PAULING_LENGTH,
    element_keys,
    radius_sums,
)
from ase_student.extrapolation.limits import Limits
from ase_student.extrapolation.ranges import BIN_WIDTH

__all__ = ["usual_of"]


def usual_of(limits: Limits, elements: tuple[int, ...]) -> Usual | None:
    """Return bonds and contacts that were common in training; None without a record of them.

    The engine finds the structures in which something may be rare;
    :meth:`ase_student.extrapolation.limits.Limits.find_unusual` then decides whether it is.

    Parameters
    ----------
    limits : Limits
    elements : tuple of int
        Atomic numbers that the student knows, ascending.
    """
    if not limits.unusual_kinds:
        return None
    numbers = np.array(elements)
    table, gaps = limits.environments, limits.gaps
    places, atom_keys, bond_keys = element_keys(numbers)
    rare_orders = np.stack([table.common_lowest, table.common_highest], axis=-1)
    return Usual(
        radius_sums=radius_sums(numbers),
        bonded=BOND_RATIO,
        reach=ORDER_RATIO,
        decay=PAULING_LENGTH,
        atom_keys=atom_keys,
        bond_keys=bond_keys,
        environments=table.keys,
        orders=np.stack([table.lowest, table.highest], axis=-1),
        other_orders=rare_orders[places.clip(min=0)],
        bin_width=BIN_WIDTH,
        gaps=np.zeros((len(numbers), len(numbers), 0), dtype=np.uint8)
        if gaps is None
        else gaps[np.ix_(numbers, numbers)],
    )
