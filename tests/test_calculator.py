import copy
import pickle

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import (
    Calculator,
    InputError,
    PropertyNotImplementedError,
    PropertyNotPresent,
    all_properties,
)
from ase.calculators.fd import calculate_numerical_stress
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.db import connect
from ase.filters import FrechetCellFilter, UnitCellFilter
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.optimize import BFGS, FIRE

from ase_student import StudentCalculator, load_student
from ase_student.testing import STRUCTURES, TOLERANCES, small_structures, structure

NOT_CRYSTALS = ("atom", "far_pair", "wire", "aspirin", "slab_zero_vector")


@pytest.fixture
def calc():
    # Many of these structures are outside of the training's ranges.
    return StudentCalculator("tiny", device="cpu", guard="off")


class Counted:
    """A backend that counts its calls."""

    def __init__(self, backend):
        self.n_calls = 0
        self._backend = backend

    def __getattr__(self, name):
        return getattr(self._backend, name)

    def evaluate(self, *arrays):
        self.n_calls += 1
        return self._backend.evaluate(*arrays)

    def step(self, *arrays):
        self.n_calls += 1
        return self._backend.step(*arrays)


@pytest.fixture
def counted(calc):
    """A calculator whose backend counts its calls."""
    calc._backend = Counted(calc._backend)
    if calc._steps is not None:
        calc._steps._backend = calc._backend
    return calc


def with_calculator(name, calc):
    atoms = structure(name)
    atoms.calc = calc
    return atoms


# --- what ASE expects --------------------------------------------------------------------------


def test_properties_are_declared(calc):
    declared = StudentCalculator.implemented_properties
    assert declared == ["energy", "free_energy", "energies", "forces", "stress", "stresses"]
    assert declared is not Calculator.implemented_properties
    assert set(declared) <= set(all_properties)
    assert isinstance(calc, Calculator)
    assert calc.name == "studentcalculator"
    assert calc.allowed_atomic_numbers == [1, 6, 7, 8, 9, 15, 16, 17]
    assert all(type(number) is int for number in calc.allowed_atomic_numbers)


@pytest.mark.parametrize("name", STRUCTURES)
def test_results_have_types_and_shapes_of_ase(calc, name):
    atoms = with_calculator(name, calc)
    n_atoms = len(atoms)
    energy = atoms.get_potential_energy()
    assert type(energy) is float
    assert type(calc.results["free_energy"]) is float
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.get_potential_energies().shape == (n_atoms,)
    assert atoms.get_potential_energies().sum() == pytest.approx(energy, rel=1e-12)
    assert atoms.get_forces().shape == (n_atoms, 3)
    expected = {"energy", "free_energy", "energies", "forces"}
    if name not in NOT_CRYSTALS and name != "water_dimer" and name != "eight_elements":
        assert atoms.get_stress().shape == (6,)
        assert atoms.get_stress(voigt=False).shape == (3, 3)
        assert atoms.get_stress().dtype == np.float64
        expected.add("stress")
    assert atoms.get_potential_energies().dtype == atoms.get_forces().dtype == np.float64
    assert calc.results.keys() == expected
    assert set(calc.export_properties()) == {*expected, "natoms"}


@pytest.mark.parametrize("name", NOT_CRYSTALS)
def test_stress_needs_three_cell_vectors(calc, name):
    atoms = with_calculator(name, calc)
    cell = "cell vectors that span none" if atoms.cell.any() else "no cell"
    for method in (atoms.get_stress, atoms.get_stresses, FrechetCellFilter(atoms).get_forces):
        with pytest.raises(PropertyNotImplementedError, match=f"three cell vectors .* {cell}: set"):
            method()
    with pytest.raises(PropertyNotPresent, match=f"three cell vectors .* {cell}: set"):
        calc.calculate_properties(atoms, ["energy", "stress"])
    assert np.isfinite(atoms.get_potential_energy())


