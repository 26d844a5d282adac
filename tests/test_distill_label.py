"""Labelling: right labels, resumable, and failures are never labels."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from ase_student.dataset import Dataset, Structures, write_dataset
from ase_student.distill import label, teachers
from ase_student.distill.__main__ import main
from ase_student.distill.teachers import Failure, Label

pytest.importorskip("h5py")

#: float32 results of one structure alone and among others: eV, eV/Å.
BATCH_TOLERANCE = 2e-5
#: float32 against float64 of SO3LR: eV, eV/Å.
FLOAT32_ENERGY_TOLERANCE = 1e-4
FLOAT32_FORCE_TOLERANCE = 2e-4


def waters(n):
    rng = np.random.default_rng(0)
    structures = []
    for _ in range(n):
        atoms = molecule("H2O")
        atoms.positions += rng.normal(scale=0.05, size=(3, 3))
        structures.append(atoms)
    return structures


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "structures.h5"
    write_dataset(path, Structures.from_atoms(waters(7), sources=["md"] * 4 + ["displaced"] * 3))
    return path


class CountingTeacher:
    """Knows the sum of positions, counts what it is asked, and can be interrupted."""

    def __init__(self, stop_after=None, **settings):
        self.name = "counting"
        self.settings = settings
        self.asked = 0
        self.stop_after = stop_after

    def label(self, structures):
        if self.stop_after is not None and self.asked >= self.stop_after:
            raise KeyboardInterrupt
        self.asked += len(structures)
        return [Label(float(atoms.positions.sum()), -atoms.positions) for atoms in structures]


class BrokenCalculator(Calculator):
    """Fails in another way for each of the first structures."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        number = round(atoms.positions[0, 0])
        if number == 0:
            raise RuntimeError("no convergence\nafter 50 cycles")
        forces = np.zeros((len(atoms), 3))
        self.results = {"energy": np.nan if number == 1 else -1.0, "forces": forces}
        forces[2, 1] = {2: np.nan, 3: 70.0, 4: 59.0}.get(number, 0.0)


def broken_teacher():
    return teachers.CalculatorTeacher("broken", BrokenCalculator, {})


def test_labels_are_those_of_the_calculator(path, tmp_path):
    output = tmp_path / "labelled.h5"
    teacher = teachers.CalculatorTeacher("emt", EMT, {"package": "ase"})
    report = label.label_structures(path, teacher, output)
    assert report == {"n_structures": 7, "n_labels": 7, "n_failures": 0}
    with Dataset(output) as dataset:
        for i, atoms in enumerate(waters(7)):
            assert dataset.atoms(i) == atoms
            atoms.calc = EMT()
            found = dataset.labels(i)
            assert found is not None
            assert found["energy"] == atoms.get_potential_energy()
            np.testing.assert_allclose(found["forces"], atoms.get_forces(), rtol=1e-6)
            assert "stress" not in found
        assert dataset.read_structures().sources == ("md",) * 4 + ("displaced",) * 3
        metadata = dataset.metadata
    assert metadata["teacher"] == "emt"
    assert metadata["n_labels"] == 7
    assert {"created", "versions", "teacher_settings", "max_force"} <= metadata.keys()
    assert metadata["statistics"]["md"]["n"] == 4
    assert not output.with_name("labelled.h5.partial").exists()


def test_stress_is_kept_for_crystals_only(tmp_path):
    structures = [bulk("Cu", cubic=True), bulk("Cu"), Atoms("Cu2", [[0, 0, 0], [0, 0, 2.4]])]
    structures[0].positions += 0.05 * np.arange(12).reshape(4, 3)
    write_dataset(tmp_path / "cu.h5", Structures.from_atoms(structures))
    teacher = teachers.CalculatorTeacher("emt", EMT, {})
    label.label_structures(tmp_path / "cu.h5", teacher, tmp_path / "out.h5")
    with Dataset(tmp_path / "out.h5") as dataset:
        labels = dataset.read_labels()
        assert labels.stress_mask is not None
        assert labels.stress_mask.tolist() == [True, True, False]
        for i in (0, 1):
            structures[i].calc = EMT()
            found = dataset.labels(i)
            assert found is not None
            np.testing.assert_array_equal(found["stress"], structures[i].get_stress())


