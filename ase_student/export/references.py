"""Reference structures and results that are stored in exported files."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import covalent_radii

from ase_student import testing
from ase_student.student import Student

_SEED = 20
# Sizes that exporters do not trace with; see ase_student.backends.tracing.
_CLUSTER_SIZES = (1, 2, 12, 40)
_TESTING = ("crystal", "small_triclinic", "water_dimer", "triclinic", "aspirin", "slab")


def reference_structures(elements: Sequence[int]) -> list[Atoms]:
    """Return structures with the given elements: clusters, and crystals smaller than the cutoff.

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers.
    """
    generator = np.random.default_rng(_SEED)
    sizes = [*_CLUSTER_SIZES[:-1], max(_CLUSTER_SIZES[-1], len(elements))]
    structures = [random_cluster(elements, size, generator) for size in sizes]
    structures.append(_random_crystal(elements, generator))
    for name in _TESTING:
        atoms = testing.structure(name)
        if set(atoms.numbers) <= set(elements):
            structures.append(atoms)
    return structures


def random_cluster(elements: Sequence[int], n_atoms: int, generator: np.random.Generator) -> Atoms:
    """Return a cluster in which every atom is bonded to one earlier atom, far from the others.

    Parameters
    ----------
    elements : sequence of int
        Atomic numbers; taken in turn, so that all of them occur.
    n_atoms : int
    generator : numpy.random.Generator
    """
    numbers = [elements[index % len(elements)] for index in range(n_atoms)]
    radii = np.array([covalent_radii[number] for number in numbers])
    positions = np.zeros((n_atoms, 3))
    for index in range(1, n_atoms):
        while True:
            partner = generator.integers(index)
            direction = generator.standard_normal(3)
            bond = (radii[index] + radii[partner]) * generator.uniform(0.98, 1.08)
            position = positions[partner] + bond * direction / np.linalg.norm(direction)
            distances = np.linalg.norm(positions[:index] - position, axis=1)
            distances[partner] = np.inf
            if (distances > 1.4 * (radii[:index] + radii[index])).all():
                positions[index] = position
                break
    return Atoms(numbers, positions)


def _random_crystal(elements: Sequence[int], generator: np.random.Generator) -> Atoms:
    """Return two atoms in a triclinic cell whose images are all farther apart than a bond."""
    pair = [elements[0], elements[-1]]
    largest = 2.4 * max(covalent_radii[number] for number in pair)
    cell = largest * (np.eye(3) + np.array([[0, 0.1, 0.2], [-0.2, 0, 0.1], [0.1, 0.3, 0]]))
    scaled = np.array([[0.1, 0.2, 0.3], [0.6, 0.65, 0.8]]) + 0.02 * generator.random((2, 3))
    return Atoms(pair, scaled_positions=scaled, cell=cell, pbc=True)


def reference_results(student: Student, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
    """Return the structures with the student's results in float64, as JSON types.

    Parameters
    ----------
    student : Student
    structures : sequence of Atoms

    Returns
    -------
    list of dict
        ``numbers``, ``positions`` (Å), ``cell`` (Å), ``pbc``, ``energy`` (eV), ``forces`` (eV/Å)
        and ``virial`` (3, 3) (eV).
    """
    from ase_student.backends.eager import TorchBackend
    from ase_student.backends.self_check import evaluate

    reference = TorchBackend(student, "reference", device="cpu", dtype="float64")
    results = []
    for atoms in structures:
        energies, forces, virials = evaluate(reference, atoms)
        results.append(
            {
                "numbers": atoms.numbers.tolist(),
                "positions": atoms.positions.tolist(),
                "cell": atoms.cell.array.tolist(),
                "pbc": atoms.pbc.tolist(),
                "energy": float(energies.sum()),
                "forces": forces.tolist(),
                "virial": virials.sum(axis=0).tolist(),
            }
        )
    return results
