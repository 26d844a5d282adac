"""Training: splits, resumed runs, and errors that fall."""

import dataclasses
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import units
from ase.build import bulk
from ase.calculators.morse import MorsePotential

pytest.importorskip("h5py")
torch = pytest.importorskip("torch")

from ase_student import load_student  # noqa: E402
from ase_student.checkpoint import resolve_model  # noqa: E402
from ase_student.data.hdf5 import Dataset, write_dataset  # noqa: E402
from ase_student.data.sources import DIATOMIC, FOREIGN  # noqa: E402
from ase_student.data.splits import PARTS, parts_of, split_of  # noqa: E402
from ase_student.data.structures import Labels, Structures  # noqa: E402
from ase_student.distill.__main__ import main  # noqa: E402
from ase_student.distill.commands.train import table  # noqa: E402
from ase_student.distill.sampling.diatomics import diatomics  # noqa: E402
from ase_student.distill.training.batches import (  # noqa: E402
    collate,
    fit_reference_energies,
    read_samples,
    shuffled,
)
from ase_student.distill.training.data import TrainingData  # noqa: E402
from ase_student.distill.training.loss import predict  # noqa: E402
from ase_student.distill.training.metrics import energy_deviations, evaluate  # noqa: E402
from ase_student.distill.training.settings import SHAPES, TrainingSettings  # noqa: E402
from ase_student.distill.training.trainer import (  # noqa: E402
    MAX_NOT_FINITE,
    Trainer,
    energy_weight,
    learning_rate,
)
from ase_student.export.references import random_cluster  # noqa: E402
from ase_student.jobs.store import only_writer  # noqa: E402
from ase_student.networks import build_network  # noqa: E402
from ase_student.networks.painn import PaiNN, PaiNNPotential  # noqa: E402
from ase_student.student import Architecture, Student  # noqa: E402

SETTINGS = TrainingSettings(epochs=2, batch_size=4, warmup=5, validate_every=13)
CUTOFF = 5.0
CPU = torch.device("cpu")


