"""Usual bonds, contacts and densities, by their frequency in the training data."""

import re
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from ase_student.extrapolation.environments import COVALENT, elements_and_bonds, environment_key
from ase_student.extrapolation.guard import Guard, OutsideTrainingWarning
from ase_student.extrapolation.limits import FEWEST_PAIRS, FEWEST_STRUCTURES, Limits
from ase_student.extrapolation.ranges import BIN_WIDTH, TrainingRanges
from ase_student.neighbors import neighbor_matrix

CUTOFF = 5.0
NAMES = ("C2H6", "CH3OH", "H2O", "C6H6", "CH3CH2OH", "C2H2", "CH3CHO")


def arrays(atoms):
    cell = atoms.cell.array
    matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, CUTOFF)
    return atoms.numbers.astype(np.int64), atoms.positions, matrix.neighbors, matrix.offsets(cell)


def shaken(name, rng):
    atoms = molecule(name)
    atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
    return atoms


@pytest.fixture(scope="module")
def ranges():
    """The ranges of a training on displaced molecules and a few radicals."""
    rng = np.random.default_rng(0)
    ranges = TrainingRanges(CUTOFF)
    for name in NAMES:
        for _ in range(60):
            atoms = shaken(name, rng)
            ranges.add(*arrays(atoms), np.full((len(atoms), 3), 1e3))
    # In the training data, but too few to be usual. Their extremes must not widen the limits.
    for atoms in (molecule("CH3"), molecule("OH")):
        ranges.add(*arrays(atoms), np.full((len(atoms), 3), 1e3))
    ranges.n_structures = FEWEST_STRUCTURES
    return TrainingRanges.from_dict(ranges.as_dict())


def kinds(ranges, atoms):
    return unusual(Limits(ranges), atoms)


def unusual(limits, atoms):
    numbers, positions, neighbors, offsets = arrays(atoms)
    vectors = positions[neighbors] + offsets - positions[:, None]
    squares = np.einsum("ijk,ijk->ij", vectors, vectors)
    return {outside.kind: outside for outside in limits.find_unusual(numbers, neighbors, squares)}


def test_usual_bonds_are_inside(ranges):
    rng, limits = np.random.default_rng(1), Limits(ranges)
    for name in (*NAMES, "CH4", "C2H4"):
        for _ in range(20):
            assert unusual(limits, shaken(name, rng)) == {}, name


def torn(name, first, second, factor):
    atoms = molecule(name)
    vector = atoms.positions[second] - atoms.positions[first]
    center = atoms.positions[[first, second]].mean(axis=0)
    atoms.positions[(atoms.positions - center) @ vector > 0] += (factor - 1) * vector
    return atoms


def hydronium():
    atoms = molecule("NH3")
    atoms.numbers[0] = 8
    return atoms


def waters(distance):
    first, second = molecule("H2O"), molecule("H2O")
    second.positions[:, 0] += distance
    return first + second


def smaller(name):
    atoms = molecule(name)
    atoms.positions *= 0.85
    return atoms


ODD = {
    "torn ethane": (lambda: torn("C2H6", 0, 1, 3.0), {0, 1}, r"C\(HHH\), which is very rare"),
    "stretched ethane": (lambda: torn("C2H6", 0, 1, 1.5), {0, 1}, r"C\(HHH\), which is very rare"),
    "torn methanol": (lambda: torn("CH3OH", 0, 1, 2.0), {0, 1}, r"C\(HHH\), which is very rare"),
    "CH3": (lambda: molecule("CH3"), {0}, r"C\(HHH\), which is very rare in the training data$"),
    "OH": (lambda: molecule("OH"), {0}, r"O\(H\), which is very rare in the training data$"),
    "H3O": (hydronium, {0}, r"O\(HHH\), which is very rare in the training data$"),
    "waters": (lambda: waters(1.6), {0, 3}, r"O\(HHO\), which is very rare in the training data"),
    "small benzene": (lambda: smaller("C6H6"), set(range(12)), r"unusually short: .* usual are"),
    "crowd": (lambda: Atoms("H20", np.linspace(0, 0.4, 60).reshape(20, 3)), set(range(20)), "more"),
}


@pytest.mark.parametrize("name", ODD)
def test_unusual_bonds_are_outside(ranges, name):
    make, atoms, text = ODD[name]
    outside = kinds(ranges, make())["bonds"]
    assert set(outside.atoms) == atoms
    assert re.search(text, outside.text), outside.text


def test_a_guard_warns_once_of_bonds(ranges):
    guard = Guard(ranges, "mine", "warn", 0.0)
    with pytest.warns(OutsideTrainingWarning, match="is bonded as C") as caught:
        guard.check(*arrays(molecule("CH3")), True)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard.check(*arrays(molecule("CH3")), True)


def test_small_trainings_define_no_usual_bonds(ranges):
    short = TrainingRanges.from_dict({**ranges.as_dict(), "structures": FEWEST_STRUCTURES - 1})
    assert Limits(short).unusual_kinds == set()
    assert kinds(short, torn("C2H6", 0, 1, 3.0)) == {}
    assert "bonds" in Limits(ranges).unusual_kinds


def carbons(counts):
    """Return ranges with these counts of pairs of carbon atoms by their distance in Å."""
    ranges = TrainingRanges(CUTOFF)
    ranges.n_structures = FEWEST_STRUCTURES
    for distance, count in counts.items():
        ranges.distances[6, 6, round(distance / BIN_WIDTH)] = count
    return ranges


PEAKS = {1.45: 40_000, 1.5: 50_000, 1.55: 40_000, 1.9: 5, 2.45: 40_000, 2.5: 50_000}


@pytest.mark.parametrize(
    ("distance", "is_outside"),
    [(1.2, False), (1.52, False), (1.62, False), (1.72, True), (1.92, True), (2.42, False),
     (2.7, True), (3.6, False)],
)  # fmt: skip
def test_rare_distances_are_outside(distance, is_outside):
    outside = kinds(carbons(PEAKS), Atoms("C2", [[0, 0, 0], [0, 0, distance]]))
    assert set(outside) == ({"contact"} if is_outside else set())
    if is_outside:
        assert outside["contact"].atoms == (0, 1)
        assert f"atoms 0 (C) and 1 (C) are {distance:.2f} Å apart" in outside["contact"].text


def test_contacts_are_judged_only_with_enough_pairs():
    few = {distance: count // 100 for distance, count in PEAKS.items()}
    assert sum(few.values()) < FEWEST_PAIRS
    assert kinds(carbons(few), Atoms("C2", [[0, 0, 0], [0, 0, 1.8]])) == {}
    often = {**PEAKS, 1.8: 60}
    assert kinds(carbons(often), Atoms("C2", [[0, 0, 0], [0, 0, 1.82]])) == {}


def test_liquids_of_ordinary_density_are_inside(ranges):
    # Clusters have fewer neighbors than a liquid: 52 atoms within 5 Å are 0.10 atoms/Å³.
    assert ranges.counts[8, 1] < 52
    limits = Limits(ranges)
    assert limits.counts[8, 1] == 70
    metal = TrainingRanges.from_dict(ranges.as_dict())
    metal.counts[29] = 1, 12
    assert Limits(metal).counts[8, 1] == ranges.counts[8, 1]


def test_elements_and_bonds():
    keys = np.array([environment_key(name) for name in ("C(CHHH)", "H(O)", "I()")])
    elements, n_bonds = elements_and_bonds(keys)
    assert [COVALENT[element] for element in elements] == ["C", "H", "I"]
    assert n_bonds.tolist() == [4, 1, 0]
