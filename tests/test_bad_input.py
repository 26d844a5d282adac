import numpy as np
import onnxruntime
import pytest
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_student import StudentCalculator
from ase_student.testing import structure


@pytest.fixture
def calc():
    return StudentCalculator("tiny", device="cpu")


def assert_one_sentence(caught):
    text = str(caught.value)
    assert "\n" not in text
    assert 10 < len(text) < 300


# --- structures --------------------------------------------------------------------------------


def not_a_number(atoms):
    atoms.positions[4, 2] = np.nan


def infinite(atoms):
    atoms.positions[[1, 4]] = -np.inf


def on_one_spot(atoms):
    atoms.positions[4] = atoms.positions[2]


def on_the_spot_of_an_image(atoms):
    atoms.positions[4] = atoms.positions[2] + atoms.cell.array[1] - atoms.cell.array[0]


def zero_vector(atoms):
    atoms.cell[1] = 0.0


def flat_cell(atoms):
    atoms.cell[1] = 2.0 * atoms.cell[0]


def infinite_cell(atoms):
    atoms.cell[0, 0] = np.inf


def foreign(atoms):
    atoms.symbols[[1, 3, 4]] = ["Si", "Ho", "Si"]


def made_up(atoms):
    atoms.numbers[2] = 200


def placeholder(atoms):
    atoms.symbols[2] = "X"


def no_atoms(atoms):
    del atoms[:]


KNOWN = "student 'tiny' knows H, C, N, O, F, P, S, Cl; this structure also has"
BAD_STRUCTURES = {
    not_a_number: "positions must be finite and below 1e\\+08 Å; those of atom 4 are not",
    infinite: "positions must be finite and below 1e\\+08 Å; those of atoms 1, 4 are not",
    on_one_spot: "atoms 2 and 4 are on one spot",
    on_the_spot_of_an_image: "atoms 2 and 4 are on one spot",
    zero_vector: "axis 1 is periodic but its cell vector is zero; give it a vector, or set pbc",
    flat_cell: "the cell vectors of the periodic axes are linearly dependent",
    infinite_cell: "the cell has components that are NaN or infinite",
    foreign: KNOWN + r" Si \(atoms 1, 4\); Ho \(atom 3\)",
    made_up: KNOWN + r" atomic number 200 \(atom 2\)",
    placeholder: KNOWN + r" X \(atom 2\)",
    no_atoms: "the structure has no atoms",
}


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning:ase")
@pytest.mark.parametrize("had_a_valid_structure", [False, True])
@pytest.mark.parametrize("make", BAD_STRUCTURES)
def test_invalid_structures_are_refused(calc, make, had_a_valid_structure):
    atoms = structure("triclinic")
    atoms.calc = calc
    if had_a_valid_structure:
        atoms.get_forces()
    make(atoms)
    for method in (atoms.get_potential_energy, atoms.get_forces, atoms.get_potential_energy):
        with pytest.raises(InputError, match="^" + BAD_STRUCTURES[make]) as caught:
            method()
        assert_one_sentence(caught)
        assert calc.results == {}
    # The calculator is usable afterwards.
    valid = structure("triclinic")
    valid.calc = calc
    expected = calc.calculate_many([valid])[0]["energy"]
    assert valid.get_potential_energy() == pytest.approx(expected, rel=0, abs=1e-5)


def test_many_foreign_atoms_give_a_short_message(calc):
    atoms = Atoms("Si1000", positions=3.0 * np.arange(3000).reshape(1000, 3))
    with pytest.raises(InputError, match=r"Si \(atoms 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …\)") as caught:
        calc.calculate(atoms)
    assert_one_sentence(caught)


