import functools
from itertools import combinations_with_replacement

import numpy as np
import pytest
from ase import Atoms, units
from ase.data import atomic_numbers, covalent_radii
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from ase_student import StudentCalculator
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import (
    STRUCTURES,
    TOLERANCES,
    force_difference,
    small_structures,
    structure,
)

KINDS = [
    ("native", "float32"),
    ("native", "float64"),
    ("onnx", "float32"),
    ("torchscript", "float32"),
    ("torchscript", "float64"),
    ("torch", "float32"),
    ("torch", "float64"),
]
REFERENCE = ("torch", "float64")
ELEMENTS = ("H", "C", "N", "O", "F", "P", "S", "Cl")
PAIRS = list(combinations_with_replacement(ELEMENTS, 2))
CUTOFF = 5.0

# Largest differences of results that differ only by rounding: eV, eV/Å and eV/Å³.
ENERGY = {
    "float64": TOLERANCES.symmetry_energy_float64,
    "float32": TOLERANCES.symmetry_energy_float32,
}
FORCES = {"float64": 1e-9, "float32": TOLERANCES.backend_forces}
STRESS = {"float64": 1e-10, "float32": 1e-5}
# Finite differences are of fourth order. Their step, in Å or a strain, is above the rounding of
# energies of some thousand eV and below what steep repulsion would need.
STEP = 2e-4
GRADIENT = TOLERANCES.finite_difference_forces


def displaced(name):
    """Return a structure whose atoms are displaced at least as far as at 600 K.

    A displacement of 0.06 Å in a bond costs as much as 1,000 K.
    """
    atoms = fifty_atoms() if name == "fifty_atoms" else structure(name)
    atoms.positions += np.random.default_rng(0).normal(scale=0.06, size=(len(atoms), 3))
    return atoms


def fifty_atoms():
    """Return a droplet of water."""
    return Atoms(structure("water_box")[:50], pbc=False)


SYMMETRIC = [*small_structures(), "fifty_atoms"]


@pytest.fixture(params=KINDS, ids="-".join)
def calc(request, calculators):
    return calculators(*request.param)


@pytest.fixture(params=[kind for kind in KINDS if kind[1] == "float64"], ids="-".join)
def precise(request, calculators):
    return calculators(*request.param)


def results(calc, atoms):
    calc.calculate(atoms)
    return calc.results


def assert_same(computed, expected, dtype, forces=None, stress=None):
    """Compare results; `forces` and `stress` replace the expected ones where they are given."""
    forces = expected["forces"] if forces is None else forces
    assert_allclose(computed["energy"], expected["energy"], rtol=0, atol=ENERGY[dtype])
    assert_allclose(computed["forces"], forces, rtol=0, atol=FORCES[dtype])
    assert ("stress" in computed) == ("stress" in expected)
    if "stress" in computed:
        stress = expected["stress"] if stress is None else stress
        assert_allclose(computed["stress"], stress, rtol=0, atol=STRESS[dtype])


def full(voigt):
    xx, yy, zz, yz, xz, xy = voigt
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])


def voigt(tensor):
    return tensor[(0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1)]


def orthogonal_matrix(rng, determinant):
    matrix, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return matrix * np.sign(np.linalg.det(matrix)) * determinant


# --- symmetries --------------------------------------------------------------------------------


@pytest.mark.parametrize("determinant", [1.0, -1.0], ids=["rotation", "reflection"])
@pytest.mark.parametrize("name", SYMMETRIC)
def test_rotation_and_reflection(calc, name, determinant):
    atoms = displaced(name)
    expected = results(calc, atoms)
    matrix = orthogonal_matrix(np.random.default_rng(1), determinant)
    atoms.set_cell(atoms.cell.array @ matrix)
    atoms.positions = atoms.positions @ matrix
    stress = voigt(matrix.T @ full(expected["stress"]) @ matrix) if "stress" in expected else None
    forces = expected["forces"] @ matrix
    assert_same(results(calc, atoms), expected, calc.info.dtype, forces, stress)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_translation(calc, name):
    atoms = displaced(name)
    expected = results(calc, atoms)
    # Far enough that a rounding of coordinates to float32 would show.
    atoms.positions += [1000.3, -207.7, 31.9]
    assert_same(results(calc, atoms), expected, calc.info.dtype)