def test_a_cell_with_coplanar_vectors_has_no_stress(calc):
    atoms = structure("aspirin")
    atoms.cell = [[10.1, 0.3, 0.0], [5.0, 8.66, 0.7], [15.1, 8.96, 0.7]]
    assert atoms.cell.rank == 3
    atoms.calc = calc
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_unavailable_properties_are_refused(calc):
    with pytest.raises(PropertyNotImplementedError, match=r"'tiny' has no dipole; it has energy"):
        with_calculator("aspirin", calc).get_dipole_moment()


@pytest.mark.parametrize("backend", ["native", "onnx", "torch"])
@pytest.mark.parametrize("name", ["triclinic", "slab", "crystal"])
def test_stresses_of_atoms_add_up_to_the_stress(calculators, name, backend):
    atoms = with_calculator(name, calculators(backend))
    stress = atoms.get_stress()
    stresses = atoms.get_stresses()
    assert stresses.shape == (len(atoms), 6)
    np.testing.assert_allclose(stresses.sum(axis=0), stress, rtol=0, atol=1e-7)
    # The atoms do not all have the mean.
    assert len(atoms) == 1 or np.ptp(stresses, axis=0).max() > 1e-5
    atoms.positions += 0.01 * np.random.default_rng(0).standard_normal(atoms.positions.shape)
    assert "stresses" in atoms.calc.results
    atoms.get_forces()
    assert "stresses" not in atoms.calc.results


# --- what ASE writes ---------------------------------------------------------------------------


def test_trajectories_and_databases_name_the_student_and_its_weights(calc, tmp_path):
    expected = {
        "student": "tiny", "backend": calc.backend, "dtype": "float32",
        "weights_sha256": load_student("tiny").sha256,
    }  # fmt: skip
    assert calc.todict() == expected
    atoms = with_calculator("triclinic", calc)
    atoms.get_stresses()
    write(tmp_path / "a.traj", atoms)
    loaded = read(tmp_path / "a.traj")
    assert loaded.calc.name == "studentcalculator"
    assert loaded.calc.parameters == expected
    np.testing.assert_array_equal(loaded.get_stresses(), atoms.get_stresses())
    with connect(tmp_path / "a.db") as database:
        database.write(atoms)
    row = connect(tmp_path / "a.db").get(1)
    assert row.calculator == "studentcalculator"
    assert row.calculator_parameters == expected


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [None, 3, b"tiny", ["tiny"], Atoms("H")])
def test_a_model_that_is_neither_name_nor_path_is_refused(model):
    for opened in (StudentCalculator, load_student):
        with pytest.raises(TypeError, match="model must be the name .* 'tiny', or a path; given"):
            opened(model)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"skin": "a"}, "skin must be a number, in Å; given 'a'"),
        ({"skin": None}, "skin must be a number, in Å; given None"),
        ({"trust": "no"}, "trust must be True or False; given 'no'"),
        ({"device": None}, "device must be 'auto', .*; given None"),
    ],
)
def test_arguments_of_a_wrong_type_are_refused(arguments, reason):
    with pytest.raises(TypeError, match=reason):
        StudentCalculator("tiny", **arguments)


@pytest.mark.parametrize("name", ["triclinic", "slab"])
def test_order_and_sign_of_the_stress(calculators, name):
    atoms = with_calculator(name, calculators("torch", "float64"))
    stress = atoms.get_stress()
    expected = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(stress, expected, rtol=0, atol=2e-7)
    # All components differ by more than this tolerance, so no two can be exchanged.
    assert np.diff(np.sort(stress)).min() > 4e-7


# --- the cache ---------------------------------------------------------------------------------


def test_results_are_computed_once(counted):
    atoms = with_calculator("triclinic", counted)
    for _ in range(3):
        atoms.get_potential_energy()
        atoms.get_potential_energies()
        atoms.get_forces()
        atoms.get_stress()
    assert counted._backend.n_calls == 1


def set_info(atoms):
    atoms.info["note"] = 1
    atoms.new_array("note", np.ones(len(atoms)))


