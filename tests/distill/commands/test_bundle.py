"""Bundles of trained students: ONNX file, model card, metrics."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h5py")
pytest.importorskip("onnxscript")

from ase_student import StudentCalculator, load_student, save_student
from ase_student.distill.__main__ import main
from ase_student.distill.model_card import card
from ase_student.testing import structure

ERRORS = {
    "force_rmse": 0.1234,
    "force_r2": 0.9876,
    "force_sigma": 1.2,
    "energy_mae": 0.0042,
    "structures": 7,
}
METADATA = {
    "teacher": "so3lr",
    "data": [{"sha256": "ab" * 32, "structures": {"train": 1234}, "statistics": {"md": {}}}],
    "training": {
        "epochs": 3,
        "steps": 4321,
        "optimizer": "soap",
        "start": {"weights_sha256": "cd" * 32, "training": {"steps": 1111}},
    },
    "metrics": {
        "validation": {},
        "test": {"md": ERRORS, "all": ERRORS},
        "peptides": {"md": ERRORS},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return the folder of a run that has ended."""
    folder = tmp_path / "run"
    folder.mkdir()
    student = dataclasses.replace(load_student("tiny"), metadata=METADATA)
    save_student(student, folder / "weights.safetensors")
    row = {"step": 200, "validation": {"all": ERRORS}}
    (folder / "history.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return folder


def stability(student_sha256: str, path: Path, temperature: float = 300.0) -> Path:
    run = {"name": "CCO", "temperature": temperature, "picoseconds": 50.0, "stable": True}
    broken = {**run, "name": "CO", "stable": False, "failed_ps": 1.5, "reason": "a bond broke"}
    box = {**run, "name": "64 periodic waters", "picoseconds": 20.0}
    document: dict[str, Any] = {
        "weights_sha256": student_sha256, "timestep_fs": 1.0, "runs": [run, broken, box],
    }  # fmt: skip
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def bundle(run: Path, folder: Path, *options: str) -> int:
    return main(["bundle", str(run / "weights.safetensors"), "-o", str(folder), *options])


def test_a_bundle_holds_working_files_and_a_card_with_the_errors(run: Path, tmp_path: Path) -> None:
    sha256 = load_student(run / "weights.safetensors").sha256
    table = stability(sha256, tmp_path / "stability.json")
    folder = tmp_path / "mine"
    options = ["--recipe", "recipes/mine.toml", "--stability", str(table)]
    assert bundle(run, folder, *options) == 0
    assert {path.name for path in folder.iterdir()} == {
        "README.md", "export.json", "metrics.json", "weights.safetensors", "mine.onnx",
    }  # fmt: skip
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "# mine\n" in card
    assert (
        "| test part of the training data | molecules from dynamics | 7 | 1.20 | 0.123 | 0.9876 "
        "| 4.2 |" in card
    )
    assert "| peptides | molecules from dynamics | 7 |" in card
    assert "in steps of 1 fs" in card
    assert "| molecules | 300 | 50 | 1 of 2 |" in card
    assert "| 64 periodic waters | 300 | 20 | 1 of 1 |" in card
    assert "CO at 300 K after 1.50 ps: a bond broke" in card
    assert "4,321 steps" in card
    assert "which had 1,111 steps" in card
    assert "distill run recipes/mine.toml" in card
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert report["weights_sha256"] == sha256
    assert report["learning_curve"][0]["step"] == 200
    atoms = structure("aspirin")
    energies = []
    for calculator in ("tiny", folder / "mine.onnx"):
        atoms.calc = StudentCalculator(calculator, "onnx")
        energies.append(atoms.get_potential_energy())
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)


