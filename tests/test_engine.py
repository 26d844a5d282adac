"""The C++ engine: shapes of students, neighbor lists, threads, invalid input and damaged files."""

import dataclasses
import json
import multiprocessing
import os
import threading
import warnings

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import InputError
from ase.data import covalent_radii
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import save

from ase_student import StudentCalculator, load_student, save_student
from ase_student.backends import open_backend
from ase_student.backends.native import ATOMS_PER_CALL, NativeBackend
from ase_student.checkpoint import student_folder
from ase_student.engine.library import (
    FILE,
    INVALID,
    UNSUPPORTED,
    EngineError,
    Handle,
    load_library,
)
from ase_student.extrapolation.guard import OutsideTrainingError, OutsideTrainingWarning
from ase_student.neighbors import neighbor_matrix
from ase_student.student import Architecture, Student
from ase_student.testing import STRUCTURES, force_difference, structure

pytestmark = pytest.mark.usefixtures("engine")

STUDENTS = ("original", "tiny", "ultra-tiny")
# eV/Å (relative to the largest force where that exceeds 10 eV/Å), eV and eV an atom.
FORCES = {"float32": 3e-5, "float64": 1e-9}
ENERGIES = {"float32": 1e-5, "float64": 1e-9}
VIRIALS = {"float32": 1e-4, "float64": 1e-9}


def isas():
    return load_library().ase_student_isas().decode().split()


def content(name="tiny"):
    return (student_folder(name) / "weights.safetensors").read_bytes()


def arrays(atoms):
    return (
        atoms.numbers.astype(np.int64),
        np.ascontiguousarray(atoms.positions),
        np.ascontiguousarray(atoms.cell.array),
        np.ascontiguousarray(atoms.pbc),
    )


def compute(handle, atoms, skin=0.0):
    return handle.compute(*arrays(atoms), skin)


def rattled(name, scale=0.05, seed=0):
    atoms = structure(name)
    atoms.rattle(scale, rng=np.random.default_rng(seed))
    return atoms


def torch_results(backend, atoms):
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, backend.info.cutoff)
    pairs = matrix.neighbors, matrix.offsets(atoms.cell.array)
    return backend.evaluate(atoms.numbers.astype(np.int64), atoms.positions, *pairs)


def assert_right(step, expected, dtype):
    energies, forces, virials = expected
    scale = max(1.0, np.abs(forces).max() / 10.0)
    assert_allclose(step.energies, energies, rtol=0, atol=scale * ENERGIES[dtype])
    assert_allclose(step.forces, forces, rtol=0, atol=scale * FORCES[dtype])
    tolerance = scale * VIRIALS[dtype] * len(energies)
    assert_allclose(step.virials[0], virials.sum(axis=0), rtol=0, atol=tolerance)


# --- right to rounding -------------------------------------------------------------------------