@pytest.mark.parametrize(
    "change",
    [
        set_info,
        lambda atoms: atoms.set_initial_charges(np.ones(len(atoms))),
        lambda atoms: atoms.set_initial_magnetic_moments(np.ones(len(atoms))),
        lambda atoms: atoms.set_momenta(np.ones((len(atoms), 3))),
        lambda atoms: atoms.set_tags(1),
        lambda atoms: atoms.set_masses(np.full(len(atoms), 4.0)),
        lambda atoms: atoms.set_constraint(FixAtoms([0])),
        lambda atoms: atoms.set_positions(atoms.get_positions()),
    ],
    ids=["info", "charges", "magmoms", "momenta", "tags", "masses", "constraint", "same"],
)
def test_changes_without_influence_cause_no_computation(counted, change):
    atoms = with_calculator("triclinic", counted)
    energy = atoms.get_potential_energy()
    change(atoms)
    assert atoms.get_potential_energy() == energy
    atoms.get_forces()
    assert counted._backend.n_calls == 1


def edit_position(atoms):
    atoms.positions[3, 1] += 0.03


def edit_cell(atoms):
    atoms.cell[1, 1] += 0.1


def strain(atoms):
    atoms.set_cell(1.01 * atoms.cell.array, scale_atoms=True)


def edit_pbc(atoms):
    atoms.pbc[2] = False


def edit_number(atoms):
    atoms.numbers[0] = 16


def exchange_kinds(atoms):
    atoms.numbers[[0, 1]] = atoms.numbers[[1, 0]]


def add_an_atom(atoms):
    atoms.append("H")
    atoms.positions[-1] = [2.5, 2.8, 2.1]


def remove_atoms(atoms):
    del atoms[[1, 5]]


@pytest.mark.parametrize(
    "change",
    [
        edit_position,
        edit_cell,
        strain,
        edit_pbc,
        edit_number,
        exchange_kinds,
        add_an_atom,
        remove_atoms,
    ],
)
def test_every_change_of_the_structure_causes_a_computation(counted, change):
    atoms = with_calculator("triclinic", counted)
    energy_before = atoms.get_potential_energy()
    change(atoms)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert energy != energy_before
    assert counted._backend.n_calls == 2
    fresh = StudentCalculator("tiny", device="cpu", skin=0.0, guard="off")
    expected = fresh.calculate_many([atoms])[0]
    assert energy == pytest.approx(expected["energy"], rel=0, abs=1e-5)
    np.testing.assert_allclose(forces, expected["forces"], rtol=0, atol=1e-5)


def test_the_calculator_keeps_a_copy_of_the_atoms(calc):
    assert calc.atoms is None
    atoms = with_calculator("triclinic", calc)
    energy = atoms.get_potential_energy()
    kept_atoms = calc.atoms
    assert kept_atoms == atoms
    atoms.positions += 0.1
    kept_atoms.positions += 0.2
    assert calc.atoms == structure("triclinic")
    assert calc.get_potential_energy() == energy
    calc.reset()
    assert calc.atoms is None
    assert calc.results == {}


def test_returned_arrays_are_copies(calc):
    atoms = with_calculator("triclinic", calc)
    names = ("energies", "forces", "stress")
    returned = {name: calc.get_property(name, atoms) for name in names}
    copies = {name: array.copy() for name, array in returned.items()}
    first_results = calc.results
    # Writing into a returned array changes no later result.
    for name in names:
        calc.get_property(name, atoms)[:] = 7.0
        np.testing.assert_array_equal(calc.get_property(name, atoms), copies[name])
    # The next calculation does not write into earlier results.
    atoms.rattle(0.1, rng=np.random.default_rng(0))
    atoms.get_forces()
    assert calc.results is not first_results
    for name in names:
        np.testing.assert_array_equal(first_results[name], copies[name])
        np.testing.assert_array_equal(returned[name], copies[name])


def test_two_structures_may_share_a_calculator(counted):
    aspirin, triclinic = (with_calculator(name, counted) for name in ("aspirin", "triclinic"))
    energies = [aspirin.get_potential_energy(), triclinic.get_potential_energy()]
    assert [aspirin.get_potential_energy(), triclinic.get_potential_energy()] == energies
    assert counted._backend.n_calls == 4


