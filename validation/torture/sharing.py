"""Threads that share a calculator, and processes that are forked after its first use."""

from __future__ import annotations

import functools
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ase import Atoms

from ase_student import StudentCalculator
from ase_student.testing import structure
from torture.trials import Block, Figures, Trial

N_THREADS, N_CALLS = 6, 50
#: Largest difference between results of a structure alone and with other threads, eV and eV/Å.
TOLERANCE = 1e-5
#: A forked process that takes longer, s, counts as hanging.
LONGEST = 120.0


def parts_of_aspirin(rng: np.random.Generator) -> list[Atoms]:
    """Return structures of different sizes, whose energies differ by hundreds of eV."""
    parts = []
    for index in range(N_THREADS):
        atoms = structure("aspirin")[: 21 - 2 * index]
        atoms.positions += 0.02 * rng.standard_normal(atoms.positions.shape)
        parts.append(atoms)
    return parts


def largest_error(calculator: StudentCalculator, atoms: Atoms, expected: dict) -> float:
    """Return the largest error of the results of many calls for a structure."""
    worst = 0.0
    for call in range(N_CALLS):
        copy = atoms.copy()
        copy.positions += 1e-3 * (call % 2)  # another state with the same results
        copy.calc = calculator
        error = abs(copy.get_potential_energy() - expected["energy"])
        worst = max(worst, error, np.abs(copy.get_forces() - expected["forces"]).max())
    return float(worst)


def threads(backend: str, block: Block) -> Figures:
    """Let threads share a calculator for different structures at the same time."""
    calculator = StudentCalculator("tiny", backend, "cpu", threads=1, guard="off")
    parts = parts_of_aspirin(block.rng)
    expected = calculator.calculate_many(parts)
    error_of = functools.partial(largest_error, calculator)
    with ThreadPoolExecutor(N_THREADS) as pool:
        errors = list(pool.map(error_of, parts, expected))
    return {
        "calls": N_THREADS * N_CALLS,
        "wrong": sum(error > TOLERANCE for error in errors),
        "largest_error": max(errors),
    }


def _in_child(calculator: StudentCalculator, atoms: Atoms, pipe: object) -> None:
    pipe.send(calculator.get_potential_energy(atoms))  # type: ignore[attr-defined]
    pipe.close()  # type: ignore[attr-defined]


def fork(backend: str, block: Block) -> Figures:
    """Fork a process after the first use of a calculator, and use it there."""
    context = multiprocessing.get_context("fork")
    calculator = StudentCalculator("tiny", backend, "cpu", threads=2, guard="off")
    atoms = parts_of_aspirin(block.rng)[0]
    expected = calculator.get_potential_energy(atoms)
    atoms.positions += 1e-3
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_in_child, args=(calculator, atoms, sender))
    child.start()
    sender.close()
    answered = receiver.poll(LONGEST)
    try:
        energy = receiver.recv() if answered else float("nan")
    except EOFError:
        energy = float("nan")
    child.join(1.0)
    if child.is_alive():
        child.kill()
        child.join()
    return {
        "forks": 1,
        "hung": int(not answered),
        "wrong": int(bool(answered) and not abs(energy - expected) < TOLERANCE),
    }


TRIALS = [
    *(
        Trial(
            f"threads {backend}", f"calls of {N_THREADS} threads that share a calculator, "
            f"backend `{backend}`", functools.partial(threads, backend), blocks=40,
            short_blocks=1, must_be_zero=("wrong",),
        )
        for backend in ("native", "onnx")
    ),
    *(
        Trial(
            f"fork {backend}", f"processes forked after first use, backend `{backend}`",
            functools.partial(fork, backend), blocks=40, short_blocks=2,
            must_be_zero=("wrong", "hung"),
        )
        for backend in ("native", "onnx")
    ),
]  # fmt: skip
