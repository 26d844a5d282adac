"""Relative energies and ranking of conformers of flexible molecules.

Energies are of the geometries in ``data/conformers.extxyz``, minima of the teacher, as is usual
with published sets of conformers.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import kendalltau

from ase_student.potentials.base import Potential
from ase_student.validation.chemistry.experiment import KCAL, Figure, Measured, mean_absolute
from ase_student.validation.chemistry.structures import read_structures
from ase_student.validation.physics.checks import ask

#: Molecules by name, as SMILES.
MOLECULES = {
    "hexane": "CCCCCC",
    "1,4-butanediol": "OCCCCO",
    "glycerol": "OCC(O)CO",
    "serine": "N[C@@H](CO)C(=O)O",
    "methionine": "CSCC[C@H](N)C(=O)O",
    "alanine dipeptide": "CC(=O)N[C@@H](C)C(=O)NC",
    "dopamine": "NCCc1ccc(O)c(O)c1",
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "ibuprofen": "CC(C)Cc1ccc(cc1)[C@@H](C)C(=O)O",
    "diethyl methylphosphonate": "CCOP(C)(=O)OCC",
}
#: Largest number of conformers of a molecule, and their largest energy above the lowest, kcal/mol.
N_CONFORMERS = 8
WINDOW = 8.0

RELATIVE = "relative energies of conformers, mean absolute difference"


def measure(potential: Potential) -> Measured:
    """Return energies of conformers above their mean in kcal/mol, by molecule."""
    frames = read_structures("conformers.extxyz")
    flat = [atoms for own in frames.values() for atoms in own]
    energies = np.array([answer.energy for answer in ask(potential, flat)]) / KCAL
    relative_energies, start = {}, 0
    for name, own in frames.items():
        values = energies[start : start + len(own)]
        relative_energies[name] = np.round(values - values.mean(), 4).tolist()
        start += len(own)
    return {"energies": relative_energies}


def compare(measured: Measured, teacher: Measured | None) -> list[Figure]:
    """Return differences of relative energies and of the ranking from the teacher's."""
    if teacher is None:
        return []
    differences: dict[str, float] = {}
    rankings: list[float] = []
    n_same = 0
    for name, theirs in teacher["energies"].items():
        ours = measured["energies"][name]
        differences[name] = float(np.abs(np.subtract(ours, theirs)).mean())
        rankings.append(float(kendalltau(ours, theirs).statistic))
        n_same += int(np.argmin(ours) == np.argmin(theirs))
    n_molecules = len(rankings)
    return [
        mean_absolute(RELATIVE, "kcal/mol", "teacher", differences=differences),
        Figure(
            "ranking of conformers, mean Kendall τ",
            round(float(np.mean(rankings)), 3),
            "1 if all agree",
            "teacher",
            n_molecules,
        ),
        Figure(
            "molecules whose lowest conformer is the same",
            100.0 * n_same / n_molecules,
            "%",
            "teacher",
            n_molecules,
        ),
    ]
