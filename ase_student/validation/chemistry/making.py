"""Make the structures that experiments start from, with RDKit and a teacher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units

from ase_student.dynamics.langevin import Walker
from ase_student.files import replaced_when_complete
from ase_student.potentials.base import Potential
from ase_student.validation.chemistry import conformers, torsions
from ase_student.validation.chemistry.experiment import KCAL
from ase_student.validation.chemistry.relaxation import (
    Minimum,
    minimize,
    minimize_with_torsion,
)
from ase_student.validation.physics.checks import ask
from ase_student.validation.stability.run import FRICTION
from ase_student.validation.stability.water import water_box

SEED = 7
#: Stiffness of MMFF94's restraint on a torsion, kcal/mol/rad²; the teacher's minimization holds
#: the torsion exactly.
STIFFNESS = 1000.0
#: Conformers whose energies differ by less than this, kcal/mol, are considered identical.
DISTINCT = 0.05


def make_scans(teacher: Potential) -> list[Atoms]:
    """Return all fragments at all angles, minimized by the teacher with a fixed torsion."""
    frames: list[Atoms] = []
    held: list[tuple[int, ...]] = []
    for name, smiles in torsions.FRAGMENTS.items():
        own, torsion = _scan(smiles)
        for atoms in own:
            atoms.info = {"name": name, "torsion": np.array(torsion)}
        frames += own
        held += [torsion] * len(own)
    return _only_minima(minimize_with_torsion(teacher, frames, held), frames)


def make_conformers(teacher: Potential) -> list[Atoms]:
    """Return conformers of all flexible molecules at minima of the teacher, lowest energy first."""
    frames = [
        atoms
        for name, smiles in conformers.MOLECULES.items()
        for atoms in _conformers(name, smiles)
    ]
    minima = minimize(teacher, frames, fmax=0.02, steps=500)
    relaxed = _only_minima(minima, frames)
    energies = [minimum.energy / KCAL for minimum in minima]
    distinct: list[Atoms] = []
    for name in conformers.MOLECULES:
        own = [i for i, atoms in enumerate(relaxed) if atoms.info["name"] == name]
        last = -np.inf
        for i in sorted(own, key=lambda i: energies[i]):
            if energies[i] - last >= DISTINCT:
                distinct.append(relaxed[i])
                last = energies[i]
    return distinct


def _conformers(name: str, smiles: str) -> list[Atoms]:
    """Return MMFF94 conformers of a molecule, whose energies are spread over the window."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMultipleConfs(molecule, 60, randomSeed=SEED)
    optimized = rdForceFieldHelpers.MMFFOptimizeMoleculeConfs(molecule, maxIters=2000)
    energies = [energy for _, energy in optimized]
    distinct: list[int] = []
    for i in np.argsort(energies).tolist():
        in_window = energies[i] <= min(energies) + conformers.WINDOW
        if in_window and (not distinct or energies[i] - energies[distinct[-1]] >= DISTINCT):
            distinct.append(i)
    n = min(len(distinct), conformers.N_CONFORMERS)
    places = np.linspace(0, len(distinct) - 1, n).round().astype(int)
    frames = [_atoms(molecule, distinct[place]) for place in places]
    for atoms in frames:
        atoms.info = {"name": name}
    return frames


def make_water(student: Potential, picoseconds: float = 4.0) -> list[Atoms]:
    """Return 64 waters at 1.0 g/cm³ after dynamics at 300 K."""
    walker = Walker(water_box(4), 300.0, units.fs, friction=FRICTION, seed=[SEED, 0])
    forces = ask(student, [walker.atoms])[0].forces
    for step in range(round(1000.0 * picoseconds)):
        walker.move(step, forces)
        forces = ask(student, [walker.atoms])[0].forces
        walker.arrive(forces)
    walker.atoms.info = {"name": "64 waters"}
    return [walker.atoms]


def _scan(smiles: str) -> tuple[list[Atoms], tuple[int, ...]]:
    """Return a fragment at each angle, minimized by MMFF94, and the atoms of its torsion."""
    from rdkit import Chem
    from rdkit.Chem import rdDistGeom, rdForceFieldHelpers, rdMolTransforms

    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    by_map = {atom.GetAtomMapNum(): atom.GetIdx() for atom in molecule.GetAtoms()}
    torsion = (by_map[1], by_map[2], by_map[3], by_map[4])
    rdDistGeom.EmbedMolecule(molecule, randomSeed=SEED)
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
    """Return minima with the names of the structures from which they started.

    Raises
    ------
    ValueError
        If a minimization did not converge.
    """
    structures = []
    for minimum, start in zip(minima, starts, strict=True):
        if not minimum.converged:
            raise ValueError(f"{start.info['name']}: {minimum.reason}.")
        atoms = minimum.atoms
        atoms.info = dict(start.info)
        structures.append(atoms)
    return structures


def write_structures(path: Path, frames: Sequence[Atoms]) -> None:
    """Write structures as extended XYZ with positions to 0.0001 Å."""
    lines = []
    for atoms in frames:
        entries = [f'name="{atoms.info["name"]}"']
        if "torsion" in atoms.info:
            entries.append(f'torsion="{" ".join(map(str, atoms.info["torsion"]))}"')
        if atoms.pbc.all():
            entries.append(f'Lattice="{" ".join(f"{x:.4f}" for x in atoms.cell.array.ravel())}"')
        pbc = " ".join("T" if periodic else "F" for periodic in atoms.pbc)
        entries.append(f'pbc="{pbc}"')
        lines += [str(len(atoms)), f"Properties=species:S:1:pos:R:3 {' '.join(entries)}"]
        lines += [
            f"{symbol:2} {x:8.4f} {y:8.4f} {z:8.4f}"
            for symbol, (x, y, z) in zip(atoms.symbols, atoms.positions, strict=True)
        ]
    with replaced_when_complete(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
