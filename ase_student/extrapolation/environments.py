"""What an atom is bonded to, and how strongly, told from distances alone."""

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
    "bond_orders",
    "element_keys",
    "elements_and_bonds",
    "environment_keys",
    "radius_sums",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]
Row = tuple[int, int, int, int, int]

#: Elements whose bonds can be counted. Metals and ions have none to count.
COVALENT = ("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "As", "Se", "Br", "I")
#: Two atoms are bonded below this multiple of the sum of their covalent radii.
BOND_RATIO = 1.25
#: Pairs beyond this multiple have no bond order: it would be below 0.01.
ORDER_RATIO = 2.0
#: Å. A bond of order n is shorter than a single one by this times ln(n): L. Pauling, The Nature of
#: the Chemical Bond, 3rd edition (1960), chapter 7, as 0.71 Å log10(n).
PAULING_LENGTH = 0.31
#: Larger sums of bond orders, of atoms on one spot, count as this.
HIGHEST_ORDERS = 100.0

# Four bits for the number of bonds to each element, and four above all for the atom itself.
_BITS = 4
#: Of one atom that can be counted.
MOST_BONDS = 2**_BITS - 1
_PLACE = np.full(len(chemical_symbols), -1)
_PLACE[[atomic_numbers[symbol] for symbol in COVALENT]] = np.arange(len(COVALENT))
_WEIGHTS = np.where(_PLACE >= 0, 1 << (_BITS * np.maximum(_PLACE, 0)), 0)
_OWN = 1 << (_BITS * len(COVALENT))
_RADII = np.where(_PLACE >= 0, covalent_radii, np.nan)[: len(chemical_symbols)]
_SYMBOL = re.compile("[A-Z][a-z]?")
#: Key of an atom of another element, and of one with more bonds than can be counted.
NOT_COVALENT, TOO_MANY = -1, -2


def environment_keys(
    numbers: Integers, neighbors: Integers, squares: Floats
) -> tuple[NDArray[np.int64], Floats]:
    """Return what each atom is bonded to, as one integer, and the sum of its bond orders.

    Parameters
    ----------
    numbers : (n_atoms,) int
    neighbors : (n_atoms, n_neighbors) int
    squares : (n_atoms, n_neighbors) float, Å²
        Squared distances; those of padding must be beyond any bond.

    Returns
    -------
    keys : (n_atoms,) int64
        Equal for atoms of one element that are bonded to as many atoms of each element;
        `NOT_COVALENT` and `TOO_MANY` are negative. :func:`environment_name` tells what it is.
    orders : (n_atoms,) float64
        Sum of Pauling's bond orders: about 4 for carbon, 2 for oxygen.
    """
    radii = _RADII[numbers]
    # NaN, of which all comparisons are false, where one of the elements has no bonds to count.
    sums = radii.take(neighbors) + radii[:, None]
    rows, columns = np.nonzero(squares < (ORDER_RATIO * sums) ** 2)
    lengths = np.sqrt(squares[rows, columns])
    sums = sums[rows, columns]
    orders = np.bincount(rows, bond_orders(lengths, sums), minlength=len(numbers)).astype(float)
    is_bonded = lengths < BOND_RATIO * sums
    bonded, partners = rows[is_bonded], neighbors[rows[is_bonded], columns[is_bonded]]
    keys: NDArray[np.int64] = _PLACE[numbers] * _OWN
    np.add.at(keys, bonded, _WEIGHTS[numbers[partners]])
    keys[np.bincount(bonded, minlength=len(numbers)) > MOST_BONDS] = TOO_MANY
    keys[_PLACE[numbers] < 0] = NOT_COVALENT
    return keys, orders


def radius_sums(numbers: Integers) -> Floats:
    """Return sums of covalent radii of pairs of elements, 0 where one has no bonds to count.

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
    """Return of what the keys of environments are added up.

    Parameters
    ----------
    numbers : (n,) int

    Returns
    -------
    places : (n,) int64
        In `COVALENT`; -1 for elements that have no bonds to count.
    atom_keys, bond_keys : (n,) int64
        What an atom of the element adds itself, and each of its bonds to the atom at the other end.
    """
    places = _PLACE[numbers]
    return places, places * _OWN, _WEIGHTS[numbers]


def bond_orders(lengths: Floats, sums: Floats) -> Floats:
    """Return Pauling's orders of bonds.

    Parameters
    ----------
    lengths : (n,) float, Å
    sums : (n,) float, Å
        Of the covalent radii of both atoms.
    """
    orders: Floats = np.exp((sums - lengths) / PAULING_LENGTH)
    return orders


def elements_and_bonds(
    keys: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the element of each environment, by its place in `COVALENT`, and its number of bonds.

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
        If it is not the text of an environment.
    """
    own, _, bonded = name.removesuffix(")").partition("(")
    symbols = _SYMBOL.findall(bonded)
    if name != f"{own}({''.join(symbols)})" or len(symbols) > MOST_BONDS:
        raise ValueError(f"'{name}' is no environment of an atom")
    # Raises ValueError too for a symbol that is not there.
    key = COVALENT.index(own) * _OWN
    for symbol in symbols:
        key += 1 << (_BITS * COVALENT.index(symbol))
    return key


class Environments:
    """The environments of atoms in training, how often each was there, and their bond orders.

    Sums of bond orders are kept in whole thousandths, so that the order in which structures are
    added changes nothing.

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
        """Take note of atoms, as :func:`environment_keys` returns them."""
        thousandths = np.rint(1e3 * np.minimum(orders, HIGHEST_ORDERS)).astype(np.int64)
        kinds, inverse = np.unique(keys, return_inverse=True)
        for place, key in enumerate(kinds.tolist()):
            if key >= 0:
                own = thousandths[inverse == place]
                row = (len(own), int(own.sum()), int(own @ own), int(own.min()), int(own.max()))
                known = self.rows.get(key)
                self.rows[key] = row if known is None else _joined(known, row)

    def include(self, other: Self) -> None:
        """Take over another record; of an environment that is in both, the one with more atoms."""
        for key, row in other.rows.items():
            known = self.rows.get(key, row)
            n_atoms, total, squares, *_ = max(known, row)
            lowest, highest = min(known[3], row[3]), max(known[4], row[4])
            self.rows[key] = (n_atoms, total, squares, lowest, highest)

    def as_dict(self) -> dict[str, list[int]]:
        """Return the record in a form that JSON can hold.

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


def _joined(one: Row, other: Row) -> Row:
    return (
        one[0] + other[0],
        one[1] + other[1],
        one[2] + other[2],
        min(one[3], other[3]),
        max(one[4], other[4]),
    )
