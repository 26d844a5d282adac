import dataclasses

import numpy as np
import pytest
from ase import Atoms

torch = pytest.importorskip("torch")

from ase_student.checkpoint import load_student  # noqa: E402
from ase_student.neighbors import neighbor_matrix  # noqa: E402
from ase_student.networks import build_network, build_potential  # noqa: E402
from ase_student.networks.blocks import SecondMoments  # noqa: E402
from ase_student.networks.geometry import (  # noqa: E402
    RadialBasis,
    contracted,
    envelope,
    envelope_between,
    quadrics,
)
from ase_student.networks.painn import PaiNN  # noqa: E402
from ase_student.networks.repulsion import Repulsion  # noqa: E402
from ase_student.student import Architecture, Student  # noqa: E402
from ase_student.testing import STRUCTURES, TOLERANCES, structure  # noqa: E402

ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
REFERENCES = {number: -165.0 - 0.1234567891 * number for number in ELEMENTS}
BUDGETS = {"original": 427_292, "tiny": 77_203, "ultra-tiny": 21_459}

SHAPES = {
    "default": Architecture(ELEMENTS),
    "one_block": Architecture(ELEMENTS, features=8, blocks=1, hidden=5, n_rbf=3),
    "odd_widths": Architecture(
        ELEMENTS, features=10, blocks=2, hidden=7, n_rbf=5, element_channels=3, message_channels=9
    ),
    "three_blocks": Architecture(
        ELEMENTS, features=6, blocks=3, hidden=11, n_rbf=4, element_channels=5, message_channels=13
    ),
    "tensors": Architecture(
        ELEMENTS, features=8, blocks=2, hidden=9, n_rbf=5, element_channels=6, tensor_channels=7
    ),
    "only_tensors": Architecture(ELEMENTS, features=4, blocks=1, hidden=3, tensor_channels=1),
    "single_channels": Architecture(
        ELEMENTS, features=2, blocks=3, hidden=1, n_rbf=1, element_channels=1, message_channels=1
    ),
}


