"""Random variants of molecules: atoms and bonds changed, or halves of two molecules joined.

A student's errors on new molecules come mostly from a few functional groups that are rare in its
training data. A list of molecules contains some of these groups by chance; random changes reach all
groups that the valences of the elements allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ase_student.distill.molecules.species import import_rdkit

#: Numbers of bonds that a neutral atom may have; a double bond counts twice.
VALENCES = {"C": (4,), "N": (3,), "O": (2,), "F": (1,), "P": (3, 5), "S": (2, 4, 6), "Cl": (1,)}
#: Probability of each element for changed and new atoms. Rare elements are more frequent than in
#: usual molecules.
WEIGHTS = {"C": 0.25, "N": 0.22, "O": 0.2, "F": 0.06, "P": 0.08, "S": 0.11, "Cl": 0.08}
#: Largest number of changes in a variant.
MAX_CHANGES = 4
#: Share of variants that start from joined halves of two molecules.
JOINED_SHARE = 0.5
#: Share of new atoms on sulfur and phosphorus without hydrogen that are always oxygen; the other
#: new atoms are of random elements.
OXIDIZED_SHARE = 0.6
#: After this many invalid variants in a row, an error is raised.
MAX_FAILURES = 1000
#: Sizes of rings that a new bond may close.
RINGS = (3, 4, 5, 6, 7)
#: Patterns that no variant may contain: three oxygen atoms in a row, adjacent double bonds or
#: triple bonds in rings, and sulfur and phosphorus of high valence without the usual double bonds.
FORBIDDEN = (
    "OOO", "[R]=[R]=[R]", "[R]#[R]", "[SX3;!$(S=[O,N,S])]", "[SX4;!$(S(=[O,N,S])=[O,N,S])]",
    "[PX5]", "[SX5]", "[SX6]", "[#16;!H0;$([#16]=*)]", "p", "[+;!H0]",
)  # fmt: skip


def variants(smiles: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    """Yield canonical SMILES of random variants of some molecules, without end.

    Atoms become other elements, are added, removed, or inserted into a bond; bonds become single,
    double or triple, or close a ring; and two molecules, each cut at a bond, are joined. Invalid
    variants are left out. The same variant may be yielded several times.

    Parameters
    ----------
    smiles : sequence of str
        SMILES of molecules whose total charge is zero.
    rng : numpy.random.Generator

    Raises
    ------
    ValueError
        If there are no molecules, or almost no variant of them is valid.
    """
    if not smiles:
        raise ValueError("there are no molecules to make variants of.")
    chem, _ = import_rdkit()
    n_failures = 0
    while n_failures < MAX_FAILURES:
        variant = _variant(smiles, rng)
        n_failures = n_failures + 1 if variant is None else 0
        if variant is not None:
            yield chem.MolToSmiles(variant, isomericSmiles=False)
    raise ValueError("almost no variant of these molecules is valid.")


def _variant(smiles: Sequence[str], rng: np.random.Generator) -> Any | None:
    """Return a molecule, or None if all changes failed or the result is forbidden."""
    molecule, variant = _parent(smiles, rng), None
    if rng.random() < JOINED_SHARE:
        # None if a molecule has no bond to cut.
        variant = _sanitized(_joined(molecule, _parent(smiles, rng), rng))
    for _ in range(int(rng.integers(1 if variant is None else 0, MAX_CHANGES + 1))):
        change = CHANGES[int(rng.integers(len(CHANGES)))]
        changed = _sanitized(change(molecule if variant is None else _editable(variant), rng))
        variant = variant if changed is None else changed
    if variant is None or any(map(variant.HasSubstructMatch, _forbidden())):
        return None
    return variant


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
        # All hydrogen atoms are implicit: their number follows from the valence after changes.
        atom.SetNumExplicitHs(0)
        atom.SetNoImplicit(False)
    editable.UpdatePropertyCache(strict=False)
    return editable


def _sanitized(molecule: Any | None) -> Any | None:
    """Return a changed molecule with its aromatic rings assigned, or None if it is invalid."""
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
    """Change the element of an atom."""
    atom = _drawn(_neutral(molecule), rng)
    if atom is None:
        return None
    element = _element(_n_bonds(atom), rng)
    if element == atom.GetSymbol():
        return None
    return _with_element(molecule, atom.GetIdx(), element)


def _added(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Add an atom in place of one or two hydrogen atoms, or on sulfur or phosphorus."""
    candidates = [atom for atom in _neutral(molecule) if _n_free(atom) > 0]
    atom = _drawn(candidates, rng)
    if atom is None:
        return None
    order = 1 + int(rng.integers(min(2, _n_free(atom))))
    if atom.GetTotalNumHs() < order:
        # Sulfur or phosphorus changes to a higher valence.
        order = 2
        if rng.random() < OXIDIZED_SHARE:
            return _bound(molecule, atom.GetIdx(), "O", order)
    return _bound(molecule, atom.GetIdx(), _element(order, rng), order)