def test_tables_of_stability_are_joined_and_a_calibration_is_reported(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ase_student.distill.commands.bundle.export_student", lambda *_, **__: None)
    weights = tmp_path / "calibrated" / "weights.safetensors"
    weights.parent.mkdir()
    student = load_student(run / "weights.safetensors")
    training = {
        **student.metadata["training"],
        "processes": 2,
        "calibration": {"sha256": "ab" * 32, "structures": 60, "shift": -0.00234},
    }
    metadata = {**student.metadata, "training": training}
    save_student(dataclasses.replace(student, metadata=metadata), weights)
    tables = [
        stability(student.sha256, tmp_path / f"{temperature}.json", temperature)
        for temperature in (300.0, 600.0)
    ]
    assert bundle(weights.parent, tmp_path / "mine", "--stability", *map(str, tables)) == 0
    card = (tmp_path / "mine" / "README.md").read_text(encoding="utf-8")
    assert "| molecules | 300 | 50 | 1 of 2 |\n| molecules | 600 | 50 | 1 of 2 |" in card
    assert "4,321 steps of 2 processes (" in card
    assert "shifted by -2.34 meV per atom" in card
    assert "in 60 structures of molecules for validation (SHA-256 `abababababab`)" in card
    report = json.loads((tmp_path / "mine" / "metrics.json").read_text(encoding="utf-8"))
    assert (report["stability"]["n_runs"], report["stability"]["n_stable"]) == (6, 4)


def test_a_bundle_can_be_bundled_again(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ase_student.distill.commands.bundle.export_student", lambda *_, **__: None)
    sha256 = load_student(run / "weights.safetensors").sha256
    folder, rebundled = tmp_path / "mine", tmp_path / "again" / "mine"
    table = stability(sha256, tmp_path / "stability.json")
    assert bundle(run, folder, "--stability", str(table)) == 0
    assert bundle(folder, rebundled) == 0
    for name in ("README.md", "metrics.json"):
        assert (rebundled / name).read_bytes() == (folder / name).read_bytes()
    # Metrics of other weights are not used.
    student = load_student(folder / "weights.safetensors")
    references = dict.fromkeys(student.reference_energies, 0.0)
    shifted = dataclasses.replace(student, reference_energies=references)
    save_student(shifted, folder / "weights.safetensors")
    assert bundle(folder, rebundled) == 0
    report = json.loads((rebundled / "metrics.json").read_text(encoding="utf-8"))
    assert (report["stability"], report["learning_curve"]) == (None, [])


def test_a_card_names_the_data_of_earlier_trainings() -> None:
    student = load_student("tiny")
    data = [{"structures": {"train": 5}, "sha256": "ab" * 32, "statistics": {"md": 0}}]
    first = {"weights_sha256": "cd" * 32, "data": data, "training": {"steps": 3}}
    second = {"weights_sha256": "ef" * 32, "data": None, "training": {"steps": 2, "start": first}}
    report = {**METADATA, "stability": None, "training": {"steps": 1, "start": second}}
    text = card(student, "mine", report)
    assert "weights `cdcdcdcdcdcd`, which were trained on\n\n- 5 for train: md" in text
    assert "`efefefefefef`, which were" not in text
    assert "had 2 steps." in text


def test_a_card_names_the_split_and_the_teacher_of_the_start() -> None:
    student = load_student("tiny")
    start = {"weights_sha256": "cd" * 32, "data": None, "training": {"steps": 3}, "teacher": "DFT"}
    training = {"steps": 1, "split": "structure", "start": start}
    text = card(student, "mine", {**METADATA, "stability": None, "training": training})
    assert "split is by structure: the training data hold other frames of the systems" in text
    assert "no conformer of a test" not in text
    assert "which had 3 steps with labels of DFT." in text


def test_a_run_in_two_tables_of_stability_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = str(stability(load_student(run / "weights.safetensors").sha256, tmp_path / "one.json"))
    assert bundle(run, tmp_path / "mine", "--stability", table, table) == 2
    assert "CCO at 300 K is 2 times in the tables of stability" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def chemistry(student_sha256: str, path: Path) -> Path:
    chemistry_of_student = {
        "words": "Good for vibrations (12 cm⁻¹).",
        "verdicts": [],
        "figures": [],
    }
    students = [{"weights_sha256": student_sha256, "chemistry": chemistry_of_student}]
    path.write_text(json.dumps({"students": students}), encoding="utf-8")
    return path


def test_a_card_has_the_chemistry_of_a_student(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ase_student.distill.commands.bundle.export_student", lambda *_, **__: None)
    sha256 = load_student(run / "weights.safetensors").sha256
    folder, rebundled = tmp_path / "mine", tmp_path / "again"
    results = chemistry(sha256, tmp_path / "chemistry.json")
    assert bundle(run, folder, "--chemistry", str(results)) == 0
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "## What it is good for\n\nGood for vibrations (12 cm⁻¹).\n" in text
    report = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    # Words and verdicts only: figures stay in the report of the validation.
    assert report["chemistry"] == {"words": "Good for vibrations (12 cm⁻¹).", "verdicts": []}
    assert bundle(folder, rebundled) == 0
    assert "Good for vibrations" in (rebundled / "README.md").read_text(encoding="utf-8")
    assert bundle(run, tmp_path / "without") == 0
    text = (tmp_path / "without" / "README.md").read_text(encoding="utf-8")
    assert "What it is good for" not in text


@pytest.mark.parametrize("content", ["", "[]", '{"students": []}', None])
def test_a_file_without_chemistry_of_these_weights_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    results = chemistry("00" * 32, tmp_path / "chemistry.json")
    if content is not None:
        results.write_text(content, encoding="utf-8")
    assert bundle(run, tmp_path / "mine", "--chemistry", str(results)) == 2
    assert "has no chemistry of these weights" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_stability_of_other_weights_is_refused(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = stability("00" * 32, tmp_path / "stability.json")
    assert bundle(run, tmp_path / "mine", "--stability", str(table)) == 2
    assert "is of other weights" in capsys.readouterr().err
    table.write_text("[]", encoding="utf-8")
    assert bundle(run, tmp_path / "mine", "--stability", str(table)) == 2
    assert "is not a table of stability" in capsys.readouterr().err


def test_an_unfinished_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = dataclasses.replace(load_student("tiny"), metadata={"metrics": {}})
    save_student(student, tmp_path / "weights.safetensors")
    assert bundle(tmp_path, tmp_path / "mine") == 2
    assert "has no metrics on held-out molecules" in capsys.readouterr().err
