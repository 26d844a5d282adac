"""Calculators in several threads: one for all of them, and one for each."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from ase.calculators.calculator import InputError

from ase_student import StudentCalculator
from ase_student.backends import BACKENDS
from ase_student.testing import structure

N_THREADS = 6
N_CALLS = 8
#: Between calculators of one backend, eV and eV/Å: batches of other sizes round differently.
TOLERANCE = 1e-5


class Slow(StudentCalculator):
    """A calculator that waits between steps of ASE's protocol, so that threads interfere."""

    _random = random.Random(0)

    def check_state(self, atoms, tol=1e-15):
        changes = super().check_state(atoms, tol)
        time.sleep(self._random.uniform(0.0, 3e-3))
        return changes


@pytest.fixture(params=BACKENDS)
def make(request):
    """Return a function that makes a calculator of each backend."""
    if request.param != "onnx":
        pytest.importorskip("torch")
    return lambda: Slow("tiny", request.param, "cpu", threads=1, guard="off")


def structures_of(n):
    """Return structures of different sizes, whose energies are hundreds of eV apart."""
    generator = np.random.default_rng(0)
    structures = []
    for index in range(n):
        atoms = structure("aspirin")[: 21 - 2 * index]
        atoms.rattle(0.02, rng=generator)
        structures.append(atoms)
    return structures


def expected_of(calc, structures):
    return [(result["energy"], result["forces"]) for result in calc.calculate_many(structures)]


def largest_errors(calc, atoms, index):
    """Return the largest errors of energy and forces over many calls with moved atoms."""
    worst = [0.0, 0.0]
    for step in range(N_CALLS):
        moved = atoms.copy()
        moved.positions += 1e-3 * (step % 2)  # another state, the same energy and forces
        moved.calc = calc
        # The order of calls differs between threads.
        if (step + index) % 3 == 0:
            forces, energy = moved.get_forces(), moved.get_potential_energy()
        else:
            energy, forces = moved.get_potential_energy(), moved.get_forces()
        if (step + index) % 5 == 0:
            calc.reset()
            calc.calculation_required(moved, ["energy"])
            calc.calculate_many([moved, atoms])
        worst[0] = max(worst[0], abs(energy - atoms.info["energy"]))
        worst[1] = max(worst[1], np.abs(forces - atoms.arrays["expected"]).max())
    return worst


def worst_errors(calculators, structures):
    for atoms, (energy, forces) in zip(
        structures, expected_of(calculators[0], structures), strict=True
    ):
        atoms.info["energy"] = energy
        atoms.set_array("expected", forces)
    with ThreadPoolExecutor(len(structures)) as pool:
        return list(pool.map(largest_errors, calculators, structures, range(len(structures))))


def test_one_calculator_for_all_threads(make):
    errors = worst_errors([make()] * N_THREADS, structures_of(N_THREADS))
    assert np.max(errors) < TOLERANCE


def test_one_calculator_for_each_thread(make):
    errors = worst_errors([make() for _ in range(N_THREADS)], structures_of(N_THREADS))
    assert np.max(errors) < TOLERANCE


def test_an_error_in_one_thread_does_not_disturb_the_others(make):
    calc = make()
    invalid = structure("aspirin")
    invalid.positions[0] = np.nan
    invalid.calc = calc

    def call_with_invalid(_):
        for _ in range(N_CALLS):
            with pytest.raises(InputError, match="positions must be finite"):
                invalid.get_forces()

    valid = structures_of(1)[0]
    valid.info["energy"], expected = expected_of(calc, [valid])[0]
    valid.set_array("expected", expected)
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(call_with_invalid, None)
        running = pool.submit(largest_errors, calc, valid, 0)
        failing.result()
        assert np.max(running.result()) < TOLERANCE