def _substituted(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Replace all hydrogen and terminal atoms of an atom by the same element, as in CF3 or PCl2."""
    atom = _drawn(_neutral(molecule), rng)
    if atom is None:
        return None
    terminal_atoms = [
        bond.GetOtherAtom(atom) for bond in atom.GetBonds() if bond.GetBondTypeAsDouble() == 1
    ]
    terminal_atoms = [
        terminal_atom
        for terminal_atom in terminal_atoms
        if terminal_atom.GetDegree() == 1 and terminal_atom.GetFormalCharge() == 0
    ]
    element = _element(1, rng)
    n_hydrogens = atom.GetTotalNumHs()
    if not terminal_atoms and not n_hydrogens:
        return None
    index = atom.GetIdx()
    for terminal_atom in terminal_atoms:
        molecule = _with_element(molecule, terminal_atom.GetIdx(), element)
    for _ in range(n_hydrogens):
        molecule = _bound(molecule, index, element, 1)
    return molecule


def _removed(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Remove an atom that is bound to a single other atom."""
    atom = _drawn([atom for atom in _neutral(molecule) if atom.GetDegree() == 1], rng)
    if atom is None or molecule.GetNumAtoms() < 3:
        return None
    molecule = _copy(molecule)
    molecule.RemoveAtom(atom.GetIdx())
    return molecule


def _inserted(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Insert an atom into a single bond."""
    bond = _drawn(_bonds(molecule, 1), rng)
    if bond is None:
        return None
    first, second = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
    molecule = _bound(molecule, first, _element(2, rng), 1)
    molecule.RemoveBond(first, second)
    molecule.AddBond(molecule.GetNumAtoms() - 1, second, _order(1))
    return molecule


def _rebonded(molecule: Any, rng: np.random.Generator) -> Any | None:
    """Change the order of a bond to single, double or triple."""
    bond = _drawn(_bonds(molecule, 1, 2, 3), rng)
    if bond is None:
        return None
    order = round(bond.GetBondTypeAsDouble())
    max_order = order + min(_n_free(bond.GetBeginAtom()), _n_free(bond.GetEndAtom()))
    new_order = 1 + int(rng.integers(min(3, max_order)))
    if new_order == order:
        return None
    molecule = _copy(molecule)
    molecule.GetBondWithIdx(bond.GetIdx()).SetBondType(_order(new_order))
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


def _joined(first_molecule: Any, second_molecule: Any, rng: np.random.Generator) -> Any | None:
    """Cut both molecules at a single bond outside of rings and join a half of each."""
    chem, _ = import_rdkit()
    first_half, second_half = _half(first_molecule, rng), _half(second_molecule, rng)
    if first_half is None or second_half is None:
        return None
    (first, i), (second, j) = first_half, second_half
    molecule = chem.RWMol(chem.CombineMols(first, second))
    molecule.AddBond(i, first.GetNumAtoms() + j, _order(1))
    return molecule


def _half(molecule: Any, rng: np.random.Generator) -> tuple[Any, int] | None:
    """Return one side of a bond, and the index of its atom that has lost the other atom."""
    chem, _ = import_rdkit()
    bond = _drawn([candidate for candidate in _bonds(molecule, 1) if not candidate.IsInRing()], rng)
    if bond is None:
        return None
    bonded_atoms = [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()]
    kept_atom = bonded_atoms[int(rng.integers(2))]
    cut = _copy(molecule)
    cut.RemoveBond(*bonded_atoms)
    (atoms,) = (group for group in chem.GetMolFrags(cut) if kept_atom in group)
    for index in sorted(set(range(cut.GetNumAtoms())) - set(atoms), reverse=True):
        cut.RemoveAtom(index)
    return cut, sorted(atoms).index(kept_atom)


#: Changes to a molecule. A changed element is the most frequent change.
CHANGES: tuple[Callable[[Any, np.random.Generator], Any | None], ...] = (
    _replaced, _replaced, _replaced, _added, _added, _substituted, _removed, _inserted, _rebonded,
    _closed,
)  # fmt: skip


def _drawn(choices: Sequence[Any], rng: np.random.Generator) -> Any | None:
    return choices[int(rng.integers(len(choices)))] if choices else None


def _element(n_bonds: int, rng: np.random.Generator) -> str:
    """Draw an element that can have `n_bonds` bonds."""
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
    """Return the number of bonds to atoms other than hydrogen; a double bond counts twice."""
    return round(sum(bond.GetBondTypeAsDouble() for bond in atom.GetBonds()))


def _n_free(atom: Any) -> int:
    """Return how many more bonds an atom can have to atoms other than hydrogen."""
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