def test_calculate_takes_the_arguments_of_ase(calc):
    atoms = structure("triclinic")
    calc.calculate(atoms, ["energy"], ["positions", "numbers", "cell", "pbc"])
    energy = calc.results["energy"]
    calc.calculate()
    assert calc.results["energy"] == energy
    assert not calc.calculation_required(atoms, ["energy", "forces", "stress"])
    edit_position(atoms)
    assert calc.calculation_required(atoms, ["energy"])
    assert calc.get_property("energy", atoms, allow_calculation=False) is None


def test_a_wrong_list_of_system_changes_has_no_effect(calc):
    methane, silane = molecule("CH4"), molecule("SiH4")
    calc.calculate(methane)
    for changes in (["positions"], []):
        with pytest.raises(InputError, match="also has Si"):
            calc.calculate(silane, ["energy"], changes)
        assert calc.results == {}
    ethanol = molecule("CH3CH2OH")
    calc.calculate(ethanol)
    expected = calc.results["energy"]
    for start in (methane, molecule("H2O")):
        calc.calculate(start)
        calc.calculate(ethanol, ["energy"], ["positions"])
        assert calc.results["energy"] == expected
        calc.calculate(start)
        calc.reset()
        calc.atoms = ethanol
        assert calc.get_potential_energy() == expected


def test_a_calculator_cannot_be_changed(calc):
    with pytest.raises(TypeError, match="StudentCalculator cannot be changed: make a new one with"):
        calc.set(guard="raise", skin=1.0)
    with pytest.raises(AttributeError):
        calc.neighbor_list.skin = 2.0
    assert calc.set() == {}


# --- optimization and dynamics -----------------------------------------------------------------


@pytest.mark.parametrize("optimizer", [FIRE, BFGS])
def test_molecules_relax(calc, optimizer):
    atoms = with_calculator("aspirin", calc)
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    energy_before = atoms.get_potential_energy()
    optimizer(atoms, logfile=None, maxstep=0.03).run(fmax=0.01, steps=8)
    assert atoms.get_potential_energy() < energy_before - 0.01


@pytest.mark.parametrize("cell_filter", [FrechetCellFilter, UnitCellFilter])
def test_cells_relax(calc, cell_filter):
    atoms = with_calculator("triclinic", calc)
    atoms.set_cell(0.97 * atoms.cell.array, scale_atoms=True)
    energy_before, cell = atoms.get_potential_energy(), atoms.cell.array.copy()
    FIRE(cell_filter(atoms), logfile=None, maxstep=0.03).run(fmax=1e-3, steps=8)
    assert atoms.get_potential_energy() < energy_before
    assert np.abs(atoms.cell.array - cell).max() > 1e-3


def test_langevin_reuses_neighbor_lists(calc):
    atoms = with_calculator("aspirin", calc)
    md = Langevin(
        atoms,
        0.5 * units.fs,
        temperature_K=300.0,
        friction=0.01 / units.fs,
        fixcm=False,
        rng=np.random.default_rng(0),
    )
    md.run(40)
    assert np.isfinite(atoms.get_total_energy())
    assert calc.neighbor_list.n_updates == 41
    assert calc.neighbor_list.n_rebuilds < 20


@pytest.mark.parametrize("name", ["small_triclinic", "triclinic", "slab", "aspirin"])
def test_skin_changes_nothing_along_a_random_walk(calculators, name):
    pytest.importorskip("torch")
    plain = calculators("torch", "float64")
    skinned = StudentCalculator("tiny", "torch", "cpu", dtype="float64", skin=0.6, guard="off")
    atoms = structure(name)
    rng = np.random.default_rng(0)
    for step in range(30):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        # Like a barostat, with larger steps than usual.
        atoms.set_cell(
            atoms.cell.array @ (np.eye(3) + rng.uniform(-0.004, 0.004, (3, 3))), scale_atoms=True
        )
        if step == 10:
            atoms.wrap()
        if step == 20:
            atoms.positions[0] += 0.4
        skinned.calculate(atoms)
        plain.calculate(atoms)
        results, expected = skinned.results, plain.results
        assert results.keys() == expected.keys()
        energies = [results["energy"], expected["energy"]]
        np.testing.assert_allclose(*energies, rtol=0, atol=TOLERANCES.skin_energy)
        np.testing.assert_allclose(
            results["forces"], expected["forces"], rtol=0, atol=TOLERANCES.skin_forces
        )
        if "stress" in expected:
            np.testing.assert_allclose(results["stress"], expected["stress"], rtol=0, atol=1e-11)
    assert skinned.neighbor_list.n_updates == 30
    assert 2 <= skinned.neighbor_list.n_rebuilds <= 25


