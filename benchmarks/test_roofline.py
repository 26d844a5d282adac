"""Rate of a student's matrix products relative to the device's highest rate in the same run."""

from typing import Any

import numpy as np
import pytest
from measuring import check_energies, describe, run
from timing.structures import condensed, molecular, moved

from ase_student import StudentCalculator
from ase_student.backends import open_backend
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import structure

CASES = {
    "aspirin": lambda: structure("aspirin"),
    "molecular": lambda: molecular(1000),
    "condensed": lambda: condensed(1000),
}


@pytest.mark.parametrize("case", CASES)
def test_roofline(
    benchmark: Any,
    calculator: StudentCalculator,
    reference: StudentCalculator,
    threads: int,
    budget: float,
    only_small: bool,
    case: str,
) -> None:
    pytest.importorskip("torch")
    from timing.roofline import count_operations, multiplication_rate

    if only_small and case != "aspirin":
        pytest.skip("--small")
    benchmark.group = f"share of the limit: {case}"
    atoms, name, device = CASES[case](), calculator.info.name, calculator.device
    potential = open_backend(name, calculator.backend, device, threads=threads)
    cell = atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, calculator.info.cutoff)
    numbers, offsets = atoms.numbers.astype(np.int64), matrix.offsets(cell)
    rng = np.random.default_rng(0)

    def arguments() -> tuple[Any, ...]:
        return numbers, moved(atoms, rng).positions, matrix.neighbors, offsets

    energies = potential.evaluate(numbers, atoms.positions, matrix.neighbors, offsets)[0]
    check_energies([energies.sum()], reference, [atoms])
    operations = count_operations(name, atoms)
    before = multiplication_rate(device, threads)
    seconds = run(benchmark, potential.evaluate, arguments, device, budget)
    limit = max(before, multiplication_rate(device, threads))
    describe(
        benchmark,
        "roofline",
        calculator,
        threads,
        case=case,
        atoms=len(atoms),
        columns=matrix.neighbors.shape[1],
        operations=operations,
        operations_per_second=operations / seconds,
        limit_operations_per_second=limit,
        share_of_limit=operations / seconds / limit,
    )