def molecule_names(n_molecules: int) -> list[str]:
    """Return names of molecules that are spread over all parts of the split."""
    return [f"molecule-{index}" for index in range(n_molecules)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of clusters of H, C and O that a Morse potential has labelled."""
    path = tmp_path_factory.mktemp("data") / "morse.h5"
    generator = np.random.default_rng(0)
    atoms, energies, forces = [], [], []
    teacher = MorsePotential(epsilon=0.6, r0=1.1, rho0=2.0)
    references = {1: -13.0, 6: -1030.0, 8: -2040.0}
    names = molecule_names(60)
    for _ in names:
        cluster = random_cluster((1, 6, 8), int(generator.integers(3, 9)), generator)
        cluster.positions += 0.03 * generator.standard_normal((len(cluster), 3))
        cluster.calc = teacher
        reference = sum(references[z] for z in cluster.numbers)
        energies.append(cluster.get_potential_energy() + reference)
        forces.append(cluster.get_forces())
        atoms.append(cluster)
    structures = Structures.from_atoms(atoms, ["morse"] * len(atoms), names)
    labels = Labels(
        np.arange(len(atoms)), np.array(energies), structures.splits, np.concatenate(forces)
    )
    write_dataset(
        path, structures, labels, metadata={"teacher": "morse", "command": "/home/somebody/x"}
    )
    return path


def train(
    dataset: Path, folder: Path, settings: TrainingSettings = SETTINGS, **options: Any
) -> Trainer:
    training = begin(dataset, folder, settings, **options)
    training.run()
    return training


def begin(
    dataset: Path, folder: Path, settings: TrainingSettings = SETTINGS, **options: Any
) -> Trainer:
    data = TrainingData([dataset], settings, CUTOFF)
    return Trainer(data, "ultra-tiny", folder, settings=settings, **options)


def test_errors_fall_and_metadata_are_stored(dataset: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=8)
    train(dataset, tmp_path, settings)
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    errors = [row["validation"]["all"]["force_rmse"] for row in rows]
    assert len(rows) == 8
    assert rows[-1]["epoch"] == 8
    assert errors[-1] < 0.8 * errors[0]
    student = load_student(tmp_path / "weights.safetensors")
    assert student.elements == (1, 6, 8)
    assert student.metadata["teacher"] == "morse"
    assert student.metadata["metrics"]["test"]["morse"]["structures"] > 0
    assert student.metadata["training"]["epochs"] == 8
    assert "somebody" not in json.dumps(student.metadata)


def test_a_calibration_shifts_energies_by_the_same_for_every_atom(
    dataset: Path, tmp_path: Path
) -> None:
    training = train(dataset, tmp_path)
    uncalibrated = load_student(tmp_path / "weights.safetensors")
    # The run is complete: repeated, it only calibrates.
    for _ in range(2):
        data = TrainingData([dataset], SETTINGS, CUTOFF, calibration=dataset)
        Trainer(data, "ultra-tiny", tmp_path, settings=SETTINGS).run()
        calibrated = load_student(tmp_path / "weights.safetensors")
        calibration = calibrated.metadata["training"]["calibration"]
        shift = calibration["shift"]
        assert abs(shift) > 1e-4
        for number, energy in uncalibrated.reference_energies.items():
            assert calibrated.reference_energies[number] - energy == pytest.approx(shift, abs=1e-9)
        network = build_network(calibrated)
        assert isinstance(network, PaiNN)
        samples = training.parts["validation"]
        assert calibration["structures"] == len(samples)
        assert calibration["sha256"] == hashlib.sha256(dataset.read_bytes()).hexdigest()
        deviations = energy_deviations(network, samples, CUTOFF, device=CPU)
        assert np.median(deviations) == pytest.approx(0.0, abs=1e-6)
    # Metrics are those of the calibrated student.
    errors = evaluate(network, training.parts["test"], CUTOFF, device=CPU)
    assert calibrated.metadata["metrics"]["test"] == errors


def test_a_calibration_file_needs_molecules_of_the_validation_part(
    dataset: Path, tmp_path: Path
) -> None:
    with Dataset(dataset) as file:
        structures, labels = file.read_structures(), file.read_labels()
    names = [name for name in molecule_names(600) if split_of(name, 0) == "train"]
    atoms = [structures.atoms(index) for index in range(5)]
    few = Structures.from_atoms(atoms, ["morse"] * 5, names[:5])
    end = few.splits[-1]
    write_dataset(
        tmp_path / "few.h5",
        few,
        Labels(np.arange(5), labels.energies[:5], few.splits, labels.forces[:end]),
        metadata={"teacher": "morse"},
    )
    with pytest.raises(ValueError, match=r"few\.h5: is for the calibration, but holds nothing"):
        TrainingData([dataset], SETTINGS, CUTOFF, calibration=tmp_path / "few.h5")


@pytest.mark.usefixtures("compiler")
def test_errors_fall_with_compiled_gradients(dataset: Path, tmp_path: Path) -> None:
    training = train(
        dataset, tmp_path, dataclasses.replace(SETTINGS, epochs=8, gradient="compiled")
    )
    assert training.compiled is not None
    rows = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    errors = [row["validation"]["all"]["force_rmse"] for row in rows]
    assert errors[-1] < 0.8 * errors[0]


@pytest.mark.parametrize("optimizer", ["soap", "adam"])
def test_a_resumed_run_gives_the_same_weights(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    # Interrupted within the second epoch, after the optimizer has changed its eigenbases.
    settings = dataclasses.replace(SETTINGS, optimizer=optimizer, validate_every=20)
    uninterrupted = train(dataset, tmp_path / "whole", settings)
    validate = Trainer._validate

    def interrupted(self: Trainer, mean_loss: float) -> dict[str, float]:
        row = validate(self, mean_loss)
        if self.step == 20:
            # As if the run had been stopped in the next validation, before the checkpoint.
            with (self.folder / "history.jsonl").open("a", encoding="utf-8") as file:
                file.write('{"step": 26}\n{"step": 2')
            raise KeyboardInterrupt
        return row

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(dataset, tmp_path / "parts", settings)
    resumed = train(dataset, tmp_path / "parts", settings)
    assert resumed.step == uninterrupted.step
    for name, value in uninterrupted.average.state_dict().items():
        torch.testing.assert_close(resumed.average.state_dict()[name], value, rtol=0, atol=0)
    steps = [
        [json.loads(line)["step"] for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "parts", tmp_path / "whole")
    ]
    assert steps[0] == steps[1] == [20, 26]


def test_a_student_without_checkpoint_is_not_replaced(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(resolve_model("ultra-tiny").parent, tmp_path / "run")
    content = (tmp_path / "run" / "weights.safetensors").read_bytes()
    with pytest.raises(ValueError, match="run' holds a student but no checkpoint to continue from"):
        train(dataset, tmp_path / "run")
    assert (tmp_path / "run" / "weights.safetensors").read_bytes() == content
    # The same if the checkpoint was deleted. A run stopped before its first one starts again.
    train(dataset, tmp_path / "mine")
    (tmp_path / "mine" / "checkpoint.pt").unlink()
    history = (tmp_path / "mine" / "history.jsonl").read_text()
    with pytest.raises(ValueError, match="mine' holds a student but no checkpoint"):
        train(dataset, tmp_path / "mine")
    assert (tmp_path / "mine" / "history.jsonl").read_text() == history
    (tmp_path / "mine" / "history.jsonl").write_text(history.splitlines()[0] + "\n")
    train(dataset, tmp_path / "mine")
    assert (tmp_path / "mine" / "history.jsonl").read_text().count("\n") == history.count("\n")


def test_only_one_training_writes_to_a_folder(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", str(dataset), "-o", str(tmp_path / "deep" / "run"), "--epochs=1"]
    with only_writer(tmp_path / "deep" / "run" / "checkpoint.pt"):
        for devices in ("1", "2"):
            assert main([*command, "--devices", devices]) == 2
            assert "another process is writing '" in capsys.readouterr().err
    assert main(command) == 0


def test_an_error_leaves_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data.xyz").write_text("0\n\n")
    assert main(["train", str(tmp_path / "data.xyz"), "-o", str(tmp_path / "deep" / "run")]) == 2
    assert "not an HDF5 file" in capsys.readouterr().err
    assert not (tmp_path / "deep").exists()


def test_a_checkpoint_of_other_settings_is_refused(dataset: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, epochs=1)
    train(dataset, tmp_path, settings)
    with pytest.raises(ValueError, match="other settings"):
        train(dataset, tmp_path, dataclasses.replace(settings, seed=1))


def test_parts_of_the_split_share_no_molecule(dataset: Path, tmp_path: Path) -> None:
    training = begin(dataset, tmp_path)
    counts = {part: len(training.parts[part]) for part in PARTS}
    expected = dict.fromkeys(counts, 0)
    for name in molecule_names(60):
        expected[split_of(name)] += 1
    assert counts == expected
    assert min(counts.values()) > 0


def test_an_element_missing_from_training_is_refused(dataset: Path, tmp_path: Path) -> None:
    training = begin(dataset, tmp_path)
    sample = training.parts["test"][0]
    training.parts["test"][0] = dataclasses.replace(sample, numbers=sample.numbers + 1)
    with pytest.raises(ValueError, match="the test part has He, which no molecule of the train"):
        training.parts.check()


def test_reference_energies_are_recovered(dataset: Path, tmp_path: Path) -> None:
    training = begin(dataset, tmp_path)
    fitted = fit_reference_energies(training.parts["train"])
    # The labels also hold the potential's own energies, a few eV.
    for number, energy in {1: -13.0, 6: -1030.0, 8: -2040.0}.items():
        assert abs(fitted[number] - energy) < 3.0


@pytest.mark.parametrize("source", [DIATOMIC, FOREIGN])
def test_structures_unlike_use_change_only_what_is_trained(
    dataset: Path, tmp_path: Path, source: str
) -> None:
    frames = diatomics(["H", "C", "O"], 10)
    pairs = Structures.from_atoms(
        frames.structures, [source] * len(frames.structures), frames.molecules
    )
    n = len(frames.structures)
    labels = Labels(np.arange(n), np.full(n, 1e4), pairs.splits, np.zeros((2 * n, 3)))
    write_dataset(tmp_path / "pairs.h5", pairs, labels, metadata={"teacher": "morse"})
    usual = TrainingData([dataset], SETTINGS, CUTOFF)
    extended = TrainingData([dataset, tmp_path / "pairs.h5"], SETTINGS, CUTOFF)
    assert len(extended["train"]) > len(usual["train"])
    assert extended.seen.as_dict() == usual.seen.as_dict()
    assert fit_reference_energies(extended["train"]) == fit_reference_energies(usual["train"])
    network = Trainer(extended, "ultra-tiny", tmp_path / "run", settings=SETTINGS).average
    errors = evaluate(network, extended["train"], CUTOFF, device=CPU)
    assert errors[source]["structures"] > 0
    assert errors["all"] == pytest.approx(errors["morse"])


def test_training_forces_are_those_of_the_potential(dataset: Path) -> None:
    torch.manual_seed(0)
    network = PaiNN(Architecture((1, 6, 8), **SHAPES["ultra-tiny"]), {1: 0.0, 6: 0.0, 8: 0.0})
    network = network.double()
    with Dataset(dataset) as file:
        samples = read_samples(file, range(6), network.shape.cutoff)
    batch = collate(samples, network.shape.cutoff, CPU)
    energies, forces = predict(network, batch)[1:3]
    atomic, expected, _ = PaiNNPotential(network)(*batch.inputs)
    torch.testing.assert_close(batch.totals(atomic), energies, rtol=0, atol=1e-9)
    torch.testing.assert_close(expected.float(), forces, rtol=0, atol=1e-5)


def test_errors_are_those_of_the_definition(dataset: Path, tmp_path: Path) -> None:
    training = begin(dataset, tmp_path)
    samples = training.parts["test"]
    errors = evaluate(training.network, samples, 5.0, device=CPU)["all"]
    batch = collate(samples, 5.0, CPU)
    energies, forces = predict(training.network, batch)[1:3]
    difference = (forces - batch.forces).numpy().astype(float)
    truth = batch.forces.numpy().astype(float)
    assert errors["force_rmse"] == pytest.approx(np.sqrt((difference**2).mean()), abs=1e-5)
    assert errors["force_r2"] == pytest.approx(1 - (difference**2).mean() / truth.var(), abs=1e-5)
    deviations = ((energies.detach() - batch.energies) / batch.sizes).abs().mean()
    assert errors["energy_mae"] == pytest.approx(float(deviations), abs=1e-5)


def test_data_given_twice_count_twice_only_in_training(dataset: Path) -> None:
    single, doubled = (TrainingData([dataset] * times, TrainingSettings(), 5.0) for times in (1, 2))
    assert len(doubled["train"]) == 2 * len(single["train"])
    assert len(doubled["validation"]) == len(single["validation"])
    assert len(doubled["test"]) == len(single["test"])
    assert [entry["times_in_training"] for entry in doubled.provenance] == [2]


@pytest.mark.parametrize("n_infinite", [MAX_NOT_FINITE - 1, MAX_NOT_FINITE])
def test_steps_without_a_finite_gradient_change_nothing(
    dataset: Path, tmp_path: Path, n_infinite: int
) -> None:
    training = begin(dataset, tmp_path)
    weights_before = [weight.clone() for weight in training.network.parameters()]
    samples = training.parts["train"][:2]
    infinite = [dataclasses.replace(samples[0], energy=float("inf"))]
    for _ in range(MAX_NOT_FINITE - 1):
        training._train_on(infinite)
    assert all(
        torch.equal(*pair)
        for pair in zip(weights_before, training.network.parameters(), strict=True)
    )
    if n_infinite == MAX_NOT_FINITE:
        with pytest.raises(ValueError, match="not finite in 20 steps up to 19; begin again"):
            training._train_on(infinite)
    else:
        training._train_on(samples)
        training._train_on(infinite)


def test_batches_hold_every_sample_once(dataset: Path, tmp_path: Path) -> None:
    samples = begin(dataset, tmp_path).parts["train"]
    batches = list(shuffled(samples, 4, np.random.default_rng(0)))
    seen = sorted(id(sample) for batch in batches for sample in batch)
    assert seen == sorted(map(id, samples))


def test_the_learning_rate_rises_and_falls() -> None:
    rates = [learning_rate(step, 1000, TrainingSettings(warmup=100)) for step in range(1001)]
    assert max(rates) <= TrainingSettings().learning_rate
    assert rates[0] < rates[50] < rates[100]
    assert rates[-1] == pytest.approx(TrainingSettings().final_learning_rate)


def test_a_training_starts_from_the_weights_of_a_student(dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "first", dataclasses.replace(SETTINGS, epochs=4))
    start = load_student(tmp_path / "first" / "weights.safetensors")
    continued = begin(dataset, tmp_path / "second", start=start)
    for name, value in continued.network.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), start.tensors[name])
    assert continued.references == start.reference_energies
    continued.run()
    student = load_student(tmp_path / "second" / "weights.safetensors")
    assert student.metadata["training"]["start"]["weights_sha256"] == start.sha256
    assert student.metadata["seen"] == start.metadata["seen"]
    with pytest.raises(ValueError, match="the student to start from has the shape"):
        begin(dataset, tmp_path / "third", start=start, changes={"features": 16})


def test_a_start_with_another_split_of_the_same_data_is_refused(
    dataset: Path, tmp_path: Path
) -> None:
    train(dataset, tmp_path / "first")
    train(dataset, tmp_path / "second", start=load_student(str(tmp_path / "first")))
    start = load_student(str(tmp_path / "second"))
    reseeded = dataclasses.replace(SETTINGS, split_seed=1)
    with pytest.raises(ValueError, match="with 'molecule' and 1 it may be tested on its own"):
        begin(dataset, tmp_path / "third", reseeded, start=start)
    by_structure = dataclasses.replace(SETTINGS, split="structure")
    with pytest.raises(ValueError, match="split = 'molecule' and split_seed = 0; with 'structure'"):
        begin(dataset, tmp_path / "third", by_structure, start=start)
    # Another split of another file is allowed.
    other_data = labelled_by("morse", tmp_path / "other.h5", dataset, range(40))
    begin(other_data, tmp_path / "third", by_structure, start=start)


def labelled_by(
    teacher: str | None, path: Path, dataset: Path, rows: Sequence[int], **settings: Any
) -> Path:
    """Write some rows of a file to another file whose metadata name this teacher."""
    with Dataset(dataset) as file:
        structures, labels = file.read_structures().take(rows), file.read_labels().take(rows)
    labels = dataclasses.replace(labels, structure_indices=np.arange(len(rows)))
    write_dataset(
        path, structures, labels, metadata={"teacher": teacher, "teacher_settings": settings}
    )
    return path


def test_another_teacher_gets_its_own_reference_energies(dataset: Path, tmp_path: Path) -> None:
    train(dataset, tmp_path / "first", dataclasses.replace(SETTINGS, epochs=8))
    start = load_student(str(tmp_path / "first"))
    with Dataset(dataset) as file:
        structures, labels = file.read_structures(), file.read_labels()
    shifts = {1: 3.0, 6: -20.0, 8: 700.0}
    shift = [sum(shifts[z] for z in structures.atoms(i).numbers) for i in range(len(structures))]
    moved = dataclasses.replace(labels, energies=labels.energies + shift)
    write_dataset(tmp_path / "moved.h5", structures, moved, metadata={"teacher": "another"})
    continued = begin(tmp_path / "moved.h5", tmp_path / "second", start=start)
    old_deviations = energy_deviations(build(start), continued.parts["test"], CUTOFF, device=CPU)
    deviations = energy_deviations(continued.network, continued.parts["test"], CUTOFF, device=CPU)
    assert np.abs(old_deviations).min() > 1.0
    assert np.abs(deviations).max() < 1.0
    for number, energy in start.reference_energies.items():
        assert continued.references[number] - energy == pytest.approx(shifts[number], abs=1.0)
    continued.run()
    student = load_student(str(tmp_path / "second"))
    assert student.metadata["teacher"] == "another"
    assert student.metadata["training"]["start"]["teacher"] == "morse"
    assert student.reference_energies == continued.references


def build(student: Student) -> PaiNN:
    network = build_network(student)
    assert isinstance(network, PaiNN)
    return network


def test_a_student_has_one_teacher(dataset: Path, tmp_path: Path) -> None:
    other_data = labelled_by("another", tmp_path / "other.h5", dataset, range(60))
    unknown = labelled_by(None, tmp_path / "unknown.h5", dataset, range(60))
    assert TrainingData([unknown, other_data], SETTINGS, CUTOFF).teacher == "another"
    message = "other.h5: has labels of 'another', but an earlier file has labels of 'morse'"
    for files in ([other_data], [unknown, other_data]):
        with pytest.raises(ValueError, match=message):
            TrainingData([dataset, *files], SETTINGS, CUTOFF)
    with pytest.raises(ValueError, match=message):
        TrainingData([dataset], SETTINGS, CUTOFF, tests=[other_data])
    with pytest.raises(ValueError, match=message):
        TrainingData([dataset], SETTINGS, CUTOFF, calibration=other_data)
    versions = [
        labelled_by("mine", tmp_path / f"{i}.h5", dataset, range(60), module_sha256=code)
        for i, code in enumerate(("ab", "ab", "cd"))
    ]
    TrainingData(versions[:2], SETTINGS, CUTOFF)
    with pytest.raises(ValueError, match=r"2\.h5: .*'mine'.*module_sha256 is 'cd' here and 'ab'"):
        TrainingData(versions, SETTINGS, CUTOFF)


def test_labels_of_different_settings_are_not_mixed(dataset: Path, tmp_path: Path) -> None:
    settings: list[dict[str, Any]] = [
        {"package": "so3 1.0", "torch": "2.1", "cutoff_long_range": 12.0},
        {"package": "so3 1.1", "torch": "2.2", "cutoff_long_range": 12.0},
        {"package": "so3 1.1", "torch": "2.2", "cutoff_long_range": "none"},
        {"package": "so3 1.1", "cutoff_long_range": 12.0, "periodic_coulomb": "Ewald"},
        {},
    ]
    first, newer, unlimited, ewald, unknown = (
        labelled_by("so3lr", tmp_path / f"{i}.h5", dataset, range(60), **teacher_settings)
        for i, teacher_settings in enumerate(settings)
    )
    TrainingData([unknown, first, newer], SETTINGS, CUTOFF)
    for path, difference in (
        (unlimited, r"cutoff_long_range is 'none' here and 12\.0 there"),
        (ewald, "periodic_coulomb is 'Ewald' here and not given there"),
    ):
        message = rf"{path.name}: has labels of 'so3lr' with other settings.*{difference}; label"
        with pytest.raises(ValueError, match=message):
            TrainingData([unknown, first, path], SETTINGS, CUTOFF)
        with pytest.raises(ValueError, match=message):
            TrainingData([first], SETTINGS, CUTOFF, tests=[path])
        with pytest.raises(ValueError, match=message):
            TrainingData([first], SETTINGS, CUTOFF, calibration=path)


def test_files_without_labels_are_refused(dataset: Path, tmp_path: Path) -> None:
    with Dataset(dataset) as file:
        write_dataset(tmp_path / "bare.h5", file.read_structures())
    message = r"bare\.h5: has no labels; give what the step 'label' writes"
    with pytest.raises(ValueError, match=message):
        TrainingData([dataset, tmp_path / "bare.h5"], SETTINGS, CUTOFF)
    with pytest.raises(ValueError, match=message):
        TrainingData([dataset], SETTINGS, CUTOFF, tests=[tmp_path / "bare.h5"])


def test_names_of_tests_are_unique(dataset: Path, tmp_path: Path) -> None:
    for part in ("test", "validation"):
        with pytest.raises(ValueError, match=f"a test cannot be called '{part}'"):
            TrainingData([dataset], SETTINGS, CUTOFF, tests=[tmp_path / f"{part}.h5"])
    with pytest.raises(ValueError, match="2 tests are called 'md'"):
        TrainingData(
            [dataset], SETTINGS, CUTOFF, tests=[tmp_path / "md.h5", tmp_path / "other" / "md.h5"]
        )


def test_tests_with_training_structures_are_refused(dataset: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, split="structure")
    with Dataset(dataset) as file:
        parts = parts_of(file.read_structures(), "structure")
    held_out = [row for row, part in enumerate(parts) if part != "train"]
    valid = labelled_by("morse", tmp_path / "fine.h5", dataset, held_out)
    assert len(TrainingData([dataset], settings, CUTOFF, tests=[valid]).tests["fine"]) == len(
        held_out
    )
    row = parts.index("train")
    invalid = labelled_by("morse", tmp_path / "bad.h5", dataset, [*held_out[:2], row])
    with pytest.raises(ValueError, match="structure 2 is for the test only, but it is train"):
        TrainingData([dataset], settings, CUTOFF, tests=[invalid])


def test_added_second_moments_start_without_influence(dataset: Path, tmp_path: Path) -> None:
    without = {"tensor_channels": 0}
    trained = begin(dataset, tmp_path / "first", changes=without)
    trained.run()
    start = load_student(tmp_path / "first" / "weights.safetensors")
    extended = begin(dataset, tmp_path / "second", start=start, changes={"tensor_channels": 3})
    batch = collate(extended.parts["test"], extended.cutoff, torch.device("cpu"))
    energies_before = build_network(start)(*batch.inputs)
    torch.testing.assert_close(extended.network(*batch.inputs), energies_before, rtol=0, atol=1e-6)
    extended.run()
    moments = extended.network.first.moments
    assert moments is not None
    assert moments.scalars.weight.abs().max() > 0
    with pytest.raises(ValueError, match="the student to start from has the shape"):
        begin(dataset, tmp_path / "third", start=load_student(tmp_path / "second"))


def test_whole_files_can_be_held_out(dataset: Path, tmp_path: Path) -> None:
    with Dataset(dataset) as file:
        structures, labels = file.read_structures(), file.read_labels()
    parts = np.array(parts_of(structures))
    for name, wanted in (("held-out", "test"), ("trained", "train")):
        rows = np.flatnonzero(parts == wanted)
        labels_of = dataclasses.replace(labels.take(rows), structure_indices=np.arange(len(rows)))
        write_dataset(tmp_path / f"{name}.h5", structures.take(rows), labels_of)
    without_tests = TrainingData([dataset], SETTINGS, CUTOFF)
    with_tests = TrainingData([dataset], SETTINGS, CUTOFF, tests=[tmp_path / "held-out.h5"])
    assert (
        len(with_tests.tests["held-out"]) == len(with_tests["test"]) == len(without_tests["test"])
    )
    assert len(with_tests["train"]) == len(without_tests["train"])
    with pytest.raises(ValueError, match="trained.h5: structure 0 is for the test"):
        TrainingData([dataset], SETTINGS, CUTOFF, tests=[tmp_path / "trained.h5"])


def test_a_split_by_structure_depends_only_on_the_structure(dataset: Path) -> None:
    with Dataset(dataset) as file:
        structures = file.read_structures()
    parts = parts_of(structures, "structure")
    assert {"train", "validation", "test"} == set(parts)
    order = np.random.default_rng(0).permutation(len(structures))
    assert parts_of(structures.take(order), "structure") == [parts[i] for i in order]
    assert parts != parts_of(structures, "structure", seed=1)
    # Structures of one atom differ only in their cell.
    cells = [bulk("Cu", a=3.0 + 0.01 * i) for i in range(100)]
    assert set(parts_of(Structures.from_atoms(cells), "structure")) == set(PARTS)


def test_the_summary_has_the_stress_where_there_is_one() -> None:
    row = {"force_rmse": 0.1, "force_r2": 0.99, "energy_mae": 0.002, "structures": 3.0}
    with_stress = {"all": row | {"stress_rmse": 0.2 * units.GPa}, "md": row}
    validation_line, test_line = table(
        {"validation": {"all": row}, "test": with_stress}
    ).splitlines()
    assert validation_line.endswith("energy MAE 2.00 meV/atom, stress RMSE 0.200 GPa, 3 structures")
    assert test_line.endswith("energy MAE 2.00 meV/atom, 3 structures")


def script_for_two_processes(dataset: Path, folder: Path, *options: str) -> Path:
    """Write a script that trains: a process can make PyTorch's process group only once."""
    arguments = [str(dataset), "-o", str(folder), "--student=ultra-tiny", "--devices=2"]
    arguments += ["--batch-size=4", "--threads=1", *options]
    code = (
        "import sys; from ase_student.distill.__main__ import main;"
        f"sys.exit(main(['train', *{arguments}]))"
    )
    script = folder / "script.py"
    script.write_text(f"if __name__ == '__main__':\n    {code}\n", encoding="utf-8")
    return script


def test_two_processes_end_with_the_same_weights(dataset: Path, tmp_path: Path) -> None:
    script = script_for_two_processes(dataset, tmp_path, "--epochs=1")
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    student = load_student(tmp_path / "weights.safetensors")
    n_train = student.metadata["data"][0]["structures"]["train"]
    assert student.metadata["training"]["processes"] == 2
    assert student.metadata["training"]["steps"] == -(-n_train // 4 // 2)


def test_worker_processes_end_with_their_parent(dataset: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    script = script_for_two_processes(dataset, tmp_path, "--epochs=100000", "--validate-every=2")
    # SIGINT is ignored, as in a background job of a shell.
    command = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, str(script)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as training:
        wait_for(lambda: (tmp_path / "checkpoint.pt").exists())
        workers = psutil.Process(training.pid).children(recursive=True)
        training.kill()
    assert len(workers) >= 2
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert [worker for worker in alive if worker.status() != psutil.STATUS_ZOMBIE] == []


def wait_for(condition: Callable[[], bool], seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_the_energy_weight_grows_from_its_first_to_its_final_value() -> None:
    settings = TrainingSettings(energy_weight=0.02, final_energy_weight=0.5)
    weights = [energy_weight(step, 100, settings) for step in range(101)]
    assert weights[0] == pytest.approx(0.02)
    assert weights[-1] == pytest.approx(0.5)
    assert weights == sorted(weights)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--epochs=0", "epochs must be at least 1; given 0."),
        ("--learning-rate=-1", "learning_rate must be above 0; given -1.0."),
        ("--accelerator=abacus", "cannot train on 1 device(s) 'abacus'"),
        ("--split=element", "split must be one of"),
    ],
)
def test_mistakes_get_one_line(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert main(["train", str(dataset), "-o", str(tmp_path / "run"), argument]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_data_without_molecules_cannot_be_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    atoms = [random_cluster((1, 6), 3, np.random.default_rng(0))]
    structures = Structures.from_atoms(atoms)
    labels = Labels(np.zeros(1, int), np.zeros(1), structures.splits, np.zeros((3, 3), np.float32))
    write_dataset(tmp_path / "plain.h5", structures, labels)
    assert main(["train", str(tmp_path / "plain.h5"), "-o", str(tmp_path / "run")]) == 2
    assert "no structures/molecules" in capsys.readouterr().err
    assert main(["train", str(tmp_path / "nothing.h5"), "-o", str(tmp_path / "run")]) == 2
    assert "no data set at" in capsys.readouterr().err
