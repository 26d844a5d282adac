"""Speed and error over releases."""

import json
import shutil

import pytest
from timing import history
from timing.commands import main

from ase_student.checkpoint import student_folder


def line(version="0.1.0", student="tiny", cpu="a processor", date="2026-01-01", milliseconds=1.0):
    return {
        "version": version, "date": date, "student": student, "backend": "native", "threads": 1,
        "hardware": {"cpu": cpu}, "milliseconds_per_step": {"aspirin": milliseconds},
        "errors": {"held-out": {"force_rmse": 0.1, "energy_mae": 0.003}},
    }  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(history, "ROUNDS", 2)
    monkeypatch.setattr(history, "STEPS", 2)
    monkeypatch.setattr(history, "SYSTEMS", {"aspirin": history.SYSTEMS["aspirin"]})


def test_a_student_is_measured_once_for_each_release_and_hardware(short, tmp_path, capsys):
    path = tmp_path / "history.jsonl"
    folder = student_folder("ultra-tiny")
    command = ["history", "--add", str(folder), "--history", str(path)]
    assert main(command) == 0
    first_line = json.loads(path.read_text("utf-8"))
    assert first_line["student"] == "ultra-tiny"
    assert first_line["milliseconds_per_step"]["aspirin"] > 0
    assert first_line["errors"]["teacher-md-so3lr"]["force_rmse"] < 1.0
    assert main(command) == 0
    assert len(path.read_text("utf-8").splitlines()) == 1
    assert main(["history", "--history", str(path), "--plot", str(tmp_path / "plot.png")]) == 0
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_lines_are_merged_by_release_and_hardware(tmp_path):
    history_path, merged_path = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    history_path.write_text(
        "".join(f"{json.dumps(entry)}\n" for entry in (line(), line(cpu="another")))
    )
    new_lines = [line(milliseconds=2.0), line("0.2.0", date="2026-02-01")]
    merged_path.write_text("".join(f"{json.dumps(entry)}\n" for entry in new_lines))
    assert main(["history", "--history", str(history_path), "--merge", str(merged_path)]) == 0
    merged = history.read_history(history_path)
    assert [entry["version"] for entry in merged] == ["0.1.0", "0.1.0", "0.2.0"]
    assert [entry["milliseconds_per_step"]["aspirin"] for entry in merged] == [2.0, 1.0, 1.0]


@pytest.mark.parametrize(
    "text", ["{}", "nonsense", json.dumps({**line(), "milliseconds_per_step": {"aspirin": 0.0}})]
)
def test_damaged_lines_are_named(text, tmp_path, capsys):
    path = tmp_path / "history.jsonl"
    path.write_text(f"{json.dumps(line())}\n{text}\n")
    assert main(["history", "--history", str(path), "--plot", str(tmp_path / "plot.png")]) == 2
    assert "line 2, is no line of history" in capsys.readouterr().err


def test_missing_files_are_named(tmp_path, capsys):
    assert main(["history", "--history", str(tmp_path / "no.jsonl")]) == 2
    assert "add a student with --add" in capsys.readouterr().err
    shutil.copy(student_folder("tiny") / "weights.safetensors", tmp_path)
    assert main(["history", "--add", str(tmp_path)]) == 2
    assert "metrics.json" in capsys.readouterr().err
