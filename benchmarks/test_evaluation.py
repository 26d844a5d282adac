"""Energies, forces and stress of structures of several sizes, per call."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms
from measuring import check_energy, describe, moved

from ase_student import StudentCalculator
from ase_student.testing import structure


def aspirins(n_molecules: int) -> Atoms:
    """Return molecules that don't see each other, as one structure."""
    molecule = structure("aspirin")
    atoms = Atoms()
    for index in range(n_molecules):
        copy = molecule.copy()
        copy.translate((25.0 * index, 0.0, 0.0))
        atoms += copy
    return atoms


CASES = {
    "aspirin, 21 atoms": lambda: structure("aspirin"),
    "48 aspirins, 1008 atoms": lambda: aspirins(48),
    "liquid, 1000 atoms": lambda: structure("thousand_atoms"),
}


@pytest.mark.parametrize("case", CASES)
def test_evaluation(
    benchmark: Any,
    calculator: StudentCalculator,
    reference: StudentCalculator,
    threads: int,
    case: str,
) -> None:
    benchmark.group = f"evaluation: {case}"
    atoms = CASES[case]()
    check_energy(calculator, reference, atoms)
    generator = np.random.default_rng(0)
    benchmark.pedantic(
        calculator.calculate,
        setup=lambda: ((moved(atoms, generator),), {}),
        rounds=30,
        warmup_rounds=3,
    )
    describe(benchmark, calculator, atoms, threads)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["microseconds_per_atom"] = round(1e6 * seconds / len(atoms), 2)


def test_many(
    benchmark: Any, calculator: StudentCalculator, reference: StudentCalculator, threads: int
) -> None:
    """64 molecules in one call, neighbors included."""
    benchmark.group = "calculate_many: 64 aspirins"
    structures = [structure("aspirin") for _ in range(64)]
    check_energy(calculator, reference, structures[0])
    generator = np.random.default_rng(0)
    benchmark.pedantic(
        calculator.calculate_many,
        setup=lambda: (([moved(atoms, generator) for atoms in structures],), {}),
        rounds=10,
        warmup_rounds=1,
    )
    describe(benchmark, calculator, structures[0], threads)
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["structures_per_second"] = round(64 / seconds, 1)
