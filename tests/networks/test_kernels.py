"""Compiled networks: the same network on pairs, trained by displacing structures."""

import copy
import dataclasses
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip("h5py")
torch = pytest.importorskip("torch")

from ase_student.distill.training.batches import Sample, collate  # noqa: E402
from ase_student.distill.training.finite_difference import backward_by_displacement  # noqa: E402
from ase_student.distill.training.loss import loss, predict  # noqa: E402
from ase_student.distill.training.metrics import energy_deviations, evaluate  # noqa: E402
from ase_student.distill.training.pair_batches import PairCollator  # noqa: E402
from ase_student.distill.training.settings import SHAPES, TrainingSettings, architecture_of  # noqa: E402
from ase_student.distill.training.trainer import Trainer  # noqa: E402
from ase_student.neighbors import neighbor_matrix  # noqa: E402
from ase_student.networks.kernels import CompiledNetwork, pair_list  # noqa: E402
from ase_student.networks.painn import PaiNN  # noqa: E402
from ase_student.testing import STRUCTURES, TOLERANCES, force_difference, structure  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiler")

CPU = torch.device("cpu")
ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
#: Relative length of the difference to the exact gradient: the error of the displacement.
GRADIENT = 3e-2
#: The same for the mean over both signs of the displacement.
MEAN_GRADIENT = 1e-3


#: Architectures: those of the students, and others with sizes that do not fill a SIMD vector.
CHANGES: dict[str, tuple[str, dict[str, float]]] = {
    **{name: (name, {}) for name in SHAPES},
    "no tensors": ("tiny", {"tensor_channels": 0}),
    "no inner cutoff": ("ultra-tiny", {"inner_cutoff": 0.0}),
    "one block": ("ultra-tiny", {"blocks": 1}),
    "odd sizes": (
        "ultra-tiny",
        {
            "features": 36,
            "blocks": 4,
            "hidden": 33,
            "n_rbf": 20,
            "element_channels": 5,
            "message_channels": 24,
            "tensor_channels": 9,
        },
    ),
}


def network_of(name: str) -> PaiNN:
    torch.manual_seed(1)
    shape, changes = CHANGES[name]
    return PaiNN(architecture_of(shape, ELEMENTS, changes), dict.fromkeys(ELEMENTS, -10.0))


@pytest.fixture(scope="module", params=CHANGES)
def network(request: pytest.FixtureRequest) -> PaiNN:
    return network_of(request.param)


@pytest.fixture(scope="module")
def compiled(network: PaiNN) -> CompiledNetwork:
    return CompiledNetwork(network)


def sample(atoms: Atoms, seed: int = 0) -> Sample:
    """Return a structure with labels about as large as the predictions of networks."""
    generator = np.random.default_rng(seed)
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    is_periodic = bool(atoms.pbc.all())
    return Sample(
        atoms.numbers.astype(np.int64),
        atoms.positions,
        matrix.neighbors.astype(np.int32),
        matrix.offsets(atoms.cell.array),
        energy=-10.0 * len(atoms) + generator.normal(),
        forces=generator.normal(scale=0.1, size=(len(atoms), 3)).astype(np.float32),
        source="md",
        stress=generator.normal(scale=0.01, size=(3, 3)) if is_periodic else None,
        volume=float(atoms.get_volume()) if is_periodic else 0.0,
        atomic_energies=generator.normal(size=len(atoms)) - 10.0,
    )


def samples_of(*names: str) -> list[Sample]:
    return [sample(structure(name), seed) for seed, name in enumerate(names)]


def gradients(network: PaiNN) -> dict[str, torch.Tensor]:
    by_name = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return by_name


