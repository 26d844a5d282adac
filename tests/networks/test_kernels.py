"""Compiled sums: the same network on pairs, to run, and to train by displaced structures."""

import ctypes
import dataclasses
import platform
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from ase import Atoms

pytest.importorskip("h5py")
torch = pytest.importorskip("torch")

from ase_student import StudentCalculator  # noqa: E402
from ase_student.backends.compiled import CompiledBackend  # noqa: E402
from ase_student.checkpoint import available_students  # noqa: E402
from ase_student.distill.training.batches import Sample, collate  # noqa: E402
from ase_student.distill.training.finite_difference import backward_by_displacement  # noqa: E402
from ase_student.distill.training.loss import loss, predict  # noqa: E402
from ase_student.distill.training.settings import SHAPES, TrainingSettings, architecture_of  # noqa: E402
from ase_student.distill.training.trainer import Trainer  # noqa: E402
from ase_student.neighbors import neighbor_matrix  # noqa: E402
from ase_student.networks.kernels import CompiledNetwork  # noqa: E402
from ase_student.networks.kernels.build import PairKernels  # noqa: E402
from ase_student.networks.kernels.memory import keep_freed_memory  # noqa: E402
from ase_student.networks.kernels.network import pair_list  # noqa: E402
from ase_student.networks.painn import PaiNN  # noqa: E402
from ase_student.testing import STRUCTURES, TOLERANCES, force_difference, structure  # noqa: E402

pytestmark = pytest.mark.usefixtures("compiler")

CPU = torch.device("cpu")
ELEMENTS = (1, 6, 7, 8, 9, 15, 16, 17)
#: Relative length of the difference to the exact gradient: what displaced atoms leave out.
GRADIENT = 3e-2
#: The same of the mean over both signs of the displacement.
MEAN_GRADIENT = 1e-3


def network_of(name: str) -> PaiNN:
    torch.manual_seed(1)
    return PaiNN(architecture_of(name, ELEMENTS), dict.fromkeys(ELEMENTS, -10.0))


@pytest.fixture(scope="module", params=SHAPES)
def network(request: pytest.FixtureRequest) -> PaiNN:
    return network_of(request.param)


@pytest.fixture(scope="module")
def compiled(network: PaiNN) -> CompiledNetwork:
    return CompiledNetwork(network)


def sample(atoms: Atoms, seed: int = 0) -> Sample:
    """Return a structure with labels of about the size of what networks predict."""
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


def batch_of(*names: str):
    return collate([sample(structure(name), i) for i, name in enumerate(names)], 5.0, CPU)


def gradients(network: PaiNN) -> dict[str, torch.Tensor]:
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    network.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("name", STRUCTURES)
def test_energies_and_forces_are_those_of_the_network(
    network: PaiNN, compiled: CompiledNetwork, name: str
) -> None:
    batch = batch_of(name)
    expected, found = predict(network, batch), predict(compiled, batch)
    largest = (found.atomic_energies - expected.atomic_energies).abs().max()
    assert largest < TOLERANCES.backend_energy_per_atom
    assert (found.forces - expected.forces).abs().max() < TOLERANCES.backend_forces


