"""Count a student's floating-point operations, and measure the highest rate of a device.

Only matrix products are counted, as torch counts them: two operations for a multiplication and an
addition. Elementwise operations between the products take time and are not counted.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from ase import Atoms
from torch.utils.flop_counter import FlopCounterMode

from ase_student.backends.devices import set_threads, torch_device
from ase_student.checkpoint import load_student
from ase_student.neighbors import neighbor_matrix
from ase_student.networks import build_potential

SIZE = 1024
REPEATS = 10


def count_operations(student: str, atoms: Atoms, skin: float = 0.0) -> int:
    """Return the operations for energies, forces and virials of a structure, including padding."""
    loaded = load_student(student)
    cutoff = loaded.architecture.cutoff
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff, skin)
    arrays = (
        atoms.numbers.astype(np.int64),
        atoms.positions,
        matrix.neighbors,
        matrix.offsets(atoms.cell.array),
    )
    potential = build_potential(loaded)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        potential(*(torch.from_numpy(array) for array in arrays))
    return int(counter.get_total_flops())


def multiplication_rate(device: str, threads: int) -> float:
    """Return the operations per second of a large float32 matrix product."""
    set_threads(threads)
    target = torch_device(device)
    first, second = torch.randn((2, SIZE, SIZE), device=target)
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        torch.mm(first, second)
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    return float(2 * SIZE**3 / min(seconds))


def synchronize(device: str) -> None:
    """Wait until a GPU has finished its work; on a CPU, return at once."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