@pytest.fixture(scope="module", params=STUDENTS)
def student(request):
    """Name of a bundled student and its reference in float64."""
    pytest.importorskip("torch")
    return request.param, open_backend(request.param, "torch", "cpu", "float64")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_bundled_students_are_right(student, name, dtype):
    student_name, reference = student
    handle = Handle(content(student_name), dtype == "float32", 1)
    for scale in (0.0, 0.05, 0.1):
        atoms = rattled(name, scale)
        assert_right(compute(handle, atoms, 0.5), torch_results(reference, atoms), dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_instruction_set_is_right(student, dtype):
    student_name, reference = student
    for isa in isas():
        handle = Handle(content(student_name), dtype == "float32", 1, isa)
        assert handle.isa == isa
        for name in ("atom", "crystal", "eight_elements", "aspirin", "slab", "water_box"):
            atoms = rattled(name)
            assert_right(compute(handle, atoms), torch_results(reference, atoms), dtype)


SHAPES = {
    "smallest": {
        "features": 2,
        "blocks": 1,
        "hidden": 1,
        "n_rbf": 1,
        "element_channels": 1,
        "message_channels": 1,
    },
    "one block": {"features": 24, "blocks": 1, "hidden": 7, "n_rbf": 9, "tensor_channels": 5},
    "two blocks": {"features": 18, "blocks": 2, "hidden": 5, "n_rbf": 5, "message_channels": 3},
    "no tensors": {"features": 64, "blocks": 3, "hidden": 33, "n_rbf": 17, "message_channels": 31},
    "many blocks": {"features": 6, "blocks": 5, "hidden": 12, "n_rbf": 4, "message_channels": 9},
    "few channels": {"features": 32, "hidden": 16, "element_channels": 2, "tensor_channels": 1},
    "wide": {
        "features": 130,
        "hidden": 81,
        "n_rbf": 34,
        "message_channels": 65,
        "tensor_channels": 33,
    },
    "short": {
        "features": 16,
        "hidden": 8,
        "cutoff": 2.9,
        "inner_cutoff": 0.8,
        "tensor_channels": 8,
    },
    "long": {"features": 16, "hidden": 8, "cutoff": 7.3, "inner_cutoff": 0.0, "tensor_channels": 8},
}


def new_student(elements=(1, 6, 7, 8, 9, 15, 16, 17), seed=0, **shape):
    """Return an untrained student."""
    torch = pytest.importorskip("torch")
    from ase_student.networks.painn import PaiNN

    torch.manual_seed(seed)
    architecture = Architecture(elements=elements, **shape)
    references = {number: -10.0 * number for number in elements}
    state = PaiNN(architecture, references).state_dict()
    return Student(architecture, {key: value.numpy() for key, value in state.items()}, references)


@pytest.mark.parametrize("shape", SHAPES)
def test_students_of_every_shape_are_right(tmp_path, shape):
    path = tmp_path / "new.safetensors"
    save_student(new_student(**SHAPES[shape]), path)
    reference = open_backend(path, "torch", "cpu", "float64")
    for isa in isas():
        handle = Handle(path.read_bytes(), False, 1, isa)
        for name in ("atom", "far_pair", "crystal", "eight_elements", "wire", "triclinic", "slab"):
            atoms = rattled(name)
            assert_right(compute(handle, atoms), torch_results(reference, atoms), "float64")


def test_students_of_one_and_of_many_elements_are_right(tmp_path):
    for elements in ((8,), tuple(range(1, 97))):
        path = tmp_path / "new.safetensors"
        save_student(new_student(elements, features=8, hidden=4, tensor_channels=4), path)
        reference = open_backend(path, "torch", "cpu", "float64")
        handle = Handle(path.read_bytes(), False, 1)
        rng = np.random.default_rng(0)
        for n_atoms in (1, 30):
            atoms = Atoms(rng.choice(elements, n_atoms), 12.0 * rng.random((n_atoms, 3)))
            if n_atoms > 1 and len(elements) > 1:
                assert len(set(atoms.numbers)) > 15
            assert_right(compute(handle, atoms), torch_results(reference, atoms), "float64")


def test_symbols_and_covalent_radii_are_those_of_ase(tmp_path):
    """The repulsion of two atoms shows the symbol and the covalent radius of each element."""
    elements = tuple(range(1, 97))
    path = tmp_path / "new.safetensors"
    save_student(new_student(elements, features=2, hidden=1, n_rbf=1, inner_cutoff=0.9), path)
    reference = open_backend(path, "torch", "cpu", "float64")
    handle = Handle(path.read_bytes(), False, 1)
    for number in elements:
        distance = 1.7 * covalent_radii[number]
        atoms = Atoms([number] * 2, [[0, 0, 0], [0, 0, distance]])
        assert_right(compute(handle, atoms), torch_results(reference, atoms), "float64")


# --- neighbor lists ----------------------------------------------------------------------------


@st.composite
def cells(draw):
    """Draw atoms in a cell, small or large, slanted, left-handed or with open axes."""
    lengths = draw(st.lists(st.floats(1.5, 14.0), min_size=3, max_size=3))
    slants = draw(st.lists(st.floats(-0.7, 0.7), min_size=3, max_size=3))
    a, b, c = lengths
    cell = np.array([[a, 0, 0], [slants[0] * b, b, 0], [slants[1] * c, slants[2] * c, c]])
    if draw(st.booleans()):
        cell = cell[[1, 0, 2]]
    pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    n_atoms = draw(st.integers(1, 12))
    scaled = rng.uniform(-2.0, 3.0, (n_atoms, 3))
    return Atoms(rng.choice([1, 6, 8], n_atoms), scaled_positions=scaled, cell=cell, pbc=pbc)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cells(), st.sampled_from([0.0, 0.4]))
