import numpy as np
import pytest

from ase_student.neighbors import neighbor_matrix
from ase_student.testing import (
    LARGE_FORCE,
    STRUCTURES,
    force_difference,
    small_structures,
    structure,
)

ELEMENTS = {"H", "C", "N", "O", "F", "P", "S", "Cl"}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structures_are_new_objects_with_the_same_values(name):
    first, second = structure(name), structure(name)
    assert first == second
    first.positions += 1.0
    assert second == structure(name)
    assert set(first.symbols) <= ELEMENTS


@pytest.mark.parametrize("name", STRUCTURES)
def test_atoms_keep_chemical_distances(name):
    atoms = structure(name)
    # Distances below the shortest bond, that of hydrogen and oxygen, would be a mistake.
    matrix = neighbor_matrix(atoms.positions, atoms.cell, atoms.pbc, 0.85)
    assert matrix.is_padding.all()


def test_structures_have_the_properties_of_their_names():
    assert len(structure("atom")) == 1
    assert structure("far_pair").get_distance(0, 1) > 20.0
    assert structure("aspirin").get_chemical_formula() == "C9H8O4"
    assert set(structure("eight_elements").symbols) == ELEMENTS
    assert len(structure("thousand_atoms")) == 1000
    assert structure("slab").pbc.tolist() == [True, True, False]
    assert not structure("slab_zero_vector").cell[2].any()
    assert structure("wire").cell.rank == 1
    for name in ("triclinic", "small_triclinic"):
        assert (np.abs(structure(name).cell.angles() - 90.0) > 1.0).all()


def test_atoms_outside_the_cell_are_the_water_box():
    outside, inside = structure("outside"), structure("water_box")
    shifts = inside.cell.scaled_positions(outside.positions - inside.positions)
    np.testing.assert_allclose(shifts, np.round(shifts), atol=1e-12)
    assert np.ptp(np.round(shifts), axis=0).min() >= 4


def test_small_structures_are_small():
    small = small_structures()
    assert "aspirin" in small
    assert max(map(len, small.values())) <= 30
    assert "thousand_atoms" not in small


def test_unknown_structure_is_named():
    with pytest.raises(ValueError, match="no structure named 'aspirine'; available: 'atom'"):
        structure("aspirine")


def test_large_forces_are_compared_relative_to_the_largest():
    expected = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    forces = expected + np.array([[0.0, 0.0, 0.1], [0.0, -0.2, 0.0]])
    assert force_difference(forces, expected) == pytest.approx(0.2)
    expected[1, 0] = -4 * LARGE_FORCE
    forces[1, 0] = expected[1, 0]
    assert force_difference(forces, expected) == pytest.approx(0.2 / 4)
    assert force_difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0.0
