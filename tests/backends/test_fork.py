"""Calculators in processes forked after their first use."""

import os
import subprocess
import sys

import pytest

from ase_student.backends import BACKENDS

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

PROGRAM = """
import multiprocessing, sys, threading
import numpy as np
from ase_student import StudentCalculator
from ase_student.testing import structure

calculators = {
    backend: StudentCalculator("tiny", backend, "cpu", threads=2, guard="off")
    for backend in sys.argv[1:]
}
small, large = structure("aspirin"), structure("water_box")

def forces(backend):
    results = calculators[backend].calculate_many([small, large])
    for atoms in (small, large):
        atoms.calc = calculators[backend]
        results.append({"forces": atoms.get_forces()})
    return [result["forces"] for result in results]

expected = {backend: forces(backend) for backend in calculators}
# Another thread holds the locks while the process forks.
for calculator in calculators.values():
    threading.Thread(target=calculator._lock.acquire).start()
context = multiprocessing.get_context("fork")
with context.Pool(1) as pool:
    computed = pool.map_async(forces, calculators).get(timeout=100)
    for backend, values in zip(calculators, computed, strict=True):
        for array, reference in zip(values, expected[backend], strict=True):
            assert np.abs(array - reference).max() < 1e-4, backend
    if "torch" in calculators:
        try:
            pool.apply_async(
                StudentCalculator, ("tiny", "torch", "cpu"), {"threads": 2}
            ).get(timeout=100)
        except ValueError as error:
            assert "in a forked process, where torch can use one; start processes" in str(error)
        else:
            raise AssertionError("two threads in a forked process")
print("done")
"""


@pytest.fixture
def backends():
    try:
        import torch  # noqa: F401
    except ImportError:
        return ["onnx"]
    return list(BACKENDS)


def test_a_forked_process_can_use_a_calculator(backends):
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM, *backends],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.stdout == "done\n", process.stderr


DELETION = """
import gc, os, sys
from ase_student import StudentCalculator
from ase_student.testing import structure

for backend in sys.argv[1:]:
    calculator = StudentCalculator("tiny", backend, "cpu", threads=2, guard="off")
    atoms = structure("aspirin")
    calculator.get_potential_energy(atoms)
    for is_used in (False, True):
        child = os.fork()
        if not child:
            if is_used:
                atoms.positions += 1e-3
                calculator.get_potential_energy(atoms)
            # Deleting a session must not wait for threads of the parent process.
            del calculator
            gc.collect()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        assert status == 0, backend
print("done")
"""


def test_a_forked_process_deletes_its_calculator(backends):
    command = [sys.executable, "-c", DELETION, *backends]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert process.stdout == "done\n", process.stderr