@pytest.mark.parametrize("distance", [0.0, 1e-300])
def test_atoms_that_meet_within_the_skin_are_refused(distance):
    calc = StudentCalculator("tiny", device="cpu", skin=3.0, guard="off")
    atoms = Atoms("HH", [[0.0, 0.0, 0.0], [0.0, 0.0, 0.7]], calculator=calc)
    atoms.get_forces()
    atoms.positions[1, 2] = distance
    with pytest.raises(InputError, match="atoms are on one spot or far too close"):
        atoms.get_forces()
    assert calc.results == {}
    assert calc.neighbor_list.n_rebuilds == 1


@pytest.mark.parametrize("far", [1e8, 1e15])
@pytest.mark.parametrize("name", ["aspirin", "triclinic"])
@pytest.mark.parametrize("backend", ["native", "onnx"])
def test_a_structure_moved_too_far_is_refused_while_its_list_is_kept(
    calculators, backend, name, far
):
    calculator = calculators(backend)
    atoms = structure(name)
    energy = calculator.get_potential_energy(atoms)
    moved = atoms.copy()
    moved.positions += 1e6
    assert calculator.get_potential_energy(moved) == pytest.approx(energy, abs=1e-4)
    moved.positions += far
    with pytest.raises(InputError, match="positions must be finite and below 1e"):
        calculator.get_potential_energy(moved)
    assert calculator.results == {}


def test_calculate_needs_a_structure(calc):
    with pytest.raises(InputError, match="no structure was given; pass atoms"):
        calc.calculate()


# --- arguments ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "tiney"}, "no student named 'tiney'; available: .*'tiny'.* give its path"),
        ({"backend": "jax"}, "unknown backend 'jax'; available: 'auto', 'native', 'onnx'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'; available: 'float32', 'float64'"),
        ({"device": "gpu"}, "unknown device 'gpu'; available: 'auto', 'cpu', 'cuda', 'cuda:N'"),
        ({"device": "cpu:1"}, "unknown device 'cpu:1'"),
        ({"device": "cuda:x"}, "unknown device 'cuda:x'"),
        ({"threads": 0}, "threads must be a whole number of at least 1; given 0"),
        ({"threads": 1.5}, "threads must be a whole number of at least 1; given 1.5"),
        ({"skin": -0.1}, "the skin is -0.1 Å; it must be zero or positive"),
        ({"skin": float("nan")}, "the skin is nan Å"),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["onnx", "torch"])
def test_invalid_arguments_are_refused(arguments, message, backend):
    if backend != "onnx":
        pytest.importorskip("torch")
    with pytest.raises(ValueError, match="^" + message) as caught:
        StudentCalculator(**{"backend": backend, **arguments})
    assert_one_sentence(caught)


def test_cuda_without_cuda_is_refused_by_onnx(monkeypatch):
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    message = "device 'cuda:1' was asked for, but this onnxruntime has no CUDA: pip install"
    with pytest.raises(ValueError, match=message):
        StudentCalculator(backend="onnx", device="cuda:1")


def test_cuda_that_does_not_start_is_not_reported_as_cuda(monkeypatch):
    # Like onnxruntime-gpu without its libraries: it lists CUDA, and runs on the CPU.
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(
        "onnxruntime.get_available_providers",
        lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
    )
    monkeypatch.setattr(
        "onnxruntime.InferenceSession",
        lambda content, options, providers: session(content, options, ["CPUExecutionProvider"]),
    )
    assert StudentCalculator(backend="onnx").device == "cpu"
    with pytest.raises(ValueError, match="device 'cuda:1' was asked for, but ONNX Runtime cannot"):
        StudentCalculator(backend="onnx", device="cuda:1")


@pytest.mark.parametrize("backend", ["torchscript", "torch"])
def test_cuda_without_cuda_is_refused_by_torch(backend):
    torch = pytest.importorskip("torch")
    # The first index for which there is no device.
    device = f"cuda:{torch.cuda.device_count()}"
    message = rf"device '{device}' was asked for, but torch sees \d+ CUDA devices; use device='cpu'"
    with pytest.raises(ValueError, match=message):
        StudentCalculator(backend=backend, device=device)
