"""Molecules to sample: which ones, their conformers, and a cheap force field to move them."""

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

#: Carbon between two double bonds, which RDKit's MMFF94 makes 0.25 Å too long (CO2) or bends.
CUMULATED = "*=[#6]=*"


class UnsuitableError(Exception):
    """A molecule that is left out; the message is the reason it is counted under."""


def import_rdkit() -> tuple[Any, Any]:
    """Return RDKit's Chem and AllChem, or say how to install them."""
    try:
        from rdkit import Chem, rdBase
        from rdkit.Chem import AllChem
    except ImportError as error:
        raise ImportError(
            'sampling molecules needs RDKit: pip install "ase-student[distill]"'
        ) from error
    # Thousands of molecules go by, and those that fail are counted: RDKit need not print them.
    rdBase.DisableLog("rdApp.*")
    return Chem, AllChem


@dataclass(frozen=True)
class Species:
    """A molecule by name: what is known before it has coordinates.

    Attributes
    ----------
    key : str
        Canonical SMILES without stereochemistry, so that stereoisomers count as one molecule and
        can never be on both sides of a split.
    smiles : str
        SMILES to build it from.
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
        If it cannot be read, is a mixture, charged, a radical, too large, or has an element or
        isotope that is not wanted.
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
    """Return distinct suitable species in an order drawn by the seed, and counts of the rest.

    Parameters
    ----------
    smiles : iterable of str
    max_atoms : int
    limit : int or None
        How many to keep. The choice of a molecule depends on itself and the seed alone.
    seed : int
    """
    species: dict[str, Species] = {}
    skipped: dict[str, int] = {}
    for text in smiles:
        try:
            one = species_of(text, max_atoms)
            if one.key in species:
                raise UnsuitableError("duplicate")
            species[one.key] = one
        except UnsuitableError as reason:
            skipped[str(reason)] = skipped.get(str(reason), 0) + 1
    ordered = sorted(species.values(), key=lambda one: _digest(f"{seed}:{one.key}"))
    return ordered[:limit], skipped


def generator(seed: int, key: str) -> np.random.Generator:
    """Return the random generator that belongs to one molecule, whatever the others are."""
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
        Which fragment each atom belongs to.
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
        Whether MMFF94 is to move the molecule afterwards. If not, molecules that it gets wrong are
        allowed, and those without parameters stay as embedded.

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
    """Return several molecules as one, at these positions.

    Raises
    ------
    UnsuitableError
        If RDKit does not understand one of them a second time, as some aromatic rings.
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
    """Return the first conformer after a few steps of minimisation."""
    field = _field(molecule)
    field.Minimize(maxIts=n_steps)
    return np.array(field.Positions()).reshape(-1, 3)


def mmff_forces(molecule: Molecule) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Return a function that gives MMFF94 forces (n_atoms, 3) in eV/Å at any positions."""
    field = _field(molecule)

    def forces(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        # RDKit keeps interatomic distances from the call before unless it is initialised again.
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
