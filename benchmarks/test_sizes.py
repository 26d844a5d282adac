"""One structure of 10 to 10,000 atoms: time per atom and peak memory."""

from typing import Any

import numpy as np
import pytest
from measuring import check_energies, describe, neighbor_counts, run, skip_if_too_large
from timing.memory import PHASES, peak_mb
from timing.results import ALL
from timing.structures import SIZES, moved

from ase_student import StudentCalculator

# Smaller structures take less memory than Python and its packages.
SMALLEST_WITH_MEMORY = 1000
LARGEST_SMALL = 100


@pytest.mark.parametrize("n_atoms", SIZES)
@pytest.mark.parametrize("phase", PHASES)
def test_sizes(
    benchmark: Any,
    calculator: StudentCalculator,
    reference: StudentCalculator,
    threads: int,
    budget: float,
    only_small: bool,
    phase: str,
    n_atoms: int,
) -> None:
    """Time `calculate` with a kept neighbor list: all atoms move by less than the skin."""
    if only_small and n_atoms > LARGEST_SMALL:
        pytest.skip("--small")
    benchmark.group = f"{phase}, {n_atoms} atoms"
    atoms = PHASES[phase](n_atoms)
    counts = neighbor_counts(atoms, calculator.info.cutoff)
    skip_if_too_large(n_atoms, int(counts["columns"]))
    calculator.calculate(atoms)
    check_energies([calculator.results["energy"]], reference, [atoms])
    rng = np.random.default_rng(0)
    seconds = run(
        benchmark, calculator.calculate, lambda: (moved(atoms, rng),), calculator.device, budget
    )
    info: dict[str, Any] = {"microseconds_per_atom": 1e6 * seconds / n_atoms, **counts}
    if n_atoms >= SMALLEST_WITH_MEMORY and calculator.device == "cpu":
        info |= peak_mb(calculator.info.name, calculator.backend, threads, phase, n_atoms)
    describe(
        benchmark, "size", calculator, threads, atoms=n_atoms, phase=phase, properties=ALL, **info
    )
