"""Environments of atoms: what an atom is bonded to, and its bond orders, from distances alone."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from ase.data import atomic_numbers, chemical_symbols, covalent_radii
from numpy.typing import NDArray

__all__ = [
    "BOND_RATIO",
    "COVALENT",
    "MOST_BONDS",
    "Environments",
    "are_nonbonded",
    "bond_orders",
    "element_keys",
    "elements_and_bonds",
    "environment_keys",
    "radius_sums",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Row = tuple[int, int, int, int, int]

#: Elements whose bonds are counted. Metals and ions have no bonds that can be counted.
COVALENT = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "As", "Se", "Br", "I")
#: Two atoms are bonded below this multiple of the sum of their covalent radii.
BOND_RATIO = 1.25
#: Pairs beyond this multiple have no bond order: it would be below 0.01.
ORDER_RATIO = 2.0
#: Å. A bond of order n is shorter than a single bond by this times ln(n): L. Pauling, The Nature
#: of the Chemical Bond, 3rd edition (1960), chapter 7, as 0.71 Å log10(n).
PAULING_LENGTH = 0.31
#: Larger sums of bond orders, as of atoms at the same position, are set to this value.
HIGHEST_ORDERS = 100.0

# Bits of a key for the number of bonds to each element, and the highest bits for the atom itself.
_BITS = 4
#: Largest number of bonds of an atom that a key can hold.
MOST_BONDS = 2**_BITS - 1
_PLACE = np.full(len(chemical_symbols), -1)
_PLACE[[atomic_numbers[symbol] for symbol in COVALENT]] = np.arange(len(COVALENT))
_WEIGHTS = np.where(_PLACE >= 0, 1 << (_BITS * np.maximum(_PLACE, 0)), 0)
_OWN = 1 << (_BITS * len(COVALENT))
_RADII = np.where(_PLACE >= 0, covalent_radii, np.nan)[: len(chemical_symbols)]
_SYMBOL = re.compile("[A-Z][a-z]?")
#: Key of an atom of any other element, and of an atom with more than `MOST_BONDS` bonds.
NOT_COVALENT, TOO_MANY = -1, -2


def environment_keys(
    numbers: Integers, neighbors: Integers, squares: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Return the environment of each atom as an integer, and the sum of its bond orders.

    Parameters
    ----------
    numbers : (n_atoms,) int
    neighbors : (n_atoms, n_neighbors) int
    squares : (n_atoms, n_neighbors) float, Å²
        Squared distances; those of padding must be beyond any bond.

    Returns
    -------
    keys : (n_atoms,) int64
        Equal for atoms of the same element with the same number of bonds to each element;
        `NOT_COVALENT` and `TOO_MANY` are negative. :func:`environment_name` returns it as text.
    orders : (n_atoms,) float64
        Sum of Pauling's bond orders: about 4 for carbon, 2 for oxygen.
    """
    rows, partners, lengths, sums = _pairs_with_orders(numbers, neighbors, squares)
    orders = np.bincount(rows, bond_orders(lengths, sums), minlength=len(numbers)).astype(float)
    is_bonded = lengths < BOND_RATIO * sums
    bonded, partners = rows[is_bonded], partners[is_bonded]
    keys: NDArray[np.int64] = _PLACE[numbers] * _OWN
    np.add.at(keys, bonded, _WEIGHTS[numbers[partners]])
    keys[np.bincount(bonded, minlength=len(numbers)) > MOST_BONDS] = TOO_MANY
    keys[_PLACE[numbers] < 0] = NOT_COVALENT
    return keys, orders


