"""Padded neighbor matrices, and a neighbor list that is reused while atoms move little.

A neighbor matrix has one row per atom and as many columns as the atom with the most neighbors
needs. The list is full: it has both directions of every pair, and periodic images of the atom
itself. Unused entries hold the atom's own index with an offset beyond the cutoff, where every
filter of the network is zero. There is always at least one column, so that an isolated atom needs
no special treatment.

vesin does the search. It is imported at first use, because it imports torch if that is installed,
which takes seconds; small molecules without periodic axes never need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ase_student.empty_space import close_gaps, open_at_gaps

__all__ = ["NeighborList", "NeighborMatrix", "concatenate", "neighbor_matrix"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Pairs = tuple[Integers, Integers, NDArray[Any], Floats]

# Two atoms that are closer, Å, count as at the same position: their direction is not defined.
SMALLEST_DISTANCE = 1e-6
# Å. Larger positions in float64 do not have the digits that forces need.
LARGEST_COORDINATE = 1e8
# Å. A thinner periodic cell has too many images within any cutoff.
SMALLEST_CELL_HEIGHT = 0.1
# Up to this number of atoms, a table of all pairs is faster than a call of vesin.
LARGEST_ALL_PAIRS = 128
# vesin divides space into at most this many bins (MAX_NUMBER_OF_CELLS in its sources).
VESIN_BINS = 1e5
# With more bins per atom, removing empty space is faster than searching it.
MOST_BINS_PER_ATOM = 50.0


@dataclass(frozen=True, slots=True, eq=False)
class NeighborMatrix:
    """The neighbors of every atom, with shifts in whole cells, so that the cell may change.

    Attributes
    ----------
    neighbors : (n_atoms, n_neighbors) int64
        Index of each neighbor, ascending along a row; then padding, the atom's own index.
    shifts : (n_atoms, n_neighbors, 3) float64
        Lattice translation of each neighbor's image in whole cells; zero for padding.
    is_padding : (n_atoms, n_neighbors) bool
        Which entries are not used.
    cutoff : float, Å
        Padding lies at twice this distance.
    """

    neighbors: Integers
    shifts: Floats
    is_padding: Booleans
    cutoff: float

    def offsets(self, cell: ArrayLike) -> Floats:
        """Return the lattice translation of each neighbor's image.

        Parameters
        ----------
        cell : (3, 3) float, Å
            Rows are lattice vectors; those of axes that are not periodic must be finite.

        Returns
        -------
        (n_atoms, n_neighbors, 3) float64, Å
            ``positions[neighbors] + offsets - positions[:, None]`` points from each atom to its
            neighbors; padding is at (2 * cutoff, 0, 0).
        """
        # A product of two matrices: numpy would multiply a three-dimensional array row by row.
        offsets = self.shifts.reshape(-1, 3) @ np.asarray(cell, dtype=np.float64)
        offsets = offsets.reshape(self.shifts.shape)
        offsets[self.is_padding] = (2.0 * self.cutoff, 0.0, 0.0)
        return offsets


def neighbor_matrix(
    positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, cutoff: float, skin: float = 0.0
) -> NeighborMatrix:
    """Return all neighbors closer than the cutoff plus the skin.

    Parameters
    ----------
    positions : (n_atoms, 3) float, Å
        Atoms may be outside a periodic cell: they are not wrapped, the shifts account for this.
    cell : (3, 3) float, Å
        Rows are lattice vectors. May be smaller than the cutoff. Rows of axes that are not
        periodic are ignored and may be zero.
    pbc : (3,) bool
        Which axes are periodic.
    cutoff : float, Å
    skin : float, Å
        Also include pairs that are this much farther apart.

    Returns
    -------
    NeighborMatrix

    Raises
    ------
    ValueError
        If there are no atoms, a position or the cell is not finite, a coordinate or a periodic
        axis is beyond 1e8 Å, two atoms are at the same position, or the vectors of the periodic
        axes don't span a cell.
    """
    _check_distances(cutoff, skin)
    matrix, _ = _search(
        np.asarray(positions, dtype=np.float64),
        np.asarray(cell, dtype=np.float64),
        np.asarray(pbc, dtype=np.bool_),
        float(cutoff),
        float(skin),
    )
    return matrix


def concatenate(parts: Sequence[tuple[Integers, Floats]], cutoff: float) -> tuple[Integers, Floats]:
    """Concatenate structures into one in which different structures are not neighbors.

    Parameters
    ----------
    parts : sequence of (neighbors, offsets)
        Neighbors (n_atoms, n_neighbors) and offsets (n_atoms, n_neighbors, 3) in Å of each
        structure.
    cutoff : float, Å
        Padding is placed at twice this distance.

    Returns
    -------
    neighbors : (total atoms, largest n_neighbors) int64
    offsets : (total atoms, largest n_neighbors, 3) float64, Å

    Raises
    ------
    ValueError
        If there are no parts.
    """
    if not parts:
        raise ValueError("no structures were given; at least one is needed.")
    ends = np.cumsum([len(neighbors) for neighbors, _ in parts])
    n_neighbors = max(neighbors.shape[1] for neighbors, _ in parts)
    all_neighbors = np.repeat(np.arange(ends[-1]), n_neighbors).reshape(-1, n_neighbors)
    all_offsets = np.zeros((ends[-1], n_neighbors, 3))
    all_offsets[:, :, 0] = 2.0 * cutoff
    for end, (neighbors, offsets) in zip(ends, parts, strict=True):
        n_atoms, used = neighbors.shape
        start = end - n_atoms
        np.add(neighbors, start, out=all_neighbors[start:end, :used])
        all_offsets[start:end, :used] = offsets
    return all_neighbors, all_offsets


class NeighborList:
    """A neighbor matrix that is built with a skin and reused while that is safe.

    A pair that is not in the list was at least cutoff + skin apart when the list was built. Let F
    be the deformation of the periodic vectors since then, and d_i the displacement of atom i in
    addition to F. The pair vector r0 has become r = r0 F + d_j - d_i, so

        |r| >= s (cutoff + skin) - |d_j - d_i|,    s the smallest singular value of F,

    and the list is reused while this is at least the cutoff for the two atoms that moved most.
    This holds for any motion: if atoms jump or are wrapped, they have moved far, and the list is
    rebuilt. It is also rebuilt when the number or elements of atoms or the periodic axes change.

    Two atoms at the same position are detected only when the list is built. Between builds they
    cannot get there from an ordinary distance, because a skin does not allow so much motion.

    Parameters
    ----------
    cutoff : float, Å
    skin : float, Å
        Zero builds the list at every update.

    Attributes
    ----------
    n_updates, n_rebuilds : int
        Number of updates, and number of times that the list was built.
    """

    def __init__(self, cutoff: float, skin: float) -> None:
        _check_distances(cutoff, skin)
        self._cutoff = float(cutoff)
        self._skin = float(skin)
        self.n_updates = 0
        self.n_rebuilds = 0
        self._state: _State | None = None

    @property
    def cutoff(self) -> float:
        """Cutoff of the pairs, Å."""
        return self._cutoff

    @property
    def skin(self) -> float:
        """Distance beyond the cutoff that lists include, Å. It cannot be changed."""
        return self._skin

    def update(
        self, positions: ArrayLike, cell: ArrayLike, pbc: ArrayLike, numbers: ArrayLike
    ) -> tuple[Integers, Floats]:
        """Return neighbors and offsets that contain every pair closer than the cutoff.

        Parameters
        ----------
        positions : (n_atoms, 3) float, Å
        cell : (3, 3) float, Å
        pbc : (3,) bool
        numbers : (n_atoms,) int

        Returns
        -------
        neighbors : (n_atoms, n_neighbors) int64
        offsets : (n_atoms, n_neighbors, 3) float64, Å
            As in `NeighborMatrix`, including pairs up to cutoff + skin. These are the list's own
            arrays, and the same objects until their content changes: don't write into them.

        Raises
        ------
        ValueError
            As `neighbor_matrix` does. The list can still be used afterwards.
        """
        positions = np.asarray(positions, dtype=np.float64)
        cell = np.asarray(cell, dtype=np.float64)
        pbc = np.asarray(pbc, dtype=np.bool_)
        # Comparing bytes takes a tenth of the time of np.array_equal.
        system = (np.asarray(numbers).tobytes(), pbc.tobytes())
        state = self._state
        if state is None or state.system != system or not self._is_safe(state, positions, cell):
            matrix, frame = _search(positions, cell, pbc, self._cutoff, self._skin)
            state = _State(matrix, positions.copy(), frame, pbc.copy(), system)
            state.follow(cell)
            self._state = state
            self.n_rebuilds += 1
        self.n_updates += 1
        if state.offsets is None:
            state.offsets = state.matrix.offsets(cell)
        return state.matrix.neighbors, state.offsets

    def _is_safe(self, state: "_State", positions: Floats, cell: Floats) -> bool:
        """Return whether no pair that is not in the list can be within the cutoff now."""
        if self._skin == 0.0 or positions.shape != state.positions.shape:
            return False
        if cell.tobytes() != state.cell:
            # The comparison is also false for NaN.
            if not np.abs(cell).max() < LARGEST_COORDINATE:
                return False
            if not np.abs(positions).max() < LARGEST_COORDINATE:
                return False
            state.follow(cell)
        # Largest displacement of two atoms relative to each other that is allowed.
        allowed = state.stretch * (self._cutoff + self._skin) - self._cutoff
        if not allowed >= 0.0:
            return False
        moved = positions - state.followed
        if 4.0 * np.einsum("ij,ij->i", moved, moved).max() <= allowed**2:
            return True
        # A translation of all atoms changes no pair, but large positions lose digits.
        if not np.abs(positions).max() < LARGEST_COORDINATE:
            return False
        moved -= moved.mean(axis=0)
        lengths = np.sqrt(np.einsum("ij,ij->i", moved, moved))
        return bool(np.sort(lengths)[-2:].sum() <= allowed)


@dataclass(slots=True, eq=False)
class _State:
    """The structure for which a neighbor list was built, and the last cell."""

    matrix: NeighborMatrix
    positions: Floats
    frame: Floats
    pbc: Booleans
    system: tuple[bytes, bytes]
    # Of the last cell: its bytes, the smallest singular value of F, positions F, and the offsets
    # (computed when needed).
    cell: bytes = b""
    stretch: float = 1.0
    followed: Floats = field(init=False)
    offsets: Floats | None = None

    def follow(self, cell: Floats) -> None:
        """Deform the stored positions with the cell."""
        # F does not depend on open axes: directions orthogonal to the periodic vectors are fixed.
        frame = np.where(self.pbc[:, None], cell, self.frame)
        if np.array_equal(frame, self.frame):
            self.stretch, self.followed = 1.0, self.positions
        else:
            deformation = np.linalg.solve(self.frame, frame)
            self.stretch = float(np.linalg.svd(deformation, compute_uv=False)[-1])
            self.followed = self.positions @ deformation
        self.cell = cell.tobytes()
        self.offsets = None


def _search(
    positions: Floats, cell: Floats, pbc: Booleans, cutoff: float, skin: float
) -> tuple[NeighborMatrix, Floats]:
    """Return the neighbor matrix and the frame (see `_frame`) of a structure."""
    _check_positions(positions)
    frame = _frame(cell, pbc)
    n_atoms = len(positions)
    if n_atoms <= LARGEST_ALL_PAIRS and not pbc.any():
        first, second, shifts, distances = _all_pairs(positions, cutoff + skin)
    else:
        first, second, shifts, distances = _vesin_pairs(positions, frame, pbc, cutoff + skin)
    if distances.size and distances.min() < SMALLEST_DISTANCE:
        closest = distances.argmin()
        raise ValueError(
            f"atoms {first[closest]} and {second[closest]} are on one spot "
            f"({distances[closest]:.1e} Å apart); move one of them."
        )

    counts = np.bincount(first, minlength=n_atoms)
    columns = np.arange(max(counts.max(), 1))
    is_pair = columns < counts[:, None]
    neighbors = np.repeat(np.arange(n_atoms), len(columns)).reshape(is_pair.shape)
    all_shifts = np.zeros((*is_pair.shape, 3))
    # The pairs are sorted by their first atom, so they fill the rows one after the other.
    neighbors[is_pair] = second
    all_shifts[is_pair] = shifts
    return NeighborMatrix(neighbors, all_shifts, ~is_pair, cutoff), frame


def _all_pairs(positions: Floats, cutoff: float) -> Pairs:
    """Return first and second atom, shift and distance of each pair in a molecule."""
    # One component at a time: numpy is slow on arrays with a last axis of three.
    x, y, z = positions.T[:, :, None] - positions.T[:, None]
    squares = x * x + y * y + z * z
    np.fill_diagonal(squares, np.inf)
    first, second = np.nonzero(squares < cutoff**2)
    return first, second, np.zeros((1, 3)), np.sqrt(squares[first, second])


def _vesin_pairs(positions: Floats, frame: Floats, pbc: Booleans, cutoff: float) -> Pairs:
    """Return first and second atom, shift and distance of each pair, sorted by the atoms."""
    from vesin import NeighborList as VesinNeighborList

    wraps = None
    if _is_sparse(positions, frame, pbc, cutoff):
        wraps, still_periodic = open_at_gaps(positions, frame, _heights(frame), pbc, cutoff)
        positions = positions - wraps @ frame
        frame, pbc = _frame(frame, still_periodic), still_periodic
        positions = close_gaps(positions, frame[~pbc], cutoff)
    box, radius = _vesin_box(positions, frame, pbc, cutoff)
    # One thread: at the sizes of students' structures, starting more threads takes longer than they
    # save. The order of pairs with the same two atoms is also the same in every run.
    search = VesinNeighborList(cutoff=radius, full_list=True, n_threads=1)
    columns = search.compute(positions, box, periodic=True, quantities="ijSd")
    if radius > cutoff:
        is_near = columns[3] < cutoff
        columns = tuple(array[is_near] for array in columns)
    first, second, shifts, distances = columns
    first, second = first.astype(np.int64), second.astype(np.int64)
    if wraps is not None:
        shifts = shifts + wraps[first] - wraps[second]
    # vesin can only sort by the first atom. Sorting by both takes no longer, and makes accesses to
    # memory sequential.
    order = np.argsort(first * len(positions) + second, kind="stable")
    return first[order], second[order], shifts[order], distances[order]


def _is_sparse(positions: Floats, frame: Floats, pbc: Booleans, cutoff: float) -> bool:
    """Return whether most of the space to be searched is empty."""
    heights = _heights(frame)
    heights[~pbc] = np.ptp(positions @ frame[~pbc].T, axis=0)
    bins = np.maximum(heights / cutoff, 1.0).prod()
    return bool(bins > MOST_BINS_PER_ATOM * len(positions))


def _vesin_box(
    positions: Floats, frame: Floats, pbc: Booleans, cutoff: float
) -> tuple[Floats, float]:
    """Return a fully periodic box without images along open axes, and the radius to search."""
    is_open = ~pbc
    extents = np.ptp(positions @ frame[is_open].T, axis=0)
    heights = _heights(frame)
    box = frame.copy()
    radius = cutoff
    while True:
        heights[is_open] = extents + 1.001 * radius
        bins = np.maximum(np.trunc(heights / radius), 1.0)
        # vesin reduces the number of bins in these steps. If the number becomes zero for an axis,
        # vesin divides by it, which crashes the process. A larger radius makes larger bins.
        if bins.prod() > VESIN_BINS:
            ratios = bins[:2] / bins[1:]
            bins[2] = np.trunc(np.cbrt(VESIN_BINS / (ratios[0] * ratios[1] ** 2)))
            bins[1] = np.trunc(ratios[1] * bins[2])
            bins[0] = np.trunc(ratios[0] * bins[1])
        if bins.min() >= 1.0:
            box[is_open] *= heights[is_open, None]
            return box, radius
        radius *= 1.5


def _frame(cell: Floats, pbc: Booleans) -> Floats:
    """Return the cell with unit vectors, orthogonal to the periodic ones, for open axes."""
    if cell.shape != (3, 3) or pbc.shape != (3,):
        raise ValueError(
            f"cell has shape {cell.shape} and pbc {pbc.shape}; they must be (3, 3) and (3,)."
        )
    if not np.isfinite(cell).all():
        raise ValueError("the cell has components that are NaN or infinite.")
    if not pbc.any():
        return np.eye(3)
    if np.abs(cell[pbc]).max() >= LARGEST_COORDINATE:
        raise ValueError(
            f"the cell has a periodic axis with a component of {np.abs(cell[pbc]).max():.1e} Å; "
            f"it must be below {LARGEST_COORDINATE:.0e} Å."
        )
    for axis in np.flatnonzero(pbc):
        if not cell[axis].any():
            raise ValueError(
                f"axis {axis} is periodic but its cell vector is zero; "
                f"give it a vector, or set pbc to False there."
            )
    frame = cell.copy()
    if not pbc.all():
        basis, _ = np.linalg.qr(cell[pbc].T, mode="complete")
        frame[~pbc] = basis[:, pbc.sum() :].T
    thickness = _heights(frame).min()
    if thickness < SMALLEST_CELL_HEIGHT:
        raise ValueError(
            f"the cell vectors of the periodic axes are linearly dependent or nearly so: the "
            f"cell is {thickness:.1e} Å thick, and must be at least {SMALLEST_CELL_HEIGHT} Å."
        )
    return frame


def _heights(cell: Floats) -> Floats:
    """Return the distances in Å between opposite faces of a cell, zeros if it is flat."""
    try:
        inverse = np.linalg.inv(cell)
    except np.linalg.LinAlgError:
        return np.zeros(3)
    return np.asarray(1.0 / np.linalg.norm(inverse, axis=0))


def _check_distances(cutoff: float, skin: float) -> None:
    if not 0.0 < cutoff < np.inf:
        raise ValueError(f"the cutoff is {cutoff} Å; it must be positive and finite.")
    if not 0.0 <= skin < np.inf:
        raise ValueError(f"the skin is {skin} Å; it must be zero or positive, and finite.")


def _check_positions(positions: Floats) -> None:
    if positions.ndim != 2 or positions.shape[1] != 3:
        raise ValueError(f"positions have shape {positions.shape}; it must be (n_atoms, 3).")
    if not len(positions):
        raise ValueError("the structure has no atoms; at least one is needed.")
    # The comparison is also false for NaN.
    if np.abs(positions).max() < LARGEST_COORDINATE:
        return
    wrong = np.flatnonzero(~(np.abs(positions) < LARGEST_COORDINATE).all(axis=1)).tolist()
    listed = ", ".join(str(index) for index in wrong[:10]) + (", …" if len(wrong) > 10 else "")
    raise ValueError(
        f"positions must be finite and below {LARGEST_COORDINATE:.0e} Å; "
        f"those of {'atom' if len(wrong) == 1 else 'atoms'} {listed} are not."
    )
