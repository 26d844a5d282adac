"""What is checked before a time counts, and what is recorded with it."""

import platform
from importlib.metadata import version
from typing import Any

import numpy as np
from ase import Atoms

from ase_student import StudentCalculator
from ase_student.testing import TOLERANCES


def check_energy(calculator: StudentCalculator, reference: StudentCalculator, atoms: Atoms) -> None:
    """Refuse to time what does not compute the right thing."""
    expected = reference.get_potential_energy(atoms)
    found = calculator.get_potential_energy(atoms)
    assert abs(found - expected) <= TOLERANCES.backend_energy_per_atom * len(atoms)


def describe(benchmark: Any, calculator: StudentCalculator, atoms: Atoms, threads: int) -> None:
    """Record with a time what it is the time of."""
    neighbors, offsets = calculator.neighbor_list.update(
        atoms.positions, atoms.cell.array, atoms.pbc, atoms.numbers
    )
    vectors = atoms.positions[neighbors] + offsets - atoms.positions[:, None]
    within = np.linalg.norm(vectors, axis=2) < calculator.info.cutoff
    benchmark.extra_info.update(
        student=calculator.info.name,
        backend=calculator.backend,
        device=calculator.device,
        dtype=calculator.info.dtype,
        threads=threads,
        atoms=len(atoms),
        neighbors_mean=round(float(within.sum(axis=1).mean()), 1),
        columns=neighbors.shape[1],
        machine=platform.processor() or platform.machine(),
        versions={name: version(name) for name in ("ase", "numpy", "onnxruntime", "vesin")},
    )


def moved(atoms: Atoms, generator: np.random.Generator) -> Atoms:
    """Move every atom a little, by far less than the skin of a neighbor list."""
    atoms.positions += 1e-4 * generator.standard_normal(atoms.positions.shape)
    return atoms