def test_results_are_written_with_the_structure(calc, tmp_path):
    atoms = with_calculator("triclinic", calc)
    energy, forces, stress = (
        atoms.get_potential_energy(),
        atoms.get_forces(),
        atoms.get_stress(),
    )
    for path in (tmp_path / "one.extxyz", tmp_path / "one.traj"):
        write(path, atoms)
        loaded = read(path)
        assert isinstance(loaded.calc, SinglePointCalculator)
        assert loaded.get_potential_energy() == pytest.approx(energy, rel=0, abs=1e-6)
        np.testing.assert_allclose(loaded.get_forces(), forces, rtol=0, atol=1e-6)
        np.testing.assert_allclose(loaded.get_stress(), stress, rtol=0, atol=1e-6)
    frozen = atoms.copy()
    assert frozen.calc is None
    frozen.calc = SinglePointCalculator(frozen, **calc.results)
    np.testing.assert_array_equal(frozen.get_stress(), stress)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))],
)
def test_copies_are_independent(duplicate):
    calc = StudentCalculator("tiny", device="cpu", skin=0.3, threads=1, guard="off")
    atoms = with_calculator("aspirin", calc)
    energy = atoms.get_potential_energy()
    duplicated = duplicate(calc)
    assert type(duplicated) is StudentCalculator
    assert duplicated.backend == calc.backend
    assert duplicated.neighbor_list.skin == 0.3
    moved = structure("aspirin")
    moved.rattle(0.1, rng=np.random.default_rng(0))
    duplicated.calculate(moved)
    assert calc.neighbor_list.n_updates == 1
    assert calc.results["energy"] == energy != duplicated.results["energy"]
    duplicated.calculate(structure("aspirin"))
    assert duplicated.results["energy"] == energy


def test_atoms_with_a_calculator_can_be_copied_deeply(calc):
    atoms = with_calculator("aspirin", calc)
    copied = copy.deepcopy(atoms)
    assert copied.calc is not calc
    assert copied.get_potential_energy() == atoms.get_potential_energy()


@pytest.mark.parametrize("backend", ["native", "onnx", "torch"])
def test_numbers_of_threads_are_followed(request, backend):
    if backend == "native":
        request.getfixturevalue("engine")
    if backend == "torch":
        torch = pytest.importorskip("torch")
        n_threads_before = torch.get_num_threads()
    energies = []
    for threads in (1, 2, None):
        calc = StudentCalculator("tiny", backend, "cpu", threads=threads, guard="off")
        calc.calculate(structure("water_box"))
        energies.append(calc.results["energy"])
        if backend == "torch" and threads:
            assert torch.get_num_threads() == threads
    if backend == "torch":
        torch.set_num_threads(n_threads_before)
    np.testing.assert_allclose(energies, energies[0], rtol=0, atol=1e-4)


# --- many structures ---------------------------------------------------------------------------

# Factors on the tolerances, which are for onnx. For matrix products of
# other sizes torch takes other kernels, which round differently.
FACTORS = {
    ("native", "float32"): 1.0,
    ("native", "float64"): 1e-3,
    ("onnx", "float32"): 1.0,
    ("torch", "float32"): 10.0,
    ("torch", "float64"): 1e-3,
}


def mixed_structures(displacement):
    """Return structures of all kinds in a random order, most of them twice."""
    rng = np.random.default_rng(0)
    names = [*small_structures(), *small_structures(), "water_box", "outside"]
    structures = [structure(name) for name in names]
    for atoms in structures:
        atoms.positions += rng.normal(scale=displacement, size=(len(atoms), 3))
    return [structures[index] for index in rng.permutation(len(structures))]


