"""The guard in the C++ engine finds the same as the guard in Python."""

import warnings
from functools import partial

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_student import StudentCalculator
from ase_student.backends.native import NativeList
from ase_student.engine.library import EngineError
from ase_student.extrapolation.environments import BOND_RATIO, radius_sums
from ase_student.extrapolation.guard import OutsideTrainingError
from ase_student.extrapolation.limits import RARE
from ase_student.extrapolation.ranges import BIN_WIDTH, pair_squares
from ase_student.extrapolation.usual import usual_of
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import structure
from ase_student.whole_steps import BONDS, CONTACT

pytestmark = pytest.mark.usefixtures("engine")

STRUCTURES = ("aspirin", "water_dimer", "eight_elements", "triclinic", "slab", "small_triclinic")
MOLECULES = ("CH3", "OH", "C2H6", "H2O", "C6H6", "CH3Cl", "SH2", "PH3", "CH3CONH2", "NO2")


def odd_structures(n):
    """Yield structures that are displaced, stretched, incomplete or combined."""
    rng = np.random.default_rng(0)
    while n:
        if rng.random() < 0.5:
            atoms = structure(STRUCTURES[rng.integers(len(STRUCTURES))])
        else:
            atoms = molecule(MOLECULES[rng.integers(len(MOLECULES))])
        if rng.random() < 0.3:
            second = molecule(MOLECULES[rng.integers(len(MOLECULES))])
            second.positions += rng.normal(scale=3.0, size=3)
            atoms += second
        if rng.random() < 0.3:
            del atoms[rng.integers(len(atoms))]
        if len(atoms):
            atoms.set_cell(atoms.cell * rng.uniform(0.85, 1.3), scale_atoms=True)
            atoms.positions *= rng.uniform(0.9, 1.2)
            atoms.rattle(rng.choice([0.0, 0.03, 0.1, 0.3]), rng=rng)
            if squares_of(atoms)[2].min(initial=np.inf) > 0.5**2:
                n -= 1
                yield atoms


def squares_of(atoms):
    numbers, cell = atoms.numbers.astype(np.int64), atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, 5.0)
    squares = pair_squares(atoms.positions, matrix.neighbors, matrix.offsets(cell))
    return numbers, matrix.neighbors, squares


def bits_of(calc, frames):
    step = calc._backend.compute_many(
        [atoms.numbers for atoms in frames],
        [atoms.positions for atoms in frames],
        [atoms.cell.array for atoms in frames],
        [atoms.pbc for atoms in frames],
    )
    return step.structures_outside & (BONDS | CONTACT)


@pytest.fixture(scope="module")
def calculator():
    return StudentCalculator("tiny", "native", "cpu", threads=1)


@pytest.fixture(scope="module")
def frames():
    return list(odd_structures(300))


@pytest.mark.parametrize("threads", [1, 3])
def test_the_engine_finds_the_same_as_the_guard(frames, threads):
    calc = StudentCalculator("tiny", "native", "cpu", threads=threads)
    expected = []
    for atoms in frames:
        kinds = {outside.kind for outside in calc._guard.limits.find_unusual(*squares_of(atoms))}
        expected.append(BONDS * ("bonds" in kinds) + CONTACT * ("contact" in kinds))
    assert set(expected) == {0, BONDS, CONTACT, BONDS | CONTACT}
    assert bits_of(calc, frames).tolist() == expected
    # Single calls; without a skin, no list is kept for the next structure.
    arrays = [
        (atoms.numbers.astype(np.int64), atoms.positions, atoms.cell.array, atoms.pbc)
        for atoms in frames
    ]
    steps = [calc._backend.step(*step_arguments, NativeList(5.0, 0.0)) for step_arguments in arrays]
    assert [step.outside & (BONDS | CONTACT) for step in steps] == expected


def message_of(action):
    """Return the message with which the guard refuses a structure; None if it does not."""
    try:
        action()
    except OutsideTrainingError as error:
        return str(error)
    return None


def test_messages_are_those_of_the_guard(calculator, frames):
    refusing = StudentCalculator("tiny", "native", "cpu", threads=1, guard="raise")
    guard = refusing._guard
    # Both would report charges and spins first.
    refusing._electrons = None
    n_refused = 0
    for atoms in frames[:100]:
        numbers = atoms.numbers.astype(np.int64)
        matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
        pairs = matrix.neighbors, matrix.offsets(atoms.cell.array)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            forces = calculator.calculate_many([atoms])[0]["forces"]
        batch_of_one = [0], [len(atoms)], numbers
        distances = message_of(partial(guard.check_many, *batch_of_one, atoms.positions, *pairs))
        expected = distances or message_of(partial(guard.check_many_forces, *batch_of_one, forces))
        assert message_of(partial(refusing.calculate_many, [atoms])) == expected
        n_refused += expected is not None
    assert 10 < n_refused < 90


