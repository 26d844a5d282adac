"""Print the speed and memory of the C++ engine beside their targets.

    python benchmarks/engine_bars.py [-o bars.json] [--threads 2] [--students tiny ...] [--quick]

All backends are measured in turns in one process, together with the rate of a 1024³ matrix product,
which shows how fast the machine is at that time. Times are minima of many short repeats; for
dynamics, the 5 % quantile. Run the script on two cores that nothing else uses; --quick only checks
that it works.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from ase import units
from ase.md.verlet import VelocityVerlet
from timing.machine import hardware, installed_environment, versions
from timing.structures import anisole, condensed, molecular, moved

from ase_student import StudentCalculator, load_student
from ase_student.backends import BACKENDS, open_backend
from ase_student.checkpoint import STUDENT_NAMES
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import structure

# Targets of the three students: upper limits; lower limits where the name says 'at least'.
BARS = {
    "molecules µs/atom": (30.0, 6.5, 2.3),
    "liquid µs/atom": (40.0, 12.0, 5.0),
    "molecules % of matmul, at least": (85.0, 65.0, 60.0),
    "liquid % of matmul, at least": (80.0, 50.0, 50.0),
    "aspirin µs/call": (1000.0, 200.0, 90.0),
    "molecules × onnx, at least": (6.0, 10.0, 16.0),
    "liquid × onnx, at least": (11.0, 15.0, 20.0),
    "aspirin × onnx, at least": (5.0, 12.0, 18.0),
    "VelocityVerlet ms/step": (1.1, 0.28, 0.16),
    "32 molecules of 16 ms": (18.0, 4.5, 1.8),
    "growth 1,000 to 100,000": (1.2, 1.2, 1.2),
    "memory kB/atom": (40.0, 20.0, 12.0),
    "new process s": (0.2, 0.2, 0.2),
}
CASES = ("molecules", "liquid", "aspirin")
SIZE = 1024
COLD = """
import time; start = time.perf_counter()
from ase import Atoms
from ase_student import StudentCalculator
water = Atoms("OHH", [(0, 0, 0), (0.96, 0, 0), (-0.24, 0.93, 0)])
water.calc = StudentCalculator({student!r}, threads={threads})
water.get_potential_energy()
print(time.perf_counter() - start)
"""
MEMORY = """
import sys
from pathlib import Path
from ase_student import StudentCalculator
sys.path.insert(0, {folder!r})
from timing.structures import condensed
def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))
calc = StudentCalculator({student!r}, threads={threads}, guard="off")
atoms = condensed({n_atoms})
before = resident("VmRSS:")
calc.calculate(atoms)
print((resident("VmHWM:") - before) * 1024 / 1000 / len(atoms))
"""


def operations(student, n_elements, n_neighbors):
    """Return the number of multiplications and additions per atom, forward and backward.

    A dense layer takes two for each weight and pass. Splines, moments and messages of a pair take
    100 for each radial function and 125 for each message channel of a later interaction.
    """
    shape = load_student(student).architecture
    moments, width, tensors = n_elements * shape.n_rbf, shape.features, shape.tensor_channels
    first = moments * (4 * width + 5 * tensors) + 7 * width * tensors
    n_out = 3 * shape.blocks - 1
    updates = shape.blocks * (6 * width**2 + 2 * width * shape.hidden)
    updates += n_out * width * shape.hidden
    interaction = width * shape.hidden + 3 * shape.hidden * shape.message_channels
    interaction += 7 * width * shape.message_channels
    dense = first + updates + (shape.blocks - 1) * interaction + width**2 // 2
    pair = 100 * shape.n_rbf + 125 * shape.message_channels * (shape.blocks - 1)
    return 4 * dense + n_neighbors * pair


def seconds(function, *arguments):
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


class Product:
    """The highest rate of a matrix product over all measurements, in operations per second."""

    def __init__(self, threads):
        try:
            import torch
        except ImportError:
            rng = np.random.default_rng(0)
            first, second = rng.random((2, SIZE, SIZE), dtype=np.float32)
            self._multiply = lambda: first @ second
        else:
            torch.set_num_threads(threads)
            factors = torch.randn((2, SIZE, SIZE))
            self._multiply = lambda: torch.mm(factors[0], factors[1])
        self.rate = 0.0

    def measure(self):
        self.rate = max(self.rate, 2 * SIZE**3 / seconds(self._multiply))


def frames_of(case, rng):
    atoms = {"molecules": molecular(1000), "liquid": condensed(1000), "aspirin": molecular(21)}[
        case
    ]
    return [moved(atoms, rng) for _ in range(4)]


def caller(backend, frames):
    """Return a function that evaluates the frame of an index.

    The native engine also builds its neighbors; other backends get theirs, which are not timed.
    """
    if backend.backend == "native":
        from ase_student.backends.native import NativeList

        neighbor_list = NativeList(backend.info.cutoff, 0.5)
        inputs = [
            (atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)
            for atoms in frames
        ]
        return lambda index: backend.step(*inputs[index], neighbor_list)
    cutoff = backend.info.cutoff
    inputs = []
    for atoms in frames:
        matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff, 0.5)
        offsets = matrix.offsets(atoms.cell.array)
        inputs.append((atoms.numbers.astype(np.int64), atoms.positions, matrix.neighbors, offsets))
    return lambda index: backend.evaluate(*inputs[index])


def time_backends(student, case, names, threads, budget, product):
    """Return the shortest time of each backend in seconds, and the number of neighbors."""
    frames = frames_of(case, np.random.default_rng(0))
    calls = {
        name: caller(open_backend(student, name, "cpu", threads=threads), frames) for name in names
    }
    for call in calls.values():
        call(0), call(1)
    best = dict.fromkeys(calls, math.inf)
    end = time.perf_counter() + budget
    for turn in range(10**6):
        for name, call in calls.items():
            for repeat in range(10 if name == "native" else 1):
                best[name] = min(best[name], seconds(call, (turn + repeat) % 4))
        product.measure()
        if time.perf_counter() > end and turn >= 3:
            break
    atoms = frames[0]
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    n_neighbors = (~matrix.is_padding).sum() / len(atoms)
    return best, n_neighbors, len(set(atoms.numbers)), len(atoms)


def dynamics(student, threads, n_steps):
    """Return the 5 % quantile of a step's time in ms."""
    atoms = structure("aspirin")
    atoms.calc = StudentCalculator(student, device="cpu", threads=threads)
    rng = np.random.default_rng(0)
    atoms.set_momenta(
        rng.normal(size=(21, 3)) * np.sqrt(300 * units.kB * atoms.get_masses())[:, None]
    )
    integrator = VelocityVerlet(atoms, 0.5 * units.fs)
    integrator.run(20)
    return 1e3 * float(np.quantile([seconds(integrator.run, 1) for _ in range(n_steps)], 0.05))


