"""Limits from training, and the search for what lies outside of them in a structure."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_student.extrapolation.environments import (
    COVALENT,
    MOST_BONDS,
    NOT_COVALENT,
    TOO_MANY,
    are_nonbonded,
    elements_and_bonds,
    environment_keys,
    environment_name,
)
from ase_student.extrapolation.ranges import (
    BIN_WIDTH,
    LONGEST_COUNTED,
    N_BINS,
    Floats,
    Integers,
    TrainingRanges,
    pair_kinds,
    pair_squares,
)

__all__ = ["DISTANCE_TOLERANCE", "Limits", "Outside"]

# Å. A pair is outside if it is closer than the shortest distance in training minus this tolerance.
DISTANCE_TOLERANCE = 0.02
# Smallest number of structures in a record that shows what is usual.
FEWEST_STRUCTURES = 1000
# Atoms/Å³. Molecular liquids and crystals have at most 0.13 (polyethylene), water has 0.10.
ORDINARY_DENSITY = 0.135
# An environment with at least this many atoms in training is judged by its own statistics, a rarer
# environment by those of all atoms of its element that have as many bonds.
FEWEST_ATOMS = 30
# Allowed deviation of sums of bond orders from the mean, in standard deviations: for an environment
# that is judged by its own statistics, and for an element with a number of bonds. The tolerance is
# added to both.
DEVIATIONS = 6.0
COMMON_DEVIATIONS = 3.0
ORDERS_TOLERANCE = 0.05
# A number of bonds is unusual if a smaller share of the element's atoms has it.
SMALLEST_SHARE = 3e-4
# Smallest number of pairs of two elements at which gaps in their distances are significant.
FEWEST_PAIRS = 10_000
# A distance is rare if it has fewer pairs than this share of those at the commonest distance: of
# all pairs, and of those that are more than two bonds apart.
GAP_SHARE = 3.5e-4
NONBONDED_SHARE = 5e-4
# Values of `Limits.gaps`, as the engine has them.
RARE, RARE_NONBONDED = 1, 2
# Largest number of atoms or pairs that a message lists.
MOST_LISTED = 10


class Outside(NamedTuple):
    """What lies outside in a structure, of one kind.

    Attributes
    ----------
    kind : str
        'distance', 'neighbors', 'force', 'bonds' or 'contact'.
    atoms : tuple of int
        All atoms that are affected, ascending.
    text : str
        Description of the worst case, with its atoms, its value and what training saw.
    """

    kind: str
    atoms: tuple[int, ...]
    text: str


class Limits:
    """What training saw, in the form that structures are compared with.

    A pair is outside if it is closer than the shortest distance of its elements minus a tolerance
    of 0.02 Å, or if it is within the cutoff and its elements never were in training. Numbers of
    neighbors and forces have no tolerance.

    Parameters
    ----------
    seen : TrainingRanges

    Attributes
    ----------
    distances : (14161,) float64, Å
        A pair below this distance is outside; the index is that of
        :func:`ase_student.extrapolation.ranges.pair_kinds`.
    squares : (14161,) float64, Å²
        Squares of `distances`.
    counts : (119, 2) int64
        Smallest and largest number of neighbors. For students of covalent elements, the largest is
        at least that of an ordinary molecular liquid or crystal, which training on clusters need
        not have seen.
    environments : EnvironmentTable
        Usual sums of bond orders; without keys if training had too few structures.
    gaps : (119, 119, n_bins) uint8, or None
        `RARE` for distances that are rare between closer and farther ones, `RARE_NONBONDED` for
        those that are rare only of atoms more than two bonds apart, else 0; None without a record.
    """

    def __init__(self, seen: TrainingRanges) -> None:
        self.seen = seen
        shortest = (seen.shortest - DISTANCE_TOLERANCE).clip(min=0.0)
        self.distances = np.where(np.isfinite(seen.shortest), shortest, seen.cutoff).reshape(-1)
        self.squares = self.distances**2
        self.counts = _ordinary_counts(seen)
        self.environments = _environment_table(seen)
        self.gaps = _gaps(seen)
        self._weakest = float(seen.forces[seen.counts[:, 1] >= 0, 1].min(initial=np.inf))

    def find(
        self, numbers: Integers, positions: Floats, neighbors: Integers, offsets: Floats
    ) -> list[Outside]:
        """Return the distances and numbers of neighbors that lie outside; empty if none do.

        Parameters
        ----------
        numbers : (n_atoms,) int
        positions : (n_atoms, 3) float, Å
        neighbors : (n_atoms, n_neighbors) int
        offsets : (n_atoms, n_neighbors, 3) float, Å
            As in :class:`ase_student.neighbors.NeighborMatrix`, for the cutoff or a larger radius.
        """
        squares = pair_squares(positions, neighbors, offsets)
        return self.compare(
            numbers, neighbors, squares, self.squares.take(pair_kinds(numbers, neighbors))
        )

    def compare(
        self, numbers: Integers, neighbors: Integers, squares: Floats, limits: Floats
    ) -> list[Outside]:
        """Return the same as :meth:`find`, from squared distances and their limits in Å².

        Parameters
        ----------
        numbers : (n_atoms,) int
        neighbors : (n_atoms, n_neighbors) int
        squares, limits : (n_atoms, n_neighbors) float, Å²
        """
        findings = []
        too_close = squares < limits
        if too_close.any():
            findings.append(self._pairs(numbers, neighbors, squares, limits, too_close))
        counts = (squares < self.seen.cutoff**2).sum(axis=1)
        fewest, most = self.counts[numbers].T
        outside = (counts < fewest) | (counts > most)
        if outside.any():
            findings.append(self._counts(numbers, counts, np.flatnonzero(outside)))
        return findings

    @property
    def unusual_kinds(self) -> set[str]:
        """The kinds that :meth:`find_unusual` can find: those with enough counts from training."""
        kinds = {"bonds": len(self.environments.keys) > 0, "contact": self.gaps is not None}
        return {kind for kind, is_there in kinds.items() if is_there}

    def find_unusual(
        self, numbers: Integers, neighbors: Integers, squares: Floats
    ) -> list[Outside]:
        """Return bonds and contacts that training did not see; empty without a record of them.

        Bonds: atoms in environments that are rare in training, or with unusual bond orders.
        Contacts: pairs at a distance between those of bonds and those of contacts that is rare in
        training, and pairs of atoms more than two bonds apart that are closer than usual.

        Parameters
        ----------
        numbers : (n_atoms,) int
        neighbors : (n_atoms, n_neighbors) int
        squares : (n_atoms, n_neighbors) float, Å²
        """
        findings = []
        if len(self.environments.keys):
            findings += self._find_bonds(numbers, neighbors, squares)
        if self.gaps is not None:
            findings += self._find_contacts(numbers, neighbors, squares)
        return findings

    def _find_bonds(self, numbers: Integers, neighbors: Integers, squares: Floats) -> list[Outside]:
        table = self.environments
        keys, orders = environment_keys(numbers, neighbors, squares)
        lowest, highest, is_common = table.limits(keys)
        outside = (orders < lowest) | (orders > highest)
        atoms = np.flatnonzero(outside & (keys != NOT_COVALENT))
        if not atoms.size:
            return []
        rare = atoms[~is_common[atoms]]
        worst = int(rare[0] if rare.size else atoms[0])
        key = int(keys[worst])
        name = "more atoms than can be" if key == TOO_MANY else environment_name(key)
        text = (
            f"atom {_atom(numbers, worst)} is bonded as {name}, which is very rare in the training "
            "data"
        )
        if is_common[worst]:
            text = (
                f"the bonds of atom {_atom(numbers, worst)}, {name}, are unusually "
                f"{'short' if orders[worst] > highest[worst] else 'long'}: their orders add up to "
                f"{orders[worst]:.2f}; usual are {lowest[worst]:.2f} to {highest[worst]:.2f}"
            )
        return [Outside("bonds", tuple(atoms.tolist()), text + _more_atoms(atoms, worst))]

    def _find_contacts(
        self, numbers: Integers, neighbors: Integers, squares: Floats
    ) -> list[Outside]:
        assert self.gaps is not None
        rows, columns = np.nonzero(squares < LONGEST_COUNTED**2)
        lengths = np.sqrt(squares[rows, columns])
        partners = neighbors[rows, columns]
        bins = (lengths / BIN_WIDTH).astype(np.int64).clip(max=N_BINS - 1)
        gaps = self.gaps[numbers[rows], numbers[partners], bins]
        is_unusual = gaps == RARE
        candidates = np.flatnonzero(gaps == RARE_NONBONDED)
        if candidates.size:
            is_unusual[candidates] = are_nonbonded(
                numbers, neighbors, squares, rows=rows[candidates], columns=columns[candidates]
            )
        if not is_unusual.any():
            return []
        first, second = rows[is_unusual], partners[is_unusual]
        low_index, high_index = sorted((int(first[0]), int(second[0])))
        indices = {
            (min(pair), max(pair)) for pair in zip(first.tolist(), second.tolist(), strict=True)
        }
        names = [f"{i}–{j}" for i, j in sorted(indices - {(low_index, high_index)})]
        seen = (
            "training saw such pairs at shorter and longer distances, but hardly ever at this "
            "distance"
            if gaps[is_unusual][0] == RARE
            else "training hardly ever saw such atoms this close, unless bonds join them"
        )
        text = (
            f"atoms {_atom(numbers, low_index)} and {_atom(numbers, high_index)} are "
            f"{lengths[is_unusual][0]:.2f} Å apart; {seen}"
        )
        concerned = np.union1d(first, second).tolist()
        return [Outside("contact", tuple(concerned), text + _more("pair", names))]

    def find_forces(self, numbers: Integers, forces: Floats) -> list[Outside]:
        """Return the forces that lie outside; empty if none do.

        Only large forces are outside: near a minimum, all may be smaller than training saw.

        Parameters
        ----------
        numbers : (n_atoms,) int
        forces : (n_atoms, 3) float, eV/Å
        """
        flat = forces.ravel()
        # No single force can be too large if the norm of all forces together is not.
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
        low_index, high_index = sorted((int(first[worst]), int(second[worst])))
        pair = (
            f"atom {_atom(numbers, low_index)} and its periodic image"
            if low_index == high_index
            else f"atoms {_atom(numbers, low_index)} and {_atom(numbers, high_index)}"
        )
        shortest = self.seen.shortest[numbers[low_index], numbers[high_index]]
        observed = f"closer than {shortest:.2f} Å" if np.isfinite(shortest) else self._within
        text = (
            f"{pair} are {distances[worst]:.2f} Å apart; training saw no "
            f"{_symbol(numbers[low_index])}–{_symbol(numbers[high_index])} {observed}"
        )
        pairs = {(min(pair), max(pair)) for pair in zip(first, second, strict=True)}
        other_pairs = [f"{i}–{j}" for i, j in sorted(pairs - {(low_index, high_index)})]
        concerned = np.union1d(first, second).tolist()
        return Outside("distance", tuple(concerned), text + _more("pair", other_pairs))

    def _counts(self, numbers: Integers, counts: Integers, atoms: Integers) -> Outside:
        """Describe atoms with too many or too few neighbors."""
        fewest, most = self.counts[numbers[atoms]].T
        worst = atoms[np.maximum(counts[atoms] - most, fewest - counts[atoms]).argmax()]
        low, high = self.seen.counts[numbers[worst]]
        symbol = _symbol(numbers[worst])
        observed = f"{low} to {high} around {symbol}" if high >= 0 else f"no {symbol}"
        plural = "" if counts[worst] == 1 else "s"
        text = (
            f"atom {_atom(numbers, worst)} has {counts[worst]} neighbor{plural} {self._within}; "
            f"training saw {observed}"
        )
        return Outside("neighbors", tuple(atoms.tolist()), text + _more_atoms(atoms, worst))

    @property
    def _within(self) -> str:
        return f"within {self.seen.cutoff:g} Å"


class EnvironmentTable(NamedTuple):
    """Limits of the sums of bond orders.

    Attributes
    ----------
    keys : (n,) int64
        Common environments, ascending.
    lowest, highest : (n,) float64
        Limits for each common environment.
    common_lowest, common_highest : (14, 16) float64
        Limits for rare environments, by element (index in `COVALENT`) and number of bonds; inf and
        -inf if such a number of bonds is unusual.
    """

    keys: NDArray[np.int64]
    lowest: Floats
    highest: Floats
    common_lowest: Floats
    common_highest: Floats

    def limits(self, keys: NDArray[np.int64]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the lowest and highest orders of atoms, and whether their environment is common.

        Parameters
        ----------
        keys : (n_atoms,) int64
            Keys of their environments; negative keys have no valid orders.
        """
        rows = np.searchsorted(self.keys, keys).clip(max=len(self.keys) - 1)
        is_common: NDArray[np.bool_] = self.keys[rows] == keys
        lowest, highest = self.lowest[rows], self.highest[rows]
        if not is_common.all():
            rare = np.flatnonzero(~is_common)
            places = elements_and_bonds(keys[rare].clip(min=0))
            is_counted = keys[rare] >= 0
            lowest[rare] = np.where(is_counted, self.common_lowest[places], np.inf)
            highest[rare] = np.where(is_counted, self.common_highest[places], -np.inf)
        return lowest, highest, is_common