@pytest.mark.parametrize("name", SYMMETRIC)
def test_permutation(calc, name):
    atoms = displaced(name)
    expected = results(calc, atoms)
    order = np.random.default_rng(2).permutation(len(atoms))
    permuted = results(calc, atoms[order])
    assert_same(permuted, expected, calc.info.dtype, expected["forces"][order])
    assert_allclose(
        permuted["energies"], expected["energies"][order], rtol=0, atol=ENERGY[calc.info.dtype]
    )


@pytest.mark.parametrize("name", SYMMETRIC)
def test_forces_and_torques_add_up_to_zero(calc, name):
    atoms = displaced(name)
    forces = results(calc, atoms)["forces"]
    assert_allclose(forces.sum(axis=0), 0.0, atol=FORCES[calc.info.dtype])
    if not atoms.pbc.any():
        torque = np.cross(atoms.positions - atoms.positions.mean(axis=0), forces).sum(axis=0)
        assert_allclose(torque, 0.0, atol=10.0 * FORCES[calc.info.dtype])


def test_atoms_may_be_anywhere_outside_the_cell(calc):
    inside, outside = (results(calc, structure(name)) for name in ("water_box", "outside"))
    assert_same(outside, inside, calc.info.dtype)


@pytest.mark.parametrize("name", ["crystal", "small_triclinic", "triclinic", "wire", "slab"])
def test_supercell_has_twice_the_energy(calc, name):
    atoms = displaced(name)
    single = results(calc, atoms)
    axis = int(np.flatnonzero(atoms.pbc)[0])
    doubled = results(calc, atoms.repeat([2 if axis == index else 1 for index in range(3)]))
    expected = {**single, "energy": 2.0 * single["energy"]}
    assert_same(doubled, expected, calc.info.dtype, np.tile(single["forces"], (2, 1)))


def test_energies_of_separate_molecules_add_up(calc):
    molecules = [displaced(name) for name in ("aspirin", "eight_elements", "water_dimer")]
    alone = [results(calc, atoms) for atoms in molecules]
    together = Atoms()
    for index, atoms in enumerate(molecules):
        atoms.positions += [30.0 * index, 0.0, 0.0]
        together += atoms
    expected = {"energy": sum(separate["energy"] for separate in alone)}
    forces = np.concatenate([separate["forces"] for separate in alone])
    assert_same(results(calc, together), expected, calc.info.dtype, forces)


@pytest.mark.parametrize("name", ["atom", "crystal", "aspirin", "slab_zero_vector"])
def test_padding_and_skin_change_nothing(calc, name):
    atoms = displaced(name)
    expected = results(calc, atoms)
    for skin, n_padding in ((0.0, 1), (0.0, 9), (1.5, 0)):
        cell = atoms.cell.array
        matrix = neighbor_matrix(atoms.positions, cell, atoms.pbc, CUTOFF, skin)
        neighbors, offsets = matrix.neighbors, matrix.offsets(cell)
        own = np.repeat(np.arange(len(atoms))[:, None], n_padding, axis=1)
        beyond = np.tile([2.0 * CUTOFF, 0.0, 0.0], (*own.shape, 1))
        energies, forces, virials = calc._backend.evaluate(
            atoms.numbers.astype(np.int64),
            atoms.positions,
            np.concatenate([neighbors, own], axis=1),
            np.concatenate([offsets, beyond], axis=1),
        )
        padded = {"energy": energies.sum(), "forces": forces}
        if "stress" in expected:
            padded["stress"] = voigt(virials.sum(axis=0)) / atoms.get_volume()
        assert_same(padded, expected, calc.info.dtype)


# --- derivatives -------------------------------------------------------------------------------


