"""Release of a trained student: all steps, resumption, and refusal of a worse student."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("h5py")
pytest.importorskip("matplotlib")
pytest.importorskip("chemiscope")
pytest.importorskip("filelock")

from ase_student import load_student, save_student
from ase_student.checkpoint import student_folder
from ase_student.release import steps
from ase_student.release.__main__ import main
from ase_student.release.comparison import worse

NAME = "ultra-tiny"
DATA = Path(__file__).parents[2] / "validation" / "reference" / "nci-so3lr-test.h5"
ALL = ["export", "verify", "validation", "stability", "card", "benchmarks"]


def copied(model, folder, formats=("onnx", "torchscript"), dtype="float32") -> dict:
    """Replace the exporter, which takes as long as all other steps."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(student_folder(NAME) / f"{NAME}.onnx", folder / f"{NAME}.onnx")
    summary = {"files": {f"{NAME}.onnx": {}}}
    (folder / "export.json").write_text(json.dumps(summary), encoding="utf-8")
    return summary


@pytest.fixture(autouse=True)
def quick(monkeypatch, tmp_path):
    """Replace the export by a copy, and validate on few structures."""
    monkeypatch.setattr(steps, "export_student", copied)
    monkeypatch.setattr(steps.bundle, "export_student", copied)
    settings_of = steps.validation_settings
    monkeypatch.setattr(
        steps, "validation_settings",
        lambda arguments, command: dataclasses.replace(settings_of(arguments, command), limit=6),
    )  # fmt: skip


@pytest.fixture
def run_folder(tmp_path) -> Path:
    """Return the folder of a finished training."""
    folder = tmp_path / "run"
    save_student(load_student(NAME), folder / "weights.safetensors")
    return folder


def command(run_folder: Path, students: Path, *options: str) -> list[str]:
    return [
        str(run_folder), "--name", NAME, "--students", str(students), "--data", str(DATA),
        "--number", "1", "--picoseconds", "0.01", "--physics", "0", "--no-benchmark", *options,
    ]  # fmt: skip


def damaged(folder: Path) -> None:
    """Write the weights of a slightly worse student."""
    student = load_student(NAME)
    rng = np.random.default_rng(0)
    tensors = {
        name: (tensor * (1.0 + 0.05 * rng.standard_normal(tensor.shape))).astype(np.float32)
        for name, tensor in student.tensors.items()
    }
    save_student(dataclasses.replace(student, tensors=tensors), folder / "weights.safetensors")


def test_a_first_student_is_published_with_all_its_files(run_folder, tmp_path, capsys):
    students = tmp_path / "students"
    assert main(command(run_folder, students)) == 0
    printed = capsys.readouterr().out
    assert "published" in printed
    assert "force RMSE" in printed
    assert {path.name for path in (students / NAME).iterdir()} == {
        "README.md", "metrics.json", "weights.safetensors", f"{NAME}.onnx", "export.json",
    }  # fmt: skip
    work = run_folder / "release"
    assert list(json.loads((work / "results.json").read_text("utf-8"))) == ALL
    assert (work / "validation" / DATA.stem / "report.html").is_file()
    assert (work / "report.md").read_text("utf-8").startswith(f"# Release of {NAME}")
    # Once more: the student is already published.
    assert main(command(run_folder, students)) == 0
    assert "already holds these weights" in capsys.readouterr().out


def test_finished_steps_are_not_repeated_after_an_interruption(run_folder, tmp_path, monkeypatch):
    calls = []

    def counted(name):
        def step(_):
            calls.append(name)
            return {"n_stable": 1, "n_runs": 1} if name == "stability" else {}

        return step

    def interrupted(_):
        calls.append("validation")
        raise KeyboardInterrupt

    for name in ALL:
        monkeypatch.setitem(steps.STEPS, name, counted(name))
    monkeypatch.setitem(steps.STEPS, "validation", interrupted)
    assert main(command(run_folder, tmp_path / "students")) == 130
    assert calls == ["export", "verify", "validation"]
    monkeypatch.setitem(steps.STEPS, "validation", lambda _: calls.append("again") or {})
    monkeypatch.setattr("ase_student.release.__main__.publish", lambda _: None)
    assert main(command(run_folder, tmp_path / "students")) == 0
    assert calls[3:] == ["again", "stability", "card", "benchmarks"]
    # Other settings are refused.
    assert main([*command(run_folder, tmp_path / "students"), "--threads", "2"]) == 2


def test_a_worse_student_replaces_none_unless_forced(run_folder, tmp_path, capsys, monkeypatch):
    students = tmp_path / "students"
    shutil.copytree(student_folder(NAME), students / NAME)
    damaged(run_folder)
    monkeypatch.setattr(steps, "verify", lambda _: {})
    monkeypatch.setitem(steps.STEPS, "verify", lambda _: {})
    published = (students / NAME / "weights.safetensors").read_bytes()
    assert main(command(run_folder, students)) == 1
    captured = capsys.readouterr()
    assert "forces of nci-so3lr-test are wrong by" in captured.err
    assert "--force" in captured.err
    assert (students / NAME / "weights.safetensors").read_bytes() == published
    assert main(command(run_folder, students, "--force")) == 0
    assert (students / NAME / "weights.safetensors").read_bytes() != published


def test_a_student_is_worse_beyond_the_tolerances() -> None:
    old = {"data": {"force_rmse": 0.1, "energy_mae": 3.0}}
    differences = worse(old, old, (38, 40), stable_before=(38, 40))
    assert differences == []
    assert (
        worse({"data": {"force_rmse": 0.1005, "energy_mae": 3.1}}, old, (1, 1), stable_before=None)
        == []
    )
    (sentence,) = worse(
        {"data": {"force_rmse": 0.12, "energy_mae": 3.0}}, old, (1, 1), stable_before=None
    )
    assert "0.12 eV/Å, before by 0.1" in sentence
    assert len(worse({"data": {"force_rmse": float("nan")}}, old, (1, 1), stable_before=None)) == 2
    (sentence,) = worse(old, old, (37, 40), stable_before=(38, 40))
    assert "37 of 40 runs are stable" in sentence
    assert worse(old, old, (10, 10), stable_before=(38, 40)) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere"], "has no weights.safetensors"),
        ([".", "--name", "../tiny"], "has no weights.safetensors"),
    ],
)
def test_missing_weights_are_named(options, message, tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(options) == 2
    assert message in capsys.readouterr().err


def test_names_and_data_are_checked_first(run_folder, tmp_path, capsys) -> None:
    assert main([str(run_folder), "--name", "../tiny"]) == 2
    assert "cannot be the name of a student" in capsys.readouterr().err
    assert main([str(run_folder), "--data", str(tmp_path / "no.h5")]) == 2
    assert "no data" in capsys.readouterr().err
    assert not (run_folder / "release").exists()
