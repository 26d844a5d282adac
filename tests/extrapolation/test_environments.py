import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.data import atomic_numbers

from ase_student.extrapolation.environments import (
    COVALENT,
    NOT_COVALENT,
    TOO_MANY,
    Environments,
    bond_orders,
    environment_key,
    environment_keys,
    environment_name,
)
from ase_student.extrapolation.ranges import BIN_WIDTH, N_BINS, TrainingRanges, pair_squares
from ase_student.neighbors import neighbor_matrix


def keys_of(atoms):
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    squares = pair_squares(atoms.positions, matrix.neighbors, matrix.offsets(atoms.cell.array))
    return environment_keys(atoms.numbers, matrix.neighbors, squares)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("H2O", ["O(HH)", "H(O)", "H(O)"]),
        ("CH3Cl", ["C(ClHHH)", "Cl(C)", "H(C)", "H(C)", "H(C)"]),
        ("HCN", ["C(HN)", "N(C)", "H(C)"]),
        ("SiH4", ["Si(HHHH)", *["H(Si)"] * 4]),
        ("ClF3", ["Cl(FFF)", *["F(Cl)"] * 3]),
        ("CH3", ["C(HHH)", *["H(C)"] * 3]),
    ],
)
def test_environments_of_molecules(name, expected):
    keys, _ = keys_of(molecule(name))
    assert [environment_name(int(key)) for key in keys] == expected
    assert [environment_key(name) for name in expected] == keys.tolist()


@pytest.mark.parametrize(
    ("name", "element", "valence"),
    [("CH4", "C", 4), ("C2H4", "C", 4), ("C6H6", "C", 4), ("H2O", "O", 2), ("NH3", "N", 3),
     ("CO2", "O", 2), ("CH3", "C", 3), ("HCl", "Cl", 1)],
)  # fmt: skip
def test_sums_of_bond_orders_are_near_the_valence(name, element, valence):
    atoms = molecule(name)
    _, orders = keys_of(atoms)
    orders_of_element = orders[atoms.numbers == atomic_numbers[element]]
    assert orders_of_element == pytest.approx(valence, abs=0.45)


def test_bond_orders_follow_the_formula():
    # A single bond has order one; a bond of order two is shorter by 0.31 Å ln(2).
    lengths = np.array([1.52, 1.52 - 0.31 * np.log(2.0)])
    np.testing.assert_allclose(bond_orders(lengths, np.full(2, 1.52)), [1.0, 2.0], rtol=1e-12)


def test_metals_and_crowded_atoms_have_no_environment():
    keys, _ = keys_of(bulk("Cu", cubic=True))
    assert keys.tolist() == [NOT_COVALENT] * 4
    keys, _ = keys_of(Atoms("CuH", [[0, 0, 0], [0, 0, 1.5]]))
    assert keys.tolist() == [NOT_COVALENT, environment_key("H()")]
    crowd = Atoms("H20", np.random.default_rng(0).uniform(0, 0.4, (20, 3)))
    assert keys_of(crowd)[0].tolist() == [TOO_MANY] * 20


def test_names_of_all_elements_are_read_back():
    for symbol in COVALENT:
        name = f"{symbol}({''.join(sorted(COVALENT))})"
        key = environment_key(name)
        assert 0 <= key < 2**62
        assert environment_name(key) == name


def test_periodic_images_are_bonded():
    atoms = bulk("C", "diamond", a=3.567)
    keys, orders = keys_of(atoms)
    assert [environment_name(int(key)) for key in keys] == ["C(CCCC)"] * 2
    assert orders == pytest.approx(4.0, abs=0.4)


def test_statistics_of_environments():
    record = Environments()
    key = environment_key("O(HH)")
    record.add(np.array([key, NOT_COVALENT, key, TOO_MANY]), np.array([1.9, 5.0, 2.1, 7.0]))
    ((found_key, n_atoms, mean, deviation, lowest, highest),) = record.statistics()
    assert (found_key, n_atoms, lowest, highest) == (key, 2, 1.9, 2.1)
    assert (mean, deviation) == pytest.approx((2.0, 0.1), abs=1e-9)


def test_distances_are_counted_in_bins():
    ranges = TrainingRanges(5.0)
    atoms = Atoms("OHO", [[0, 0, 0], [0, 0, 0.97], [0, 0, 2.81]])
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    ranges.add(atoms.numbers, atoms.positions, matrix.neighbors, None, np.zeros((3, 3)))
    expected = np.zeros((119, 119, N_BINS), dtype=int)
    for first, second, length in ((8, 1, 0.97), (8, 1, 1.84), (8, 8, 2.81)):
        bin_ = int(length / BIN_WIDTH)
        expected[first, second, bin_] += 1
        expected[second, first, bin_] += 1
    np.testing.assert_array_equal(ranges.distances, expected)
    read_back = TrainingRanges.from_dict(ranges.as_dict())
    np.testing.assert_array_equal(read_back.distances, expected)
