"""Batches of 1 to 1,024 molecules of 16 atoms, with and without the building of neighbors."""

from typing import Any

import numpy as np
import pytest
from measuring import check_energies, describe, neighbor_counts, run, skip_if_too_large
from timing.energies import ENERGY_BACKENDS, open_energies
from timing.results import ALL, ENERGY
from timing.structures import anisole, moved

from ase_student import StudentCalculator
from ase_student.backends import open_backend
from ase_student.neighbors import concatenate, neighbor_matrix

# The first six are those of the first generation's table of times.
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LARGEST_SMALL = 8


def skip_large(n_structures: int, only_small: bool) -> None:
    if only_small and n_structures > LARGEST_SMALL:
        pytest.skip("--small")


def record(
    benchmark: Any, kind: str, calculator: StudentCalculator, threads: int, n: int, **more: Any
) -> None:
    seconds = benchmark.stats.stats.median
    n_atoms = len(anisole())
    describe(
        benchmark,
        kind,
        calculator,
        threads,
        structures=n,
        atoms=n_atoms,
        latency_ms=1000 * seconds,
        latency_ms_per_structure=1000 * seconds / n,
        structures_per_second=n / seconds,
        atoms_per_second=n * n_atoms / seconds,
        **neighbor_counts(anisole(), calculator.info.cutoff),
        **more,
    )


@pytest.mark.parametrize("n_structures", BATCHES)
def test_batches(
    benchmark: Any,
    calculator: StudentCalculator,
    reference: StudentCalculator,
    threads: int,
    budget: float,
    only_small: bool,
    n_structures: int,
) -> None:
    """Time `calculate_many`, which always computes energies, forces and virials."""
    skip_large(n_structures, only_small)
    benchmark.group = f"batch of {n_structures} molecules of 16 atoms"
    rng = np.random.default_rng(0)

    def structures() -> list[Any]:
        return [moved(anisole(), rng) for _ in range(n_structures)]

    batch = structures()
    energies = [result["energy"] for result in calculator.calculate_many(batch)]
    check_energies(energies, reference, batch)
    run(
        benchmark,
        calculator.calculate_many,
        lambda: (structures(),),
        calculator.device,
        budget,
    )
    record(benchmark, "batch", calculator, threads, n_structures, properties=ALL)


@pytest.mark.parametrize("properties", [ALL, ENERGY])
@pytest.mark.parametrize("n_structures", BATCHES)
def test_networks(
    benchmark: Any,
    calculator: StudentCalculator,
    reference: StudentCalculator,
    threads: int,
    budget: float,
    only_small: bool,
    n_structures: int,
    properties: str,
) -> None:
    """Time the network alone, with given neighbors, with and without forces."""
    skip_large(n_structures, only_small)
    if properties == ENERGY and calculator.backend not in ENERGY_BACKENDS:
        pytest.skip(f"backend '{calculator.backend}' cannot skip forces")
    benchmark.group = f"network, {n_structures} molecules of 16 atoms: {properties}"
    atoms, name, device = anisole(), calculator.info.name, calculator.device
    matrix = neighbor_matrix(
        atoms.positions, atoms.cell.array, atoms.pbc, cutoff := calculator.info.cutoff
    )
    skip_if_too_large(n_structures * len(atoms), matrix.neighbors.shape[1])
    part = (matrix.neighbors, matrix.offsets(atoms.cell.array))
    neighbors, offsets = concatenate([part] * n_structures, cutoff)
    numbers = np.tile(atoms.numbers.astype(np.int64), n_structures)
    rng = np.random.default_rng(0)

    def arguments() -> tuple[Any, ...]:
        batch = [moved(atoms, rng).positions for _ in range(n_structures)]
        return numbers, np.concatenate(batch), neighbors, offsets

    if properties == ENERGY:
        evaluate: Any = open_energies(name, calculator.backend, device, threads)
    else:
        evaluate = open_backend(name, calculator.backend, device, threads=threads).evaluate
    inputs = arguments()
    results = evaluate(*inputs)
    energies = results if properties == ENERGY else results[0]
    structures = [atoms.copy() for _ in range(n_structures)]
    for copy, positions in zip(structures, np.split(inputs[1], n_structures), strict=True):
        copy.positions = positions
    check_energies(energies.reshape(n_structures, -1).sum(axis=1), reference, structures)
    run(benchmark, evaluate, arguments, device, budget)
    record(benchmark, "network", calculator, threads, n_structures, properties=properties)