def test_neighbor_lists_agree_with_vesin(atoms, skin):
    """Counts of neighbors (found through the guard's limits) and forces are those of vesin."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    vectors = atoms.positions[matrix.neighbors] - atoms.positions[:, None]
    vectors += matrix.offsets(atoms.cell.array)
    counts = (np.linalg.norm(vectors, axis=2) < 5.0).sum(axis=1)
    backend = BACKENDS["float64"]
    for change, outside in ((0, 0), (1, 2)):
        ranges = np.full((119, 2), -1)
        for number in (1, 6, 8):
            ranges[number] = (0, 10**6)
        # The limits are per element: look at the atom with the most neighbors.
        index = int(counts.argmax())
        ranges[atoms.numbers[index], 1] = counts[atoms.numbers == atoms.numbers[index]].max()
        ranges[atoms.numbers[index], 1] -= change
        backend.set_limits(np.zeros((119, 119)), ranges, np.full(119, np.inf))
        step = compute(backend._steps, atoms, skin)
        assert step.outside == (outside if counts[index] else 0)
        if not counts[index]:
            break
    pairs = matrix.neighbors, matrix.offsets(atoms.cell.array)
    energies, forces, virials = backend.evaluate(atoms.numbers, atoms.positions, *pairs)
    scale = max(1.0, np.abs(forces).max())
    assert_allclose(step.energies, energies, rtol=0, atol=1e-10 * scale)
    assert_allclose(step.forces, forces, rtol=0, atol=1e-10 * scale)
    assert_allclose(step.virials[0], virials.sum(axis=0), rtol=0, atol=1e-9 * scale)


BACKENDS = {}


@pytest.fixture(autouse=True, scope="module")
def backends(engine):
    for dtype in ("float32", "float64"):
        BACKENDS[dtype] = NativeBackend(load_student("tiny"), "tiny", dtype=dtype, threads=1)


def test_lists_follow_the_cell():
    """As in NPT, the list is kept while the cell changes and the atoms move with it."""
    handle, fresh = Handle(content(), False, 1), Handle(content(), False, 1)
    rng = np.random.default_rng(0)
    for name in ("triclinic", "water_box", "outside", "slab", "wire", "crystal"):
        atoms = structure(name)
        compute(handle, atoms, 0.5)
        n_kept = 0
        for _ in range(6):
            strain = np.eye(3) + 0.004 * rng.normal(size=(3, 3))
            atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            atoms.positions += 0.01 * rng.normal(size=(len(atoms), 3))
            step, expected = compute(handle, atoms, 0.5), compute(fresh, atoms)
            n_kept += not step.is_rebuilt
            assert_allclose(step.energies, expected.energies, rtol=0, atol=1e-9)
            assert_allclose(step.forces, expected.forces, rtol=0, atol=1e-9)
            assert_allclose(step.virials, expected.virials, rtol=0, atol=1e-9)
        assert n_kept >= 2


def test_lists_are_rebuilt_when_atoms_have_moved():
    handle, fresh = Handle(content(), False, 1), Handle(content(), False, 1)
    atoms = structure("water_box")
    assert compute(handle, atoms, 0.5).is_rebuilt
    assert not compute(handle, atoms, 0.5).is_rebuilt
    atoms.positions[7] += [0.0, 0.3, 0.0]
    # One atom moved by less than the skin; two of them together move by more than the skin.
    assert not compute(handle, atoms, 0.5).is_rebuilt
    atoms.positions[9] -= [0.0, 0.3, 0.0]
    assert compute(handle, atoms, 0.5).is_rebuilt
    atoms.positions += 1.7
    assert not compute(handle, atoms, 0.5).is_rebuilt
    for change in (
        lambda: atoms.set_pbc([True, True, False]),
        lambda: atoms.numbers.__setitem__(0, 7),
        lambda: atoms.positions.__setitem__(3, atoms.positions[3] + [0, 0, 9.3]),
        lambda: atoms.__delitem__(5),
    ):
        change()
        step = compute(handle, atoms, 0.5)
        assert step.is_rebuilt
        assert_allclose(step.forces, compute(fresh, atoms).forces, rtol=0, atol=1e-9)
    assert compute(handle, atoms, 0.4).is_rebuilt
    assert compute(handle, atoms, 0.0).is_rebuilt
    assert compute(handle, atoms, 0.0).is_rebuilt


def test_order_of_atoms_and_other_structures_change_nothing():
    rng = np.random.default_rng(0)
    handle = Handle(content(), False, 1)
    atoms = rattled("water_box")
    expected = compute(handle, atoms)
    order = rng.permutation(len(atoms))
    permuted = compute(handle, atoms[order])
    assert_allclose(permuted.forces, expected.forces[order], rtol=0, atol=1e-10)
    other_structures = [
        rattled(name) for name in ("aspirin", "atom", "crystal", "slab", "eight_elements")
    ]
    together = BACKENDS["float64"].compute_many(
        *zip(*(arrays(part) for part in [*other_structures, atoms]), strict=True)
    )
    assert_allclose(together.forces[-len(atoms) :], expected.forces, rtol=0, atol=1e-10)
    assert_allclose(together.virials[-1], expected.virials[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", STUDENTS)
def test_a_hundred_thousand_atoms_are_a_small_cell_many_times(name):
    """Every copy of the cell has the results that float64 gives for the cell alone."""
    if name != "ultra-tiny" and os.environ.get("ASE_STUDENT_SLOW") != "1":
        pytest.skip("takes gigabytes: set ASE_STUDENT_SLOW=1")
    unit = rattled("water_box")
    copies = [1, 1, 1]
    while len(unit) * np.prod(copies) < 100_000:
        copies[np.argmin(copies)] += 1
    many = unit.repeat(copies)
    expected = compute(Handle(content(name), False, 1), unit)
    step = compute(Handle(content(name), True, 2), many)
    scale = max(1.0, np.abs(expected.forces).max() / 10.0)
    for values, reference, tolerances in (
        (step.forces, expected.forces, FORCES),
        (step.energies, expected.energies, ENERGIES),
    ):
        differences = values.reshape(-1, *reference.shape) - reference
        assert np.abs(differences).max() < scale * tolerances["float32"]
    assert_allclose(
        step.virials[0] / np.prod(copies),
        expected.virials[0],
        rtol=0,
        atol=scale * VIRIALS["float32"] * len(unit),
    )


def test_neighbor_matrices_given_by_the_caller_are_checked():
    backend = BACKENDS["float64"]
    atoms = structure("aspirin")
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    neighbors, offsets = matrix.neighbors.copy(), matrix.offsets(atoms.cell.array)
    expected = compute(backend._steps, atoms)
    energies, forces, _ = backend.evaluate(atoms.numbers, atoms.positions, neighbors, offsets)
    assert_allclose(energies, expected.energies, rtol=0, atol=1e-10)
    assert_allclose(forces, expected.forces, rtol=0, atol=1e-10)
    row = (~matrix.is_padding)[3].nonzero()[0][0]
    neighbors[3, row], offsets[3, row] = 3, (10.0, 0.0, 0.0)
    with pytest.raises(EngineError, match=r"is a neighbor of atom \d+, but not the other way"):
        backend.evaluate(atoms.numbers, atoms.positions, neighbors, offsets)


# --- phases ------------------------------------------------------------------------------------


def rows_of(atoms, cutoff):
    """Return a list of rows, as the C interface takes it."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, cutoff)
    is_pair = ~matrix.is_padding
    rows = np.concatenate([[0], np.cumsum(is_pair.sum(axis=1))]).astype(np.int64)
    return rows, matrix.neighbors[is_pair], matrix.offsets(atoms.cell.array)[is_pair]


