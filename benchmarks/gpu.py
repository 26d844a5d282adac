"""Time students on a GPU and write one JSON file; benchmarks/gpu.sh runs this script.

    python benchmarks/gpu.py -o gpu.json [--device cuda] [--minutes 6]

With --device cpu everything except CUDA graphs runs, which checks the rest of the script.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from ase import units
from ase.md.verlet import VelocityVerlet
from timing.machine import versions
from timing.structures import anisole, condensed, moved

from ase_student import StudentCalculator, load_student
from ase_student.backends.devices import run_module
from ase_student.checkpoint import STUDENT_NAMES
from ase_student.neighbors import concatenate, neighbor_matrix
from ase_student.networks import build_potential
from ase_student.testing import structure

BATCHES = (1, 2, 4, 8, 16, 32)
LIQUIDS = (1000, 3000, 10_000, 30_000, 100_000)
# Targets: µs per call for aspirin; atoms per second at 55 neighbors (original, tiny, ultra-tiny).
BARS = {"aspirin_us": 150.0, "atoms_per_second": (2e6, 6e6, 12e6)}


def arrays_of(structures, cutoff):
    """Return the inputs of a potential for structures that don't interact with each other."""
    parts = []
    for atoms in structures:
        matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
        parts.append((matrix.neighbors, matrix.offsets(atoms.cell.array)))
    neighbors, offsets = concatenate(parts, cutoff)
    numbers = np.concatenate([atoms.numbers for atoms in structures]).astype(np.int64)
    return numbers, np.concatenate([atoms.positions for atoms in structures]), neighbors, offsets


def padded(arrays, n_atoms, n_neighbors, cutoff):
    """Return inputs filled up with atoms and neighbors that change nothing, to a given size."""
    numbers, positions, neighbors, offsets = arrays
    old_atoms, old_neighbors = neighbors.shape
    new_neighbors = np.repeat(np.arange(n_atoms), n_neighbors).reshape(n_atoms, n_neighbors)
    new_offsets = np.zeros((n_atoms, n_neighbors, 3))
    new_offsets[..., 0] = 2.0 * cutoff
    new_neighbors[:old_atoms, :old_neighbors] = neighbors
    new_offsets[:old_atoms, :old_neighbors] = offsets
    new_numbers = np.full(n_atoms, numbers[0])
    new_numbers[:old_atoms] = numbers
    new_positions = np.zeros((n_atoms, 3))
    new_positions[:old_atoms] = positions
    return new_numbers, new_positions, new_neighbors, new_offsets


def rounded_up(number, step):
    return -(-number // step) * step


class Replayed:
    """A potential as a CUDA graph for inputs of one size; without CUDA, the potential itself."""

    def __init__(self, potential, arrays, device):
        self._inputs = [torch.from_numpy(np.array(array)).to(device) for array in arrays]
        self._potential, self._graph = potential, None
        if device.type != "cuda":
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side), torch.no_grad():
            for _ in range(3):
                potential(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph), torch.no_grad():
            self._outputs = potential(*self._inputs)

    def __call__(self, positions):
        """Return the outputs for other positions, on the host."""
        self._inputs[1].copy_(torch.from_numpy(positions))
        if self._graph is None:
            with torch.no_grad():
                self._outputs = self._potential(*self._inputs)
        else:
            self._graph.replay()
        return [output.cpu().numpy() for output in self._outputs]


def shortest(function, arguments, budget):
    """Return the shortest time of a call in seconds; calls end with a copy to the host."""
    function(arguments[0])
    best, end, turn = float("inf"), time.perf_counter() + budget, 0
    while turn < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        function(arguments[turn % len(arguments)])
        best = min(best, time.perf_counter() - start)
        turn += 1
    return best


def measure_case(student, structures, device, budget):
    """Return times with and without a CUDA graph, and the largest difference of their forces."""
    loaded = load_student(student)
    potential = build_potential(loaded).to(device)
    arrays = arrays_of(structures, loaded.cutoff)
    n_atoms, n_neighbors = arrays[2].shape
    vectors = arrays[1][arrays[2]] + arrays[3] - arrays[1][:, None]
    distances = np.linalg.norm(vectors, axis=2)
    rng = np.random.default_rng(0)
    frames = [arrays[1] + 1e-4 * rng.standard_normal(arrays[1].shape) for _ in range(4)]

    def plain(positions):
        return run_module(potential, device, arrays[0], positions, *arrays[2:])

    larger = padded(arrays, rounded_up(n_atoms, 32), rounded_up(n_neighbors, 8), loaded.cutoff)
    replayed = Replayed(potential, larger, device)
    filled = [np.concatenate([frame, larger[1][n_atoms:]]) for frame in frames]
    differences = np.abs(replayed(filled[0])[1][:n_atoms] - plain(frames[0])[1])
    seconds = shortest(plain, frames, budget / 2)
    graph_seconds = shortest(replayed, filled, budget / 2)
    return {
        "atoms": n_atoms,
        "neighbors": float((distances < loaded.cutoff).sum() / n_atoms),
        "columns": n_neighbors,
        "seconds": seconds,
        "graph_seconds": graph_seconds if device.type == "cuda" else None,
        "atoms_per_second": n_atoms / min(seconds, graph_seconds),
        "force_difference": float(differences.max()),
    }


def measure_dynamics(student, device, n_steps):
    """Return the 5 % quantile of the time of a step of aspirin's dynamics in ms."""
    atoms = structure("aspirin")
    atoms.calc = StudentCalculator(student, "torchscript", str(device))
    integrator = VelocityVerlet(atoms, 0.5 * units.fs)
    integrator.run(20)
    times = []
    for _ in range(n_steps):
        start = time.perf_counter()
        integrator.run(1)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.quantile(times, 0.05))


def cases(quick):
    rng = np.random.default_rng(0)
    for size in BATCHES[:2] if quick else BATCHES:
        yield f"molecules of 16, batch of {size}", [moved(anisole(), rng) for _ in range(size)]
    yield "aspirin", [structure("aspirin")]
    for n_atoms in (300,) if quick else LIQUIDS:
        yield f"liquid of {n_atoms}", [condensed(n_atoms)]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=5.0, help="no case starts after this time")
    parser.add_argument("--quick", action="store_true", help="only check that it works")
    arguments = parser.parse_args(argv)
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    document = {"device": name, "versions": versions(), "bars": BARS, "students": {}}
    end = time.perf_counter() + 60.0 * arguments.minutes
    for student in STUDENT_NAMES:
        results = document["students"][student] = {}
        for case, structures in cases(arguments.quick):
            if time.perf_counter() > end:
                results[case] = "not measured: out of time"
                continue
            try:
                results[case] = measure_case(
                    student, structures, device, 0.2 if arguments.quick else 3.0
                )
            except torch.OutOfMemoryError as error:
                results[case] = f"out of memory: {error}".splitlines()[0]
            print(student, case, results[case], flush=True)
            # Written after each case, so that a later failure loses no result.
            arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        n_steps = 20 if arguments.quick else 500
        results["VelocityVerlet ms"] = measure_dynamics(student, device, n_steps)
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
