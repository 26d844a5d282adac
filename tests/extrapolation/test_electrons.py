import warnings

import pytest
from ase import Atoms
from ase.build import molecule

from ase_student import StudentCalculator
from ase_student.extrapolation.electrons import ignored_electrons
from ase_student.extrapolation.guard import OutsideTrainingError, OutsideTrainingWarning


def water(**info):
    atoms = molecule("H2O")
    atoms.info.update(info)
    return atoms


def charged(*charges):
    atoms = water()
    atoms.set_initial_charges(charges)
    return atoms


def magnetic():
    atoms = water()
    atoms.set_initial_magnetic_moments([1.0, -1.0, 0.0])
    return atoms


CASES = {
    "charges add up to": charged(1.0, 0.0, 0.0),
    "magnetic moments": magnetic(),
    "info['charge'] is -1": water(charge=-1),
    "info['spin'] is 3": water(spin=3),
    "9 electrons are an odd number": molecule("H2O")[:2],
}
HARMLESS = [water(), charged(-0.8, 0.4, 0.4), water(charge=0, spin=1), water(charge=None, spin="")]


@pytest.fixture(scope="module")
def calculators():
    return {
        guard: StudentCalculator("ultra-tiny", "onnx", "cpu", threads=1, guard=guard)
        for guard in ("warn", "raise", "off")
    }


@pytest.mark.parametrize("message", CASES)
def test_ignored_electrons_give_one_warning(message):
    calc = StudentCalculator("ultra-tiny", "onnx", "cpu", threads=1, guard="warn")
    atoms = CASES[message].copy()
    atoms.calc = calc
    with pytest.warns(OutsideTrainingWarning) as caught:
        atoms.get_potential_energy()
    assert any(message in str(warning.message) for warning in caught)
    assert caught[0].filename == __file__
    atoms.positions += 0.01
    with warnings.catch_warnings(record=True) as repeated:
        warnings.simplefilter("always")
        atoms.get_potential_energy()
        calc.calculate_many([atoms])
    assert not any(message in str(warning.message) for warning in repeated)


@pytest.mark.parametrize("message", CASES)
def test_ignored_electrons_raise_if_the_guard_raises(calculators, message):
    atoms = CASES[message].copy()
    atoms.calc = calculators["raise"]
    for compute in (
        atoms.get_potential_energy,
        lambda: atoms.calc.calculate_many([water(), atoms]),
    ):
        with pytest.raises(OutsideTrainingError) as caught:
            compute()
        assert message in str(caught.value)
    assert str(caught.value).startswith("structure 1: ")
    atoms.calc = calculators["off"]
    atoms.get_potential_energy()


@pytest.mark.parametrize("atoms", HARMLESS, ids=str)
def test_ordinary_structures_give_no_warning(calculators, atoms):
    calculators["raise"]._electrons.check(atoms)


def test_electrons_of_metals_are_not_counted():
    assert ignored_electrons(Atoms("Cu"), counts_electrons=False) == {}