def slope(calc, make):
    """Return the derivative at zero of the energy of ``make(x)``, to fourth order."""
    steps = STEP * np.array([-2.0, -1.0, 1.0, 2.0])
    energies = [result["energy"] for result in calc.calculate_many([make(step) for step in steps])]
    return np.dot([1.0, -8.0, 8.0, -1.0], energies) / (12.0 * STEP)


def moved(atoms, direction):
    copy = atoms.copy()
    copy.positions += direction
    return copy


@pytest.mark.parametrize("name", small_structures())
def test_forces_are_the_gradient(precise, name):
    atoms = displaced(name)
    forces = results(precise, atoms)["forces"]
    rng = np.random.default_rng(3)
    for index in rng.permutation(len(atoms))[:4]:
        for axis in range(3):
            direction = np.zeros((len(atoms), 3))
            direction[index, axis] = 1.0
            force = -slope(precise, lambda step, d=direction: moved(atoms, step * d))
            assert_allclose(force, forces[index, axis], rtol=0, atol=GRADIENT)


@pytest.mark.parametrize("name", [*small_structures(), "water_box"])
def test_all_forces_together_are_the_gradient(precise, name):
    atoms = displaced(name)
    forces = results(precise, atoms)["forces"]
    direction = np.random.default_rng(4).normal(size=forces.shape)
    direction /= np.linalg.norm(direction)
    force = -slope(precise, lambda step: moved(atoms, step * direction))
    assert_allclose(force, (forces * direction).sum(), rtol=0, atol=GRADIENT)


def wire_in_a_box():
    atoms = displaced("wire")
    atoms.set_cell([[9.0, 1.0, 0.0], [0.0, 8.0, 0.5], [0.0, 0.0, 4.3]])
    return atoms


def left_handed():
    atoms = displaced("triclinic")
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    return atoms


STRESSED = {
    name: lambda name=name: displaced(name)
    for name in ("crystal", "small_triclinic", "triclinic", "slab", "outside")
} | {"wire_in_a_box": wire_in_a_box, "left_handed": left_handed}


@pytest.mark.parametrize("name", STRESSED)
def test_stress_is_the_derivative_by_strain(precise, name):
    atoms = STRESSED[name]()
    stress = full(results(precise, atoms)["stress"])
    volume = atoms.get_volume()

    def strained(step, strain):
        copy = atoms.copy()
        copy.set_cell(atoms.cell.array @ (np.eye(3) + step * strain))
        copy.positions = atoms.positions @ (np.eye(3) + step * strain)
        return copy

    for row, column in combinations_with_replacement(range(3), 2):
        strain = np.zeros((3, 3))
        strain[row, column] += 0.5
        strain[column, row] += 0.5
        derivative = slope(precise, lambda step, strain=strain: strained(step, strain)) / volume
        tolerance = TOLERANCES.finite_difference_stress
        assert_allclose(derivative, stress[row, column], rtol=0, atol=tolerance)


# --- the cutoff --------------------------------------------------------------------------------


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
def test_two_atoms_cross_the_cutoff_without_a_step(precise, pair):
    distances = [CUTOFF - 1e-4, CUTOFF - 1e-6, CUTOFF - 1e-9, CUTOFF, CUTOFF + 1e-9, 3.0, 9.0]
    pairs = [Atoms(pair, [[0.0, 0.0, 0.0], [0.0, 0.0, distance]]) for distance in distances]
    *near, inside, apart = precise.calculate_many(pairs)
    assert abs(inside["energy"] - apart["energy"]) > 1e-6
    for result in near:
        assert_allclose(result["energy"], apart["energy"], rtol=0, atol=TOLERANCES.cutoff_energy)
    # A slope at the cutoff would also show 1e-6 Å before it.
    for result in near[1:]:
        assert_allclose(result["forces"], 0.0, atol=1e-9)