@pytest.mark.parametrize("displacement", [0.0, 0.06])
@pytest.mark.parametrize("kind", FACTORS, ids="-".join)
def test_calculate_many_gives_the_results_of_single_calls(calculators, kind, displacement):
    calc, factor = calculators(*kind), FACTORS[kind]
    structures = mixed_structures(displacement)
    results = calc.calculate_many(structures)
    assert len(results) == len(structures)
    for atoms, batched in zip(structures, results, strict=True):
        calc.calculate(atoms)
        single = calc.results
        assert batched.keys() == single.keys()
        assert type(batched["energy"]) is float
        np.testing.assert_allclose(
            batched["energy"], single["energy"], rtol=0, atol=factor * TOLERANCES.batch_energy
        )
        # Forces of some 10 eV/Å have a last float32 digit of 1e-6 eV/Å.
        tolerance = factor * TOLERANCES.batch_forces * max(1.0, np.abs(single["forces"]).max())
        np.testing.assert_allclose(batched["forces"], single["forces"], rtol=0, atol=tolerance)
        np.testing.assert_allclose(
            batched["energies"], single["energies"], rtol=0, atol=factor * TOLERANCES.batch_energy
        )
        if "stress" in single:
            atol = factor * 1e-6
            np.testing.assert_allclose(batched["stress"], single["stress"], rtol=0, atol=atol)


def test_order_and_other_structures_change_nothing(calc):
    structures = mixed_structures(0.0)
    forwards = calc.calculate_many(structures)
    backwards = calc.calculate_many(structures[::-1])[::-1]
    for forward, backward in zip(forwards, backwards, strict=True):
        np.testing.assert_allclose(
            forward["energy"], backward["energy"], rtol=0, atol=TOLERANCES.batch_energy
        )


def test_many_structures_take_bounded_calls(monkeypatch):
    counted = StudentCalculator("tiny", "onnx", "cpu", guard="off")
    sizes = []
    evaluate = counted._backend.evaluate

    def measured(numbers, positions, neighbors, offsets):
        sizes.append(neighbors.size)
        return evaluate(numbers, positions, neighbors, offsets)

    monkeypatch.setattr(counted._backend, "evaluate", measured)
    structures = [structure("aspirin") for _ in range(150)] + [structure("thousand_atoms")]
    results = counted.calculate_many(structures)
    assert len(results) == 151
    assert 3 <= len(sizes) < 20
    # A structure that is too large has a call of its own.
    assert sorted(sizes)[-2] <= 20_000 < max(sizes) < 100_000
    assert results[-1]["forces"].shape == (1000, 3)


def test_many_structures_leave_the_calculator_unchanged(calc):
    atoms = with_calculator("aspirin", calc)
    energy = atoms.get_potential_energy()
    calc.calculate_many([structure("triclinic"), structure("atom")])
    assert calc.atoms == atoms
    assert calc.results["energy"] == energy
    assert calc.neighbor_list.n_updates == 1


def test_calculate_many_takes_an_empty_list(calc):
    assert calc.calculate_many([]) == []


def test_calculate_many_takes_a_generator_but_no_single_structure(calc):
    structures = [structure("aspirin"), structure("triclinic")]
    from_generator = calc.calculate_many(atoms for atoms in structures)
    assert [results["energy"] for results in from_generator] == [
        results["energy"] for results in calc.calculate_many(structures)
    ]
    with pytest.raises(TypeError, match="takes a list of structures; given a single one"):
        calc.calculate_many(structures[0])


def test_calculate_many_names_the_invalid_structure(calc):
    structures = [structure("aspirin"), Atoms("OSi", [[0, 0, 0], [0, 0, 1.6]])]
    with pytest.raises(InputError, match=r"^structure 1: .* this structure also has Si \(atom 1\)"):
        calc.calculate_many(structures)
    with pytest.raises(InputError, match=r"^structure 0: the structure has no atoms\.$"):
        calc.calculate_many([Atoms()])