def many(student, threads, n_repeats):
    """Return the time in ms of one call for 32 molecules of 16 atoms."""
    calc = StudentCalculator(student, device="cpu", threads=threads)
    rng = np.random.default_rng(0)
    batches = [[moved(anisole(), rng) for _ in range(32)] for _ in range(4)]
    calc.calculate_many(batches[0])
    return 1e3 * min(seconds(calc.calculate_many, batches[i % 4]) for i in range(n_repeats))


def growth(student, threads, large):
    """Return the time per atom of `large` atoms of a liquid, relative to that of 1,000 atoms."""
    best = []
    for n_atoms in (1000, large):
        frames = [moved(condensed(n_atoms), np.random.default_rng(i)) for i in range(2)]
        call = caller(open_backend(student, "native", "cpu", threads=threads), frames)
        n_repeats = 100 if n_atoms == 1000 else 6
        call(0)
        best.append(min(seconds(call, i % 2) for i in range(n_repeats)) / len(frames[0]))
    return best[1] / best[0]


def in_new_process(program, environment=None, **values):
    process = subprocess.run(
        [sys.executable, "-c", program.format(**values)],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return float(process.stdout)


def first_energy(n_repeats, **values):
    """Return the shortest time from the start of Python's imports to the first energy."""
    with tempfile.TemporaryDirectory() as folder:
        environment = installed_environment(Path(folder))
        in_new_process(COLD, environment, **values)
        return min(in_new_process(COLD, environment, **values) for _ in range(n_repeats))


def measure(student, names, threads, quick, product):
    """Return the results of a student, by the names of `BARS`, and the times of all backends."""
    reached, times = {}, {}
    budget = 0.3 if quick else 15.0
    for case in CASES:
        best, n_neighbors, n_elements, n_atoms = time_backends(
            student, case, names, threads, budget, product
        )
        times[case] = best
        native = best["native"]
        if case == "aspirin":
            reached["aspirin µs/call"] = 1e6 * native
        else:
            reached[f"{case} µs/atom"] = 1e6 * native / n_atoms
            work = n_atoms * operations(student, n_elements, n_neighbors)
            # Divided at the end by the matrix product's rate, which is known only then.
            reached[f"{case} % of matmul, at least"] = 100 * work / native
        if "onnx" in best:
            reached[f"{case} × onnx, at least"] = best["onnx"] / native
    reached["VelocityVerlet ms/step"] = dynamics(student, threads, 100 if quick else 2000)
    reached["32 molecules of 16 ms"] = many(student, threads, 5 if quick else 300)
    large = 3000 if quick else 100_000
    reached["growth 1,000 to 100,000"] = growth(student, threads, large)
    values = {"student": student, "threads": threads}
    folder = str(Path(__file__).parent)
    reached["memory kB/atom"] = in_new_process(MEMORY, n_atoms=large, folder=folder, **values)
    reached["new process s"] = first_energy(1 if quick else 7, **values)
    return reached, times


def is_met(name, value, bar):
    return value >= bar if name.endswith("at least") else value <= bar


def print_table(reached_by_student, bars_of):
    students = list(reached_by_student)
    print("| | " + " | ".join(f"{student} | bar |" for student in students))
    print("|---" * (2 * len(students) + 1) + "|")
    for name in BARS:
        cells = []
        for student in students:
            value, bar = reached_by_student[student].get(name), bars_of(student)[name]
            shown = "–" if value is None else f"{value:.3g}"
            missed = value is not None and not is_met(name, value, bar)
            cells.append(f"{shown}{' ✗' if missed else ''} | {bar:g}")
        print(f"| {name} | " + " | ".join(cells) + " |")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, help="also write all results as JSON")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--students", nargs="+", choices=STUDENT_NAMES, default=list(STUDENT_NAMES))
    parser.add_argument(
        "--backends", nargs="*", choices=BACKENDS, default=["onnx"], help="timed beside 'native'"
    )
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    arguments = parser.parse_args(argv)
    names = ["native", *(name for name in arguments.backends if name != "native")]
    product = Product(arguments.threads)
    reached_by_student, times = {}, {}
    for student in arguments.students:
        reached_by_student[student], times[student] = measure(
            student, names, arguments.threads, arguments.quick, product
        )
    for reached in reached_by_student.values():
        for name in reached:
            if "matmul" in name:
                reached[name] /= product.rate
    print_table(
        reached_by_student,
        lambda student: {name: bars[STUDENT_NAMES.index(student)] for name, bars in BARS.items()},
    )
    isa = open_backend("tiny", "native").isa
    print(
        f"\n{hardware()['cpu']}, {isa}, {arguments.threads} threads, matrix product "
        f"{product.rate / 1e9:.0f} GFLOP/s, load {os.getloadavg()[0]:.1f}"
    )
    if arguments.output is not None:
        document = {
            "hardware": hardware(),
            "versions": versions(),
            "isa": isa,
            "threads": arguments.threads,
            "quick": arguments.quick,
            "matrix_product_gflops": product.rate / 1e9,
            "reached": reached_by_student,
            "seconds": times,
        }
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
