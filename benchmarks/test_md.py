"""Molecular dynamics in ASE: what a student adds to a calculator that does nothing."""

from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.velocitydistribution import thermalize_momenta
from ase.md.verlet import VelocityVerlet
from measuring import check_energy, describe

from ase_student import StudentCalculator
from ase_student.testing import structure

STEPS = 50


class ZeroCalculator(Calculator):
    """Energies and forces of zero: what ASE itself takes."""

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        zeros = np.zeros((len(self.atoms), 3))
        self.results = {"energy": 0.0, "free_energy": 0.0, "forces": zeros}


def dynamics(calculator: Any) -> VelocityVerlet:
    atoms = structure("aspirin")
    thermalize_momenta(atoms, temperature_K=300, rng=np.random.default_rng(0))
    atoms.calc = calculator
    dynamics = VelocityVerlet(atoms, timestep=0.5 * units.fs)
    dynamics.run(STEPS)
    return dynamics


def run(benchmark: Any, loop: VelocityVerlet) -> None:
    benchmark.pedantic(loop.run, args=(STEPS,), rounds=20, warmup_rounds=2)
    benchmark.extra_info["steps_per_round"] = STEPS
    # Dynamics that stood still would have timed the cache.
    assert isinstance(loop.atoms, Atoms)
    assert loop.nsteps >= 20 * STEPS


@pytest.mark.benchmark(group="md of aspirin, 50 steps")
def test_floor(benchmark: Any) -> None:
    run(benchmark, dynamics(ZeroCalculator()))
    benchmark.extra_info["student"] = "calculator that returns zeros"


@pytest.mark.benchmark(group="md of aspirin, 50 steps")
def test_student(
    benchmark: Any, calculator: StudentCalculator, reference: StudentCalculator, threads: int
) -> None:
    check_energy(calculator, reference, structure("aspirin"))
    loop = dynamics(calculator)
    run(benchmark, loop)
    describe(benchmark, calculator, loop.atoms, threads)
