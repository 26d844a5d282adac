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
#: Between calculators of one backend: batches of other sizes round differently, eV and eV/Å.
TOLERANCE = 1e-5


class Slow(StudentCalculator):
    """A calculator that other threads overtake between the steps of ASE's protocol."""

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


def ask(calc, atoms, index):
    """Return the largest errors of energy and forces over many calls with moved atoms."""
    worst = [0.0, 0.0]
    for step in range(N_CALLS):
        mine = atoms.copy()
        mine.positions += 1e-3 * (step % 2)  # another state, the same energy and forces
        mine.calc = calc
        # The order in which threads ask differs.
        if (step + index) % 3 == 0:
            forces, energy = mine.get_forces(), mine.get_potential_energy()
        else:
            energy, forces = mine.get_potential_energy(), mine.get_forces()
        if (step + index) % 5 == 0:
            calc.reset()
            calc.calculation_required(mine, ["energy"])
            calc.calculate_many([mine, atoms])
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
        return list(pool.map(ask, calculators, structures, range(len(structures))))


def test_one_calculator_for_all_threads(make):
    errors = worst_errors([make()] * N_THREADS, structures_of(N_THREADS))
    assert np.max(errors) < TOLERANCE


def test_one_calculator_for_each_thread(make):
    errors = worst_errors([make() for _ in range(N_THREADS)], structures_of(N_THREADS))
    assert np.max(errors) < TOLERANCE


def test_an_error_in_one_thread_costs_the_others_nothing(make):
    calc = make()
    bad = structure("aspirin")
    bad.positions[0] = np.nan
    bad.calc = calc

    def ask_badly(_):
        for _ in range(N_CALLS):
            with pytest.raises(InputError, match="positions must be finite"):
                bad.get_forces()

    good = structures_of(1)[0]
    good.info["energy"], expected = expected_of(calc, [good])[0]
    good.set_array("expected", expected)
    with ThreadPoolExecutor(2) as pool:
        failing = pool.submit(ask_badly, None)
        asking = pool.submit(ask, calc, good, 0)
        failing.result()
        assert np.max(asking.result()) < TOLERANCE