def test_atoms_fade_from_each_other_as_in_the_network(
    network: PaiNN, compiled: CompiledNetwork
) -> None:
    # 0.56 times the sum of their radii; the network fades between 0.5 and 0.6.
    batch = collate([sample(Atoms("SNC", [[0, 0, 0], [0.98, 0, 0], [2.4, 0.3, 0]]))], 5.0, CPU)
    expected, found = predict(network, batch), predict(compiled, batch)
    assert found.forces.abs().max() > 10.0
    np.testing.assert_allclose(found.forces, expected.forces, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", ["crystal", "small_triclinic", "wire", "triclinic", "outside"])
def test_every_pair_is_listed_once(name: str) -> None:
    inputs = batch_of(name).inputs
    pairs, places = pair_list(*inputs[1:], 5.0)
    _, positions, neighbors, offsets = inputs
    vectors = positions[neighbors] - positions[:, None] + offsets
    assert 2 * pairs.shape[1] == int((torch.linalg.vector_norm(vectors, dim=2) < 5.0).sum())
    first, second = pairs
    found = positions[second] - positions[first] + offsets[places[0], places[1]]
    both = torch.cat(
        [torch.cat([first, second])[:, None], torch.cat([second, first])[:, None]], dim=1
    ).double()
    rows = torch.cat([both, torch.cat([found, -found])], dim=1).round(decimals=6) + 0.0
    assert len(torch.unique(rows, dim=0)) == len(rows)


def test_first_derivatives_by_weights_are_those_of_autograd(
    network: PaiNN, compiled: CompiledNetwork
) -> None:
    batch = batch_of("eight_elements", "triclinic")
    weights = torch.randn(len(batch.forces), generator=torch.Generator().manual_seed(0)).double()
    (network(*batch.inputs) * weights).sum().backward()
    expected = gradients(network)
    (compiled(*batch.inputs) * weights).sum().backward()
    found = gradients(network)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        difference = (found[name] - gradient).norm() / gradient.norm().clamp_min(1e-3)
        assert difference < 1e-4, name


@pytest.mark.parametrize(
    "names", [("eight_elements", "aspirin"), ("triclinic", "water_dimer"), ("atom", "far_pair")]
)
def test_the_gradient_of_the_loss_is_that_of_second_derivatives(
    network: PaiNN, compiled: CompiledNetwork, names: tuple[str, ...]
) -> None:
    batch = batch_of(*names)
    settings = TrainingSettings(atomic_energy_weight=0.1)
    exact = loss(predict(network, batch, create_graph=True), batch, settings, 0.3)
    exact.backward()
    expected = gradients(network)
    weights = list(network.parameters())
    found = []
    for sign in (1.0, -1.0):
        value = backward_by_displacement(compiled, weights, batch, settings, 0.3, sign)
        assert value.item() == pytest.approx(exact.item(), rel=1e-5)
        found.append(gradients(network))
    mean = {name: 0.5 * (found[0][name] + found[1][name]) for name in found[0]}

    def error(found):
        squares = ((found.get(name, 0.0) - gradient) ** 2 for name, gradient in expected.items())
        return float(sum(square.sum() for square in squares)) ** 0.5 / size

    size = float(sum((gradient**2).sum() for gradient in expected.values())) ** 0.5
    assert size > 0
    assert error(found[0]) < GRADIENT
    assert error(found[1]) < GRADIENT
    assert error(mean) < MEAN_GRADIENT


def test_stress_counts_in_the_gradient(compiled: CompiledNetwork) -> None:
    network, batch = compiled.network, batch_of("triclinic")
    only_stress = TrainingSettings(stress_weight=1.0, force_scale=1e6)
    backward_by_displacement(compiled, list(network.parameters()), batch, only_stress, 1e-9)
    of_filters = gradients(network)["first.vectors.weight"]
    loss(predict(network, batch, create_graph=True), batch, only_stress, 1e-9).backward()
    expected = gradients(network)["first.vectors.weight"]
    assert expected.norm() > 1e-6
    assert (of_filters - expected).norm() / expected.norm() < GRADIENT


@pytest.mark.parametrize("name", available_students())
def test_the_backend_computes_the_student_at_every_size(name: str) -> None:
    precise = StudentCalculator(name, "torch", dtype="float64", guard="off")
    compiled = StudentCalculator(name, "compiled", guard="off")
    assert (compiled.backend, compiled.device) == ("compiled", "cpu")
    assert compiled.info.weights_sha256 == precise.info.weights_sha256
    structures = [structure(one) for one in STRUCTURES]
    expected, found = precise.calculate_many(structures), compiled.calculate_many(structures)
    for atoms, right, one in zip(structures, expected, found, strict=True):
        per_atom = abs(one["energy"] - right["energy"]) / len(atoms)
        assert per_atom < TOLERANCES.backend_energy_per_atom
        assert force_difference(one["forces"], right["forces"]) < TOLERANCES.backend_forces
        assert ("stress" in one) == ("stress" in right)
        if "stress" in right:
            np.testing.assert_allclose(one["stress"], right["stress"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("given", [{"dtype": "float64"}, {"device": "cuda"}], ids=str)
def test_the_backend_says_what_it_cannot(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="^backend 'compiled' computes in float32 on the CPU"):
        StudentCalculator("tiny", "compiled", **given)


def test_the_backend_refuses_the_first_generation() -> None:
    student = SimpleNamespace(architecture=SimpleNamespace(family="first-generation"))
    with pytest.raises(ValueError, match="'old' is of the first generation"):
        CompiledBackend(student, "old")  # type: ignore[arg-type]


def test_arrays_that_would_be_misread_are_refused() -> None:
    kernels = PairKernels(4, 2, 8)
    pairs = torch.zeros(2, 1, dtype=torch.int64)
    with pytest.raises(TypeError, match="take float32 on the CPU; given torch.float64"):
        kernels.call("messages", pairs, torch.zeros(1, dtype=torch.float64))
    with pytest.raises(TypeError, match="contiguous"):
        kernels.call("messages", pairs, torch.zeros(3, 2).t())


def test_the_process_computes_as_before() -> None:
    script = (
        "import numpy as np; from ase_student.networks.kernels.build import PairKernels; "
        "PairKernels(4, 2, 8); smallest = np.array([5e-324]); print(float((smallest * 1.0)[0]))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert float(done.stdout) == 5e-324


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not the GNU C library")
def test_freed_memory_is_kept() -> None:
    script = (
        "import resource, sys; import numpy as np\n"
        "from ase_student.networks.kernels.memory import keep_freed_memory\n"
        "if sys.argv[1] == 'keep': keep_freed_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "def arrays(): [np.ones(1_000_000) for _ in range(5)]\n"
        "arrays(); arrays(); before = faults()\n"
        "for _ in range(10): arrays()\n"
        "print(faults() - before)"
    )
    pages = {
        mode: int(subprocess.check_output([sys.executable, "-c", script, mode]))
        for mode in ("keep", "return")
    }
    assert pages["keep"] < 0.1 * pages["return"]


def test_other_systems_keep_their_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(ctypes, "CDLL", None)
    keep_freed_memory()


def test_a_missing_compiler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ImportError, match="apt-get install g"):
        CompiledNetwork(network_of("ultra-tiny"))


def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(ImportError, match="pairs.cpp -o .* failed"):
        CompiledNetwork(network_of("ultra-tiny"))


def test_other_devices_are_refused() -> None:
    training = SimpleNamespace(fabric=SimpleNamespace(device=torch.device("meta")))
    with pytest.raises(ValueError, match="'compiled' is for CPUs; given a device of type 'meta'"):
        Trainer._compiled(training)


def test_settings_name_the_ways_to_differentiate() -> None:
    with pytest.raises(ValueError, match="gradient must be one of"):
        dataclasses.replace(TrainingSettings(), gradient="magic")
