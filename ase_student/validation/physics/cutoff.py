"""Check that energy and forces are continuous when an atom crosses the cutoff."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from ase_student.testing import TOLERANCES
from ase_student.validation.physics.checks import Check, Subject, ask, judged

#: Distance from the cutoff on either side, Å; at forces of 10 eV/Å, energies change by less than
#: the limit over this distance.
STEP = 1e-11
#: Largest allowed steps of the forces at the cutoff, eV/Å, in float64 and in float32.
FORCE_LIMIT = 1e-6
FORCE_LIMIT_FLOAT32 = 1e-4


def pairs_of(elements: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return all pairs of elements."""
    return list(combinations_with_replacement(sorted(elements), 2))


def pair_name(pair: tuple[int, int]) -> str:
    """Return the name of a pair of elements, such as 'C-H'."""
    return "-".join(chemical_symbols[number] for number in pair)


def dimer(pair: tuple[int, int], distance: float) -> Atoms:
    """Return two atoms at a distance in Å, without a cell."""
    return Atoms(pair, [[0.0, 0.0, 0.0], [0.0, 0.0, distance]])


def check_cutoff(subject: Subject) -> list[Check]:
    """Return the steps of energy and forces at the cutoff, for pairs and atoms near a molecule."""
    energies: dict[str, float] = {}
    forces: dict[str, float] = {}
    for names, inside, outside in (_pairs(subject), _probes(subject)):
        if not names:
            continue
        answers = ask(subject.precise, inside + outside)
        for name, inside_answer, outside_answer in zip(
            names, answers[: len(names)], answers[len(names) :], strict=True
        ):
            step = abs(inside_answer.energy - outside_answer.energy)
            energies[name] = max(energies.get(name, 0.0), step)
            jump = float(np.abs(inside_answer.forces - outside_answer.forces).max())
            forces[name] = max(forces.get(name, 0.0), jump)
    limit = TOLERANCES.cutoff_energy if subject.is_precise else TOLERANCES.symmetry_energy_float32
    force_limit = FORCE_LIMIT if subject.is_precise else FORCE_LIMIT_FLOAT32
    return [
        judged("step of the energy at the cutoff", energies, limit, unit="eV"),
        judged("step of the forces at the cutoff", forces, force_limit, unit="eV/Å"),
    ]


def _pairs(subject: Subject) -> tuple[list[str], list[Atoms], list[Atoms]]:
    pairs = pairs_of(subject.elements)
    return (
        [pair_name(pair) for pair in pairs],
        [dimer(pair, subject.cutoff - STEP) for pair in pairs],
        [dimer(pair, subject.cutoff + STEP) for pair in pairs],
    )


def _probes(subject: Subject) -> tuple[list[str], list[Atoms], list[Atoms]]:
    """Return an atom of each element just inside and outside the cutoff of a molecule's atoms."""
    if not subject.molecules:
        return [], [], []
    molecule = next(iter(subject.molecules.values()))
    center = molecule.positions.mean(axis=0)
    distances = np.linalg.norm(molecule.positions - center, axis=1)
    outermost = np.argsort(-distances)[:8]
    names: list[str] = []
    inside: list[Atoms] = []
    outside: list[Atoms] = []
    for number in subject.elements:
        for atom in outermost:
            position = molecule.positions[atom]
            outward = (position - center) / max(distances[atom], 1e-9)
            names.append(f"{chemical_symbols[number]} leaving a molecule")
            for group, distance in (
                (inside, subject.cutoff - STEP),
                (outside, subject.cutoff + STEP),
            ):
                probe = Atoms([number], [position + distance * outward])
                group.append(molecule + probe)
    return names, inside, outside