@pytest.mark.parametrize("element", ELEMENTS)
def test_atom_leaves_a_molecule_without_a_step(precise, element):
    molecule = structure("eight_elements")
    center = molecule.positions.mean(axis=0)
    # Forces along this distance move the energy by less than 1e-10 eV.
    step = 1e-12
    inside, outside = [], []
    for position in molecule.positions:
        outward = (position - center) / np.linalg.norm(position - center)
        for structures, distance in ((inside, CUTOFF - step), (outside, CUTOFF + step)):
            probe = position + distance * outward
            structures.append(molecule + Atoms(element, [probe]))
            assert (np.linalg.norm(probe - position) < CUTOFF) == (structures is inside)
    computed = precise.calculate_many(inside + outside)
    for inside_result, outside_result in zip(
        computed[: len(inside)], computed[len(inside) :], strict=True
    ):
        assert_allclose(
            inside_result["energy"], outside_result["energy"], rtol=0, atol=TOLERANCES.cutoff_energy
        )
        assert_allclose(inside_result["forces"], outside_result["forces"], rtol=0, atol=1e-9)


# --- backends ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def references(calculators):
    """Return a function that gives the float64 results of a structure, computed once."""

    @functools.cache
    def compute(make, *arguments):
        return results(calculators(*REFERENCE), make(*arguments))

    return compute


def assert_close_to_reference(computed, expected):
    n_atoms = len(expected["energies"])
    energies = [computed["energy"] / n_atoms, expected["energy"] / n_atoms]
    assert_allclose(*energies, rtol=0, atol=TOLERANCES.backend_energy_per_atom)
    assert force_difference(computed["forces"], expected["forces"]) <= TOLERANCES.backend_forces
    assert ("stress" in computed) == ("stress" in expected)
    if "stress" in expected:
        assert_allclose(computed["stress"], expected["stress"], rtol=0, atol=STRESS["float32"])


@pytest.mark.parametrize("make", [structure, displaced], ids=["cold", "hot"])
@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("kind", KINDS[:-1], ids="-".join)
def test_backends_agree(calculators, references, kind, name, make):
    computed = results(calculators(*kind), make(name))
    assert_close_to_reference(computed, references(make, name))


@pytest.fixture(scope="module")
def frames(calculators):
    """Structures of aspirin along a trajectory at 600 K."""
    atoms = thermalized(600.0, calculators("onnx"))
    thermostat = {"temperature_K": 600.0, "friction": 0.02 / units.fs, "fixcm": False}
    md = Langevin(atoms, 0.5 * units.fs, **thermostat, rng=np.random.default_rng(6))
    frames = []
    md.attach(lambda: frames.append(atoms.copy()), interval=40)
    md.run(320)
    return frames


@pytest.mark.parametrize("kind", KINDS[:-1], ids="-".join)
def test_backends_agree_along_a_trajectory(calculators, references, frames, kind):
    for index, atoms in enumerate(frames):
        computed = results(calculators(*kind), atoms)
        assert_close_to_reference(computed, references(frames.__getitem__, index))


# --- dynamics ----------------------------------------------------------------------------------


def thermalized(temperature, calc):
    """Return aspirin at a minimum of the student with velocities of a temperature."""
    atoms = structure("aspirin")
    atoms.calc = calc
    FIRE(atoms, logfile=None).run(fmax=0.1, steps=100)
    masses = atoms.get_masses()[:, None]
    momenta = np.random.default_rng(5).normal(size=(len(atoms), 3))
    # Half of the kinetic energy becomes potential energy.
    momenta *= np.sqrt(2.0 * units.kB * temperature * masses)
    momenta -= masses * momenta.sum(axis=0) / masses.sum()
    atoms.set_momenta(momenta)
    return atoms


def total_energies(start, calc, timestep, n_steps):
    """Return time in ps and the total energy in eV along NVE from a structure."""
    atoms = start.copy()
    atoms.calc = calc
    md = VelocityVerlet(atoms, timestep * units.fs)
    energies = []
    md.attach(lambda: energies.append(atoms.get_total_energy()), interval=2)
    md.run(n_steps)
    return 2e-3 * timestep * np.arange(len(energies)), np.array(energies)


