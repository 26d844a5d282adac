"""Labels and comparisons are those of the calculator, without a structure's constraints."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms, Hookean
from ase.db import connect

from ase_student.distill.labelling.checks import ask
from ase_student.potentials.base import Refusal, as_potential
from ase_student.potentials.calculator import CalculatorTeacher
from ase_student.potentials.single_point import as_number


def constrained():
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.1, seed=0)
    atoms.set_constraint([FixAtoms([0, 1]), Hookean(2, 3, rt=0.5, k=10.0)])
    return atoms


def free(atoms):
    atoms = atoms.copy()
    atoms.set_constraint()
    atoms.calc = EMT()
    return atoms


def assert_is_free(evaluation, atoms):
    expected = free(atoms)
    assert np.abs(expected.get_forces()).min(axis=1).max() > 1e-3
    np.testing.assert_allclose(evaluation.forces, expected.get_forces(), atol=1e-12)
    np.testing.assert_allclose(evaluation.stress, expected.get_stress(), atol=1e-12)
    assert evaluation.energy == pytest.approx(expected.get_potential_energy(), abs=1e-12)


def test_labels_ignore_constraints():
    atoms = constrained()
    (label,) = CalculatorTeacher("emt", EMT, {}).evaluate([atoms])
    assert_is_free(label, atoms)
    assert len(atoms.constraints) == 2


def test_comparisons_ignore_constraints():
    atoms = constrained()
    for source in (EMT(), CalculatorTeacher("emt", EMT, {})):
        (evaluation,) = as_potential(source).evaluate([atoms])
        assert_is_free(evaluation, atoms)


def test_frames_of_a_database_have_no_constraints(tmp_path):
    from ase_student.data.readers.opening import open_frames

    atoms = constrained()
    atoms.constraints = atoms.constraints[:1]
    atoms.calc = EMT()
    atoms.get_forces()
    atoms.get_stress()
    with connect(tmp_path / "data.db") as database:
        database.write(atoms)
    (frame,) = open_frames(tmp_path / "data.db").read([0])
    assert not frame.atoms.constraints
    expected = free(atoms)
    np.testing.assert_allclose(frame.forces, expected.get_forces(), atol=1e-12)


class ArrayEnergies(Calculator):
    """A calculator that gives its energy as an array, as many networks do."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, shape):
        super().__init__()
        self.shape = shape

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        self.results = {"energy": np.full(self.shape, -3.5), "forces": np.ones((len(atoms), 3))}


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_energies_may_be_arrays_of_one_element(shape):
    atoms = molecule("H2O")
    teacher = CalculatorTeacher("arrays", lambda: ArrayEnergies(shape), {})
    (label,) = ask(teacher, [atoms], 100.0)
    assert (label.energy, type(label.energy)) == (-3.5, float)
    (evaluation,) = as_potential(ArrayEnergies(shape)).evaluate([atoms])
    assert (evaluation.energy, type(evaluation.energy)) == (-3.5, float)


@pytest.mark.parametrize("shape", [(0,), (3,)])
def test_energies_of_more_elements_are_failures(shape):
    teacher = CalculatorTeacher("arrays", lambda: ArrayEnergies(shape), {})
    (label,) = ask(teacher, [molecule("H2O")], 100.0)
    assert isinstance(label, Refusal)
    assert f"energy has shape {shape}" in label.reason
    with pytest.raises(ValueError, match="a single number is needed"):
        as_number(np.zeros(shape))