@pytest.mark.parametrize("name", STUDENTS)
def test_parts_of_a_structure_exchange_rows_between_phases(name):
    """Two domains with a halo of one cutoff give the energies and forces of the whole structure."""
    atoms = rattled("water_box")
    atoms.pbc = False
    whole_handle = Handle(content(name), False, 1)
    expected = compute(whole_handle, atoms)
    is_left = atoms.positions[:, 0] < np.median(atoms.positions[:, 0])
    distances = atoms.get_all_distances()
    parts = []
    for is_own in (is_left, ~is_left):
        own = np.flatnonzero(is_own)
        ghosts = np.flatnonzero(~is_own & (distances[:, is_own] < 5.0).any(axis=1))
        indices = np.concatenate([own, ghosts])
        part = atoms[indices]
        rows, neighbors, shifts = rows_of(part, 5.0)
        # Rows of ghosts are empty.
        n_places = rows[len(own)]
        rows[len(own) :] = n_places
        handle = whole_handle.share()
        handle.set_list(
            part.numbers, rows, neighbors[:n_places].copy(), shifts[:n_places].copy(), len(ghosts)
        )
        handle.begin(part.positions)
        parts.append((handle, indices, len(own)))
    place = {
        int(index): (handle, row)
        for handle, indices, n_own in parts
        for row, index in enumerate(indices[:n_own])
    }
    n_exchanged = 0
    for phase in range(whole_handle.n_phases):
        received = [handle.exchanged(phase, len(indices)) for handle, indices, _ in parts]
        by_handle = {id(part[0]): rows for part, rows in zip(parts, received, strict=True)}
        for (_, indices, n_own), target in zip(parts, received, strict=True):
            for row in range(n_own, len(indices)) if target is not None else ():
                handle, source = place[int(indices[row])]
                target[row] = by_handle[id(handle)][source]
                n_exchanged += 1
        for handle, _, _ in parts:
            handle.phase(phase)
    assert n_exchanged
    energies, forces = np.zeros(len(atoms)), np.zeros((len(atoms), 3))
    virial = np.zeros((3, 3))
    for handle, indices, n_own in parts:
        part_energies, part_forces, part_virials = handle.finish(len(indices))
        energies[indices[:n_own]] = part_energies[:n_own]
        np.add.at(forces, indices, part_forces)
        virial += part_virials.sum(axis=0)
    assert_allclose(energies, expected.energies, rtol=0, atol=1e-10)
    assert_allclose(forces, expected.forces, rtol=0, atol=1e-10)
    assert_allclose(virial, expected.virials[0], rtol=0, atol=1e-9)


