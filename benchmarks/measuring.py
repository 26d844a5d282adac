"""Checks before a case is timed, timed rounds, and the information recorded with them."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from timing.machine import available_mb, gpu, hardware, versions

from ase_student import StudentCalculator
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import TOLERANCES

# Largest memory of a structure in torch in float64: kB per atom and neighbor.
KILOBYTES_PER_PAIR = 12.0
FEWEST_ROUNDS, MOST_ROUNDS = 3, 50


def check_energies(
    energies: Sequence[float], reference: StudentCalculator, structures: Sequence[Atoms]
) -> None:
    """Fail if energies differ from those of a reference: wrong results are not timed."""
    expected = [result["energy"] for result in reference.calculate_many(structures)]
    for energy, expected_energy, atoms in zip(energies, expected, structures, strict=True):
        error = abs(energy - expected_energy)
        assert error <= TOLERANCES.backend_energy_per_atom * len(atoms)


def skip_if_too_large(n_atoms: int, n_neighbors: int) -> None:
    """Skip a case that needs more memory than available, including its check in float64."""
    available = available_mb()
    needed = KILOBYTES_PER_PAIR * n_atoms * n_neighbors / 1024
    if available is not None and needed > available:
        pytest.skip(f"about {needed:.0f} MB are needed, {available:.0f} MB are available")


def run(
    benchmark: Any,
    call: Callable[..., object],
    arguments: Callable[[], tuple[Any, ...]],
    device: str,
    budget: float,
) -> float:
    """Run rounds of a call, each with new arguments, and return their median in seconds.

    Parameters
    ----------
    benchmark : pytest_benchmark.fixture.BenchmarkFixture
    call : callable
    arguments : callable
        Returns the arguments of a call, with moved atoms; it is not timed.
    device : str
        On a GPU, a call ends when the GPU has finished its work.
    budget : float, s
        Time for all rounds together.
    """
    wait = waiting(device)

    def call_and_wait(*values: Any) -> None:
        call(*values)
        wait()

    call_and_wait(*arguments())
    values = arguments()
    start = time.perf_counter()
    call_and_wait(*values)
    seconds = time.perf_counter() - start
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, math.ceil(budget / seconds)))
    benchmark.pedantic(
        call_and_wait, setup=lambda: (arguments(), {}), rounds=rounds, warmup_rounds=min(3, rounds)
    )
    return float(benchmark.stats.stats.median)


def waiting(device: str) -> Callable[[], None]:
    """Return a function that waits until a device has finished its work."""
    if not device.startswith("cuda"):
        return lambda: None
    from timing.roofline import synchronize

    return lambda: synchronize(device)


def neighbor_counts(atoms: Atoms, cutoff: float) -> dict[str, float]:
    """Return the mean number of neighbors, and the number of columns of the neighbor matrix."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    offsets = matrix.offsets(atoms.cell.array)
    vectors = atoms.positions[matrix.neighbors] + offsets - atoms.positions[:, None]
    within = np.linalg.norm(vectors, axis=2) < cutoff
    return {
        "neighbors_mean": round(float(within.sum(axis=1).mean()), 1),
        "columns": matrix.neighbors.shape[1],
    }


def describe(
    benchmark: Any, kind: str, calculator: StudentCalculator, threads: int, **more: Any
) -> None:
    """Record what was timed: student, backend, hardware, versions and entries of the kind.

    Parameters
    ----------
    kind : str
        An entry of :data:`timing.results.KINDS`.
    more
        Further entries of that kind.
    """
    benchmark.extra_info.update(
        student=calculator.info.name,
        backend=calculator.backend,
        device=calculator.device,
        dtype=calculator.info.dtype,
    )
    describe_others(benchmark, kind, threads, device=calculator.device, **more)


def describe_others(
    benchmark: Any, kind: str, threads: int, device: str = "cpu", **more: Any
) -> None:
    """Record what was timed, for a case without a :class:`StudentCalculator`."""
    graphics = {} if gpu(device) is None else {"gpu": gpu(device)}
    benchmark.extra_info.update(
        kind=kind,
        device=device,
        threads=threads,
        hardware={**hardware(), **graphics},
        versions=versions(),
        **more,
    )
