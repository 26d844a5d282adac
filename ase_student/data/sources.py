"""Sources of structures that are treated specially."""

import numpy as np
from numpy.typing import NDArray

from ase_student.data.structures import Structures

#: Two isolated atoms. They are not typical of the surroundings of atoms in molecules, so they are
#: left out of the record of a student's training that its guard uses.
DIATOMIC = "diatomic"
#: Structures that do not occur in use, and that keep predictions reasonable far from other data:
#: see `displace --foreign`.
FOREIGN = "foreign"
#: Structure of a scan of a torsion, next to the other structures of the scan: see `torsions`.
TORSION = "torsion"
UNLIKE_USE = frozenset({DIATOMIC, FOREIGN})


def are_like_use(structures: Structures) -> NDArray[np.bool_]:
    """Return whether each structure is like those that a student is used for, (n,) bool."""
    if structures.sources is None:
        return np.ones(len(structures), dtype=bool)
    return ~np.isin(structures.sources, list(UNLIKE_USE))
