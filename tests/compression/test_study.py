"""The study of compression writes its page and plot, and resumes after an interruption."""

import argparse
import json
import runpy
from pathlib import Path

import pytest

pytest.importorskip("onnxscript")
pytest.importorskip("h5py")
pytest.importorskip("matplotlib")

from ase_student import load_student, save_student
from ase_student.checkpoint import student_folder
from ase_student.compression import writing
from ase_student.distill.training.settings import architecture_of, read_settings
from ase_student.testing import structure

ROOT = Path(__file__).parents[2]
WAYS = ("float32", "int8-static", "hidden units × 0.5", "tables of filters (native engine)")


@pytest.fixture
def study(monkeypatch):
    """Use the bundled file in float32, one small structure, and few ways of compression."""
    file = student_folder("ultra-tiny") / "ultra-tiny.onnx"
    few = {"water_dimer": structure("water_dimer")}
    monkeypatch.setattr(writing, "to_onnx", lambda *_, **__: file.read_bytes())
    onnx_export = "ase_student.backends.onnx_export.to_onnx"
    monkeypatch.setattr(onnx_export, lambda *_, **__: file.read_bytes())
    monkeypatch.setattr(writing, "structures_for", lambda *_: dict(few))
    monkeypatch.setattr(writing, "molecules_for", lambda *_: dict(few))
    module = runpy.run_path(str(ROOT / "validation" / "compression.py"))
    all_ways = module["Study"].ways
    monkeypatch.setattr(
        module["Study"], "ways",
        lambda self: {name: way for name, way in all_ways(self).items() if name in WAYS},
    )  # fmt: skip
    return module


def test_a_pruned_student_is_trained_further_in_its_own_shape(study, tmp_path, monkeypatch) -> None:
    calls = []

    def train(words):
        calls.append(words)
        training_settings, changes = read_settings(Path(words[words.index("--settings") + 1]))
        start = load_student(words[words.index("--start") + 1])
        assert not training_settings
        assert architecture_of("tiny", start.elements, changes) == start.architecture
        run = Path(words[words.index("-o") + 1])
        save_student(start, run / "weights.safetensors")
        return 0

    monkeypatch.setattr("ase_student.distill.__main__.main", train)
    study_object = object.__new__(study["Study"])
    study_object.student, study_object.folder = load_student("ultra-tiny"), tmp_path
    study_object.arguments = argparse.Namespace(train=[tmp_path / "data.h5"], threads=1)
    monkeypatch.setattr(study["Study"], "_student", lambda self, student: student)
    trained = study_object.trained()
    assert trained.architecture.hidden == round(0.5 * study_object.student.architecture.hidden)
    assert calls[0][:2] == ["train", str(tmp_path / "data.h5")]


@pytest.mark.usefixtures("engine")
def test_the_study_writes_its_page_and_resumes(study, tmp_path, capsys) -> None:
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "compression.md").read_text("utf-8"), encoding="utf-8")
    words = ["--student", "ultra-tiny", "--limit", "3", "--picoseconds", "0.01"]
    words += ["-o", str(tmp_path / "study.json"), "--page", str(page)]
    words += ["--plot", str(tmp_path / "plot.png")]
    assert study["main"](words) == 0
    text = page.read_text("utf-8")
    for name in WAYS:
        assert f"| {name} |" in text
    assert "INT8 arithmetic makes a step" in text
    assert (tmp_path / "plot.png").stat().st_size > 1000
    document = json.loads((tmp_path / "study.json").read_text("utf-8"))
    rows = document["rows"]
    assert rows["int8-static"]["crossed"]
    engine, plain = rows[WAYS[-1]], rows["float32"]
    assert engine["teacher_force_rmse"] == pytest.approx(plain["teacher_force_rmse"], abs=1e-4)
    # Existing rows are kept; missing rows are computed.
    del rows["int8-static"]
    rows["float32"]["bytes"] = 12345678
    (tmp_path / "study.json").write_text(json.dumps(document), encoding="utf-8")
    assert study["main"](words) == 0
    assert "| float32 | 12346 |" in page.read_text("utf-8")
    assert "int8-static …" in capsys.readouterr().err
