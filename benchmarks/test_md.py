"""Molecular dynamics in ASE: time of each part, and of a calculator that returns zeros."""

import math
import time
from typing import Any

import pytest
from ase import Atoms
from measuring import FEWEST_ROUNDS, MOST_ROUNDS, check_energies, describe, describe_others
from timing.dynamics import (
    Stopwatch,
    TimedCalculator,
    ZeroCalculator,
    dynamics,
    nanoseconds_per_day,
    split,
)
from timing.structures import waters

from ase_student import StudentCalculator
from ase_student.testing import structure

SYSTEMS = {
    "aspirin": lambda: structure("aspirin"),
    "64 waters": lambda: waters(64),
    "512 waters": lambda: waters(512),
}
# Number of steps of aspirin; larger systems run fewer.
STEPS = 50


@pytest.fixture(params=SYSTEMS)
def system(request: pytest.FixtureRequest, only_small: bool) -> str:
    if only_small and request.param != "aspirin":
        pytest.skip("--small")
    return str(request.param)


def run(benchmark: Any, atoms: Atoms, calculator: Any, budget: float) -> dict[str, Any]:
    """Time rounds of dynamics and return the figures to record."""
    loop = dynamics(atoms, calculator)
    steps = max(2, STEPS * 21 // len(atoms))
    loop.run(steps)
    clock = time.perf_counter()
    loop.run(steps)
    round_seconds = time.perf_counter() - clock
    rounds = min(MOST_ROUNDS, max(FEWEST_ROUNDS, math.ceil(budget / round_seconds)))
    watch = getattr(calculator, "watch", Stopwatch())
    watch.seconds.clear()
    start = loop.nsteps
    benchmark.pedantic(loop.run, args=(steps,), rounds=rounds)
    # Without real steps, the time would be that of ASE's result cache.
    assert loop.nsteps - start == steps * rounds
    seconds = benchmark.stats.stats.median / steps
    return {
        "atoms": len(atoms),
        "steps_per_round": steps,
        "steps_per_second": 1.0 / seconds,
        "milliseconds_per_step": 1000.0 * seconds,
        "nanoseconds_per_day": nanoseconds_per_day(seconds),
        "split_milliseconds": split(watch, sum(benchmark.stats.stats.data), steps * rounds),
    }


def test_floor(benchmark: Any, system: str, threads: int, budget: float) -> None:
    benchmark.group = f"md of {system}"
    figures = run(benchmark, SYSTEMS[system](), ZeroCalculator(), budget)
    del figures["split_milliseconds"]
    describe_others(
        benchmark, "md", threads, system=system, student="zeros", backend="none", **figures
    )


def test_student(
    benchmark: Any,
    calculator: StudentCalculator,
    reference: StudentCalculator,
    threads: int,
    budget: float,
    system: str,
) -> None:
    benchmark.group = f"md of {system}"
    atoms = SYSTEMS[system]()
    timed = TimedCalculator(
        calculator.info.name,
        backend=calculator.backend,
        device=calculator.device,
        threads=threads,
        guard="off",
    )
    timed.calculate(atoms)
    check_energies([timed.results["energy"]], reference, [atoms])
    figures = run(benchmark, atoms, timed, budget)
    figures["rebuilds"] = timed.neighbor_list.n_rebuilds
    describe(benchmark, "md", calculator, threads, system=system, **figures)
