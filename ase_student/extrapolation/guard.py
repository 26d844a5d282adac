"""Guard: reports frames that lie outside of what a student was trained on.

The guard is a minimum check, not a proof that results are correct. It reports atoms that are too
close, surroundings with too many or too few atoms, and forces that are too large. If the student's
training has counted distances and environments, it also reports atoms with bonds that are rare in
training (radicals, broken bonds), bonds that are too short, pairs of atoms at a distance between
those of bonds and those of contacts, and atoms more than two bonds apart that are closer than
usual. It does not report reactions whose parts were all seen. ``docs/guard.md`` has its rates of
false alarms and of misses.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from ase.calculators.calculator import CalculationFailed

from ase_student.backends import PotentialInfo
from ase_student.callers import stacklevel
from ase_student.extrapolation.limits import Limits, Outside
from ase_student.extrapolation.ranges import (
    Floats,
    Integers,
    TrainingRanges,
    pair_kinds,
    pair_squares,
)

__all__ = [
    "GUARDS",
    "Guard",
    "OutsideTrainingError",
    "OutsideTrainingWarning",
    "open_guard",
]

GUARDS = ("auto", "warn", "raise", "off")


class OutsideTrainingWarning(UserWarning):
    """A frame lies outside of what the student was trained on: its results may be wrong."""


class OutsideTrainingError(CalculationFailed):
    """A frame lies outside of what the student was trained on, and the guard is set to raise."""


class Guard:
    """Compares frames with what training saw, and warns or raises.

    While a neighbor list with a skin is reused, no two atoms move more than the skin relative to
    each other. When the list is built, all pairs are checked. The guard then records the pairs that
    could come too close before the list is built again (one or two per atom), and the atoms whose
    number of neighbors could leave its range (often none). Until then only these are checked.

    Parameters
    ----------
    seen : TrainingRanges
    name : str
        Name of the student.
    action : str
        'warn' reports each kind once, as an :class:`OutsideTrainingWarning`; 'raise' raises
        :class:`OutsideTrainingError` every time.
    skin : float, Å
        Skin of the neighbor list.
    """

    def __init__(self, seen: TrainingRanges, name: str, action: str, skin: float) -> None:
        self.name, self.action, self.skin = name, action, skin
        self.limits = Limits(seen)
        # Pairs beyond these cannot come too close while a list is reused.
        self._reaches = (self.limits.distances + skin) ** 2
        self._not_reported = {"distance", "neighbors", "force"} | self.limits.unusual_kinds
        self._watch: _Watch | None = None
        # The last neighbors, their kinds and limits, which stay the same when the cell changes.
        self._last: tuple[Integers, Integers, Floats] | None = None

    def looks_at(self, *kinds: str) -> bool:
        """Return whether any of these kinds of :class:`Outside` would still be reported."""
        return not self._not_reported.isdisjoint(kinds)

    @property
    def looks_for_unusual(self) -> bool:
        """Whether bonds and contacts that training did not see can be found and reported."""
        return self.looks_at("bonds", "contact")

    def check_unusual(
        self,
        numbers: Integers,
        positions: Floats,
        neighbors: Integers,
        offsets: Floats,
        index: int | None = None,
    ) -> None:
        """Report the bonds and contacts of one structure that training did not see.

        Parameters
        ----------
        numbers : (n_atoms,) int64
        positions : (n_atoms, 3) float64, Å
        neighbors, offsets
            As :func:`ase_student.neighbors.neighbor_matrix` returns them.
        index : int, optional
            Number of the structure in messages.
        """
        squares = pair_squares(positions, neighbors, offsets)
        self._report(self.limits.find_unusual(numbers, neighbors, squares), index)

    def check(
        self,
        numbers: Integers,
        positions: Floats,
        neighbors: Integers,
        offsets: Floats,
        rebuilt: bool,
    ) -> None:
        """Report distances and numbers of neighbors of a frame that lie outside.

        Parameters
        ----------
        numbers : (n_atoms,) int64
        positions : (n_atoms, 3) float64, Å
        neighbors, offsets
            The arrays that :class:`ase_student.neighbors.NeighborList` returned for them.
        rebuilt : bool
            Whether the list was built for these positions.
        """
        if not self._not_reported - {"force"}:
            return
        if self._watch is not None and self._watch.is_inside(positions, neighbors, offsets):
            return
        squares = pair_squares(positions, neighbors, offsets)
        if self._last is None or self._last[0] is not neighbors:
            kinds = pair_kinds(numbers, neighbors)
            self._last = neighbors, kinds, self.limits.squares.take(kinds)
        _, kinds, limits = self._last
        self._report(self.limits.compare(numbers, neighbors, squares, limits))
        # No atom moves by more than half of the skin until the list is built again.
        if rebuilt:
            self._report(self.limits.find_unusual(numbers, neighbors, squares))
        if rebuilt and self.skin > 0.0:
            self._watch = self._new_watch(numbers, neighbors, offsets, squares, kinds)

    def check_forces(self, numbers: Integers, forces: Floats) -> None:
        """Report forces that lie outside.

        Parameters
        ----------
        numbers : (n_atoms,) int64
        forces : (n_atoms, 3) float64, eV/Å
        """
        if "force" in self._not_reported:
            self._report(self.limits.find_forces(numbers, forces))

    def check_many(
        self,
        indices: Sequence[int],
        ends: Sequence[int],
        numbers: Integers,
        positions: Floats,
        neighbors: Integers,
        offsets: Floats,
    ) -> None:
        """Report distances and numbers of neighbors of concatenated structures that lie outside.

        Parameters
        ----------
        indices : sequence of int
            Numbers of the structures in messages.
        ends : sequence of int
            The row after the last atom of each structure.
        numbers : (total atoms,) int64
        positions : (total atoms, 3) float64, Å
        neighbors, offsets
            As :func:`ase_student.neighbors.concatenate` returns them.
        """
        find = self._find
        if not self._not_reported - {"force"} or not find(numbers, positions, neighbors, offsets):
            return
        for index, rows in _rows(indices, ends):
            own = neighbors[rows] - rows.start
            self._report(find(numbers[rows], positions[rows], own, offsets[rows]), index)

    def check_many_forces(
        self, indices: Sequence[int], ends: Sequence[int], numbers: Integers, forces: Floats
    ) -> None:
        """Report forces of concatenated structures that lie outside; see :meth:`check_many`."""
        find = self.limits.find_forces
        if "force" not in self._not_reported or not find(numbers, forces):
            return
        for index, rows in _rows(indices, ends):
            self._report(find(numbers[rows], forces[rows]), index)

    def _find(
        self, numbers: Integers, positions: Floats, neighbors: Integers, offsets: Floats
    ) -> list[Outside]:
        squares = pair_squares(positions, neighbors, offsets)
        limits = self.limits.squares.take(pair_kinds(numbers, neighbors))
        return [
            *self.limits.compare(numbers, neighbors, squares, limits),
            *self.limits.find_unusual(numbers, neighbors, squares),
        ]

    def _new_watch(
        self,
        numbers: Integers,
        neighbors: Integers,
        offsets: Floats,
        squares: Floats,
        kinds: Integers,
    ) -> "_Watch":
        """Return the pairs and atoms to check until the neighbor list is built again."""
        seen = self.limits.seen
        could_be_close = squares < self._reaches.take(kinds)
        # Each pair once. An atom and its periodic image cannot come closer while the cell is fixed.
        could_be_close &= neighbors > np.arange(len(numbers))[:, None]
        could_be_close &= "distance" in self._not_reported
        first, column = np.nonzero(could_be_close)
        shifts = offsets[first, column]
        surely = (squares < max(seen.cutoff - self.skin, 0.0) ** 2).sum(axis=1)
        possibly = (squares < (seen.cutoff + self.skin) ** 2).sum(axis=1)
        fewest, most = self.limits.counts[numbers].T
        could_leave = (surely < fewest) | (possibly > most)
        atoms = np.flatnonzero(could_leave & ("neighbors" in self._not_reported))
        return _Watch(
            neighbors=neighbors,
            offsets=offsets,
            pairs=np.stack([first, neighbors[first, column]]),
            shifts=shifts if shifts.any() else None,
            limits=self.limits.squares.take(kinds[first, column]),
            atoms=atoms,
            their_neighbors=neighbors[atoms],
            their_offsets=offsets[atoms],
            fewest=fewest[atoms],
            most=most[atoms],
            cutoff=seen.cutoff,
        )

    def _report(self, findings: Sequence[Outside], structure: int | None = None) -> None:
        prefix = "" if structure is None else f"structure {structure}: "
        for outside in findings:
            if outside.kind not in self._not_reported:
                continue
            message = (
                f"{prefix}outside of what student '{self.name}' was trained on: {outside.text}."
            )
            if self.action == "raise":
                raise OutsideTrainingError(message)
            warnings.warn(message, OutsideTrainingWarning, stacklevel=stacklevel())
            self._not_reported.discard(outside.kind)
            self._watch = None


@dataclass(slots=True, eq=False)
class _Watch:
    """Pairs that could come too close, and atoms whose number of neighbors could leave its range.

    They are valid as long as the neighbor list returns the same arrays.
    """

    neighbors: Integers
    offsets: Floats
    pairs: Integers
    shifts: Floats | None
    limits: Floats
    atoms: Integers
    their_neighbors: Integers
    their_offsets: Floats
    fewest: Integers
    most: Integers
    cutoff: float

    def is_inside(self, positions: Floats, neighbors: Integers, offsets: Floats) -> bool:
        """Return whether a frame is certainly inside."""
        if neighbors is not self.neighbors or offsets is not self.offsets:
            return False
        first, second = positions.take(self.pairs, axis=0)
        second -= first
        if self.shifts is not None:
            second += self.shifts
        if (np.einsum("ij,ij->i", second, second) < self.limits).any():
            return False
        if not self.atoms.size:
            return True
        squares = pair_squares(positions, self.their_neighbors, self.their_offsets, self.atoms)
        counts = (squares < self.cutoff**2).sum(axis=1)
        return bool(((counts >= self.fewest) & (counts <= self.most)).all())


def open_guard(choice: str, info: PotentialInfo, skin: float) -> Guard | None:
    """Return the guard of a potential, None if the guard is off.

    Parameters
    ----------
    choice : str
        A name from `GUARDS`; 'auto' warns if the potential has a record of what its training saw.
    info : PotentialInfo
    skin : float, Å
        Skin of the neighbor list.

    Raises
    ------
    ValueError
        If the potential has no record of what its training saw, or the record is damaged.
    """
    record = info.metadata.get("seen")
    if choice == "off" or (choice == "auto" and record is None):
        return None
    if record is None:
        raise ValueError(
            f"guard='{choice}' compares with what training saw, which student '{info.name}' does "
            "not carry; pass guard='off', or train or export it again."
        )
    try:
        seen = TrainingRanges.from_dict(record)
    except ValueError as error:
        raise ValueError(f"student '{info.name}': {error}") from error
    if seen.cutoff != info.cutoff:
        raise ValueError(
            f"student '{info.name}' has a cutoff of {info.cutoff:g} Å, but its record of what "
            f"training saw is for {seen.cutoff:g} Å; make the record again."
        )
    return Guard(seen, info.name, "warn" if choice == "auto" else choice, skin)


def _rows(indices: Sequence[int], ends: Sequence[int]) -> Iterator[tuple[int, slice]]:
    """Yield the number of each structure and the rows of its atoms."""
    yield from zip(indices, map(slice, [0, *ends[:-1]], ends), strict=True)