def test_phases_run_in_order():
    handle = Handle(content(), True, 1)
    with pytest.raises(EngineError, match="no list was set"):
        handle.begin(np.zeros((1, 3)))
    atoms = structure("aspirin")
    handle.set_list(atoms.numbers, *rows_of(atoms, 5.0))
    with pytest.raises(EngineError, match="phases must run in order, after begin"):
        handle.phase(0)
    handle.begin(atoms.positions)
    with pytest.raises(EngineError, match="in order"):
        handle.phase(1)
    handle.phase(0)
    with pytest.raises(EngineError, match="not all phases have run"):
        handle.finish(len(atoms))
    energies, _, _ = handle.evaluate(atoms.positions)
    assert_allclose(energies, compute(handle, atoms).energies, rtol=0, atol=1e-5)


# --- threads and processes ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["thousand_atoms", "molecules"])
def test_any_number_of_threads_gives_the_same_bits(name):
    atoms = _apart(40) if name == "molecules" else rattled(name)
    expected = compute(Handle(content(), True, 1), atoms, 0.5)
    for threads in (2, 3, 8):
        handle = Handle(content(), True, threads)
        for _ in range(3):
            step = compute(handle, atoms, 0.5)
            assert_array_equal(step.energies, expected.energies)
            assert_array_equal(step.forces, expected.forces)
            assert_array_equal(step.virials, expected.virials)


def _apart(n_molecules):
    """Return molecules that do not interact."""
    parts = [structure("aspirin") for _ in range(n_molecules)]
    for index, part in enumerate(parts):
        part.positions += [20.0 * (index % 5), 20.0 * (index // 5), 0.0]
    return Atoms(
        np.concatenate([part.numbers for part in parts]),
        np.concatenate([part.positions for part in parts]),
    )


def _energy_in_child(queue, calc, atoms):
    calc.calculate(atoms)
    queue.put(calc.results["energy"])


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="processes cannot be forked here"
)
def test_forked_processes_have_threads_of_their_own():
    calc = StudentCalculator("tiny", "native", threads=2, guard="off")
    atoms = rattled("thousand_atoms")
    calc.calculate(atoms)
    energy = calc.results["energy"]
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        children = [
            context.Process(target=_energy_in_child, args=(queue, calc, atoms)) for _ in range(2)
        ]
        for child in children:
            child.start()
    energies = [queue.get(timeout=120) for _ in children]
    for child in children:
        child.join(timeout=60)
        assert child.exitcode == 0
    assert energies == [energy] * 2
    calc.calculate(atoms)
    assert calc.results["energy"] == energy


def test_threads_may_share_a_calculator():
    calc = StudentCalculator("tiny", "native", threads=1, guard="off")
    atoms = [rattled("water_box", seed=seed) for seed in range(4)]
    expected = [calc.calculate_many([part])[0]["energy"] for part in atoms]
    energies = [0.0] * len(atoms)

    def work(index):
        for _ in range(5):
            energies[index] = calc.calculate_many([atoms[index]])[0]["energy"]

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(atoms))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert energies == expected


