"""Pairs of atoms more than two bonds apart: how they are recognized, counted and judged."""

import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_student import OutsideTrainingWarning, StudentCalculator
from ase_student.extrapolation.environments import BOND_RATIO, are_nonbonded, radius_sums
from ase_student.extrapolation.limits import FEWEST_STRUCTURES, Limits
from ase_student.extrapolation.ranges import BIN_WIDTH, N_BINS, TrainingRanges, pair_squares
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import structure

CUTOFF = 5.0


def arrays(atoms):
    cell = atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, CUTOFF)
    return atoms.numbers.astype(np.int64), atoms.positions, matrix.neighbors, matrix.offsets(cell)


def pairs_of(atoms):
    """Return numbers, neighbors and squared distances, and all pairs within the cutoff."""
    numbers, positions, neighbors, offsets = arrays(atoms)
    squares = pair_squares(positions, neighbors, offsets)
    return numbers, neighbors, squares, *np.nonzero(squares < CUTOFF**2)


def more_than_two_bonds_apart(atoms):
    """Return a matrix that tells which atoms are, from powers of the matrix of bonds."""
    distances = atoms.get_all_distances(mic=True)
    bonds = (distances < BOND_RATIO * radius_sums(atoms.numbers)) & ~np.eye(len(atoms), dtype=bool)
    return ~(bonds | (bonds.astype(int) @ bonds.astype(int) > 0))


@pytest.mark.parametrize("name", ["aspirin", "water_box", "eight_elements", "atom", "far_pair"])
def test_bonds_are_followed_twice(name):
    atoms = structure(name)
    numbers, neighbors, squares, rows, columns = pairs_of(atoms)
    is_nonbonded = are_nonbonded(numbers, neighbors, squares, rows=rows, columns=columns)
    expected = more_than_two_bonds_apart(atoms)[rows, neighbors[rows, columns]]
    assert is_nonbonded.tolist() == expected.tolist()


def test_metals_have_no_bonds():
    numbers, neighbors, squares, rows, columns = pairs_of(Atoms("Cu3", np.eye(3)))
    assert are_nonbonded(numbers, neighbors, squares, rows=rows, columns=columns).all()


def test_the_record_counts_them_apart():
    atoms = structure("aspirin")
    seen = TrainingRanges(CUTOFF)
    seen.add(*arrays(atoms), np.ones((len(atoms), 3)))
    is_nonbonded, distances = more_than_two_bonds_apart(atoms), atoms.get_all_distances()
    for first, second in ((1, 1), (1, 6), (6, 8), (8, 8)):
        of_pair = is_nonbonded & (atoms.numbers[:, None] == first) & (atoms.numbers == second)
        expected = np.bincount((distances[of_pair] / BIN_WIDTH).astype(int), minlength=N_BINS)
        assert seen.nonbonded[first, second].tolist() == expected[:N_BINS].tolist()
    assert (seen.nonbonded <= seen.distances).all()
    again = TrainingRanges.from_dict(seen.as_dict())
    assert (again.nonbonded == seen.nonbonded).all()
    again.include(seen)
    assert (again.nonbonded == seen.nonbonded).all()


@pytest.fixture(scope="module")
def limits():
    """Limits of a training in which carbons at 2.2 Å usually have an atom between them."""
    seen = TrainingRanges(CUTOFF)
    seen.n_structures = FEWEST_STRUCTURES
    seen.distances[6, 6, 28:] = seen.distances[6, 6, 44] = 50_000
    seen.nonbonded[6, 6, 50:] = 50_000
    return Limits(seen)


@pytest.mark.parametrize(
    ("atoms", "is_outside"),
    [
        (Atoms("C2", [[0, 0, 0], [0, 0, 2.2]]), True),
        (Atoms("C2", [[0, 0, 0], [0, 0, 2.52]]), False),
        (Atoms("C2", [[0, 0, 0], [0, 0, 1.5]]), False),
        (Atoms("COC", [[0, 0, 0], [0, 0.8, 1.1], [0, 0, 2.2]]), False),
        (Atoms("CCuC", [[0, 0, 0], [0, 0.8, 1.1], [0, 0, 2.2]]), True),
    ],
)
def test_close_atoms_are_usual_only_if_bonds_join_them(limits, atoms, is_outside):
    numbers, neighbors, squares, *_ = pairs_of(atoms)
    findings = limits.find_unusual(numbers, neighbors, squares)
    assert [outside.kind for outside in findings] == ["contact"] * is_outside
    if is_outside:
        assert findings[0].atoms == (0, len(atoms) - 1)
        assert "2.20 Å apart; training hardly ever saw such atoms this close" in findings[0].text


def two(name, distance, axis):
    first, second = molecule(name), molecule(name)
    second.positions[:, axis] += distance
    return first + second


@pytest.mark.parametrize("student", ["original", "tiny", "ultra-tiny"])
@pytest.mark.parametrize("backend", ["native", "onnx"])
def test_molecules_pushed_into_each_other_are_reported(student, backend, request):
    if backend == "native":
        request.getfixturevalue("engine")
    for atoms in (two("H2O", 1.8, 0), two("H2O", 2.0, 0), two("C6H6", 1.8, 2), two("C6H6", 2.2, 2)):
        calculator = StudentCalculator(student, backend, "cpu", threads=1)
        with pytest.warns(OutsideTrainingWarning, match="Å apart"):
            calculator.calculate_many([atoms])
    for atoms in (two("H2O", 2.8, 0), two("C6H6", 3.4, 2)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            calculator.calculate_many([atoms])


@pytest.mark.usefixtures("engine")
def test_rings_and_acids_are_not_even_compared_in_python(monkeypatch):
    """Their closest atoms without a bond between them are joined by two bonds."""
    calculator = StudentCalculator("tiny", "native", "cpu", threads=1)

    def never(*arguments):
        raise AssertionError("the engine found something rare")

    monkeypatch.setattr(calculator._guard, "check_unusual", never)
    names = ("cyclobutane", "bicyclobutane", "HCOOH", "CH3NO2", "C4H4O", "C3H4_D2d", "CF4", "CO2")
    calculator.calculate_many([molecule(name) for name in names])
