import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_student import StudentCalculator
from ase_student.snapshots import snapshot, structures_of
from ase_student.testing import structure

#: All backends check structures in the same place; 'onnx' would accept any type.
BACKENDS = ("native", "onnx")
TYPES = ("<f4", ">f4", "<f8", ">f8", "f2", "i4", ">i8", "f16")


def with_types(positions="<f8", numbers="<i8", cell="<f8"):
    """Return a crystal on a coarse grid, exact in every type, with arrays of other types."""
    atoms = structure("triclinic")
    atoms.positions[:] = np.rint(2.0 * atoms.positions)
    atoms.cell.array[:] = np.rint(2.0 * atoms.cell.array)
    atoms.arrays["positions"] = atoms.positions.astype(positions)
    atoms.arrays["numbers"] = atoms.numbers.astype(numbers)
    atoms.cell.array = atoms.cell.array.astype(cell)
    return atoms


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", TYPES)
def test_positions_and_cell_may_be_of_any_real_type(calculators, backend, kind):
    calc = calculators(backend)
    expected = with_types()
    expected.calc = calc
    forces, stress = expected.get_forces(), expected.get_stress()
    assert np.abs(forces).max() > 1e-3
    for changes in ({"positions": kind}, {"cell": kind}, {"positions": kind, "cell": kind}):
        atoms = with_types(**changes)
        atoms.calc = calc
        np.testing.assert_allclose(atoms.get_forces(), forces, rtol=0, atol=1e-6)
        np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-8)
        (result,) = calc.calculate_many([atoms])
        np.testing.assert_allclose(result["forces"], forces, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", [">i8", "i4", "u1", "f8", ">f4"])
def test_numbers_may_be_of_any_type_that_holds_integers(calculators, backend, kind):
    calc = calculators(backend)
    expected = calc.get_potential_energy(with_types())
    atoms = with_types(numbers=kind)
    assert calc.get_potential_energy(atoms) == pytest.approx(expected, rel=0, abs=1e-6)
    (result,) = calc.calculate_many([atoms])
    assert result["energy"] == pytest.approx(expected, rel=0, abs=1e-5)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("positions", lambda old: old.astype(complex), "positions must be real.* complex128"),
        ("positions", lambda old: old.astype(object), "positions must be real.* object"),
        ("positions", lambda old: old.astype(str), "positions must be real"),
        ("numbers", lambda old: old + 0.5, "atomic numbers must be integers.* float64"),
        ("numbers", lambda old: old * np.nan, "atomic numbers must be integers"),
        ("numbers", lambda old: old > 0, "atomic numbers must be integers.* bool"),
    ],
)
def test_arrays_without_real_numbers_are_refused(name, values, reason):
    calc = StudentCalculator("tiny", device="cpu")
    atoms = structure("aspirin")
    calc.get_potential_energy(atoms)
    atoms.arrays[name] = values(atoms.arrays[name])
    with pytest.raises(InputError, match=f"^{reason}"):
        calc.get_potential_energy(atoms)
    assert calc.results == {}
    with pytest.raises(InputError, match=f"^structure 1: {reason}"):
        calc.calculate_many([structure("aspirin"), atoms])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("water.xyz", "given 'water.xyz'"),
        (b"water", "given b'water'"),
        (None, "given None"),
        (3, "given 3"),
        ({"a": Atoms("H")}, "of type 'dict'"),
        (Atoms("H"), "given a single one"),
        ([Atoms("H"), None], "structure 1 is None"),
        (["H2O"], "structure 0 is 'H2O'"),
        ([[Atoms("H")]], "structure 0 is an object of type 'list'"),
        (np.zeros((2, 3)), "structure 0 is an object of type 'ndarray'"),
        ("x" * 5000, "given a str"),
    ],
)
def test_calculate_many_names_an_invalid_argument(argument, message):
    with pytest.raises(TypeError, match=f"^calculate_many takes a list of .*{message}") as caught:
        StudentCalculator("tiny", device="cpu").calculate_many(argument)
    assert len(str(caught.value)) < 200


def test_structures_with_standard_types_are_not_copied():
    atoms = structure("triclinic")
    assert structures_of(iter([atoms]))[0] is atoms
    float32_atoms = with_types(positions="f4")
    float32_atoms.info["charge"] = 1
    (converted,) = structures_of([float32_atoms])
    assert converted.info["charge"] == 1
    assert converted.positions.dtype == np.float64
    assert float32_atoms.positions.dtype == np.float32


def test_a_snapshot_is_a_copy():
    atoms = structure("triclinic")
    copied = snapshot(atoms)
    for array, own in zip(
        copied, (atoms.numbers, atoms.positions, atoms.cell, atoms.pbc), strict=True
    ):
        assert not np.shares_memory(array, np.asarray(own))
    with pytest.raises(TypeError, match="given 'x'"):
        snapshot("x")
