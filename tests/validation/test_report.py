import base64
import contextlib
import json
import re
import shutil
import subprocess
import time
import urllib.request

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from ase_student import StudentCalculator
from ase_student.jobs.store import only_writer
from ase_student.testing import structure
from ase_student.validation import settings, validate
from ase_student.validation.__main__ import main
from ase_student.validation.accuracy import evaluation
from ase_student.validation.models import distinct_names
from ase_student.validation.report import viewer
from ase_student.validation.report.table import figure, table

pytest.importorskip("h5py")
pytest.importorskip("matplotlib")
pytest.importorskip("chemiscope")

CHECKS = ["--nve", "0.02", "--nvt", "0.02"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labelled structures of two kinds, one of them with stress."""
    path = tmp_path_factory.mktemp("data") / "data.xyz"
    calculator = StudentCalculator("tiny", backend="onnx", threads=1)
    rng = np.random.default_rng(0)
    text = ""
    for name, source in (("aspirin", "md"), ("eight_elements", "md"), ("triclinic", "box")) * 2:
        atoms = structure(name)
        atoms.positions += rng.normal(scale=0.03, size=atoms.positions.shape)
        atoms.calc = calculator
        labels = {key: calculator.get_property(key, atoms) for key in ("energy", "forces")}
        labels["forces"] += rng.normal(scale=0.1, size=labels["forces"].shape)
        atoms.calc = None
        atoms.info = {"REF_energy": labels["energy"] + 0.1, "source": source}
        if source == "box":
            atoms.info["REF_stress"] = rng.normal(scale=0.01, size=(3, 3))
        atoms.arrays["REF_forces"] = labels["forces"]
        atoms.write(path.with_name("one.xyz"), format="extxyz")
        text += path.with_name("one.xyz").read_text()
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def results(data, tmp_path_factory):
    """The folder of a run with two students, a teacher and all checks."""
    folder = tmp_path_factory.mktemp("results") / "out"
    command = [str(data), "--model", "tiny", "--backend", "onnx", "--backend", "torch"]
    command += ["--threads", "1", "--teacher", "ase_student.calculator:StudentCalculator"]
    assert main([*command, *CHECKS, "-o", str(folder)]) == 0
    return folder


def test_a_report_holds_documents_pictures_and_structures(results):
    pytest.importorskip("torch")
    names = {str(path.relative_to(results)) for path in results.rglob("*") if path.is_file()}
    assert {"metrics.json", "report.html", "plots/comparison.png"} <= names
    for backend in ("onnx", "torch"):
        assert f"worst-tiny-{backend}-float32.extxyz" in names
        for plot in ("parity", "errors", "elements", "magnitudes", "dimers", "drift", "torsions"):
            assert f"plots/tiny-{backend}-float32-{plot}.png" in names
    assert not [name for name in names if "partial" in name]


def test_metrics_of_all_students_are_written(results, data):
    document = json.loads((results / "metrics.json").read_text())
    assert document["data"]["n_used"] == 6
    assert document["data"]["sha256"] == validate.file_sha256(data)
    assert document["versions"]["numpy"] == np.__version__
    with_onnx, with_torch = document["students"]
    assert (with_onnx["backend"], with_torch["backend"]) == ("onnx", "torch")
    assert with_onnx["n_parameters"] == 77047
    rmse = with_onnx["accuracy"]["forces"]["rmse"]
    assert 0.09 < rmse["value"] < 0.11
    assert rmse["interval"][0] < rmse["value"] < rmse["interval"][1]
    assert abs(rmse["value"] - with_torch["accuracy"]["forces"]["rmse"]["value"]) < 1e-4
    energy = with_onnx["accuracy"]["energy"]
    assert abs(energy["raw"]["mae"]["value"] - 0.1) < 1e-3
    assert with_onnx["accuracy"]["stress"]["n_structures"] == 2
    assert set(with_onnx["accuracy"]["forces"]["by_source"]) == {"box", "md"}
    # Physics belongs to the student, not to the backend.
    assert with_onnx["physics"] == with_torch["physics"]
    failed = {check["name"] for check in with_onnx["physics"] if check["passed"] is False}
    assert failed <= {"holes in dimer curves"}
    names = {check["name"] for check in with_onnx["physics"]}
    assert {"torsion scans against the teacher", "frequencies against the teacher"} <= names
    assert document["teacher"]["force_rmse"] > 0.09
    ratio = with_onnx["speed"]["times_faster_than_teacher"]
    expected = document["teacher"]["speed"]["microseconds_per_atom"]
    assert ratio == pytest.approx(expected / with_onnx["speed"]["microseconds_per_atom"])


def test_worst_structures_are_written_with_their_errors(results):
    structures = read(results / "worst-tiny-onnx-float32.extxyz", index=":")
    document = json.loads((results / "metrics.json").read_text())
    worst = document["students"][0]["accuracy"]["worst_structures"]
    assert [atoms.info["index"] for atoms in structures] == [entry["index"] for entry in worst]
    for atoms, entry in zip(structures, worst, strict=True):
        errors = atoms.arrays["student_forces"] - atoms.get_forces()
        assert np.sqrt((errors**2).mean()) == pytest.approx(entry["force_rmse"], rel=1e-4)
        assert atoms.arrays["force_error"] == pytest.approx(
            np.linalg.norm(errors, axis=1), abs=1e-6
        )


def test_table_has_errors_checks_and_speed(results):
    document = json.loads((results / "metrics.json").read_text())
    text = table(document)
    assert "data.xyz: 6 of 6 structures" in text
    assert "force variance explained, %" in text
    assert re.search(r"pass rotation and reflection", text)
    assert "times faster" in text
    assert figure({"value": 1.0, "interval": None}, digits=1) == "1.0"


def test_page_loads_nothing_from_a_network(results):
    text = (results / "report.html").read_text()
    without_program = text.replace(viewer.script(), "")
    assert len(without_program) < len(text)
    assert set(re.findall(r"""\b(?:src|href)\s*=\s*["']?(.{5})""", without_program)) == {"data:"}
    assert "http" not in without_program
    assert without_program.count("<script") == without_program.count("</script>") == 3