def test_threads_follow_the_environment(monkeypatch):
    from ase_student.engine import library

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(6)), raising=False)
    for text, expected in (("", 6), ("4", 4), ("2,1", 2), ("99", 6), ("0", 6), ("x", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert library.default_threads() == expected


# --- many structures ---------------------------------------------------------------------------


def test_many_structures_take_bounded_calls(monkeypatch):
    monkeypatch.setattr("ase_student.whole_steps.ATOMS_PER_CALL", 100)
    assert ATOMS_PER_CALL >= 10_000
    calc = StudentCalculator("tiny", "native", guard="off", threads=1)
    sizes = []
    compute_many = calc._backend.compute_many

    def measured(numbers, *rest):
        sizes.append(sum(map(len, numbers)))
        return compute_many(numbers, *rest)

    monkeypatch.setattr(calc._backend, "compute_many", measured)
    names = ["aspirin", "triclinic", "water_box", "atom", "aspirin"] * 4
    computed = calc.calculate_many([structure(name) for name in names])
    assert 80 < max(sizes) <= 100
    assert sum(sizes) == sum(len(structure(name)) for name in names)
    for name, results in zip(names, computed, strict=True):
        calc.calculate(structure(name))
        assert_allclose(results["forces"], calc.results["forces"], rtol=0, atol=2e-6)
    assert calc.calculate_many([]) == []


def test_the_invalid_structure_is_named():
    calc = StudentCalculator("tiny", "native", guard="off", threads=1)
    valid, invalid = structure("aspirin"), structure("aspirin")
    invalid.positions[3] = np.nan
    with pytest.raises(InputError, match="structure 2: positions must be finite"):
        calc.calculate_many([valid, valid, invalid])
    invalid.positions[3] = invalid.positions[4]
    with pytest.raises(InputError, match="structure 1: atoms 3 and 4 are on one spot"):
        calc.calculate_many([valid, invalid])
    with pytest.raises(InputError, match="structure 1: student 'tiny' knows"):
        calc.calculate_many([valid, Atoms("Xe")])
    flat = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]], cell=[5, 5, 0], pbc=True)
    with pytest.raises(InputError, match="structure 0: axis 2 is periodic but its cell vector"):
        calc.calculate_many([flat, valid])


# --- the guard ---------------------------------------------------------------------------------


def messages(backend, frames, **arguments):
    """Return the guard's warnings, or the error, of each frame."""
    calc = StudentCalculator("tiny", backend, "cpu", threads=1, **arguments)
    of_frames = []
    for atoms in frames:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                calc.calculate(atoms)
            except (OutsideTrainingError, InputError) as error:
                of_frames.append([type(error).__name__ + str(error)])
                continue
        of_frames.append([str(w.message) for w in caught if w.category is OutsideTrainingWarning])
    return of_frames


@pytest.mark.parametrize("guard", ["warn", "raise"])
def test_the_guard_warns_as_with_other_backends(guard):
    def stretched(factor):
        atoms = structure("aspirin")
        atoms.positions *= factor
        return atoms

    frames = [structure("aspirin"), stretched(1.0), stretched(0.8), stretched(0.6), stretched(1.3)]
    frames += [structure("atom"), structure("crystal"), structure("water_box"), stretched(0.5)]
    expected = messages("onnx", frames, guard=guard)
    assert any(expected)
    assert messages("native", frames, guard=guard) == expected


def test_the_guard_names_the_structure():
    calc = StudentCalculator("tiny", "native", "cpu", guard="raise")
    squeezed = structure("aspirin")
    squeezed.positions *= 0.7
    with pytest.raises(OutsideTrainingError, match="structure 1: outside of what student 'tiny'"):
        calc.calculate_many([structure("aspirin"), squeezed])


# --- bad input ---------------------------------------------------------------------------------