def test_an_interrupted_run_goes_on_without_repeating(path, tmp_path, monkeypatch):
    monkeypatch.setattr(label, "CHUNK_SIZE", 2)
    output = tmp_path / "out.h5"
    first = CountingTeacher(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        label.label_structures(path, first, output)
    assert first.asked == 4
    assert not output.exists()
    # What a kill in the middle of a write leaves behind must not be taken for a finished piece.
    partial = output.with_name("out.h5.partial")
    (partial / ".000000004-000000006.npz.1.tmp").write_bytes(b"half")
    second = CountingTeacher()
    label.label_structures(path, second, output)
    assert second.asked == 3
    label.label_structures(path, CountingTeacher(), tmp_path / "whole.h5")
    with Dataset(output) as one, Dataset(tmp_path / "whole.h5") as other:
        np.testing.assert_array_equal(one.read_labels().energies, other.read_labels().energies)
        np.testing.assert_array_equal(one.read_labels().forces, other.read_labels().forces)
    assert not partial.exists()


def test_labels_of_other_settings_are_not_mixed(path, tmp_path, monkeypatch):
    monkeypatch.setattr(label, "CHUNK_SIZE", 2)
    output = tmp_path / "out.h5"
    with pytest.raises(KeyboardInterrupt):
        label.label_structures(path, CountingTeacher(stop_after=2, cutoff=4), output)
    with pytest.raises(ValueError, match=r"made with other teacher: delete it or write"):
        label.label_structures(path, CountingTeacher(cutoff=5), output)
    with pytest.raises(ValueError, match=r"made with other max_force: "):
        label.label_structures(path, CountingTeacher(cutoff=4), output, max_force=5.0)


def test_only_the_first_structures_may_be_labelled(path, tmp_path):
    label.label_structures(path, CountingTeacher(), tmp_path / "out.h5", first=3)
    with Dataset(tmp_path / "out.h5") as dataset:
        assert len(dataset) == dataset.n_labels == 3


def test_failures_are_recorded_and_never_labels(path, tmp_path):
    structures = waters(7)
    for i, atoms in enumerate(structures):
        atoms.positions[0, 0] = i
    write_dataset(path, Structures.from_atoms(structures))
    label.label_structures(path, broken_teacher(), tmp_path / "out.h5")
    with Dataset(tmp_path / "out.h5") as dataset:
        assert dataset.read_labels().structure_indices.tolist() == [4, 5, 6]
        assert dataset.failures == {
            0: "RuntimeError: no convergence after 50 cycles",
            1: "energy is nan",
            2: "forces are not finite",
            3: "force on atom 2 is 70 eV/Å, above the limit of 60",
        }
        assert dataset.metadata["n_failures"] == 4
        assert dataset.labels(3) is None


def test_forces_of_the_wrong_shape_are_a_failure():
    answer = label.checked(Label(0.0, np.zeros((2, 3))), waters(1)[0], 60.0)
    assert answer == Failure("forces of shape (2, 3) for 3 atoms")


def test_a_teacher_that_always_fails_leaves_no_file(path, tmp_path, capsys):
    command = ["label", str(path), "-o", str(tmp_path / "out.h5")]
    teacher = "ase.calculators.emt:EMT"
    write_dataset(path, Structures.from_atoms([Atoms("U"), Atoms("U2", [[0] * 3, [0, 0, 3]])]))
    assert main([*command, "--teacher", teacher]) == 2
    error = capsys.readouterr().err
    assert "could label none of the 2 structures of structures.h5; it says of the first: " in error
    assert [file.name for file in tmp_path.iterdir()] == ["structures.h5"]


def test_the_command_labels_with_any_calculator(path, tmp_path, capsys):
    output = tmp_path / "out.h5"
    teacher = "ase.calculators.emt:EMT"
    assert main(["label", str(path), "--teacher", teacher, "-o", str(output)]) == 0
    assert capsys.readouterr().out.endswith(f"7 structures labelled by {teacher}, 0 failed.\n")
    with Dataset(output) as dataset:
        assert dataset.metadata["teacher_settings"]["package"].startswith("ase 3.")
        assert dataset.metadata["command"].startswith("python -m ase_student.distill label ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "so3lrr"], "no teacher named 'so3lrr'; available: 'so3lr', 'gfn2-xtb'."),
        (["--teacher", "no.such:Thing"], "teacher 'no.such:Thing': No module named 'no'."),
        (["--teacher", "ase:Thing"], "teacher 'ase:Thing': module 'ase' has no 'Thing'."),
        (["--teacher", "ase:Atoms"], None),
        (["--teacher", "math:pi"], "teacher 'math:pi' is not a class of ASE calculators."),
        (["--teacher", "so3lr", "--first", "0"], "--first is 0; it must be at least 1."),
        (["--teacher", "so3lr", "--max-force", "0"], "--max-force is 0; it must be above 0 eV/Å."),
        (["--teacher", "so3lr", "-o", "structures.h5"], "is the file of structures"),
    ],
)
def test_mistakes_are_told_in_one_line(path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(path.parent)
    assert main(["label", "structures.h5", "-o", "out.h5", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message is None or message in error
    assert not (path.parent / "out.h5").exists()


def test_missing_structures_are_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["label", "none.h5", "-o", "out.h5", "--teacher", "so3lr"]) == 2
    assert capsys.readouterr().err == "error: no data set at 'none.h5'.\n"


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("so3lr", "so3krates_torch", "distill"), ("gfn2-xtb", "tblite", "xtb")],
)
def test_missing_extras_say_how_to_install_them(monkeypatch, name, package, extra):
    for loaded in list(sys.modules):
        if loaded.split(".")[0] == package:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=re.escape(f'pip install "ase-student[{extra}]"')):
        teachers.load_teacher(name)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_so3lr_labels_many_as_it_labels_one():
    pytest.importorskip("so3krates_torch")
    import torch

    before = torch.get_default_dtype()
    structures = [molecule(name) for name in ("CH3COOH", "H2O", "C6H6")]
    teacher = teachers.load_teacher("so3lr")
    exact = teachers.So3lrTeacher("float64").label(structures)
    for atoms, one, reference in zip(structures, teacher.label(structures), exact, strict=True):
        (alone,) = teacher.label([atoms])
        assert isinstance(one, Label)
        assert isinstance(alone, Label)
        assert isinstance(reference, Label)
        assert one.forces.dtype == np.float32
        assert one.stress is None
        assert one.energy == pytest.approx(alone.energy, abs=BATCH_TOLERANCE)
        np.testing.assert_allclose(one.forces, alone.forces, rtol=0, atol=BATCH_TOLERANCE)
        assert one.energy == pytest.approx(reference.energy, abs=FLOAT32_ENERGY_TOLERANCE)
        np.testing.assert_allclose(
            one.forces, reference.forces, rtol=0, atol=FLOAT32_FORCE_TOLERANCE
        )
    assert torch.get_default_dtype() == before

    # The package's own calculator, whose energies keep the constant inside.
    from so3krates_torch.calculator.so3 import SO3LRCalculator

    atoms = structures[0]
    with teachers.default_dtype(torch.float64):
        atoms.calc = SO3LRCalculator(device="cpu", default_dtype="float64")
        assert isinstance(exact[0], Label)
        assert exact[0].energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(exact[0].forces, atoms.get_forces(), rtol=0, atol=1e-9)
