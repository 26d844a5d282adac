"""Molecules that no list holds: known ones with atoms and bonds changed, or halves of two joined.

A student's errors on molecules that it was not trained on are mostly those of a few groups that its
training hardly has. A list of molecules has some of them by chance; random changes reach all that
the valences of the elements allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ase_student.distill.molecules.species import import_rdkit

#: Numbers of bonds that a neutral atom may have, double ones counted twice.
VALENCES = {"C": (4,), "N": (3,), "O": (2,), "F": (1,), "P": (3, 5), "S": (2, 4, 6), "Cl": (1,)}
#: How often each element is what an atom becomes. Rare ones more often than molecules have them.
WEIGHTS = {"C": 0.25, "N": 0.22, "O": 0.2, "F": 0.06, "P": 0.08, "S": 0.11, "Cl": 0.08}
#: Most changes in one variant.
MOST_CHANGES = 4
#: The part of variants that begin as halves of two molecules.
JOINED = 0.5
#: The part of new atoms on sulfur and phosphorus without hydrogen that is oxygen in any case.
OXIDISED = 0.6
#: Variants in a row that come to nothing before it is given up.
MOST_FAILURES = 1000
#: Sizes of rings that a new bond may close.
RINGS = (3, 4, 5, 6, 7)
#: What no variant may hold: three oxygen atoms in a row, double bonds side by side or triple ones
#: in rings, sulfur and phosphorus with many bonds but without the double ones that go with them.
FORBIDDEN = (
    "OOO", "[R]=[R]=[R]", "[R]#[R]", "[SX3;!$(S=[O,N,S])]", "[SX4;!$(S(=[O,N,S])=[O,N,S])]",
    "[PX5]", "[SX5]", "[SX6]", "[#16;!H0;$([#16]=*)]", "p", "[+;!H0]",
)  # fmt: skip


def variants(smiles: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """Yield canonical SMILES of random variants of some molecules, without end.

    Atoms become other elements, are added, taken out of or put into a bond; bonds become single,
    double or triple, or close a ring; and two molecules, each cut at a bond, are joined. What is
    not valid is left out. The same variant may come twice.

    Parameters
    ----------
    smiles : sequence of str
        Of molecules without charge as a whole.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If there are no molecules, or hardly any variant of them is valid.
    """
    if not smiles:
        raise ValueError("there are no molecules to make variants of.")
    chem, _ = import_rdkit()
    n_failures = 0
    while n_failures < MOST_FAILURES:
        found = _variant(smiles, rng)
        n_failures = n_failures + 1 if found is None else 0
        if found is not None:
            yield chem.MolToSmiles(found, isomericSmiles=False)
    raise ValueError("hardly any variant of these molecules is valid.")


def _variant(smiles: Sequence[str], rng: np.random.Generator) -> Any | None:
    """Return a molecule, or None where all changes came to nothing or the result is forbidden."""
    molecule, found = _parent(smiles, rng), None
    if rng.random() < JOINED:
        # Comes to nothing where one of them has no bond to cut.
        found = _sanitized(_joined(molecule, _parent(smiles, rng), rng))
    for _ in range(int(rng.integers(1 if found is None else 0, MOST_CHANGES + 1))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        changed = _sanitized(change(molecule if found is None else _editable(found), rng))
        found = found if changed is None else changed
    if found is None or any(map(found.HasSubstructMatch, _forbidden())):
        return None
    return found


def _parent(smiles: Sequence[str], rng: np.random.Generator) -> Any:
    chem, _ = import_rdkit()
    molecule = chem.MolFromSmiles(smiles[int(rng.integers(len(smiles)))])
    chem.RemoveStereochemistry(molecule)
    return _editable(molecule)


def _editable(molecule: Any) -> Any:
    """Return a copy that can be changed: single and double bonds instead of aromatic ones."""
    chem, _ = import_rdkit()
    editable = chem.RWMol(molecule)
    chem.Kekulize(editable, clearAromaticFlags=True)
    for atom in editable.GetAtoms():
        # Hydrogen atoms that are not written follow from the valence, whatever it becomes.
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(False)
    editable.UpdatePropertyCache(strict=False)
    return editable


def _sanitized(molecule: Any | None) -> Any | None:
    """Return a changed molecule with its aromatic rings found, or None if it is not valid."""
    if molecule is None:
        return None
    chem, _ = import_rdkit()
    molecule = chem.Mol(molecule)
    return None if chem.SanitizeMol(molecule, catchErrors=True) else molecule


@lru_cache(maxsize=1)
def _forbidden() -> tuple[Any, ...]:
    chem, _ = import_rdkit()
    return tuple(chem.MolFromSmarts(text) for text in FORBIDDEN)


def _replaced(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Make an atom another element."""
    atom = _drawn(_neutral(molecule), rng)
    if atom is None:
        return None
    element = _element(_n_bonds(atom), rng)
    if element == atom.GetSymbol():
        return None
    return _with_element(molecule, atom.GetIdx(), element)