def test_bad_arguments_are_refused(monkeypatch):
    for device in ("cuda", "cuda:0", "tpu"):
        with pytest.raises(ValueError, match=f"'native' runs on the CPU; given device '{device}'"):
            open_backend("tiny", "native", device)
    with pytest.raises(EngineError, match="this processor cannot run 'z80'"):
        Handle(content(), True, 1, "z80")
    monkeypatch.setenv("ASE_STUDENT_ENGINE_ISA", "z80")
    with pytest.raises(ValueError, match="student 'tiny': this processor cannot run 'z80'"):
        StudentCalculator("tiny", "native")
    # 'auto' may take another backend where the engine cannot run, but not after a user's mistake.
    with pytest.raises(ValueError, match="this processor cannot run 'z80'"):
        StudentCalculator("tiny")
    monkeypatch.setenv("ASE_STUDENT_ENGINE_ISA", isas()[-1])
    assert open_backend("tiny", "native").isa == isas()[-1]
    monkeypatch.delenv("ASE_STUDENT_ENGINE_ISA")
    with pytest.raises(ValueError, match="the skin is -1"):
        StudentCalculator("tiny", "native", skin=-1.0)


def test_bad_structures_leave_the_handle_usable():
    handle = Handle(content(), True, 1)
    atoms = structure("water_box")
    expected = compute(handle, atoms, 0.5).forces
    invalid_structures = []
    for change in ("nan", "far", "spot", "element", "cell", "flat"):
        invalid = atoms.copy()
        if change == "nan":
            invalid.positions[5, 1] = np.nan
        elif change == "far":
            invalid.positions[5, 1] = 1e9
        elif change == "spot":
            invalid.positions[5] = invalid.positions[6]
        elif change == "element":
            invalid.numbers[3] = 54
        elif change == "cell":
            invalid.cell[1, 1] = np.inf
        else:
            invalid.set_cell([9.0, 9.0, 0.01])
        invalid_structures.append(invalid)
    for invalid in invalid_structures:
        with pytest.raises(EngineError) as caught:
            compute(handle, invalid, 0.5)
        assert caught.value.status == INVALID
        assert_array_equal(compute(handle, atoms, 0.5).forces, expected)


def test_results_that_are_not_finite_are_refused_and_not_kept():
    handle = Handle(content(), True, 1)
    pair = Atoms("HH", [[0, 0, 0], [0, 0, 0.7]])
    expected = compute(handle, pair, 3.0).forces
    close = Atoms("HH", [[0, 0, 0], [0, 0, 0.0]])
    with pytest.raises(EngineError, match="not finite: atoms are on one spot or far too close"):
        compute(handle, close, 3.0)
    assert_array_equal(compute(handle, pair, 3.0).forces, expected)


def test_first_generation_students_are_refused():
    legacy = dataclasses.replace(load_student("tiny"), architecture=_Legacy())
    with pytest.raises(ValueError, match="'old' is of the first generation"):
        NativeBackend(legacy, "old")


class _Legacy:
    family = "legacy"


def test_students_too_narrow_for_the_tables_are_refused():
    student = load_student("tiny")
    tensors = dict(student.tensors)
    tensors["basis.inverse_widths"] = tensors["basis.inverse_widths"] * 200.0
    narrow = dataclasses.replace(student, tensors=tensors)
    with pytest.raises(
        EngineError, match="'narrow': the radial functions are too narrow"
    ) as caught:
        NativeBackend(narrow, "narrow")
    assert caught.value.status == UNSUPPORTED
    for dtype, limit in (("float32", 2e-5), ("float64", 1e-10)):
        assert 0.0 < BACKENDS[dtype]._steps.table_error < limit


def test_auto_takes_another_backend_where_the_engine_cannot_run(tmp_path):
    pytest.importorskip("torch")
    student = load_student("tiny")
    tensors = dict(student.tensors)
    tensors["basis.inverse_widths"] = tensors["basis.inverse_widths"] * 200.0
    path = tmp_path / "narrow.safetensors"
    save_student(dataclasses.replace(student, tensors=tensors), path)
    assert open_backend(path, device="cpu").backend == "torchscript"


# --- damaged files -----------------------------------------------------------------------------


def damaged(change):
    """Return the bytes of a student after a change of its header, document or tensors."""
    student = load_student("ultra-tiny")
    document, tensors = student.header(), dict(student.tensors)
    change(document, tensors)
    return save(tensors, metadata={"ase_student": json.dumps(document)})