def test_values_cannot_end_the_element_of_the_viewer(monkeypatch, tmp_path):
    atoms = structure("water_dimer")
    forces = np.zeros((6, 3))
    atoms.calc = type("Labels", (), {"results": {"forces": forces + 1.0}})()
    atoms.arrays.update(student_forces=forces, force_error=np.ones(6))
    atoms.info = {"force_rmse": 1.0, "index": 0, "source": "</script><b>", "student_energy": 0.0}
    text = viewer.dataset([atoms], ["a <b> student"])
    assert "<" not in text
    shown = json.loads(text)
    assert shown["properties"]["source"]["values"] == ["</script><b>"]
    assert "energy error" not in shown["properties"]
    assert not re.search("</script", viewer.script(), re.IGNORECASE)


# --- the command -------------------------------------------------------------------------------


def test_interrupted_command_is_resumed(data, tmp_path, monkeypatch, capsys):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    command = [str(data), "--threads", "1", "--limit", "4", *CHECKS, "-o", str(tmp_path / "out")]
    with monkeypatch.context() as patched:
        patched.setattr(validate, "worst_structures", interrupt)
        assert main(command) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".partial"]
    # Neither the pass nor the checks are repeated.
    monkeypatch.setattr(evaluation, "compute_piece", interrupt)
    monkeypatch.setattr(validate, "run_checks", interrupt)
    assert main(command) == 0
    assert "4 of 6 structures" in capsys.readouterr().out
    assert not (tmp_path / "out" / ".partial").exists()