def test_usual_structures_are_not_checked_in_python(calculator, monkeypatch):
    def never(*arguments):
        raise AssertionError("the guard looked at a usual structure")

    monkeypatch.setattr(calculator._guard, "check_unusual", never)
    calculator.calculate_many([structure("aspirin"), molecule("C6H6")])


def test_only_rare_structures_are_checked_in_python(monkeypatch):
    calc = StudentCalculator("tiny", "native", "cpu", threads=1)
    checked = []
    monkeypatch.setattr(
        calc._guard, "check_unusual", lambda numbers, *rest: checked.append(rest[-1])
    )
    methyl = molecule("CH3")
    calc._electrons = None
    calc.calculate_many([structure("aspirin"), methyl, molecule("C6H6"), methyl])
    assert checked == [1, 3]


def test_rare_bonds_are_reported_when_a_list_is_built(calculator):
    methyl = molecule("CH3")
    arrays = methyl.numbers.astype(np.int64), methyl.positions, methyl.cell.array, methyl.pbc
    backend, neighbor_list = calculator._backend, calculator.neighbor_list
    # The list is of another structure, so that it is rebuilt.
    for expected in (BONDS, 0):
        step = backend.step(*arrays, neighbor_list)
        assert step.is_rebuilt == bool(expected)
        assert step.outside & BONDS == expected


def pair(symbols, distance):
    return Atoms(symbols, [[0, 0, 0], [0, 0, distance]])


def test_rare_structures_are_found_in_spite_of_rounding(calculator):
    """Near a limit, on either side, the engine leaves the decision to Python."""
    bonded = BOND_RATIO * radius_sums(np.array([6]))[0, 0]
    usual = usual_of(calculator._guard.limits, calculator.info.elements)
    gaps = usual.gaps[2, 2] == RARE
    edges = np.flatnonzero(gaps[1:] != gaps[:-1]) + 1
    assert edges.size
    for shift in (-5e-7, 0.0, 5e-7):
        assert bits_of(calculator, [pair("CC", bonded + shift)])[0] & BONDS
        for edge in edges:
            atoms = pair("NN", BIN_WIDTH * edge + shift)
            assert bits_of(calculator, [atoms])[0] & CONTACT


def test_elements_without_bonds_are_not_compared(calculator):
    handle = calculator._backend._others.share()
    methyl = molecule("CH3")
    arrays = methyl.numbers.astype(np.int64), methyl.positions, np.zeros((1, 3, 3)), methyl.pbc
    usual = usual_of(calculator._guard.limits, calculator.info.elements)
    for sums, expected in ((usual.radius_sums, BONDS), (np.zeros((8, 8)), 0)):
        handle.set_usual(usual._replace(radius_sums=sums))
        assert handle.compute(*arrays, 0.0).outside & BONDS == expected
    # Without recorded bonds, and without recorded distances.
    handle.set_usual(usual._replace(environments=np.zeros(0, dtype=np.int64)))
    assert not handle.compute(*arrays, 0.0).outside & BONDS
    close = pair("NN", BIN_WIDTH * (np.flatnonzero(usual.gaps[2, 2] == RARE)[0] + 0.5))
    arrays = close.numbers.astype(np.int64), close.positions, np.zeros((1, 3, 3)), close.pbc
    for gaps, expected in ((usual.gaps, CONTACT), (np.zeros((8, 8, 0), dtype=np.uint8), 0)):
        handle.set_usual(usual._replace(gaps=gaps))
        assert handle.compute(*arrays, 0.0).outside & CONTACT == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bonded": 3.0}, "reach at least bonded"),
        ({"decay": 0.0}, "must be positive"),
        ({"reach": np.inf}, "must be positive"),
        ({"radius_sums": np.full((8, 8), np.nan)}, "must be finite"),
        ({"environments": np.arange(280)[::-1].copy()}, "must be ascending"),
        ({"bin_width": 0.0}, "bin_width must be positive"),
    ],
)
def test_invalid_records_are_refused(calculator, changes, message):
    usual = usual_of(calculator._guard.limits, calculator.info.elements)
    handle = calculator._backend._others.share()
    with pytest.raises(EngineError, match=message):
        handle.set_usual(usual._replace(**changes))
