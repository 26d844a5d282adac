"""What is checked before a time counts, how rounds are run, and what is recorded with them."""

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

# What a structure takes in float64 in torch at most: kilobytes for an atom and a neighbor.
KILOBYTES_PER_PAIR = 12.0
FEWEST_ROUNDS, MOST_ROUNDS = 3, 50


def check_energies(
    energies: Sequence[float], reference: StudentCalculator, structures: Sequence[Atoms]
) -> None:
    """Refuse to time what does not compute the right thing."""
    expected = [result["energy"] for result in reference.calculate_many(structures)]
    for found, right, atoms in zip(energies, expected, structures, strict=True):
        assert abs(found - right) <= TOLERANCES.backend_energy_per_atom * len(atoms)


def skip_if_too_large(n_atoms: int, n_neighbors: int) -> None:
    """Skip what would not fit into memory, the check in float64 included."""
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
        Returns moved atoms; it is not timed.
    device : str
        Calls end when a GPU has done its work.
    budget : float, s
        That all rounds should take.
    """
    wait = waiting(device)

    def finished(*given: Any) -> None:
        call(*given)
        wait()

    finished(*arguments())
    given = arguments()
    start = time.perf_counter()
    finished(*given)
    each = time.perf_counter() - start
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, math.ceil(budget / each)))
    benchmark.pedantic(
        finished, setup=lambda: (arguments(), {}), rounds=rounds, warmup_rounds=min(3, rounds)
    )
    return float(benchmark.stats.stats.median)


def waiting(device: str) -> Callable[[], None]:
    """Return what waits until a device has done what it was given."""
    if not device.startswith("cuda"):
        return lambda: None
    from timing.roofline import synchronize

    return lambda: synchronize(device)


def neighbor_counts(atoms: Atoms, cutoff: float) -> dict[str, float]:
    """Return the mean number of neighbors, and the columns that are computed."""
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
    """Record with a time what it is the time of.

    Parameters
    ----------
    kind : str
        One of :data:`timing.results.KINDS`.
    more
        Entries of that kind.
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
    """Record the same with the time of what is no student."""
    graphics = {} if gpu(device) is None else {"gpu": gpu(device)}
    benchmark.extra_info.update(
        kind=kind,
        device=device,
        threads=threads,
        hardware={**hardware(), **graphics},
        versions=versions(),
        **more,
    )
