"""From nothing to the first energy: a new process each time."""

import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import sys, time
start = time.perf_counter()
{block}
from ase_student import StudentCalculator
from ase import Atoms
water = Atoms("OHH", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
water.calc = StudentCalculator("{student}", backend="onnx")
water.get_potential_energy()
assert sys.modules["torch"] is None
print(time.perf_counter() - start)
"""


@pytest.mark.benchmark(group="import, load and first energy of water")
def test_cold_start(benchmark: Any, student: str) -> None:
    def start() -> float:
        # A process in which torch cannot be imported, as after a plain installation.
        script = SCRIPT.format(student=student, block="sys.modules['torch'] = None")
        result = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        return float(result.stdout)

    seconds = [start() for _ in range(5)]
    benchmark.pedantic(start, rounds=3)
    benchmark.extra_info.update(
        student=student, seconds_inside_the_process=sorted(seconds)[len(seconds) // 2]
    )
