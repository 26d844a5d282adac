"""Remove empty space from a structure before the search for neighbors.

A search that divides space into bins spends most of its time on empty bins. There are no pairs
between two layers of atoms that are more than the cutoff apart, so a wider gap can be reduced to
the cutoff, and a periodic axis with such a gap needs no images.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["close_gaps", "open_at_gaps"]

Floats = NDArray[np.float64]
Booleans = NDArray[np.bool_]

# Smallest width of a gap, in cutoffs, to which wider gaps are reduced. It is above 1, so that
# rounding does not join layers.
NARROWEST_GAP = 1.01


def open_at_gaps(
    positions: Floats, cell: Floats, heights: Floats, pbc: Booleans, cutoff: float
) -> tuple[Floats, Booleans]:
    """Return shifts of atoms that place gaps at cell faces, and the axes that remain periodic.

    Parameters
    ----------
    positions : (n_atoms, 3) float, Å
    cell : (3, 3) float, Å
        Vectors of the periodic axes; the others are arbitrary vectors that complete a basis.
    heights : (3,) float, Å
        Distances between opposite faces of the cell.
    pbc : (3,) bool
    cutoff : float, Å

    Returns
    -------
    wraps : (n_atoms, 3) float
        Whole numbers of cells. In ``positions - wraps @ cell``, images along opened axes are
        farther away than the cutoff.
    still_periodic : (3,) bool
        Axes along which images are needed.
    """
    wraps = np.zeros_like(positions)
    still_periodic = pbc.copy()
    fractions = positions @ np.linalg.inv(cell)
    for axis in np.flatnonzero(pbc):
        inside = fractions[:, axis] % 1.0
        ordered = np.sort(inside)
        gaps = np.append(ordered[1:], ordered[0] + 1.0) - ordered
        widest = int(gaps.argmax())
        if gaps[widest] * heights[axis] > NARROWEST_GAP * cutoff:
            first = ordered[(widest + 1) % len(ordered)]
            # The side of the gap is decided by comparison, which has no rounding errors.
            along = np.where(inside >= first, inside, inside + 1.0)
            wraps[:, axis] = np.rint(fractions[:, axis] - along)
            still_periodic[axis] = False
    return wraps, still_periodic


def close_gaps(positions: Floats, directions: Floats, cutoff: float) -> Floats:
    """Return positions in which no gap along given directions is much wider than the cutoff.

    Parameters
    ----------
    positions : (n_atoms, 3) float, Å
    directions : (n_directions, 3) float
        Orthogonal unit vectors, orthogonal to all periodic axes.
    cutoff : float, Å

    Returns
    -------
    (n_atoms, 3) float, Å
        Vectors between atoms closer than the cutoff are unchanged up to rounding, and all other
        pairs of atoms are still farther apart.
    """
    closed = positions
    for direction in directions:
        along = positions @ direction
        order = np.argsort(along, kind="stable")
        gaps = np.diff(along[order])
        too_wide = np.maximum(gaps - NARROWEST_GAP * cutoff, 0.0)
        shifts = np.zeros(len(positions))
        shifts[order[1:]] = np.cumsum(too_wide)
        closed = closed - shifts[:, None] * direction
    return closed
