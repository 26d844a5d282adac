"""Molecules to sample: which ones, their conformers, and a cheap force field to move them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import units
from numpy.typing import NDArray

ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl")
EV_PER_KCAL_MOL = units.kcal / units.mol

#: Small molecules that any student should know well; those without MMFF94 parameters are left out.
#: Carbon dioxide is missing because RDKit's MMFF94 makes its bonds 0.25 Å too long.
SMALL_MOLECULES = (
    "O", "C", "N", "CO", "C=O", "OC=O", "C#N", "S", "P", "CCl", "CF", "CS(C)=O",
    "OP(O)(O)=O", "CC(N)=O", "c1ccccc1", "CC", "C=C", "C#C", "CCC", "CCO", "COC", "CC=O",
    "CC(C)=O", "CC(O)=O", "COC=O", "NC=O", "CNC=O", "CNC(C)=O", "CN", "CNC", "CN(C)C", "CC#N",
    "C[N+](=O)[O-]", "NC(N)=O", "NC(N)=N", "NN", "NO", "OO", "CS", "CSC", "CSSC", "CS(C)(=O)=O",
    "CS(N)(=O)=O", "COP(=O)(OC)OC", "CP(C)C", "ClCCl", "ClC(Cl)Cl", "FC(F)F", "FC(F)(F)F", "FC=C",
    "ClC=C", "Oc1ccccc1", "Nc1ccccc1", "Fc1ccccc1", "Clc1ccccc1", "c1ccncc1", "c1cc[nH]c1",
    "c1ccoc1", "c1ccsc1", "c1c[nH]cn1", "C1CC1", "C1CCCCC1", "C1CCOC1", "OCCO", "NCC(O)=O",
    "CC(N)C(O)=O", "O=c1cc[nH]c(=O)[nH]1", "Nc1cc[nH]c(=O)n1", "Nc1ncnc2[nH]cnc12",
    "CC(=O)NC(C)C(=O)NC", "NC(=O)c1ccccc1", "OC(=O)C(O)=O", "CC(=O)C(C)=O", "S=C(N)N", "CN=C=O",
    "CN=C=S", "CN=[N+]=[N-]", "CC(F)(F)F", "OC(=O)C(F)(F)F",
)  # fmt: skip


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


def nci_smiles() -> list[str]:
    """Return the SMILES of the 5,000 NCI compounds that RDKit carries."""
    import_rdkit()
    from rdkit import RDConfig

    lines = (Path(RDConfig.RDDataDir) / "NCI" / "first_5K.smi").read_text().splitlines()
    return [line.split()[0] for line in lines if line.strip()]


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
    smiles: Iterable[str], max_atoms: int, limit: int | None, seed: int
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


def embed(species: Species, n_conformers: int, seed: int) -> Molecule:
    """Return a molecule with conformers, embedded by ETKDG and relaxed with MMFF94.

    Raises
    ------
    UnsuitableError
        If the embedding fails or MMFF94 lacks parameters.
    """
    chem, all_chem = import_rdkit()
    molecule = chem.AddHs(chem.MolFromSmiles(species.smiles))
    if not all_chem.MMFFHasAllMoleculeParams(molecule):
        raise UnsuitableError("no MMFF94 parameters")
    settings = all_chem.ETKDGv3()
    settings.randomSeed = seed % (2**31 - 1)
    settings.maxIterations = 20
    if not list(all_chem.EmbedMultipleConfs(molecule, n_conformers, settings)):
        raise UnsuitableError("embedding failed")
    all_chem.MMFFOptimizeMoleculeConfs(molecule, maxIters=500)
    conformers = [conformer.GetPositions() for conformer in molecule.GetConformers()]
    numbers = np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int64)
    return Molecule((species.key,), numbers, conformers, np.zeros_like(numbers), molecule)


def combine(molecules: list[Molecule], positions: NDArray[np.float64]) -> Molecule:
    """Return several molecules as one, at these positions."""
    chem, _ = import_rdkit()
    combined = chem.Mol(molecules[0].rdkit)
    for molecule in molecules[1:]:
        combined = chem.CombineMols(combined, molecule.rdkit)
    chem.SanitizeMol(combined)
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
