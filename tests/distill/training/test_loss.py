"""Predictions by autograd and the terms of the loss."""

import dataclasses

import numpy as np
import pytest
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress

h5py = pytest.importorskip("h5py")
torch = pytest.importorskip("torch")

from ase_student.data.hdf5 import Dataset, write_dataset  # noqa: E402
from ase_student.data.structures import Labels, Structures  # noqa: E402
from ase_student.distill.training.batches import Batch, collate, read_samples  # noqa: E402
from ase_student.distill.training.loss import loss, predict  # noqa: E402
from ase_student.distill.training.metrics import evaluate  # noqa: E402
from ase_student.distill.training.settings import SHAPES, TrainingSettings  # noqa: E402
from ase_student.networks.painn import PaiNN, PaiNNPotential  # noqa: E402
from ase_student.student import Architecture  # noqa: E402
from ase_student.testing import structure  # noqa: E402

CPU = torch.device("cpu")
FORCES_ONLY = TrainingSettings(stress_weight=0.0)


@pytest.fixture(scope="module")
def network() -> PaiNN:
    torch.manual_seed(0)
    elements = (1, 6, 8)
    return PaiNN(Architecture(elements, **SHAPES["ultra-tiny"]), dict.fromkeys(elements, -10.0))


@pytest.fixture
def dataset(tmp_path):
    """Return a file with a molecule, a crystal with stress, and energies of single atoms."""
    crystal = structure("triclinic")
    crystal.numbers[:] = 6
    molecule = Atoms("CO", [[0, 0, 0], [0, 0, 1.2]])
    structures = Structures.from_atoms([molecule, crystal], ["md", "md"], ["CO", "C"])
    n_atoms = len(structures.numbers)
    stress = np.array([np.zeros(6), [0.01, 0.02, 0.03, 0.004, 0.005, 0.006]])
    atomic_energies = np.full(n_atoms, np.nan)
    atomic_energies[:2] = [-12.0, -11.0]
    labels = Labels(
        structure_indices=np.arange(2),
        energies=np.array([-23.0, -30.0]),
        splits=structures.splits,
        forces=np.zeros((n_atoms, 3), np.float32),
        stress=stress,
        stress_mask=np.array([False, True]),
        atomic_energies=atomic_energies,
    )
    path = tmp_path / "labelled.h5"
    write_dataset(path, structures, labels)
    return path


@pytest.fixture
def batch(dataset) -> Batch:
    with Dataset(dataset) as file:
        return collate(read_samples(file, range(2), 5.0), 5.0, CPU)


def test_a_batch_holds_the_labels_of_the_teacher(batch: Batch) -> None:
    assert torch.isnan(batch.stress[0]).all()
    voigt = full_3x3_to_voigt_6_stress(batch.stress[1].numpy())
    np.testing.assert_allclose(voigt, [0.01, 0.02, 0.03, 0.004, 0.005, 0.006])
    assert batch.volumes[0] == 0
    assert batch.atomic_energies[:2].tolist() == [-12.0, -11.0]
    assert torch.isnan(batch.atomic_energies[2:]).all()


def test_stress_is_that_of_the_potential(network: PaiNN, batch: Batch) -> None:
    network = network.double()
    predictions = predict(network, batch)
    _, forces, virials = PaiNNPotential(network)(*batch.inputs)
    of_crystal = virials[batch.structures == 1].sum(0) / batch.volumes[1]
    assert of_crystal.abs().max() > 1e-4
    torch.testing.assert_close(predictions.stress[1], of_crystal, rtol=0, atol=1e-10)
    torch.testing.assert_close(predictions.forces, forces.float(), rtol=0, atol=1e-5)
    network.float()


def test_every_term_of_the_loss_is_zero_only_without_its_error(
    network: PaiNN, batch: Batch
) -> None:
    predictions = predict(network, batch)
    exact = dataclasses.replace(
        batch,
        energies=predictions.energies,
        forces=predictions.forces,
        stress=predictions.stress.where(~torch.isnan(batch.stress), torch.nan),
        atomic_energies=predictions.atomic_energies + 0.7,
    )
    settings = dataclasses.replace(TrainingSettings(), atomic_energy_weight=0.1)
    # A constant per structure belongs to the energy term.
    assert loss(predictions, exact, settings, energy_weight=0.1).item() == pytest.approx(
        0, abs=1e-7
    )
    one_atom = torch.zeros_like(exact.atomic_energies)
    one_atom[0] = 0.1
    for changes in (
        {"energies": exact.energies + 0.1},
        {"forces": exact.forces + 0.1},
        {"stress": exact.stress + 0.01},
        {"atomic_energies": exact.atomic_energies + one_atom},
    ):
        assert (
            loss(predictions, dataclasses.replace(exact, **changes), settings, energy_weight=0.1)
            > 1e-3
        )


def test_weights_of_zero_leave_terms_out(network: PaiNN, batch: Batch) -> None:
    predictions = predict(network, batch)
    shifted = dataclasses.replace(
        batch, forces=predictions.forces, energies=batch.energies + 5, stress=batch.stress + 1
    )
    assert loss(predictions, shifted, FORCES_ONLY, energy_weight=0.0).item() == pytest.approx(
        0, abs=1e-6
    )


def test_all_terms_have_finite_gradients(network: PaiNN, batch: Batch) -> None:
    settings = dataclasses.replace(TrainingSettings(), atomic_energy_weight=0.1)
    loss(predict(network, batch, create_graph=True), batch, settings, energy_weight=0.1).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    network.zero_grad()


def test_the_error_of_the_stress_follows_its_definition(network: PaiNN, dataset) -> None:
    with Dataset(dataset) as file:
        samples = read_samples(file, range(2), 5.0)
    errors = evaluate(network, samples, 5.0, device=CPU)
    batch = collate(samples[1:], 5.0, CPU)
    difference = predict(network, batch).stress - batch.stress
    expected = float((difference**2).mean().sqrt())
    assert errors["md"]["stress_rmse"] == pytest.approx(expected, rel=1e-4)
    assert "stress_rmse" not in evaluate(network, samples[:1], 5.0, device=CPU)["md"]


def test_a_stress_without_a_mask_is_that_of_all_crystals(dataset) -> None:
    with Dataset(dataset) as file:
        molecule, crystal = read_samples(file, range(2), 5.0)
    with h5py.File(dataset, "a") as file:
        del file["labels/stress_mask"]
        # A cell does not make the molecule a crystal.
        file["structures/cells"][0] = 9 * np.eye(3)
    with Dataset(dataset) as file:
        same_molecule, same_crystal = read_samples(file, range(2), 5.0)
    assert molecule.stress is None
    assert same_molecule.stress is None
    np.testing.assert_array_equal(crystal.stress, same_crystal.stress)


def test_the_mean_error_per_structure_is_not_dominated_by_one_structure(
    network: PaiNN, dataset
) -> None:
    with Dataset(dataset) as file:
        samples = read_samples(file, range(1), 5.0)
    outlier = dataclasses.replace(samples[0], forces=samples[0].forces + np.float32(1000.0))
    without_outlier, with_outlier = (
        evaluate(network, [*[samples[0]] * 99, last], 5.0, device=CPU)["md"]
        for last in (samples[0], outlier)
    )
    assert without_outlier["force_rmse_mean"] == pytest.approx(without_outlier["force_rmse"])
    assert with_outlier["force_rmse"] - without_outlier["force_rmse"] > 90
    assert with_outlier["force_rmse_mean"] - without_outlier["force_rmse_mean"] == pytest.approx(
        10, rel=0.02
    )
