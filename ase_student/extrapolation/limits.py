"""How a structure lies outside of what training saw."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_student.extrapolation.ranges import (
    Floats,
    Integers,
    TrainingRanges,
    pair_kinds,
    pair_squares,
)

__all__ = ["DISTANCE_TOLERANCE", "Limits", "Outside"]

# Å. So far below the shortest distance that training saw, a pair is not yet outside.
DISTANCE_TOLERANCE = 0.02
# Atoms or pairs that a text lists.
MOST_LISTED = 10


class Outside(NamedTuple):
    """One kind of what lies outside in a structure.

    Attributes
    ----------
    kind : str
        'distance', 'neighbors' or 'force'.
    atoms : tuple of int
        All atoms that are concerned, ascending.
    text : str
        The worst of it, with its atoms, its value and what training saw.
    """

    kind: str
    atoms: tuple[int, ...]
    text: str


class Limits:
    """What training saw, in the form that structures are compared with.

    A pair is outside if it is closer than the shortest distance of its elements, less a tolerance
    of 0.02 Å, or if its elements were never within the cutoff of each other and now are. Numbers of
    neighbors and forces have no tolerance.

    Parameters
    ----------
    seen : TrainingRanges

    Attributes
    ----------
    distances : (14161,) float64, Å
        Below which a pair is outside, by :func:`ase_student.extrapolation.ranges.pair_kinds`.
    squares : (14161,) float64, Å²
    """

    def __init__(self, seen: TrainingRanges) -> None:
        self.seen = seen
        shortest = (seen.shortest - DISTANCE_TOLERANCE).clip(min=0.0)
        self.distances = np.where(np.isfinite(seen.shortest), shortest, seen.cutoff).reshape(-1)
        self.squares = self.distances**2
        self._weakest = float(seen.forces[seen.counts[:, 1] >= 0, 1].min(initial=np.inf))

    def find(
        self, numbers: Integers, positions: Floats, neighbors: Integers, offsets: Floats
    ) -> list[Outside]:
        """Return how distances and numbers of neighbors lie outside, nothing if they don't.

        Parameters
        ----------
        numbers : (n_atoms,) int
        positions : (n_atoms, 3) float, Å
        neighbors : (n_atoms, n_neighbors) int
        offsets : (n_atoms, n_neighbors, 3) float, Å
            As of :class:`ase_student.neighbors.NeighborMatrix`, for the cutoff or more.
        """
        squares = pair_squares(positions, neighbors, offsets)
        return self.compare(
            numbers, neighbors, squares, self.squares.take(pair_kinds(numbers, neighbors))
        )

    def compare(
        self, numbers: Integers, neighbors: Integers, squares: Floats, limits: Floats
    ) -> list[Outside]:
        """Return what :meth:`find` does, from squared distances and their limits in Å².

        Parameters
        ----------
        numbers : (n_atoms,) int
        neighbors : (n_atoms, n_neighbors) int
        squares, limits : (n_atoms, n_neighbors) float, Å²
        """
        found = []
        too_close = squares < limits
        if too_close.any():
            found.append(self._pairs(numbers, neighbors, squares, limits, too_close))
        counts = (squares < self.seen.cutoff**2).sum(axis=1)
        fewest, most = self.seen.counts[numbers].T
        outside = (counts < fewest) | (counts > most)
        if outside.any():
            found.append(self._counts(numbers, counts, np.flatnonzero(outside)))
        return found

    def find_forces(self, numbers: Integers, forces: Floats) -> list[Outside]:
        """Return how forces lie outside, nothing if they don't.

        Only large ones do: near a minimum, all may be smaller than training saw.

        Parameters
        ----------
        numbers : (n_atoms,) int
        forces : (n_atoms, 3) float, eV/Å
        """
        flat = forces.ravel()
        # Not even all of them together are too large for one atom.
        if flat @ flat <= self._weakest**2:
            return []
        magnitudes = np.sqrt(np.einsum("ij,ij->i", forces, forces))
        largest = self.seen.forces[numbers, 1]
        atoms = np.flatnonzero(magnitudes > largest)
        if not atoms.size:
            return []
        worst = atoms[(magnitudes[atoms] - largest[atoms]).argmax()]
        text = (
            f"the force on atom {_atom(numbers, worst)} is {magnitudes[worst]:.4g} eV/Å; "
            f"training saw at most {largest[worst]:.4g} eV/Å on {_symbol(numbers[worst])}"
        )
        return [Outside("force", tuple(atoms.tolist()), text + _more_atoms(atoms, worst))]

    def _pairs(
        self,
        numbers: Integers,
        neighbors: Integers,
        squares: Floats,
        limits: Floats,
        too_close: NDArray[np.bool_],
    ) -> Outside:
        """Describe pairs that are too close."""
        first, column = np.nonzero(too_close)
        second = neighbors[first, column]
        distances = np.sqrt(squares[first, column])
        worst = (np.sqrt(limits[first, column]) - distances).argmax()
        one, other = sorted((int(first[worst]), int(second[worst])))
        pair = (
            f"atom {_atom(numbers, one)} and its periodic image"
            if one == other
            else f"atoms {_atom(numbers, one)} and {_atom(numbers, other)}"
        )
        shortest = self.seen.shortest[numbers[one], numbers[other]]
        known = f"closer than {shortest:.2f} Å" if np.isfinite(shortest) else self._within
        text = (
            f"{pair} are {distances[worst]:.2f} Å apart; training saw no "
            f"{_symbol(numbers[one])}–{_symbol(numbers[other])} {known}"
        )
        pairs = {(min(pair), max(pair)) for pair in zip(first, second, strict=True)}
        others = [f"{i}–{j}" for i, j in sorted(pairs - {(one, other)})]
        concerned = np.union1d(first, second).tolist()
        return Outside("distance", tuple(concerned), text + _more("pair", others))

    def _counts(self, numbers: Integers, counts: Integers, atoms: Integers) -> Outside:
        """Describe atoms with too many or too few neighbors."""
        fewest, most = self.seen.counts[numbers[atoms]].T
        worst = atoms[np.maximum(counts[atoms] - most, fewest - counts[atoms]).argmax()]
        low, high = self.seen.counts[numbers[worst]]
        symbol = _symbol(numbers[worst])
        known = f"{low} to {high} around {symbol}" if high >= 0 else f"no {symbol}"
        plural = "" if counts[worst] == 1 else "s"
        text = (
            f"atom {_atom(numbers, worst)} has {counts[worst]} neighbor{plural} {self._within}; "
            f"training saw {known}"
        )
        return Outside("neighbors", tuple(atoms.tolist()), text + _more_atoms(atoms, worst))

    @property
    def _within(self) -> str:
        return f"within {self.seen.cutoff:g} Å"


def _symbol(number: int) -> str:
    return chemical_symbols[number]


def _atom(numbers: Integers, index: int) -> str:
    return f"{index} ({_symbol(numbers[index])})"


def _more_atoms(atoms: Integers, worst: int) -> str:
    return _more("atom", [str(atom) for atom in atoms if atom != worst])


def _more(what: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(names[:MOST_LISTED]) + ", …" * (len(names) > MOST_LISTED)
    return f" ({len(names)} more such {what}{'s' * (len(names) > 1)}: {listed})"