def random_student(shape):
    """Return an untrained student with larger biases than at the start of a training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = PaiNN(shape, REFERENCES)
        tensors = {
            name: (tensor + 0.3 * torch.randn_like(tensor) * name.endswith("bias")).numpy()
            for name, tensor in network.state_dict().items()
        }
    return Student(shape, tensors, REFERENCES)


STUDENTS = {name: random_student(shape) for name, shape in SHAPES.items()}


def network_inputs(atoms, skin=0.7):
    """Return the four inputs of a potential, with pairs beyond the cutoff and padding."""
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0, skin)
    own = np.arange(len(atoms))[:, None]
    beyond = np.tile([10.0, 0.0, 0.0], (len(atoms), 1, 1))
    neighbors = np.concatenate([matrix.neighbors, own], axis=1)
    offsets = np.concatenate([matrix.offsets(atoms.cell.array), beyond], axis=1)
    arrays = (atoms.numbers.astype(np.int64), atoms.positions, neighbors, offsets)
    return tuple(torch.from_numpy(array) for array in arrays)


def by_autograd(network, inputs):
    """Return energies, forces and the total virial of a network by differentiating it."""
    numbers, positions, neighbors, offsets = inputs
    positions = positions.clone().requires_grad_()
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    deformation = torch.eye(3, dtype=torch.float64) + strain
    energies = network(numbers, positions @ deformation, neighbors, offsets @ deformation)
    by_positions, virial = torch.autograd.grad(energies.sum(), [positions, strain])
    return energies.detach(), -by_positions, virial


def assert_close(computed, expected, tolerance):
    np.testing.assert_allclose(computed.numpy(), expected.numpy(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("shape", SHAPES)
def test_derivatives_by_hand_are_those_of_autograd(shape, name):
    atoms = structure(name)
    atoms.positions += np.random.default_rng(0).normal(scale=0.06, size=(len(atoms), 3))
    inputs = network_inputs(atoms)
    energies, forces, virials = build_potential(STUDENTS[shape], torch.float64)(*inputs)
    expected = by_autograd(build_network(STUDENTS[shape], torch.float64), inputs)
    assert_close(energies, expected[0], TOLERANCES.autograd_virial)
    assert_close(forces, expected[1], TOLERANCES.autograd_forces)
    # A virial is symmetric, because the energy does not change in a rotation.
    assert_close(virials.sum(0), expected[2], TOLERANCES.autograd_virial)
    assert_close(expected[2], expected[2].T, TOLERANCES.autograd_virial)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_students_have_forces_of_ordinary_size(shape):
    # Otherwise the comparison with autograd would be no test.
    _, forces, _ = build_potential(STUDENTS[shape], torch.float64)(
        *network_inputs(structure("aspirin"))
    )
    assert 0.05 < forces.abs().max() < 500.0


@pytest.mark.parametrize("student", [*STUDENTS.values(), load_student("tiny")])
def test_every_tensor_changes_the_energies(student):
    inputs = network_inputs(structure("eight_elements"))
    reference = build_potential(student, torch.float64)(*inputs)
    rng = np.random.default_rng(1)
    for name, tensor in student.tensors.items():
        noise = rng.normal(scale=0.1, size=tensor.shape).astype(np.float32)
        changed = dataclasses.replace(student, tensors={**student.tensors, name: tensor + noise})
        results = build_potential(changed, torch.float64)(*inputs)
        assert (results[0] - reference[0]).abs().max() > 1e-9, name


def test_padding_contributes_nothing():
    potential = build_potential(STUDENTS["default"], torch.float64)
    inputs = network_inputs(structure("far_pair"))
    energies, forces, virials = potential(*inputs)
    alone = [potential(*network_inputs(structure("far_pair")[[index]]))[0] for index in (0, 1)]
    assert_close(energies, torch.cat(alone), 0.0)
    assert not forces.any()
    assert not virials.any()


@pytest.mark.parametrize("build", [build_network, build_potential])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_reference_energies_stay_in_float64(build, dtype):
    module = build(STUDENTS["default"], dtype)
    network = module if build is build_network else module.network
    expected = torch.tensor([REFERENCES[number] for number in ELEMENTS], dtype=torch.float64)
    for change in (lambda m: m, lambda m: m.to(torch.float32), lambda m: m.float().double()):
        change(module)
        assert network.reference.dtype == torch.float64
        assert torch.equal(network.reference[list(ELEMENTS)], expected)
    # Not 165 eV in float32, which has steps of 1.5e-5 eV.
    module.to(torch.float32)
    energies = module(*network_inputs(structure("atom")))
    energies = energies if build is build_network else energies[0]
    assert energies.dtype == torch.float64
    network_part = float((energies - REFERENCES[8]).detach())
    assert network_part == pytest.approx(float(np.float32(network_part)), rel=0, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_types_and_shapes_of_the_outputs(dtype):
    potential = build_potential(STUDENTS["one_block"], dtype)
    outputs = potential(*network_inputs(structure("wire")))
    assert [tuple(output.shape) for output in outputs] == [(4,), (4, 3), (4, 3, 3)]
    assert [output.dtype for output in outputs] == [torch.float64, dtype, dtype]
    assert not any(output.requires_grad for output in outputs)


def test_float32_and_float64_have_the_same_constants():
    inputs = network_inputs(structure("triclinic"))
    single = build_potential(STUDENTS["default"], torch.float32)
    double = build_potential(STUDENTS["default"], torch.float64)
    for name, buffer in single.named_buffers():
        assert torch.equal(buffer.double(), double.get_buffer(name).double()), name
    assert_close(single.double()(*inputs)[1], double(*inputs)[1], 0.0)


def test_default_dtype_of_the_process_changes_nothing():
    # Two close atoms, so that the repulsion, whose constants are not parameters, counts.
    inputs = network_inputs(Atoms("OH", [[0.0, 0.0, 0.0], [0.5, 0.6, 0.0]]))
    expected = build_potential(STUDENTS["default"], torch.float64)(*inputs)
    torch.set_default_dtype(torch.float64)
    try:
        results = build_potential(STUDENTS["default"], torch.float64)(*inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_close(results[0], expected[0], 0.0)
    assert_close(results[1], expected[1], 0.0)


@pytest.mark.parametrize("name", BUDGETS)
def test_students_have_at_most_their_documented_numbers_of_parameters(name):
    train = pytest.importorskip("ase_student.distill.commands.train")
    assert train.SHAPES.keys() == BUDGETS.keys()
    shape = Architecture(ELEMENTS, **train.SHAPES[name])
    student = random_student(shape)
    assert student.n_parameters <= BUDGETS[name]
    n_parameters = sum(p.numel() for p in PaiNN(shape, REFERENCES).parameters())
    assert student.n_parameters == n_parameters


@pytest.mark.parametrize("build", [build_network, build_potential])
def test_tensors_must_be_those_of_the_architecture(build):
    student = STUDENTS["default"]
    name = "updates.0.mixes.weight"
    without = {key: value for key, value in student.tensors.items() if key != name}
    tensors_by_message = {
        rf"lacks tensor '{name}' of shape \(128, 64\)": without,
        "has tensor 'updates.7.bias', which its architecture lacks": {
            **student.tensors,
            "updates.7.bias": np.zeros(3, np.float32),
        },
        rf"tensor '{name}' has shape \(64, 64\); expected \(128, 64\)": {
            **student.tensors,
            name: np.zeros((64, 64), np.float32),
        },
    }
    for message, tensors in tensors_by_message.items():
        with pytest.raises(ValueError, match=message):
            build(dataclasses.replace(student, tensors=tensors))


def test_second_moments_are_symmetric_traceless_matrices():
    rng = np.random.default_rng(0)
    first, second, third = torch.from_numpy(rng.normal(size=(3, 4, 3, 1)))
    square = quadrics(first, first)
    dual = SecondMoments._matrices(square)
    # The traceless matrix a aᵀ − |a|²/3 of a vector, up to a factor that depends on its length.
    squared = first.square().sum(1)
    assert_close((dual * square).sum(1), 4.0 * squared**2, 1e-12)
    matrix = first * first.transpose(1, 2) - squared.unsqueeze(2) * torch.eye(3) / 3.0
    assert_close(contracted(dual, second), 6.0 * matrix @ second, 1e-12)
    # The tensor times a vector is the derivative of the product with the quadrics of two vectors.
    by_hand = (contracted(square, second) * third).sum((1, 2))
    assert_close(by_hand, (square * quadrics(second, third)).sum((1, 2)), 1e-12)


def finite_difference(function, distances):
    return (function(distances + 1e-5) - function(distances - 1e-5)) / 2e-5


@pytest.mark.parametrize("part", ["envelope", "envelope_between", "basis", "basis_between"])
def test_slopes_are_derivatives_of_the_values(part):
    basis = RadialBasis(7, 5.0).double()
    nearest = torch.tensor([[[1.1]]], dtype=torch.float64)
    function = {
        "envelope": lambda d: envelope(d, basis.cutoff),
        "envelope_between": lambda d: envelope_between(d, nearest, basis.cutoff),
        "basis": basis,
        "basis_between": lambda d: basis(d, nearest),
    }[part]
    distances = torch.linspace(0.3, 5.5, 400, dtype=torch.float64).reshape(1, 1, -1)
    with torch.no_grad():
        values, slopes = function(distances)
        expected = finite_difference(lambda d: function(d)[0], distances)
    # The third derivative jumps at the cutoffs.
    is_between = part.endswith("between")
    assert_close(slopes, expected, 1e-6 if is_between else 1e-8)
    beyond = distances[0, 0] >= 5.0
    if is_between:
        beyond |= distances[0, 0] <= 1.1
    assert not values[..., beyond].any()
    assert not slopes[..., beyond].any()


def test_envelopes_agree_beyond_1_2_times_the_nearest_distance():
    cutoff, nearest = torch.tensor([5.0]), torch.tensor([[[1.0]]])
    distances = torch.linspace(1.2, 5.5, 100).reshape(1, 1, -1)
    for computed, expected in zip(
        envelope_between(distances, nearest, cutoff), envelope(distances, cutoff), strict=True
    ):
        assert_close(computed, expected, 1e-6)


def close_pairs():
    """Return atoms in pairs that are 0.45 to 0.65 times the sum of their radii apart."""
    atoms = Atoms()
    for i, fraction in enumerate(np.linspace(0.45, 0.65, 21)):
        pair = Atoms("SN", [[0.0, 0.0, 0.0], np.array([0.6, 0.8, 0.0]) * fraction * 1.76])
        pair.positions += [3.5 * (i % 5), 3.5 * (i // 5), 0.0]
        atoms += pair
    return atoms


def test_derivatives_by_hand_are_those_of_autograd_around_the_inner_cutoff():
    student = random_student(dataclasses.replace(SHAPES["three_blocks"], inner_cutoff=0.5))
    inputs = network_inputs(close_pairs())
    energies, forces, virials = build_potential(student, torch.float64)(*inputs)
    expected = by_autograd(build_network(student, torch.float64), inputs)
    assert_close(energies, expected[0], 0.0)
    np.testing.assert_allclose(forces, expected[1], rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(virials.sum(0), expected[2], rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("inner_cutoff", [0.0, 0.5])
def test_below_the_inner_cutoff_only_the_repulsion_acts(inner_cutoff):
    student = random_student(dataclasses.replace(SHAPES["default"], inner_cutoff=inner_cutoff))
    network = build_network(student, torch.float64)

    def energy(atoms):
        return float(network(*network_inputs(atoms)).detach().sum())

    pair = Atoms("SN", [[0.0, 0.0, 0.0], [0.49 * 1.76, 0.0, 0.0]])
    rows, other_rows = network.repulsion.pair_rows(torch.tensor([6, 2]), torch.tensor([[1], [0]]))
    distances = torch.full((2, 1, 1), 0.49 * 1.76, dtype=torch.float64)
    repulsion = float(network.repulsion(rows, other_rows, distances)[0][0])
    energy_of_network = energy(pair) - energy(pair[:1]) - energy(pair[1:]) - repulsion
    assert (abs(energy_of_network) < 1e-9) == (inner_cutoff > 0)


@pytest.mark.parametrize("index", range(len(ELEMENTS)))
def test_repulsion_falls_with_distance_and_vanishes(index):
    repulsion = Repulsion(ELEMENTS).double()
    distances = torch.linspace(0.05, 3.0, 60, dtype=torch.float64).reshape(1, 1, -1)
    rows = repulsion.pair_rows(torch.tensor([index]), torch.zeros((1, 60), dtype=torch.int64))
    energies, slopes = repulsion(*rows, distances)
    expected = finite_difference(lambda d: repulsion(*rows, d)[0], distances)
    np.testing.assert_allclose(slopes, expected, rtol=1e-6, atol=1e-6)
    assert (energies.diff() <= 0).all()
    assert energies[..., 0] > 20.0
    assert energies[..., -1] == 0.0