def are_nonbonded(
    numbers: Integers,
    neighbors: Integers,
    squares: Floats,
    *,
    rows: Integers,
    columns: Integers,
) -> NDArray[np.bool_]:
    """Return whether pairs of atoms are more than two bonds apart, or of different molecules.

    Parameters
    ----------
    numbers : (n_atoms,) int
    neighbors : (n_atoms, n_neighbors) int
    squares : (n_atoms, n_neighbors) float, Å²
        Squared distances; those of padding must be beyond any bond.
    rows, columns : (n,) int
        The pairs, as indices of `neighbors`.

    Returns
    -------
    (n,) bool
        An atom whose periodic images are bonded differently counts as bonded in each of these ways.
    """
    n_atoms = len(numbers)
    atoms, partners, lengths, sums = _pairs_with_orders(numbers, neighbors, squares)
    is_bonded = lengths < BOND_RATIO * sums
    atoms, partners = atoms[is_bonded], partners[is_bonded].astype(np.int64)
    # The bonds of an atom lie behind each other: those of each partner are taken in turn.
    starts = np.searchsorted(atoms, np.arange(n_atoms + 1))
    counts = np.diff(starts)[partners]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    seconds = partners[np.repeat(starts[partners], counts) + within]
    joined = np.append(n_atoms * atoms + partners, n_atoms * np.repeat(atoms, counts) + seconds)
    pairs = n_atoms * rows.astype(np.int64) + neighbors[rows, columns]
    return ~np.isin(pairs, joined)


def _pairs_with_orders(
    numbers: Integers, neighbors: Integers, squares: Floats
) -> tuple[Integers, Integers, Floats, Floats]:
    """Return the pairs that have a bond order, by ascending first atom.

    Returns
    -------
    atoms, partners : (n,) int
    lengths, sums : (n,) float, Å
        Distances, and sums of the covalent radii of both atoms.
    """
    radii = _RADII[numbers]
    # NaN if one of the elements is not covalent: then all comparisons are false.
    sums = radii.take(neighbors) + radii[:, None]
    rows, columns = np.nonzero(squares < (ORDER_RATIO * sums) ** 2)
    lengths = np.sqrt(squares[rows, columns])
    return rows, neighbors[rows, columns], lengths, sums[rows, columns]


def radius_sums(numbers: Integers) -> Floats:
    """Return sums of covalent radii of pairs of elements, 0 if an element is not in `COVALENT`.

    Parameters
    ----------
    numbers : (n,) int

    Returns
    -------
    (n, n) float64, Å
    """
    radii = _RADII[numbers]
    sums: Floats = np.nan_to_num(radii[:, None] + radii)
    return sums