def test_nve_keeps_the_energy():
    calc = StudentCalculator("tiny", device="cpu", backend="onnx", threads=1)
    start = thermalized(300.0, calc)
    times, energies = total_energies(start, calc, 0.5, 2000)
    slope = 1e3 * np.polyfit(times, energies, 1)[0] / len(start)
    # In 1 ps the slope is uncertain by some 0.01 meV/atom/ps, so the limit is wider than for 10 ps.
    assert abs(slope) <= 0.05
    # Velocity Verlet's fluctuation is proportional to the time step squared if forces are smooth.
    finer_times, finer = total_energies(start, calc, 0.25, 1000)
    ratio = energies[times <= finer_times[-1]].std() / finer.std()
    assert 3.0 <= ratio <= 5.0


# --- any structure -----------------------------------------------------------------------------


@st.composite
def crystals_and_clusters(draw):
    """Draw a structure with any mix of periodic axes, in a small or large slanted cell."""
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    lengths = draw(st.lists(st.floats(3.0, 9.0), min_size=3, max_size=3))
    slants = draw(st.lists(st.floats(-0.6, 0.6), min_size=3, max_size=3))
    a, b, c = lengths
    cell = np.array([[a, 0.0, 0.0], [slants[0] * b, b, 0.0], [slants[1] * c, slants[2] * c, c]])
    symbols = draw(st.lists(st.sampled_from(ELEMENTS), min_size=1, max_size=5))
    sites = st.tuples(*[st.integers(0, 3)] * 3)
    scaled = draw(st.lists(sites, min_size=len(symbols), max_size=len(symbols), unique=True))
    nudges = np.random.default_rng(draw(st.integers(0, 99))).uniform(-0.05, 0.05, (len(scaled), 3))
    atoms = Atoms(symbols, scaled_positions=np.array(scaled) / 4.0 + nudges, cell=cell, pbc=pbc)
    # Compressed matter has energies of keV, of which float32 keeps too few digits.
    assume(are_apart(atoms))
    return atoms


def are_apart(atoms):
    """Return whether all distances are at least 0.85 times the sum of two covalent radii."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 2.0)
    vectors = atoms.positions[matrix.neighbors] - atoms.positions[:, None]
    distances = np.linalg.norm(vectors + matrix.offsets(atoms.cell.array), axis=2)
    radii = covalent_radii[atoms.numbers]
    return (distances > 0.85 * (radii[:, None] + radii[matrix.neighbors])).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(crystals_and_clusters(), st.integers(0, 99))
def test_any_structure(calculators, atoms, seed):
    reference = calculators(*REFERENCE)
    expected = results(reference, atoms)
    assert_close_to_reference(results(calculators("onnx"), atoms), expected)
    rng = np.random.default_rng(seed)
    # Rotated, translated, in another order and each atom in another cell, all at once.
    matrix = orthogonal_matrix(rng, 1.0)
    order = rng.permutation(len(atoms))
    copy = atoms[order]
    shifts = rng.integers(-2, 3, size=(len(atoms), 3)) * atoms.pbc
    copy.positions = (copy.positions + shifts @ atoms.cell.array + rng.normal(size=3)) @ matrix
    copy.set_cell(atoms.cell.array @ matrix)
    stress = voigt(matrix.T @ full(expected["stress"]) @ matrix)
    forces = expected["forces"][order] @ matrix
    assert_same(results(reference, copy), expected, "float64", forces, stress)
    direction = rng.normal(size=forces.shape)
    direction /= np.linalg.norm(direction)
    force = -slope(reference, lambda step: moved(atoms, step * direction))
    assert_allclose(force, (expected["forces"] * direction).sum(), rtol=0, atol=GRADIENT)


def test_elements_are_those_of_the_student(calculators):
    known = calculators("onnx").allowed_atomic_numbers
    assert known == sorted(atomic_numbers[symbol] for symbol in ELEMENTS)
