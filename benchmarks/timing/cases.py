"""Cases of the speed check that runs for every change, with one thread and without torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ase import Atoms

from ase_student import StudentCalculator
from ase_student.backends import open_backend
from ase_student.neighbors import NeighborList, neighbor_matrix
from ase_student.testing import structure
from timing.measurement import Work
from timing.structures import condensed, moved

STUDENT = "tiny"
SKIN = 0.5
#: Number of structures that are evaluated in turns, so that atoms move between calls.
N_FRAMES = 8


@dataclass(frozen=True)
class Case:
    """A piece of work that must not become slower.

    Attributes
    ----------
    name : str
    yardstick : str
        A key of :data:`timing.measurement.YARDSTICKS`.
    prepare : callable
        Makes everything that is not timed, and returns the work to time.
    """

    name: str
    yardstick: str
    prepare: Callable[[], Work]


def _in_turns(call: Callable[[Any], object], arguments: Sequence[Any]) -> Work:
    """Return work that calls a function with each argument in turn."""
    turns = itertools.cycle(arguments)

    def work(calls: int) -> None:
        for _ in range(calls):
            call(next(turns))

    return work


def _frames(atoms: Atoms) -> list[Atoms]:
    rng = np.random.default_rng(0)
    return [moved(atoms, rng) for _ in range(N_FRAMES)]


def _calculator(backend: str, guard: str = "auto") -> StudentCalculator:
    return StudentCalculator(
        STUDENT, backend=backend, device="cpu", threads=1, skin=SKIN, guard=guard
    )


def _step_of_aspirin(backend: str) -> Work:
    """Return a step of dynamics: the call that ASE makes to a calculator."""
    atoms = structure("aspirin")
    atoms.calc = _calculator(backend)
    positions = [frame.positions for frame in _frames(atoms)]

    def step(new_positions: Any) -> None:
        atoms.positions = new_positions
        atoms.get_forces(md=True)

    return _in_turns(step, positions)


def _network_of_aspirin() -> Work:
    """Return the part of a step that the backend computes."""
    backend = open_backend(STUDENT, "onnx", "cpu", threads=1)
    atoms = structure("aspirin")
    numbers = atoms.numbers.astype(np.int64)
    neighbor_list = NeighborList(backend.info.cutoff, SKIN)
    neighbors_and_offsets = neighbor_list.update(
        atoms.positions, atoms.cell.array, atoms.pbc, numbers
    )

    def evaluate(frame: Atoms) -> None:
        backend.evaluate(numbers, frame.positions, *neighbors_and_offsets)

    return _in_turns(evaluate, _frames(atoms))


def _reused_neighbors_of_aspirin() -> Work:
    """Return the neighbor list's part of a step in which the list is kept."""
    atoms = structure("aspirin")
    neighbor_list = NeighborList(5.0, SKIN)
    cell, pbc, numbers = atoms.cell.array, atoms.pbc, atoms.numbers.astype(np.int64)

    def update(frame: Atoms) -> None:
        neighbor_list.update(frame.positions, cell, pbc, numbers)

    return _in_turns(update, _frames(atoms))


def _thousand_atoms(backend: str) -> Work:
    """Return energy and forces of a liquid; the guard is off, because training may lack it."""
    return _in_turns(_calculator(backend, guard="off").calculate, _frames(condensed(1000)))


def _neighbors_of_thousand_atoms() -> Work:
    """Return the building of the neighbor matrix of a liquid."""

    def build(frame: Atoms) -> None:
        neighbor_matrix(frame.positions, frame.cell.array, frame.pbc, 5.0, SKIN)

    return _in_turns(build, _frames(condensed(1000)))


def _many(backend: str) -> Work:
    """Return one call for 64 molecules, including their neighbors."""
    rng = np.random.default_rng(0)
    aspirin = structure("aspirin")
    batches = [[moved(aspirin, rng) for _ in range(64)] for _ in range(2)]
    return _in_turns(_calculator(backend).calculate_many, batches)


MATRICES, PYTHON = "matrix multiplication", "interpreter"
CASES = (
    Case("step of aspirin, calculator", MATRICES, partial(_step_of_aspirin, "onnx")),
    Case("step of aspirin, network", MATRICES, _network_of_aspirin),
    Case("step of aspirin, neighbors kept", PYTHON, _reused_neighbors_of_aspirin),
    Case("1,000 atoms of liquid, calculator", MATRICES, partial(_thousand_atoms, "onnx")),
    Case("1,000 atoms of liquid, neighbors", PYTHON, _neighbors_of_thousand_atoms),
    Case("64 molecules, calculate_many", MATRICES, partial(_many, "onnx")),
    Case("step of aspirin, engine", MATRICES, partial(_step_of_aspirin, "native")),
    Case("1,000 atoms of liquid, engine", MATRICES, partial(_thousand_atoms, "native")),
    Case("64 molecules, engine", MATRICES, partial(_many, "native")),
)