def element_keys(
    numbers: Integers,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the parts of which the keys of environments are sums.

    Parameters
    ----------
    numbers : (n,) int

    Returns
    -------
    places : (n,) int64
        Index of each element in `COVALENT`; -1 for all other elements.
    atom_keys, bond_keys : (n,) int64
        What an atom of the element adds to its own key, and what each of its bonds adds to the key
        of the bonded atom.
    """
    places = _PLACE[numbers]
    return places, places * _OWN, _WEIGHTS[numbers]


def bond_orders(lengths: Floats, sums: Floats) -> Floats:
    """Return Pauling's bond orders.

    Parameters
    ----------
    lengths : (n,) float, Å
    sums : (n,) float, Å
        Sums of the covalent radii of both atoms.
    """
    orders: Floats = np.exp((sums - lengths) / PAULING_LENGTH)
    return orders


def elements_and_bonds(
    keys: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the element of each environment, by its index in `COVALENT`, and its number of bonds.

    Parameters
    ----------
    keys : (n,) int64
        Not negative.
    """
    n_bonds = sum(
        (keys >> (_BITS * place) & MOST_BONDS for place in range(len(COVALENT))), 0 * keys
    )
    return keys // _OWN, n_bonds


def environment_name(key: int) -> str:
    """Return an environment as text.

    >>> environment_name(environment_key("C(CHHH)"))
    'C(CHHH)'
    """
    bonded = "".join(
        symbol * (key >> (_BITS * place) & MOST_BONDS)
        for place, symbol in sorted(enumerate(COVALENT), key=lambda item: item[1])
    )
    return f"{COVALENT[key // _OWN]}({bonded})"


def environment_key(name: str) -> int:
    """Return the key of an environment that is given as text.

    Raises
    ------
    ValueError
        If `name` is not the text of an environment.
    """
    own, _, bonded = name.removesuffix(")").partition("(")
    symbols = _SYMBOL.findall(bonded)
    if name != f"{own}({''.join(symbols)})" or len(symbols) > MOST_BONDS:
        raise ValueError(f"'{name}' is not the environment of an atom")
    # This also raises ValueError, for a symbol that is not in COVALENT.
    key = COVALENT.index(own) * _OWN
    for symbol in symbols:
        key += 1 << (_BITS * COVALENT.index(symbol))
    return key


class Environments:
    """Environments of the atoms in training: how often each occurred, and their bond orders.

    Sums of bond orders are stored in integer thousandths, so that results do not depend on the
    order in which structures are added.

    Attributes
    ----------
    rows : dict of int to tuple of int
        By the key of an environment: number of atoms; sum, sum of squares, lowest and highest of
        the sums of their bond orders.
    """

    def __init__(self) -> None:
        self.rows: dict[int, Row] = {}

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, keys: NDArray[np.int64], orders: Floats) -> None:
        """Add atoms, given as :func:`environment_keys` returns them."""
        thousandths = np.rint(1e3 * np.minimum(orders, HIGHEST_ORDERS)).astype(np.int64)
        kinds, inverse = np.unique(keys, return_inverse=True)
        for place, key in enumerate(kinds.tolist()):
            if key >= 0:
                own = thousandths[inverse == place]
                row = (len(own), int(own.sum()), int(own @ own), int(own.min()), int(own.max()))
                present = self.rows.get(key)
                self.rows[key] = row if present is None else _joined(present, row)

    def include(self, other: Self) -> None:
        """Merge another record; for an environment in both, the larger number of atoms counts."""
        for key, other_row in other.rows.items():
            own_row = self.rows.get(key, other_row)
            n_atoms, total, squares, *_ = max(own_row, other_row)
            lowest, highest = min(own_row[3], other_row[3]), max(own_row[4], other_row[4])
            self.rows[key] = (n_atoms, total, squares, lowest, highest)

    def as_dict(self) -> dict[str, list[int]]:
        """Return the record as JSON types.

        Returns
        -------
        dict
            By environments such as 'C(CHHH)', a carbon bonded to one carbon and three hydrogens:
            number of atoms; sum, sum of squares, lowest and highest of the sums of their bond
            orders, in thousandths.
        """
        return {environment_name(key): list(row) for key, row in sorted(self.rows.items())}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """Return the record that :meth:`as_dict` returned.

        Raises
        ------
        ValueError, TypeError
            If it is not such a record.
        """
        environments = cls()
        for name, row in document.items():
            n_atoms, total, squares, lowest, highest = (int(value) for value in row)
            if not (n_atoms >= 1 and 0 <= lowest <= highest and min(total, squares) >= 0):
                raise ValueError(f"the environment {name} has values that are out of range")
            key = environment_key(name)
            environments.rows[key] = (n_atoms, total, squares, lowest, highest)
        return environments

    def statistics(self) -> Iterator[tuple[int, int, float, float, float, float]]:
        """Yield key, number of atoms, and mean, standard deviation, lowest and highest orders."""
        for key, (n_atoms, total, squares, lowest, highest) in self.rows.items():
            mean = total / n_atoms
            deviation = max(squares / n_atoms - mean * mean, 0.0) ** 0.5
            yield key, n_atoms, mean / 1e3, deviation / 1e3, lowest / 1e3, highest / 1e3


def _joined(first: Row, second: Row) -> Row:
    return (
        first[0] + second[0],
        first[1] + second[1],
        first[2] + second[2],
        min(first[3], second[3]),
        max(first[4], second[4]),
    )