def assert_same_results(compiled: CompiledNetwork, samples: list[Sample]) -> None:
    expected = predict(compiled.network, collate(samples, 5.0, CPU))
    batch = PairCollator(5.0)(samples)
    results = compiled.evaluate(batch.structures, with_virials=True)
    largest = abs(results.energies - expected.atomic_energies.detach().numpy()).max()
    assert largest < TOLERANCES.backend_energy_per_atom
    assert force_difference(results.forces, expected.forces.numpy()) < TOLERANCES.backend_forces
    if batch.stress is not None:
        stress = batch.totals(results.virials) / batch.volumes[:, None, None]
        is_periodic = np.array([sample.volume > 0 for sample in samples])
        np.testing.assert_allclose(
            stress[is_periodic], expected.stress.numpy()[is_periodic], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("name", STRUCTURES)
def test_results_are_those_of_the_network(compiled: CompiledNetwork, name: str) -> None:
    assert_same_results(compiled, samples_of(name))


def test_structures_of_a_batch_do_not_interact(compiled: CompiledNetwork) -> None:
    assert_same_results(compiled, samples_of(*STRUCTURES))


def test_close_atoms_fade_as_in_the_network(compiled: CompiledNetwork) -> None:
    # 0.56 times the sum of their radii; the network fades between 0.5 and 0.6.
    close = [sample(Atoms("SNC", [[0, 0, 0], [0.98, 0, 0], [2.4, 0.3, 0]]))]
    expected = predict(compiled.network, collate(close, 5.0, CPU)).forces
    forces = compiled.evaluate(PairCollator(5.0)(close).structures).forces
    assert abs(forces).max() > 10.0
    np.testing.assert_allclose(forces, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    "name", ["crystal", "small_triclinic", "wire", "triclinic", "outside", "aspirin"]
)
def test_every_pair_is_listed_once(name: str) -> None:
    one_sample = samples_of(name)[0]
    first, second, shifts = pair_list(
        one_sample.positions, one_sample.neighbors, one_sample.offsets, 5.0
    )
    vectors = (
        one_sample.positions[one_sample.neighbors]
        - one_sample.positions[:, None]
        + one_sample.offsets
    )
    assert 2 * len(first) == np.sum(np.linalg.norm(vectors, axis=2) < 5.0)
    assert (np.diff(first) >= 0).all()
    separations = one_sample.positions[second] - one_sample.positions[first]
    if shifts is not None:
        separations = separations + shifts
    directed = np.concatenate([[first, second], [second, first]], axis=1).T
    rows = np.concatenate(
        [directed, np.concatenate([separations, -separations]).round(6) + 0.0], axis=1
    )
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_first_derivatives_by_weights_are_those_of_autograd(
    network: PaiNN, compiled: CompiledNetwork
) -> None:
    samples = samples_of("eight_elements", "triclinic")
    inputs = collate(samples, 5.0, CPU).inputs
    seeds = np.random.default_rng(0).normal(size=len(inputs[0]))
    precise = copy.deepcopy(network).double()
    (precise(*inputs) * torch.from_numpy(seeds)).sum().backward()
    structures = PairCollator(5.0)(samples).structures
    results = compiled.evaluate(structures, seeds=seeds, with_gradient=True)
    parts = compiled.split(results.gradient)
    for (name, weight), gradient in zip(precise.named_parameters(), parts, strict=True):
        difference = (gradient - weight.grad).norm() / weight.grad.norm().clamp_min(1e-3)
        assert difference < 1e-5, name


def test_errors_are_those_of_the_network(compiled: CompiledNetwork) -> None:
    samples = samples_of("eight_elements", "triclinic", "aspirin", "atom")
    expected = evaluate(compiled.network, samples, 5.0, device=CPU)
    computed = evaluate(compiled, samples, 5.0, device=CPU)
    assert computed.keys() == expected.keys()
    for source, errors in expected.items():
        assert computed[source] == pytest.approx(errors, rel=1e-4), source
    np.testing.assert_allclose(
        energy_deviations(compiled, samples, 5.0, device=CPU),
        energy_deviations(compiled.network, samples, 5.0, device=CPU),
        atol=TOLERANCES.backend_energy_per_atom,
    )


def test_changed_weights_are_read(compiled: CompiledNetwork) -> None:
    samples = samples_of("aspirin")
    weights = [weight.detach().clone() for weight in compiled.weights]
    structures = PairCollator(5.0)(samples).structures
    with_old_weights = compiled.evaluate(structures)
    with torch.no_grad():
        for weight in compiled.weights:
            weight.add_(0.05 * torch.randn_like(weight))
    compiled.read_weights()
    assert abs(compiled.evaluate(structures).forces - with_old_weights.forces).max() > 1e-3
    assert_same_results(compiled, samples)
    with torch.no_grad():
        for weight, value in zip(compiled.weights, weights, strict=True):
            weight.copy_(value)
    compiled.read_weights()


@pytest.mark.parametrize(
    "names", [("eight_elements", "aspirin"), ("triclinic", "water_dimer"), ("atom", "far_pair")]
)
def test_the_gradient_of_the_loss_is_that_of_second_derivatives(
    network: PaiNN, compiled: CompiledNetwork, names: tuple[str, ...]
) -> None:
    samples = samples_of(*names)
    # The second structure has no energies of atoms.
    samples[1] = dataclasses.replace(samples[1], atomic_energies=None)
    batch = collate(samples, 5.0, CPU)
    settings = TrainingSettings(atomic_energy_weight=0.1)
    exact = loss(predict(network, batch, create_graph=True), batch, settings, energy_weight=0.3)
    exact.backward()
    expected = gradients(network)
    pair_batch = PairCollator(5.0)(samples)
    displaced_gradients = []
    for sign in (1.0, -1.0):
        value = backward_by_displacement(
            compiled, pair_batch, settings, energy_weight=0.3, sign=sign
        )
        assert value == pytest.approx(exact.item(), rel=1e-5)
        displaced_gradients.append(gradients(network))
    mean = {
        name: 0.5 * (displaced_gradients[0][name] + displaced_gradients[1][name])
        for name in displaced_gradients[0]
    }

    def error(approximate):
        squares = (
            (approximate.get(name, 0.0) - gradient) ** 2 for name, gradient in expected.items()
        )
        return float(sum(square.sum() for square in squares)) ** 0.5 / size

    size = float(sum((gradient**2).sum() for gradient in expected.values())) ** 0.5
    assert size > 0
    assert error(displaced_gradients[0]) < GRADIENT
    assert error(displaced_gradients[1]) < GRADIENT
    assert error(mean) < MEAN_GRADIENT


def test_stress_counts_in_the_gradient(compiled: CompiledNetwork) -> None:
    network, samples = compiled.network, samples_of("triclinic")
    only_stress = TrainingSettings(stress_weight=1.0, force_scale=1e6)
    backward_by_displacement(compiled, PairCollator(5.0)(samples), only_stress, energy_weight=1e-9)
    of_filters = gradients(network)["first.vectors.weight"]
    batch = collate(samples, 5.0, CPU)
    loss(
        predict(network, batch, create_graph=True), batch, only_stress, energy_weight=1e-9
    ).backward()
    expected = gradients(network)["first.vectors.weight"]
    assert expected.norm() > 1e-6
    assert (of_filters - expected).norm() / expected.norm() < GRADIENT


def test_gradients_are_accumulated(compiled: CompiledNetwork) -> None:
    batch = PairCollator(5.0)(samples_of("aspirin"))
    backward_by_displacement(compiled, batch, TrainingSettings(), energy_weight=0.3)
    once = gradients(compiled.network)
    for _ in range(2):
        backward_by_displacement(compiled, batch, TrainingSettings(), energy_weight=0.3)
    for name, twice in gradients(compiled.network).items():
        torch.testing.assert_close(twice, 2.0 * once[name])


def test_weights_of_another_type_are_refused() -> None:
    with pytest.raises(
        TypeError, match="contiguous float32 weights on the CPU; given torch.float64"
    ):
        CompiledNetwork(network_of("ultra-tiny").double())


def test_compiling_does_not_change_the_floating_point_mode() -> None:
    script = (
        "import numpy as np; from ase_student.networks.kernels.build import compile_network; "
        "from ase_student.student import Architecture; compile_network(Architecture((1,), 16)); "
        "smallest = np.array([5e-324]); print(float((smallest * 1.0)[0]))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert float(process.stdout) == 5e-324


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ImportError, match="apt-get install g"):
        CompiledNetwork(network_of("ultra-tiny"))


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ImportError, match="network.cpp -o .* failed"):
        CompiledNetwork(network_of("ultra-tiny"))


def test_other_devices_are_refused() -> None:
    training = SimpleNamespace(fabric=SimpleNamespace(device=torch.device("meta")))
    with pytest.raises(ValueError, match="'compiled' is for CPUs; given a device of type 'meta'"):
        Trainer._compiled(training)


def test_an_unknown_way_to_compute_gradients_is_refused() -> None:
    with pytest.raises(ValueError, match="gradient must be one of"):
        dataclasses.replace(TrainingSettings(), gradient="magic")
