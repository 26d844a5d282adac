"""Warnings of the guard for whole steps, with a backend that only a test has."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import molecule

from ase_student.backends.native import NativeList
from ase_student.engine.library import Step
from ase_student.extrapolation.guard import Guard, OutsideTrainingError, OutsideTrainingWarning
from ase_student.extrapolation.limits import Limits, Outside
from ase_student.extrapolation.ranges import TrainingRanges
from ase_student.whole_steps import BONDS, WholeSteps

CUTOFF, SKIN = 5.0, 0.5


class Steps:
    """A backend with the same results in every step; with a rebuilt list it reports rare bonds."""

    def __init__(self, is_rebuilt):
        self.is_rebuilt = is_rebuilt
        self.info = SimpleNamespace(elements=(1, 7, 8))

    def set_limits(self, distances, counts, forces, usual):
        self.counts = counts

    def _step(self, n_atoms, n_structures):
        return Step(
            energies=np.zeros(n_atoms),
            forces=np.zeros((n_atoms, 3)),
            virials=np.zeros((n_structures, 3, 3)),
            outside=BONDS * self.is_rebuilt,
            is_rebuilt=self.is_rebuilt,
            structures_outside=np.full(n_structures, BONDS * self.is_rebuilt),
        )

    def step(self, numbers, positions, cell, pbc, neighbor_list):
        return self._step(len(numbers), 1)

    def compute_many(self, numbers, positions, cells, pbc):
        return self._step(sum(map(len, numbers)), len(numbers))


@pytest.fixture
def unusual(monkeypatch):
    """Make every structure have a bond that training did not have."""
    outside = [Outside("bonds", (0,), "atom 0 (O) is bonded as O(OO)")]
    monkeypatch.setattr(Limits, "unusual_kinds", {"bonds"})
    monkeypatch.setattr(Limits, "find_unusual", lambda *arguments: outside)


def steps_of(is_rebuilt, action):
    guard = Guard(TrainingRanges(CUTOFF), "mine", action, SKIN)
    backend = Steps(is_rebuilt)
    return WholeSteps(backend, NativeList(CUTOFF, SKIN), guard), backend, guard


def arrays():
    atoms = molecule("H2O")
    return atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc


def test_unusual_bonds_are_reported_when_the_list_is_rebuilt(unusual):
    steps, _, _ = steps_of(True, "warn")
    with pytest.warns(OutsideTrainingWarning, match=r"bonded as O\(OO\)"):
        steps.results(*arrays())
    # After the warning, and while the list is kept, nothing is checked.
    steps.results(*arrays())
    steps, _, _ = steps_of(False, "raise")
    steps.results(*arrays())
    steps, _, _ = steps_of(True, "raise")
    with pytest.raises(OutsideTrainingError):
        steps.results(*arrays())


def test_unusual_bonds_in_batches_are_reported_with_the_structure(unusual):
    steps, _, _ = steps_of(True, "raise")
    with pytest.raises(OutsideTrainingError, match="structure 0: "):
        steps.results_of_many([molecule("H2O"), molecule("NH3")])


def test_the_backend_gets_the_counts_of_the_guard():
    _, backend, guard = steps_of(True, "warn")
    np.testing.assert_array_equal(backend.counts, guard.limits.counts)
