"""Time from the start of a new process to the first energy."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from measuring import describe_others
from timing.machine import installed_environment

from ase_student.engine.library import why_missing

SCRIPT = """
import sys, time
start = time.perf_counter()
# As if torch were not installed.
sys.modules["torch"] = None
from ase_student import StudentCalculator
from ase import Atoms
imported = time.perf_counter()
calculator = StudentCalculator("{student}", backend="{backend}", device="cpu")
loaded = time.perf_counter()
water = Atoms("OHH", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)], calculator=calculator)
water.get_potential_energy()
called = time.perf_counter()
assert sys.modules["torch"] is None
import json
print(json.dumps(dict(zip(
    ("import_seconds", "load_seconds", "first_call_seconds"),
    (imported - start, loaded - imported, called - loaded)))))
"""
ROUNDS = 3


@pytest.mark.benchmark(group="import, load and first energy of water")
@pytest.mark.parametrize("backend", ["native", "onnx"])
def test_cold_start(
    benchmark: Any, student: str, backend: str, threads: int, tmp_path: Path
) -> None:
    if backend == "native" and (reason := why_missing()) is not None:
        pytest.skip(reason)
    environment = installed_environment(tmp_path)
    timings: list[dict[str, float]] = []

    def start() -> None:
        script = SCRIPT.format(student=student, backend=backend)
        result = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        timings.append(json.loads(result.stdout))

    benchmark.pedantic(start, rounds=ROUNDS, warmup_rounds=1)
    median = sorted(timings, key=lambda parts: sum(parts.values()))[len(timings) // 2]
    describe_others(
        benchmark, "cold start", threads, student=student, backend=backend, atoms=3, **median
    )
