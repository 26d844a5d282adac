"""Sources of structures that are treated in a way of their own."""

import numpy as np
from numpy.typing import NDArray

from ase_student.data.structures import Structures

#: Two atoms alone. They say nothing about what surrounds an atom in molecules, so that what a
#: student has seen, which its guard compares with, leaves them out.
DIATOMIC = "diatomic"
#: Other structures that no use visits and that keep a student sane: see `displace --foreign`.
FOREIGN = "foreign"
#: One of a scan of a torsion, next to the others of the scan: see `torsions`.
TORSION = "torsion"
UNLIKE_USE = frozenset({DIATOMIC, FOREIGN})


def are_like_use(structures: Structures) -> NDArray[np.bool_]:
    """Return which structures are like what a student is used for, (n,) bool."""
    if structures.sources is None:
        return np.ones(len(structures), dtype=bool)
    return ~np.isin(structures.sources, list(UNLIKE_USE))