def _set(path, value):
    def change(document, tensors):
        *parents, last = path
        for parent in parents:
            document = document[parent]
        document[last] = value

    return change


def _drop(name):
    return lambda document, tensors: tensors.pop(name)


def _replace(name, make):
    return lambda document, tensors: tensors.__setitem__(name, make(tensors[name]))


DAMAGES = {
    "version": (_set(["format_version"], 2), "another format version"),
    "family": (_set(["family"], "schnet"), "unknown family of networks 'schnet'"),
    "features": (_set(["architecture", "features"], 34), "has shape .* expected"),
    "odd": (_set(["architecture", "features"], 33), "features must be even"),
    "huge": (_set(["architecture", "features"], 10**9), "features is too large"),
    "negative": (_set(["architecture", "hidden"], -1), "hidden is not a whole number"),
    "none": (_set(["architecture", "blocks"], 0), "blocks must be at least 1"),
    "blocks": (_set(["architecture", "blocks"], 3), "gates.second.weight' has shape"),
    "text": (_set(["architecture", "n_rbf"], "ten"), "n_rbf is not a whole number"),
    "cutoff": (_set(["architecture", "cutoff"], 0.0), "the cutoff must be positive"),
    "inner": (_set(["architecture", "inner_cutoff"], 1.0), "inner_cutoff must be 0 to 1"),
    "elements": (_set(["architecture", "elements"], [6, 1]), "ascending and unique"),
    "no elements": (_set(["architecture", "elements"], []), "knows no element"),
    "reference": (_set(["reference_energies"], {}), "no reference energy for H"),
    "nan": (_set(["reference_energies", "H"], float("nan")), "energy of H is not finite"),
    "unknown": (_set(["architecture", "attention"], 4), "unknown part of an architecture"),
    "missing": (_drop("readout.second.bias"), "lacks tensor 'readout.second.bias'"),
    "extra": (lambda d, t: t.update(more=np.zeros(3, np.float32)), "has tensor 'more', which"),
    "integers": (_replace("readout.second.bias", lambda t: t.astype(np.int32)), "is of I32"),
    "not finite": (_replace("readout.second.bias", lambda t: t * np.inf), "not finite"),
    "shape": (_replace("first.embedding", lambda t: t[:, :-1].copy()), "has shape"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_students_are_refused(name):
    change, message = DAMAGES[name]
    with pytest.raises(EngineError, match=message) as caught:
        Handle(damaged(change), True, 1)
    assert caught.value.status in (FILE, UNSUPPORTED)


def test_files_of_other_precisions_are_read():
    expected = compute(Handle(content("ultra-tiny"), False, 1), structure("aspirin"))
    for kind, tolerance in ((np.float64, 1e-12), (np.float16, 0.5)):
        data = damaged(
            lambda document, tensors, kind=kind: tensors.update(
                {name: tensor.astype(kind) for name, tensor in tensors.items()}
            )
        )
        computed = compute(Handle(data, False, 1), structure("aspirin"))
        assert force_difference(computed.forces, expected.forces) < tolerance


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.data())
def test_any_bytes_are_read_or_refused(data):
    """No change of a file crashes the process."""
    bytes_ = bytearray(damaged(lambda document, tensors: None))
    header = 8 + int.from_bytes(bytes_[:8], "little")
    kind = data.draw(st.sampled_from(["flip", "cut", "noise", "length", "splice"]))
    if kind == "cut":
        del bytes_[data.draw(st.integers(0, header + 100)) :]
    elif kind == "noise":
        bytes_ = bytearray(data.draw(st.binary(max_size=300)))
    elif kind == "length":
        bytes_[:8] = data.draw(st.binary(min_size=8, max_size=8))
    else:
        for _ in range(data.draw(st.integers(1, 6))):
            place = data.draw(st.integers(0, header - 1))
            if kind == "flip":
                bytes_[place] = data.draw(st.integers(0, 255))
            else:
                bytes_[place : place + 3] = data.draw(st.sampled_from([b"", b"[[[", b'"', b"9e9"]))
    handle, error = None, None
    try:
        handle = Handle(bytes(bytes_), True, 1)
        compute(handle, structure("water_dimer"))
    except EngineError as caught:
        error = caught
    assert error is None or handle is not None or error.status in (FILE, UNSUPPORTED)
