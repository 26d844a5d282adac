"""Molecules to sample: their selection, their conformers, and the force field MMFF94."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms, units
from numpy.typing import NDArray

#: Elements of the bundled students, by their symbols.
ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl")
EV_PER_KCAL_MOL = units.kcal / units.mol

#: Carbon between two double bonds: RDKit's MMFF94 makes the bonds 0.25 Å too long (CO2), or bends
#: the molecule.
CUMULATED = "*=[#6]=*"


class UnsuitableError(Exception):
    """A molecule that is left out; the message is the reason by which it is counted."""


def import_rdkit() -> tuple[Any, Any]:
    """Return RDKit's modules Chem and AllChem.

    Raises
    ------
    ImportError
        If RDKit is not installed; the message says how to install it.
    """
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import AllChem
    except ImportError as error:
        raise ImportError(
            'sampling molecules needs RDKit: pip install "ase-student[distill]"'
        ) from error
    # Among thousands of molecules, those that fail are counted; RDKit need not print them.
    rdBase.DisableLog("rdApp.*")
    return Chem, AllChem


@dataclass(frozen=True)
class Species:
    """A molecule without coordinates.

    Attributes
    ----------
    key : str
        Canonical SMILES without stereochemistry, so that stereoisomers count as one molecule and
        are always in the same part of a split.
    smiles : str
        SMILES from which it is built.
    n_atoms : int
    """

    key: str
    smiles: str
    n_atoms: int


def species_of(smiles: str, max_atoms: int) -> Species:
    """Return the species of a SMILES.

    Raises
    ------
    UnsuitableError
        If it cannot be read, is a mixture, charged, a radical or too large, or has an isotope or an
        element that is not in `ELEMENTS`.
    """
    chem, _ = import_rdkit()
    molecule = chem.MolFromSmiles(smiles)
    if molecule is None:
        raise UnsuitableError("unreadable SMILES")
    if "." in smiles:
        raise UnsuitableError("salt or mixture")
    if chem.GetFormalCharge(molecule) != 0:
        raise UnsuitableError("charged")
    if any(atom.GetSymbol() not in ELEMENTS or atom.GetIsotope() for atom in molecule.GetAtoms()):
        raise UnsuitableError("other element")
    if any(atom.GetNumRadicalElectrons() for atom in molecule.GetAtoms()):
        raise UnsuitableError("radical")
    n_atoms = molecule.GetNumAtoms(onlyExplicit=False)
    if n_atoms > max_atoms:
        raise UnsuitableError(f"more than {max_atoms} atoms")
    return Species(chem.MolToSmiles(molecule, isomericSmiles=False), smiles, n_atoms)


def select_species(
    smiles: Iterable[str], max_atoms: int, limit: int | None, *, seed: int
) -> tuple[list[Species], dict[str, int]]:
    """Return distinct suitable species in random order by the seed, and counts of the others.

    Parameters
    ----------
    smiles : iterable of str
    max_atoms : int
    limit : int or None
        Largest number of species. The place of a molecule in the order depends only on the molecule
        and the seed.
    seed : int
    """
    species: dict[str, Species] = {}
    skipped: dict[str, int] = {}
    for text in smiles:
        try:
            molecule = species_of(text, max_atoms)
            if molecule.key in species:
                raise UnsuitableError("duplicate")
            species[molecule.key] = molecule
        except UnsuitableError as reason:
            skipped[str(reason)] = skipped.get(str(reason), 0) + 1
    ordered = sorted(species.values(), key=lambda molecule: _digest(f"{seed}:{molecule.key}"))
    return ordered[:limit], skipped


def generator(seed: int, key: str) -> np.random.Generator:
    """Return the random generator of a molecule, which depends only on the seed and the key."""
    return np.random.default_rng([seed, int.from_bytes(_digest(key)[:16], "big")])


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@dataclass(frozen=True)
class Molecule:
    """Molecules with coordinates.

    Attributes
    ----------
    keys : tuple of str
        Canonical SMILES, one per fragment.
    numbers : (n_atoms,) int64
    conformers : list of (n_atoms, 3) float64, Å
    fragments : (n_atoms,) int64
        The fragment that each atom belongs to.
    rdkit : rdkit.Chem.Mol
        The same molecules, with hydrogen atoms and one conformer.
    """

    keys: tuple[str, ...]
    numbers: NDArray[np.int64]
    conformers: list[NDArray[np.float64]]
    fragments: NDArray[np.int64]
    rdkit: Any

    @property
    def name(self) -> str:
        """Canonical SMILES, sorted and joined by '.'."""
        return ".".join(sorted(self.keys))

    def atoms(self, positions: NDArray[np.float64]) -> Atoms:
        """Return the atoms at these positions, moved so that their mean is the origin."""
        return Atoms(self.numbers, positions - positions.mean(0))


def embed(species: Species, n_conformers: int, seed: int, *, mmff: bool = True) -> Molecule:
    """Return a molecule with conformers, embedded by ETKDG and relaxed with MMFF94.

    Parameters
    ----------
    species : Species
    n_conformers : int
    seed : int
    mmff : bool
        Whether MMFF94 will move the molecule later. If not, molecules for which MMFF94 is wrong are
        allowed, and molecules without parameters stay as embedded.

    Raises
    ------
    UnsuitableError
        If the embedding fails, or MMFF94 lacks parameters or is wrong for such a molecule.
    """
    chem, all_chem = import_rdkit()
    molecule = chem.AddHs(chem.MolFromSmiles(species.smiles))
    has_parameters = all_chem.MMFFHasAllMoleculeParams(molecule)
    if mmff and not has_parameters:
        raise UnsuitableError("no MMFF94 parameters")
    if mmff and molecule.HasSubstructMatch(chem.MolFromSmarts(CUMULATED)):
        raise UnsuitableError("cumulated double bonds, wrong in MMFF94")
    settings = all_chem.ETKDGv3()
    settings.randomSeed = seed % (2**31 - 1)
    settings.maxIterations = 20
    if not list(all_chem.EmbedMultipleConfs(molecule, n_conformers, settings)):
        raise UnsuitableError("embedding failed")
    if has_parameters:
        all_chem.MMFFOptimizeMoleculeConfs(molecule, maxIters=500)
    conformers = [conformer.GetPositions() for conformer in molecule.GetConformers()]
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    return Molecule((species.key,), numbers, conformers, np.zeros_like(numbers), molecule)


def combine(molecules: list[Molecule], positions: NDArray[np.float64]) -> Molecule:
    """Return several molecules combined into one, at the given positions.

    Raises
    ------
    UnsuitableError
        If RDKit cannot sanitize a molecule a second time, as with some aromatic rings.
    """
    chem, _ = import_rdkit()
    combined = chem.Mol(molecules[0].rdkit)
    for molecule in molecules[1:]:
        combined = chem.CombineMols(combined, molecule.rdkit)
    try:
        chem.SanitizeMol(combined)
    except chem.MolSanitizeException as error:
        raise UnsuitableError("sanitization of a cluster failed") from error
    combined.RemoveAllConformers()
    conformer = chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions, dtype=np.float64))
    combined.AddConformer(conformer)
    return Molecule(
        keys=tuple(key for molecule in molecules for key in molecule.keys),
        numbers=np.concatenate([molecule.numbers for molecule in molecules]),
        conformers=[positions],
        fragments=np.repeat(np.arange(len(molecules)), [len(m.numbers) for m in molecules]),
        rdkit=combined,
    )


def relaxed(molecule: Molecule, n_steps: int) -> NDArray[np.float64]:
    """Return the first conformer after a few steps of minimization."""
    field = _field(molecule)
    field.Minimize(maxIts=n_steps)
    return np.array(field.Positions()).reshape(-1, 3)


def mmff_forces(molecule: Molecule) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function that gives MMFF94 forces (n_atoms, 3) in eV/Å at any positions."""
    field = _field(molecule)

    def forces(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        # Unless it is initialized again, RDKit keeps interatomic distances of the previous call.
        field.Initialize()
        gradient = np.array(field.CalcGrad(positions.ravel().tolist()))
        return gradient.reshape(-1, 3) * -EV_PER_KCAL_MOL

    return forces


def _field(molecule: Molecule) -> Any:
    _, all_chem = import_rdkit()
    parameters = all_chem.MMFFGetMoleculeProperties(molecule.rdkit)
    if parameters is None:
        raise UnsuitableError("no MMFF94 parameters")
    field = all_chem.MMFFGetMoleculeForceField(
        molecule.rdkit,
        parameters,
        confId=next(iter(molecule.rdkit.GetConformers())).GetId(),
        ignoreInterfragInteractions=False,
    )
    if field is None:
        raise UnsuitableError("no MMFF94 parameters")
    field.Initialize()
    return field
