"""Labelling: correct labels, resumed runs, and failures that are never labels."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT

from ase_student.data.hdf5 import Dataset, write_dataset
from ase_student.data.structures import Structures
from ase_student.distill.__main__ import main
from ase_student.distill.commands import label as commands_label
from ase_student.distill.labelling import checks as checks
from ase_student.distill.labelling import chunks, label
from ase_student.potentials import calculator
from ase_student.potentials.base import Evaluation, Refusal

pytest.importorskip("h5py")


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
    """The energy is the sum of positions. Counts structures and can be interrupted."""

    def __init__(self, stop_after=None, elements=None, **settings):
        self.name = "counting"
        self.elements = elements
        self.settings = settings
        self.n_structures = 0
        self.stop_after = stop_after

    def evaluate(self, structures):
        if self.stop_after is not None and self.n_structures >= self.stop_after:
            raise KeyboardInterrupt
        self.n_structures += len(structures)
        return [Evaluation(float(atoms.positions.sum()), -atoms.positions) for atoms in structures]


class BrokenCalculator(Calculator):
    """A calculator that fails in a different way for each of the first structures."""

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
    return calculator.CalculatorTeacher("broken", BrokenCalculator, {})


def test_labels_are_those_of_the_calculator(path, tmp_path):
    output = tmp_path / "labelled.h5"
    teacher = calculator.CalculatorTeacher("emt", EMT, {"package": "ase"})
    report = label.label_structures(path, teacher, output)
    assert report == {
        "n_structures": 7,
        "n_labels": 7,
        "n_failures": 0,
        "n_atomic_energies": 7,
        "n_without_stress": 0,
        "failure_reasons": {},
    }
    with Dataset(output) as dataset:
        for i, atoms in enumerate(waters(7)):
            assert dataset.atoms(i) == atoms
            atoms.calc = EMT()
            labels = dataset.labels(i)
            assert labels is not None
            assert labels["energy"] == atoms.get_potential_energy()
            np.testing.assert_allclose(labels["forces"], atoms.get_forces(), rtol=1e-6)
            np.testing.assert_array_equal(labels["energies"], atoms.get_potential_energies())
            assert "stress" not in labels
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
    teacher = calculator.CalculatorTeacher("emt", EMT, {})
    label.label_structures(tmp_path / "cu.h5", teacher, tmp_path / "out.h5")
    with Dataset(tmp_path / "out.h5") as dataset:
        labels = dataset.read_labels()
        assert labels.stress_mask is not None
        assert labels.stress_mask.tolist() == [True, True, False]
        for i in (0, 1):
            structures[i].calc = EMT()
            labels_of_crystal = dataset.labels(i)
            assert labels_of_crystal is not None
            np.testing.assert_array_equal(labels_of_crystal["stress"], structures[i].get_stress())


def test_crystals_without_stress_are_counted(tmp_path):
    structures = [bulk("Cu", cubic=True), bulk("Cu"), molecule("H2O")]
    write_dataset(tmp_path / "cu.h5", Structures.from_atoms(structures))
    teacher = CountingTeacher()
    report = label.label_structures(tmp_path / "cu.h5", teacher, tmp_path / "out.h5")
    assert (report["n_labels"], report["n_without_stress"]) == (3, 2)
    text = commands_label.summary(report, "me")
    assert text == "3 structures labeled by me, 2 crystals of them without stress, 0 failed."


def test_an_interrupted_run_is_resumed_without_repeating(path, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 2)
    output = tmp_path / "out.h5"
    first = CountingTeacher(stop_after=4)
    with pytest.raises(KeyboardInterrupt):
        label.label_structures(path, first, output)
    assert first.n_structures == 4
    assert not output.exists()
    # The remains of a killed write must not be taken for a finished piece.
    partial = output.with_name("out.h5.partial")
    (partial / ".000000004-000000006.npz.1.tmp").write_bytes(b"half")
    second = CountingTeacher()
    label.label_structures(path, second, output)
    assert second.n_structures == 3
    label.label_structures(path, CountingTeacher(), tmp_path / "whole.h5")
    with Dataset(output) as resumed, Dataset(tmp_path / "whole.h5") as uninterrupted:
        np.testing.assert_array_equal(
            resumed.read_labels().energies, uninterrupted.read_labels().energies
        )
        np.testing.assert_array_equal(
            resumed.read_labels().forces, uninterrupted.read_labels().forces
        )
    assert not partial.exists()


def test_labels_of_other_settings_are_not_mixed(path, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 2)
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
    result = checks.checked(Evaluation(0.0, np.zeros((2, 3))), waters(1)[0], 60.0)
    assert result == Refusal("forces of shape (2, 3) for 3 atoms")


@pytest.mark.parametrize(
    ("energies", "are_kept"),
    [
        ([-1.0, -2.0, -3.0], True),
        ([-1.0, -2.0, -3.0 + 2e-4], True),
        ([-1.0, -2.0, -3.0 + 4e-4], False),
        ([-1.0, np.nan, -3.0], False),
        ([-3.0, -3.0], False),
        (None, False),
    ],
)
def test_atomic_energies_are_kept_if_they_are_parts_of_the_energy(energies, are_kept):
    energies = None if energies is None else np.array(energies)
    evaluation = Evaluation(-6.0, np.zeros((3, 3)), energies=energies)
    result = checks.checked(evaluation, waters(1)[0], 60.0)
    assert isinstance(result, Evaluation)
    assert result.energy == -6.0
    assert result.energies is (evaluation.energies if are_kept else None)


class SomeEnergies(CountingTeacher):
    """A teacher that gives atomic energies for every second structure."""

    def evaluate(self, structures):
        evaluations = []
        for i, evaluation in enumerate(super().evaluate(structures)):
            energies = -evaluation.forces.sum(axis=1) if i % 2 else None
            evaluations.append(dataclasses.replace(evaluation, energies=energies))
        return evaluations


def test_atomic_energies_may_be_missing_for_some(path, tmp_path):
    report = label.label_structures(path, SomeEnergies(), tmp_path / "out.h5")
    assert report["n_atomic_energies"] == 3
    with Dataset(tmp_path / "out.h5") as dataset:
        for i in range(7):
            labels = dataset.labels(i)
            assert labels is not None
            assert ("energies" in labels) == (i % 2 == 1)
            if i % 2:
                np.testing.assert_array_equal(labels["energies"], dataset.atoms(i).positions.sum(1))


def test_unknown_elements_are_skipped_and_counted(path, tmp_path):
    structures = [Atoms("UH", np.eye(2, 3)), Atoms("Og"), Atoms("U"), *waters(1)]
    write_dataset(path, Structures.from_atoms(structures))
    teacher = calculator.CalculatorTeacher("emt", EMT, {}, elements=range(1, 20))
    report = label.label_structures(path, teacher, tmp_path / "out.h5")
    assert report["failure_reasons"] == {
        "has U, which the teacher does not know": 2,
        "has Og, which the teacher does not know": 1,
    }
    with Dataset(tmp_path / "out.h5") as dataset:
        assert dataset.read_labels().structure_indices.tolist() == [3]
        assert dataset.metadata["failure_reasons"] == report["failure_reasons"]


@pytest.mark.parametrize(
    ("elements", "known"),
    [({6, 1}, "knows H, C"), (range(9, 90), "knows 81 elements up to Ac")],
)
def test_a_teacher_of_other_elements_is_refused_before_any_evaluation(
    path, tmp_path, elements, known
):
    teacher = CountingTeacher(elements=elements)
    message = (
        f"structures.h5: the teacher 'counting' {known}; structure 0 has O "
        "(structures/atomic_numbers[0]), and every other has such an element."
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        label.label_structures(path, teacher, tmp_path / "out.h5")
    assert teacher.n_structures == 0


class Failing(CountingTeacher):
    """A teacher that fails for the structures of `failing`."""

    failing: dict[int, str] = {}  # noqa: RUF012

    def evaluate(self, structures):
        first = self.n_structures
        evaluations = super().evaluate(structures)
        return [
            Refusal(self.failing[i]) if i in self.failing else evaluation
            for i, evaluation in enumerate(evaluations, first)
        ]


@pytest.mark.parametrize(
    ("failing", "stops"),
    [
        ({0: "no licence", 1: "no licence"}, True),
        ({0: "no licence", 1: "no licence", 2: "x", 3: "x", 4: "x", 5: "x", 6: "x"}, True),
        ({0: "no licence", 1: "no convergence"}, False),
        ({0: "no licence"}, False),
        ({2: "no licence", 3: "no licence"}, False),
    ],
)
def test_the_same_failure_of_all_first_structures_stops(
    path, tmp_path, monkeypatch, failing, stops
):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 2)
    monkeypatch.setattr(Failing, "failing", failing)
    teacher = Failing()
    output = tmp_path / "out.h5"
    if not stops:
        assert label.label_structures(path, teacher, output)["n_failures"] == len(failing)
        return
    message = "could label none of the first 2 structures of structures.h5; its message for "
    with pytest.raises(ValueError, match=f"{message}structure 0 and all others: no licence"):
        label.label_structures(path, teacher, output)
    assert teacher.n_structures == 2
    assert [file.name for file in tmp_path.iterdir()] == ["structures.h5"]


def test_unknown_elements_in_all_first_structures_do_not_stop(path, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 2)
    write_dataset(path, Structures.from_atoms([Atoms("U"), Atoms("U"), *waters(3)]))
    teacher = calculator.CalculatorTeacher("emt", EMT, {}, elements=(1, 8))
    assert label.label_structures(path, teacher, tmp_path / "out.h5")["n_labels"] == 3


@pytest.mark.parametrize("n_answers", [6, 8])
def test_another_number_of_answers_is_an_error(path, tmp_path, n_answers):
    teacher = CountingTeacher()
    teacher.evaluate = lambda structures: [Refusal("no")] * n_answers
    with pytest.raises(ValueError, match=f"gave {n_answers} answers to 7 structures"):
        label.label_structures(path, teacher, tmp_path / "out.h5")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 and no more"])
def test_a_damaged_piece_is_named(path, tmp_path, monkeypatch, data):
    monkeypatch.setattr(chunks, "CHUNK_SIZE", 2)
    with pytest.raises(KeyboardInterrupt):
        label.label_structures(path, CountingTeacher(stop_after=4), tmp_path / "out.h5")
    damaged = tmp_path / "out.h5.partial" / "000000002-000000004.npz"
    damaged.write_bytes(data)
    with pytest.raises(ValueError, match=r"000000002-000000004\.npz' is damaged: delete it"):
        label.label_structures(path, CountingTeacher(), tmp_path / "out.h5")


@pytest.mark.parametrize(
    ("report", "text"),
    [
        ((5, 5, {}), "5 structures labeled by me, 0 failed."),
        ((5, 0, {"a": 1}), "5 structures labeled by me, 1 failed: 1 × a."),
        (
            (5, 3, {"a": 3, "b": 2, "c": 1}),
            "5 structures labeled by me, 3 of them with atomic energies, 6 failed: "
            "3 × a; 2 × b; 1 × c.",
        ),
        (
            (5, 5, {"a": 3, "b": 2, "c": 1, "d": 1}),
            "5 structures labeled by me, 7 failed: 3 × a; 2 × b; 1 × c; others for other "
            "reasons, see /failures in the file.",
        ),
    ],
)
def test_the_summary_counts_failures_by_reason(report, text):
    n_labels, n_atomic_energies, reasons = report
    full_report = {
        "n_labels": n_labels,
        "n_atomic_energies": n_atomic_energies,
        "n_without_stress": 0,
        "n_failures": sum(reasons.values()),
        "failure_reasons": reasons,
    }
    assert commands_label.summary(full_report, "me") == text


def test_a_teacher_that_always_fails_leaves_no_file(path, tmp_path, capsys):
    command = ["label", str(path), "-o", str(tmp_path / "out.h5")]
    teacher = "ase.calculators.emt:EMT"
    write_dataset(path, Structures.from_atoms([Atoms("U"), Atoms("U2", [[0] * 3, [0, 0, 3]])]))
    assert main([*command, "--teacher", teacher]) == 2
    error = capsys.readouterr().err
    assert f"the teacher '{teacher}' could label none of the first 2 structures of " in error
    assert (
        "its message for structure 0 and all others: NotImplementedError: No EMT-potential" in error
    )
    assert [file.name for file in tmp_path.iterdir()] == ["structures.h5"]


def test_the_command_labels_with_any_calculator(path, tmp_path, capsys):
    output = tmp_path / "out.h5"
    teacher = "ase.calculators.emt:EMT"
    assert main(["label", str(path), "--teacher", teacher, "-o", str(output)]) == 0
    assert capsys.readouterr().out.endswith(f"7 structures labeled by {teacher}, 0 failed.\n")
    with Dataset(output) as dataset:
        assert dataset.metadata["teacher_settings"]["package"].startswith("ase 3.")
        assert dataset.metadata["command"].startswith("python -m ase_student.distill label ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--teacher", "so3lrr"], "no teacher named 'so3lrr'; available: 'so3lr', 'gfn2-xtb', "),
        (["--teacher", "no.such:Thing"], "teacher 'no.such:Thing': No module named 'no'."),
        (["--teacher", "ase:Thing"], "teacher 'ase:Thing': module 'ase' has no 'Thing'."),
        (["--teacher", "ase:Atoms"], "'ase:Atoms' makes neither a teacher (with 'settings'"),
        (["--teacher", "ase.calculators.lj:"], "has no ''."),
        (
            ["--teacher", "ase.calculators.mixing:SumCalculator"],
            "teacher 'ase.calculators.mixing:SumCalculator' cannot be made: TypeError: ",
        ),
        (["--teacher", "math:pi"], "teacher 'math:pi' cannot be called."),
        (["--teacher", "so3lr", "--first", "0"], "--first is 0; it must be at least 1."),
        (["--teacher", "so3lr", "--max-force", "0"], "--max-force is 0; it must be above 0 eV/Å."),
        (["--teacher", "so3lr", "--processes", "0"], "--processes is 0; it must be at least 1."),
        (
            ["--teacher", "so3lr", "--processes", "2", "--scheduler", "tcp://localhost:1"],
            "--processes and --scheduler exclude each other; give one of them.",
        ),
        (["--teacher", "so3lr", "-o", "structures.h5"], "is the file of structures"),
    ],
)
def test_mistakes_get_one_line(path, monkeypatch, capsys, options, message):
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


def test_charges_and_hirshfeld_ratios_are_kept_where_they_are_finite(path, tmp_path):
    class ChargedTeacher(CountingTeacher):
        def evaluate(self, structures):
            labels = []
            for i, evaluation in enumerate(super().evaluate(structures)):
                charges = np.array([-0.6, 0.3, 0.3]) if i % 2 else np.zeros(2)
                ratios = np.array([0.9, np.inf if i == 3 else 0.6, 0.6])
                labels.append(
                    dataclasses.replace(evaluation, charges=charges, hirshfeld_ratios=ratios)
                )
            return labels

    label.label_structures(path, ChargedTeacher(), tmp_path / "labelled.h5")
    with Dataset(tmp_path / "labelled.h5") as dataset:
        labels = dataset.read_labels().take([1, 0, 3])
    none = np.full(3, np.nan)
    expected = np.concatenate([[-0.6, 0.3, 0.3], none, [-0.6, 0.3, 0.3]]).astype(np.float32)
    np.testing.assert_array_equal(labels.charges, expected)
    ratios = np.concatenate([[0.9, 0.6, 0.6], [0.9, 0.6, 0.6], none]).astype(np.float32)
    np.testing.assert_array_equal(labels.hirshfeld_ratios, ratios)


def test_charges_of_a_calculator_are_kept():
    class Charges(Calculator):
        implemented_properties = ["energy", "forces", "charges"]  # noqa: RUF012

        def calculate(self, *arguments):
            super().calculate(*arguments)
            charges = np.array([-0.6, 0.3, 0.3])
            self.results = {"energy": -1.0, "forces": np.zeros((3, 3)), "charges": charges}

    (result,) = calculator.CalculatorTeacher("charges", Charges, {}).evaluate([molecule("H2O")])
    np.testing.assert_array_equal(result.charges, [-0.6, 0.3, 0.3])