def _environment_table(seen: TrainingRanges) -> EnvironmentTable:
    """Return usual sums of bond orders; without keys if training had too few structures."""
    rows = []
    # Number of atoms, sum and sum of squares of their orders, by element and number of bonds.
    sums = np.zeros((3, len(COVALENT), MOST_BONDS + 1))
    if seen.n_structures >= FEWEST_STRUCTURES:
        keys = np.array(list(seen.environments.rows), dtype=np.int64)
        places, numbers_of_bonds = elements_and_bonds(keys)
        kinds = zip(places.tolist(), numbers_of_bonds.clip(max=MOST_BONDS).tolist(), strict=True)
        statistics = seen.environments.statistics()
        for (place, n_bonds), (key, n_atoms, mean, deviation, _, _) in zip(
            kinds, statistics, strict=True
        ):
            sums[:, place, n_bonds] += n_atoms * np.array([1.0, mean, mean**2 + deviation**2])
            rows.append((key, place, n_bonds, n_atoms, mean, deviation))
    n_atoms = sums[0].clip(min=1.0)
    means = sums[1] / n_atoms
    reaches = COMMON_DEVIATIONS * np.sqrt((sums[2] / n_atoms - means**2).clip(min=0.0))
    reaches += ORDERS_TOLERANCE
    shares = sums[0] / sums[0].sum(axis=1, keepdims=True).clip(min=1.0)
    is_usual = (shares >= SMALLEST_SHARE) & (sums[0] >= FEWEST_ATOMS)
    common = sorted(row for row in rows if row[3] >= FEWEST_ATOMS and is_usual[row[1], row[2]])
    columns = np.array([row[4:] for row in common]).reshape(-1, 2).T
    own_reaches = DEVIATIONS * columns[1] + ORDERS_TOLERANCE
    return EnvironmentTable(
        np.array([row[0] for row in common], dtype=np.int64),
        columns[0] - own_reaches,
        columns[0] + own_reaches,
        np.where(is_usual, means - reaches, np.inf),
        np.where(is_usual, means + reaches, -np.inf),
    )