def _added(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Put an atom in place of one hydrogen atom or two, or on sulfur or phosphorus."""
    free = [atom for atom in _neutral(molecule) if _n_free(atom) > 0]
    atom = _drawn(free, rng)
    if atom is None:
        return None
    order = 1 + int(rng.integers(min(2, _n_free(atom))))
    if atom.GetTotalNumHs() < order:
        # Sulfur or phosphorus goes beyond the lowest of its valences.
        order = 2
        if rng.random() < OXIDISED:
            return _bound(molecule, atom.GetIdx(), "O", order)
    return _bound(molecule, atom.GetIdx(), _element(order, rng), order)


def _crowned(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Make all hydrogen and end atoms of an atom the same element, as in CF3 or PCl2."""
    atom = _drawn(_neutral(molecule), rng)
    if atom is None:
        return None
    ends = [bond.GetOtherAtom(atom) for bond in atom.GetBonds() if bond.GetBondTypeAsDouble() == 1]
    ends = [end for end in ends if end.GetDegree() == 1 and end.GetFormalCharge() == 0]
    element = _element(1, rng)
    n_hydrogens = atom.GetTotalNumHs()
    if not ends and not n_hydrogens:
        return None
    index = atom.GetIdx()
    for end in ends:
        molecule = _with_element(molecule, end.GetIdx(), element)
    for _ in range(n_hydrogens):
        molecule = _bound(molecule, index, element, 1)
    return molecule


def _removed(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Take an atom away that is bound to one other."""
    atom = _drawn([atom for atom in _neutral(molecule) if atom.GetDegree() == 1], rng)
    if atom is None or molecule.GetNumAtoms() < 3:
        return None
    molecule = _copy(molecule)
    molecule.RemoveAtom(atom.GetIdx())
    return molecule


def _inserted(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Put an atom into a single bond."""
    bond = _drawn(_bonds(molecule, 1), rng)
    if bond is None:
        return None
    first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    molecule = _bound(molecule, first, _element(2, rng), 1)
    molecule.RemoveBond(first, second)
    molecule.AddBond(molecule.GetNumAtoms() - 1, second, _order(1))
    return molecule


def _rebonded(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Make a bond single, double or triple."""
    bond = _drawn(_bonds(molecule, 1, 2, 3), rng)
    if bond is None:
        return None
    before = round(bond.GetBondTypeAsDouble())
    most = before + min(_n_free(bond.GetBeginAtom()), _n_free(bond.GetEndAtom()))
    after = 1 + int(rng.integers(min(3, most)))
    if after == before:
        return None
    molecule = _copy(molecule)
    molecule.GetBondWithIdx(bond.GetIdx()).SetBondType(_order(after))
    return molecule


def _closed(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Close a ring between two atoms that have hydrogen atoms."""
    chem, _ = import_rdkit()
    size = int(rng.choice(RINGS))
    distances = chem.GetDistanceMatrix(molecule)
    has_hydrogen = np.array([atom.GetTotalNumHs() > 0 for atom in molecule.GetAtoms()])
    pairs = np.argwhere(np.triu(distances == size - 1) & has_hydrogen & has_hydrogen[:, None])
    if not len(pairs):
        return None
    first, second = pairs[int(rng.integers(len(pairs)))].tolist()
    molecule = _copy(molecule)
    molecule.AddBond(first, second, _order(1))
    return molecule


def _joined(one: Any, other: Any, rng: np.random.Generator) -> Any | None:
    """Cut both molecules at a single bond outside of rings and join a half of each."""
    chem, _ = import_rdkit()
    half, other_half = _half(one, rng), _half(other, rng)
    if half is None or other_half is None:
        return None
    (first, i), (second, j) = half, other_half
    molecule = chem.RWMol(chem.CombineMols(first, second))
    molecule.AddBond(i, first.GetNumAtoms() + j, _order(1))
    return molecule


def _half(molecule: Any, rng: np.random.Generator) -> tuple[Any, int] | None:
    """Return one side of a bond, and the index of the atom that has lost its partner."""
    chem, _ = import_rdkit()
    bond = _drawn([one for one in _bonds(molecule, 1) if not one.IsInRing()], rng)
    if bond is None:
        return None
    ends = [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]
    kept = ends[int(rng.integers(2))]
    cut = _copy(molecule)
    cut.RemoveBond(*ends)
    (atoms,) = (group for group in chem.GetMolFrags(cut) if kept in group)
    for index in sorted(set(range(cut.GetNumAtoms())) - set(atoms), reverse=True):
        cut.RemoveAtom(index)
    return cut, sorted(atoms).index(kept)


#: What may happen to a molecule. An atom that becomes another element is the commonest change.
CHANGES: tuple[Callable[[Any, np.random.Generator], Any | None], ...] = (
    _replaced, _replaced, _replaced, _added, _added, _crowned, _removed, _inserted, _rebonded,
    _closed,
)  # fmt: skip


def _drawn(choices: Sequence[Any], rng: np.random.Generator) -> Any | None:
    return choices[int(rng.integers(len(choices)))] if choices else None


def _element(n_bonds: int, rng: np.random.Generator) -> str:
    """Draw an element that can have so many bonds."""
    fitting = [element for element in WEIGHTS if max(VALENCES[element]) >= n_bonds]
    weights = np.array([WEIGHTS[element] for element in fitting])
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def _neutral(molecule: Any) -> list[Any]:
    return [atom for atom in molecule.GetAtoms() if atom.GetFormalCharge() == 0]


def _bonds(molecule: Any, *orders: int) -> list[Any]:
    """Return the bonds of these orders between atoms without charge."""
    return [
        bond
        for bond in molecule.GetBonds()
        if round(bond.GetBondTypeAsDouble()) in orders
        and bond.GetBeginAtom().GetFormalCharge() == bond.GetEndAtom().GetFormalCharge() == 0
    ]


def _n_bonds(atom: Any) -> int:
    """Return an atom's bonds to others than hydrogen, double ones counted twice."""
    return round(sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds()))


def _n_free(atom: Any) -> int:
    """Return how many bonds more an atom can have to others than hydrogen."""
    if atom.GetFormalCharge():
        return 0
    return max(VALENCES.get(atom.GetSymbol(), (0,))) - _n_bonds(atom)


def _copy(molecule: Any) -> Any:
    chem, _ = import_rdkit()
    return chem.RWMol(molecule)


def _with_element(molecule: Any, index: int, element: str) -> Any:
    chem, _ = import_rdkit()
    molecule = _copy(molecule)
    molecule.GetAtomWithIdx(index).SetAtomicNum(chem.Atom(element).GetAtomicNum())
    return molecule


def _bound(molecule: Any, index: int, element: str, order: int) -> Any:
    """Return the molecule with one more atom, which has the last index."""
    chem, _ = import_rdkit()
    molecule = _copy(molecule)
    molecule.AddBond(index, molecule.AddAtom(chem.Atom(element)), _order(order))
    return molecule


def _order(number: int) -> Any:
    chem, _ = import_rdkit()
    return chem.BondType.values[number]