def test_invalid_structures_are_left_out_and_named(data, tmp_path, capsys):
    invalid = Atoms("HoO", [[0, 0, 0], [2, 0, 0]])
    invalid.info["REF_energy"] = 1.0
    invalid.write(tmp_path / "bad.xyz", format="extxyz")
    path = tmp_path / "data.xyz"
    path.write_text((tmp_path / "bad.xyz").read_text() + data.read_text())
    command = [str(path), "--threads", "1", "--no-physics", "-o", str(tmp_path / "out")]
    assert main(command) == 2
    message = (
        "data.xyz: structure 0 has Ho (first at atom 0); the students know H, C, N, O, F, P, S"
    )
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--skip-invalid"]) == 0
    assert "6 of 7 structures" in capsys.readouterr().out
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["data"]["left_out"][0]["index"] == 0
    assert message in document["data"]["left_out"][0]["reason"]
    assert document["students"][0]["physics"] == []
    assert "has Ho" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.h5"], "no file at 'missing.h5'"),
        (["data.xyz", "--model", "tiney"], "no student named 'tiney'"),
        (["data.xyz", "--model", "tiny", "--model", "tiny"], "the same model was given twice"),
        (["data.xyz", "--limit", "0"], "--limit is 0; it must be at least 1"),
        (["data.xyz", "--nve", "-1"], "--nve is -1.0 ps"),
        (["data.xyz", "--seed", "-1"], "--seed is -1"),
        (["data.xyz", "--teacher", "nobody"], "no teacher named 'nobody'"),
        (["data.xyz", "-o", "data.xyz"], "is a file; give a folder"),
        (["wrong.xyz"], "wrong.xyz: frame 0 (line 1) must begin with its number of atoms"),
    ],
)
def test_mistakes_get_one_line(data, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    shutil.copy(data, "data.xyz")
    (tmp_path / "wrong.xyz").write_text("hello\n")
    output = [] if "-o" in arguments else ["-o", "out"]
    assert main([*arguments, *output]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_two_validations_never_write_one_folder(data, tmp_path, capsys):
    output = tmp_path / "out"
    with only_writer(output):
        assert main([str(data), "-o", str(output)]) == 2
    assert f"another process is writing '{output}'" in capsys.readouterr().err
    # It is refused before any work, and nothing is left.
    assert list(tmp_path.iterdir()) == []


def test_missing_package_is_named_before_the_work(data, tmp_path, monkeypatch, capsys):
    import sys

    monkeypatch.setitem(sys.modules, "chemiscope", None)
    assert main([str(data), "-o", str(tmp_path / "out")]) == 2
    assert 'pip install "ase-student[validation]"' in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_of_a_command_line():
    arguments = settings.parser().parse_args(
        ["d.h5", "--model", "a.pt", "--model", "b.onnx", "--backend", "torch", "-o", "out"]
    )
    parsed = settings.settings_of(arguments, "command")
    assert [spec.model for spec in parsed.specs] == ["a.pt", "b.onnx"]
    assert {spec.backend for spec in parsed.specs} == {"torch"}
    assert parsed.physics


def test_students_of_the_same_name_get_distinct_names():
    models = ["old/run/weights.safetensors", "new/run", "tiny", "mine/tiny.onnx"]
    words = [word for model in models for word in ("--model", model)]
    backends = ["--backend", "torch", "--backend", "auto"]
    arguments = settings.parser().parse_args(["d.h5", *words, *backends, "-o", "out"])
    names = [spec.name for spec in settings.settings_of(arguments, "command").specs]
    assert names == [name for name in ("old-run", "new-run", "tiny", "mine-tiny") for _ in "12"]


@pytest.mark.parametrize(
    ("models", "names"),
    [
        (["weights.v1", "weights.v2"], ["weights.v1", "weights.v2"]),
        (["run", "./run", "run/weights.safetensors"], ["run", "run", "run"]),
        (["run/weights.safetensors", "run/weights.onnx"], ["run-safetensors", "run-onnx"]),
        (["a/b/c/run.pt", "a/d/c/run.pt", "e/run.pt"], ["b-c-run", "d-c-run", "e-run"]),
    ],
)
def test_distinct_names_are_as_short_as_possible(tmp_path, monkeypatch, models, names):
    monkeypatch.chdir(tmp_path)
    for folder in ("weights.v1", "weights.v2", "run"):
        (tmp_path / folder).mkdir()
    assert distinct_names(models) == names


# --- in a browser ------------------------------------------------------------------------------


class Browser:
    """Chromium, driven through chromedriver's HTTP interface."""

    FLAGS = (
        "--headless", "--no-sandbox", "--disable-gpu", "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--window-size=900,700",
    )  # fmt: skip

    def __init__(self, folder):
        self.driver = subprocess.Popen(
            ["chromedriver", "--port=0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for line in self.driver.stdout:
            if match := re.search(r"successfully on port (\d+)", line):
                self.root = f"http://127.0.0.1:{match[1]}/session"
                break
        options = {"args": [*self.FLAGS, f"--user-data-dir={folder}"]}
        capabilities = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.root += "/" + self.ask("POST", "", capabilities)["sessionId"]

    def ask(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.root + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=300) as response:
            return json.load(response)["value"]

    def run(self, script):
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def picture(self, element):
        return base64.b64decode(self.ask("GET", f"/element/{element}/screenshot"))

    def drag(self, element, distance):
        origin = {"element-6066-11e4-a52e-4f735466cecf": element}
        moves = [
            {"type": "pointerMove", "origin": origin, "x": 0, "y": 0},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerMove", "origin": origin, "x": distance, "y": 20, "duration": 200},
            {"type": "pointerUp", "button": 0},
        ]
        pointer = {"type": "pointer", "id": "mouse", "actions": moves}
        self.ask("POST", "/actions", {"actions": [pointer]})

    def close(self):
        with contextlib.suppress(OSError):
            self.ask("DELETE", "")
        self.driver.stdout.close()
        self.driver.terminate()
        self.driver.wait(timeout=30)


@pytest.fixture
def browser(tmp_path):
    if shutil.which("chromium") is None or shutil.which("chromedriver") is None:
        pytest.skip("needs chromium and chromedriver")
    chromium = Browser(tmp_path / "profile")
    yield chromium
    chromium.close()


def wait_for(condition, missing):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.2)
    raise AssertionError(f"no {missing}")


def test_structures_can_be_rotated_in_a_browser(results, browser):
    browser.ask("POST", "/url", {"url": (results / "report.html").as_uri()})
    wait_for(lambda: browser.run("return document.body.dataset.viewer || null"), "viewer")
    assert browser.run("return document.body.dataset.viewer") == "ready"
    assert browser.run("return document.title") == "Validation on data.xyz"
    assert browser.run("return [...document.images].every(i => i.naturalWidth > 100)")
    script = (
        "const shown = document.getElementById('chemiscope-structure');"
        "shown.scrollIntoView({block: 'center'}); return shown;"
    )
    shown = next(iter(browser.run(script).values()))
    time.sleep(1.0)
    picture_before = browser.picture(shown)
    # An empty picture is much smaller.
    assert len(picture_before) > 4000
    browser.drag(shown, 120)
    wait_for(lambda: browser.picture(shown) != picture_before, "other picture after turning")
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
