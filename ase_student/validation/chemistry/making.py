"""Make the structures that experiments start from, by RDKit and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_student.files import replaced_when_complete
from ase_student.validation.chemistry import torsions
from ase_student.validation.chemistry.relaxation import Minimum, minimize_with_torsion
from ase_student.validation.potentials import Potential

SEED = 7
#: MMFF94's restraint on a torsion, kcal/mol/rad²; the teacher's minimization holds it exactly.
STIFFNESS = 1000.0


def make_scans(teacher: Potential) -> list[Atoms]:
    """Return all fragments at all angles, at minima of the teacher with the torsion held."""
    frames: list[Atoms] = []
    held: list[tuple[int, ...]] = []
    for name, smiles in torsions.FRAGMENTS.items():
        own, torsion = _scan(smiles)
        for atoms in own:
            atoms.info = {"name": name, "torsion": np.array(torsion)}
        frames += own
        held += [torsion] * len(own)
    return _only_minima(minimize_with_torsion(teacher, frames, held), frames)


def _scan(smiles: str) -> tuple[list[Atoms], tuple[int, ...]]:
    """Return a fragment of MMFF94 at each angle, and the atoms of its torsion."""
    from rdkit import Chem
    from rdkit.Chem import AllChem, rdForceFieldHelpers, rdMolTransforms

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    by_map = {atom.GetAtomMapNum(): atom.GetIdx() for atom in molecule.GetAtoms()}
    torsion = tuple(by_map[number] for number in (1, 2, 3, 4))
    AllChem.EmbedMolecule(molecule, randomSeed=SEED)
    rdForceFieldHelpers.MMFFOptimizeMolecule(molecule, maxIters=2000)
    properties = rdForceFieldHelpers.MMFFGetMoleculeProperties(molecule)
    frames = []
    for angle in torsions.ANGLES:
        conformer = Chem.Mol(molecule)
        rdMolTransforms.SetDihedralDeg(conformer.GetConformer(), *torsion, float(angle))
        field = rdForceFieldHelpers.MMFFGetMoleculeForceField(conformer, properties)
        field.Initialize()
        field.MMFFAddTorsionConstraint(*torsion, False, angle, angle, STIFFNESS)
        field.Minimize(maxIts=2000)
        rdMolTransforms.SetDihedralDeg(conformer.GetConformer(), *torsion, float(angle))
        frames.append(_atoms(conformer))
    return frames, torsion


def _atoms(molecule: Any, conformer: int = -1) -> Atoms:
    numbers = [atom.GetAtomicNum() for atom in molecule.GetAtoms()]
    return Atoms(numbers, molecule.GetConformer(conformer).GetPositions())


def _only_minima(minima: Sequence[Minimum], starts: Sequence[Atoms]) -> list[Atoms]:
    """Return minima with the names of what they began from.

    Raises
    ------
    ValueError
        If one did not converge.
    """
    found = []
    for minimum, start in zip(minima, starts, strict=True):
        if not minimum.converged:
            raise ValueError(f"{start.info['name']}: {minimum.reason}.")
        atoms = minimum.atoms
        atoms.info = dict(start.info)
        found.append(atoms)
    return found


def write_structures(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ with positions to 0.0001 Å."""
    lines = []
    for atoms in frames:
        entries = [f'name="{atoms.info["name"]}"']
        if "torsion" in atoms.info:
            entries.append(f'torsion="{" ".join(map(str, atoms.info["torsion"]))}"')
        lines += [
            str(len(atoms)),
            f'Properties=species:S:1:pos:R:3 {" ".join(entries)} pbc="F F F"',
        ]
        lines += [
            f"{symbol:2} {x:8.4f} {y:8.4f} {z:8.4f}"
            for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
        ]
    with replaced_when_complete(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