def _gaps(seen: TrainingRanges) -> NDArray[np.uint8] | None:
    """Return rare distances, (119, 119, n_bins), as `Limits.gaps`; None without a record."""
    # Training has seen only a few of 119 elements, and the table of all pairs is large.
    pairs = np.concatenate(np.nonzero(seen.distances.any(axis=2)))
    seen_pairs = np.ix_(*2 * [np.flatnonzero(np.bincount(pairs))])
    counts = seen.distances[seen_pairs]
    if seen.n_structures < FEWEST_STRUCTURES or not counts.any():
        return None
    is_usual, has_enough = _usual_bins(counts, GAP_SHARE)
    has_closer = np.logical_or.accumulate(is_usual, axis=-1)
    is_rare = ~is_usual & has_closer & has_enough
    is_usual, has_enough = _usual_bins(seen.nonbonded[seen_pairs], NONBONDED_SHARE)
    is_close = ~np.logical_or.accumulate(is_usual, axis=-1) & has_enough
    gaps: NDArray[np.uint8] = np.zeros(seen.distances.shape, dtype=np.uint8)
    gaps[seen_pairs] = np.where(is_rare, RARE, np.where(is_close, RARE_NONBONDED, 0))
    return gaps


def _usual_bins(
    counts: NDArray[np.int64], share: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which bins are usual, and which pairs of elements have enough counts to tell."""
    # A bin is counted together with its neighbors, so that rounding does not decide.
    around = counts.copy()
    around[..., 1:] += counts[..., :-1]
    around[..., :-1] += counts[..., 1:]
    is_usual = around > 3.0 * share * counts.max(axis=-1, keepdims=True)
    return is_usual, counts.sum(axis=-1, keepdims=True) >= FEWEST_PAIRS


def _ordinary_counts(seen: TrainingRanges) -> Integers:
    counts = seen.counts.copy()
    elements = np.flatnonzero(counts[:, 1] >= 0)
    covalent = {atomic_numbers[symbol] for symbol in COVALENT}
    if seen.n_structures >= FEWEST_STRUCTURES and covalent.issuperset(elements.tolist()):
        ordinary = int(ORDINARY_DENSITY * 4.0 / 3.0 * np.pi * seen.cutoff**3)
        counts[elements, 1] = np.maximum(counts[elements, 1], ordinary)
    return counts


def _symbol(number: int) -> str:
    return chemical_symbols[number]


def _atom(numbers: Integers, index: int) -> str:
    return f"{index} ({_symbol(numbers[index])})"


def _more_atoms(atoms: Integers, worst: int) -> str:
    return _more("atom", [str(atom) for atom in atoms if atom != worst])


def _more(noun: str, names: Sequence[str]) -> str:
    if not names:
        return ""
    listed = ", ".join(names[:MOST_LISTED]) + ", …" * (len(names) > MOST_LISTED)
    return f" ({len(names)} more such {noun}{'s' * (len(names) > 1)}: {listed})"
