import dataclasses
import functools
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import InputError

from ase_student import StudentCalculator, load_student, save_student
from ase_student.backends import (
    BACKENDS,
    accelerators,
    metadata,
    open_backend,
    open_exported,
    opening,
)
from ase_student.backends.native import open_native
from ase_student.checkpoint import student_folder
from ase_student.testing import STRUCTURES, TOLERANCES, structure

ONNX = student_folder("tiny") / "tiny.onnx"
WEIGHTS = student_folder("tiny") / "weights.safetensors"
# Smaller and larger than the previous structure, one atom, much padding, and some repeated.
SIZES = ["aspirin", "water_box", "triclinic", "atom", "thousand_atoms", "slab", "crystal"]
SIZES += ["atom", "water_box", "aspirin", "triclinic"]

# Largest differences from the float64 reference, eV and eV/Å.
ENERGY_PER_ATOM = {"float32": TOLERANCES.backend_energy_per_atom, "float64": 1e-9}
FORCES = {"float32": TOLERANCES.backend_forces, "float64": 1e-9}


@pytest.fixture(scope="module")
def exported(exported_tiny, tmp_path_factory):
    """Folder with exported files of the bundled student; one of them is the bundled file."""
    folder = tmp_path_factory.mktemp("exported")
    shutil.copytree(exported_tiny("float64")[0], folder / "float64")
    (folder / "float32").mkdir()
    shutil.copy(exported_tiny("float32")[0] / "tiny.pt", folder / "float32")
    shutil.copy(ONNX, folder / "float32")
    return folder


EXPORTED = [
    ("float32", "tiny.onnx"),
    ("float32", "tiny.pt"),
    ("float64", "tiny.onnx"),
    ("float64", "tiny.pt"),
]


# --- exported files ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def expected(calculators):
    """Return a function that gives the float64 results of a structure."""

    @functools.cache
    def compute(name):
        calc = calculators("torch", "float64")
        calc.calculate(rattled(name))
        return calc.results

    return compute


def rattled(name):
    atoms = structure(name)
    atoms.rattle(0.05, rng=np.random.default_rng(0))
    return atoms


def assert_as_expected(calc, name, expected):
    dtype = calc.info.dtype
    atoms = rattled(name)
    calc.calculate(atoms)
    results = calc.results
    per_atom = [results["energy"] / len(atoms), expected["energy"] / len(atoms)]
    np.testing.assert_allclose(*per_atom, rtol=0, atol=ENERGY_PER_ATOM[dtype])
    np.testing.assert_allclose(results["forces"], expected["forces"], rtol=0, atol=FORCES[dtype])


@pytest.mark.parametrize(("dtype", "file"), EXPORTED)
def test_exported_files_give_the_results_of_the_student(exported, expected, dtype, file):
    calc = StudentCalculator(exported / dtype / file, device="cpu", dtype=dtype)
    for name in STRUCTURES:
        assert_as_expected(calc, name, expected(name))


@pytest.mark.parametrize(("dtype", "file"), EXPORTED)
def test_exported_files_hold_their_metadata(exported, dtype, file):
    student = load_student("tiny")
    info = StudentCalculator(exported / dtype / file, device="cpu", dtype=dtype).info
    assert info.name == "tiny"
    assert info.dtype == info.metadata["dtype"] == dtype
    assert info.elements == student.elements
    assert info.cutoff == student.cutoff
    assert info.weights_sha256 == student.sha256
    assert info.metadata["n_parameters"] == student.n_parameters
    assert info.metadata["units"]["forces"] == "eV/Å"
    assert len(info.metadata["references"]) >= 5


@pytest.mark.parametrize(("dtype", "file"), EXPORTED)
def test_exported_files_run_only_in_their_precision(exported, dtype, file):
    other_dtype = {"float32": "float64", "float64": "float32"}[dtype]
    path = exported / dtype / file
    with pytest.raises(
        ValueError, match=f"computes in {dtype}, not {other_dtype}; pass dtype='{dtype}'"
    ):
        StudentCalculator(path, device="cpu", dtype=other_dtype)


@pytest.mark.parametrize(("dtype", "file"), EXPORTED)
def test_exported_files_run_only_in_their_backend(exported, dtype, file):
    path = exported / dtype / file
    kind = "onnx" if file.endswith(".onnx") else "torchscript"
    assert StudentCalculator(path, device="cpu", dtype=dtype).backend == kind
    assert StudentCalculator(str(path), kind, "cpu", dtype=dtype).backend == kind
    for backend in set(BACKENDS) - {kind}:
        with pytest.raises(ValueError, match=f"runs in backend '{kind}', not '{backend}'"):
            StudentCalculator(path, backend, "cpu", dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("source", ["student", "file"])
def test_torchscript_computes_structures_of_changing_size(
    exported, calculators, expected, source, dtype
):
    if source == "student":
        calc = calculators("torchscript", dtype)
    else:
        calc = StudentCalculator(exported / dtype / "tiny.pt", device="cpu", dtype=dtype)
    for name in SIZES:
        assert_as_expected(calc, name, expected(name))


def test_the_same_input_gives_the_same_bits(calculators):
    for kind in (
        ("native", "float32"),
        ("native", "float64"),
        ("onnx", "float32"),
        ("torchscript", "float32"),
        ("torch", "float64"),
    ):
        calc = calculators(*kind)
        calc.calculate(structure("triclinic"))
        first_results = calc.results
        calc.calculate(structure("aspirin"))
        calc.calculate(structure("triclinic"))
        assert calc.results["energy"] == first_results["energy"]
        np.testing.assert_array_equal(calc.results["forces"], first_results["forces"])


# --- the choice of file and backend ------------------------------------------------------------


@pytest.mark.parametrize(
    ("bundled", "dtype", "device", "has_torch", "has_driver", "expected"),
    [
        (True, "float32", "auto", True, False, "onnx"),
        (True, "float32", "auto", False, False, "onnx"),
        (True, "float32", "cpu", True, True, "onnx"),
        (True, "float32", "auto", False, True, "onnx"),
        (True, "float32", "auto", True, True, "torchscript"),
        (True, "float32", "cuda:1", True, True, "torchscript"),
        (True, "float32", "cuda", False, True, "onnx"),
        (True, "float64", "cpu", True, False, "torchscript"),
        (True, "float64", "cpu", False, False, "onnx"),
        (False, "float32", "cpu", True, False, "torchscript"),
        (False, "float32", "cpu", False, False, "onnx"),
    ],
)
def test_auto_takes_the_fastest(
    monkeypatch, bundled, dtype, device, has_torch, has_driver, expected
):
    monkeypatch.setattr(accelerators, "_torch_has_cuda", lambda: has_driver)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object() if has_torch else None)
    assert opening._fastest(device, dtype, bundled) == expected


def test_a_removed_backend_names_its_successor():
    with pytest.raises(ValueError, match="'compiled' is gone: pass backend='native'"):
        StudentCalculator("tiny", "compiled")


@pytest.fixture
def no_engine(monkeypatch):
    """The package as installed without a compiler."""
    reason = "ase-student was installed without its C++ engine"
    monkeypatch.setattr("ase_student.backends.native.why_missing", lambda: reason)


def test_auto_takes_the_engine_on_a_cpu(engine, tmp_path):
    path = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS, path)
    for model, name in (("tiny", "tiny"), (path, "mine")):
        for dtype in ("float32", "float64"):
            calc = StudentCalculator(model, device="cpu", dtype=dtype)
            assert (calc.backend, calc.device, calc.info.name) == ("native", "cpu", name)
            assert calc.info.weights_sha256 == load_student("tiny").sha256
            assert calc.info.dtype == dtype


def test_auto_leaves_gpus_to_torch(engine, monkeypatch):
    monkeypatch.setattr("ase_student.backends.native.torch_takes_gpu", lambda device: True)
    assert open_native("tiny", "auto", "auto", "float32", 1) is None
    assert open_native("tiny", "native", "auto", "float32", 1) is not None


def test_bundled_student_runs_in_onnx_without_the_engine(no_engine):
    calc = StudentCalculator(device="cpu")
    assert (calc.backend, calc.device, calc.info.name) == ("onnx", "cpu", "tiny")
    assert calc.info.weights_sha256 == load_student("tiny").sha256


def test_without_the_engine_other_models_run_in_torchscript(no_engine, tmp_path):
    pytest.importorskip("torch")
    assert StudentCalculator(device="cpu", dtype="float64").backend == "torchscript"
    path = tmp_path / "mine.safetensors"
    shutil.copy(WEIGHTS, path)
    calc = StudentCalculator(path, device="cpu")
    assert (calc.backend, calc.info.name) == ("torchscript", "mine")
    with pytest.raises(InputError, match="student 'mine' knows"):
        calc.calculate(Atoms("Xe"))


def test_a_name_is_not_taken_for_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("tiny").write_text("something else")
    assert open_backend("tiny", device="cpu").info.name == "tiny"


def test_a_student_with_other_energies_is_compiled_anew(tmp_path, calculators):
    pytest.importorskip("torch")
    student = load_student("tiny")
    references = {number: energy + 1.0 for number, energy in student.reference_energies.items()}
    path = tmp_path / "shifted.safetensors"
    save_student(dataclasses.replace(student, reference_energies=references), path)
    atoms = structure("aspirin")
    shifted = StudentCalculator(path, "torch", "cpu", dtype="float64")
    shifted.calculate(atoms)
    reference = calculators("torch", "float64")
    reference.calculate(atoms)
    difference = shifted.results["energy"] - reference.results["energy"]
    assert difference == pytest.approx(len(atoms), rel=0, abs=1e-9)


# --- files that are refused ---------------------------------------------------


def write_zip(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def write_onnx(path, properties=None):
    """Write an ONNX file that is valid, but belongs to no student."""
    onnx = pytest.importorskip("onnx")
    tensor = [onnx.helper.make_tensor_value_info(name, 1, [1]) for name in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])], "relu", tensor[:1], tensor[1:]
    )
    opset = onnx.helper.make_opsetid("", 18)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    onnx.helper.set_model_props(model, properties or {})
    onnx.save(model, path)


def bundled_metadata(**changes):
    info = open_exported(ONNX, "cpu").info
    return {metadata.METADATA_KEY: metadata.encode({**info.metadata, **changes})}


PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
FOREIGN = {
    "empty": lambda path: path.write_bytes(b""),
    "empty.onnx": lambda path: path.write_bytes(b""),
    "empty.pt": lambda path: path.write_bytes(b""),
    "empty.safetensors": lambda path: path.write_bytes(b""),
    "text.txt": lambda path: path.write_text("CH4\n\nC 0 0 0\n"),
    "text.onnx": lambda path: path.write_text("CH4\n\nC 0 0 0\n"),
    "text.pt": lambda path: path.write_text("CH4\n\nC 0 0 0\n"),
    "picture.onnx": lambda path: path.write_bytes(PNG),
    "picture.pt": lambda path: path.write_bytes(PNG),
    "picture.safetensors": lambda path: path.write_bytes(PNG),
    "noise.onnx": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "noise.pt": lambda path: path.write_bytes(np.random.default_rng(0).bytes(5000)),
    "archive.zip": lambda path: write_zip(path, a="b"),
    "archive.onnx": lambda path: write_zip(path, a="b"),
    "archive.pt": lambda path: write_zip(path, a="b"),
    "program.pt": lambda path: write_zip(path, **{"a/code/b.py": "import this"}),
    "half.onnx": lambda path: path.write_bytes(ONNX.read_bytes()[:50_000]),
    "renamed.pt": lambda path: shutil.copy(ONNX, path),
    "renamed.onnx": lambda path: shutil.copy(WEIGHTS, path),
    "other.onnx": write_onnx,
    "impostor.onnx": lambda path: write_onnx(path, bundled_metadata()),
    "next_version.onnx": lambda path: write_onnx(path, bundled_metadata(format_version=2)),
    "no_cutoff.onnx": lambda path: write_onnx(path, bundled_metadata(cutoff=None)),
    "not_json.onnx": lambda path: write_onnx(path, {metadata.METADATA_KEY: "{"}),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_formats_are_refused(tmp_path, name):
    if not name.endswith((".onnx", ".safetensors")):
        pytest.importorskip("torch")
    path = tmp_path / name
    FOREIGN[name](path)
    with pytest.raises(ValueError, match=name) as caught:
        StudentCalculator(path, device="cpu")
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500 + len(str(path))


def test_missing_files_and_folders_are_not_found(tmp_path):
    for model in (tmp_path / "nothing.onnx", str(tmp_path / "nothing"), "nothing.pt"):
        with pytest.raises(FileNotFoundError, match=r"there is no such file\. Bundled students"):
            StudentCalculator(model)
    (tmp_path / "folder.onnx").mkdir()
    for model in (tmp_path, tmp_path / "folder.onnx"):
        with pytest.raises(FileNotFoundError, match=r"a folder without weights\. .*'tiny'"):
            StudentCalculator(model)


def test_checkpoint_is_not_an_exported_file():
    with pytest.raises(ValueError, match="is not an exported ONNX or TorchScript file"):
        open_exported(WEIGHTS)


def changed_student():
    """Return the bundled student with one weight changed by a small amount."""
    student = load_student("tiny")
    name = "readout.second.weight"
    tensor = np.array(student.tensors[name])
    tensor.flat[np.abs(tensor).argmax()] *= 1.05
    return dataclasses.replace(student, tensors={**student.tensors, name: tensor})


def test_exchanged_weights_in_onnx_are_detected_on_opening(tmp_path):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(ONNX)
    # Without the checksum of the whole file, which would detect it too.
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {metadata.METADATA_KEY: properties[metadata.METADATA_KEY]})
    original = load_student("tiny").tensors["readout.second.weight"]
    swapped = changed_student().tensors["readout.second.weight"]
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.size == original.size and np.array_equal(values.ravel(), original.ravel()):
            break
    else:
        pytest.fail("the file does not have the weights of the student")
    path = tmp_path / "swapped.onnx"
    onnx.save(model, path)
    assert StudentCalculator(path, device="cpu").backend == "onnx"
    tensor.CopyFrom(onnx.numpy_helper.from_array(swapped.reshape(values.shape), tensor.name))
    onnx.save(model, path)
    with pytest.raises(ValueError, match=r"swapped\.onnx' does not compute what its student does"):
        StudentCalculator(path, device="cpu")


def test_exchanged_weights_in_torchscript_are_detected_on_opening(tmp_path):
    pytest.importorskip("torch")
    from ase_student.backends.torchscript import save_torchscript

    references = {"references": open_exported(ONNX, "cpu").info.metadata["references"]}
    path = tmp_path / "swapped.pt"
    save_torchscript(load_student("tiny"), "tiny", path, metadata=references)
    assert StudentCalculator(path, device="cpu").backend == "torchscript"
    save_torchscript(changed_student(), "tiny", path, metadata=references)
    with pytest.raises(ValueError, match=r"swapped\.pt' does not compute what its student does"):
        StudentCalculator(path, device="cpu")


# --- without the extras ------------------------------------------------------------------------

WITHOUT_TORCH = """
import json, sys
sys.modules.update(dict.fromkeys(["torch", "onnx", "onnxscript"]))
import ase_student.backends.native
from ase_student import StudentCalculator

ase_student.backends.native.why_missing = lambda: "no compiler"
from ase_student.testing import structure

calc = StudentCalculator()
calc.calculate(structure("triclinic"))
results = {"works": calc.backend}
for case in json.loads(sys.argv[1]):
    try:
        StudentCalculator(**case)
    except ImportError as error:
        results[json.dumps(case)] = str(error)
print(json.dumps(results))
"""


def test_missing_extras_are_named_with_their_installation(tmp_path):
    (tmp_path / "first_generation.pt").write_bytes(b"\x80\x02")
    write_zip(tmp_path / "program.pt", **{"program/code/__torch__.py": ""})
    cases = [
        {"backend": "torch"},
        {"backend": "torchscript"},
        {"dtype": "float64"},
        {"model": str(WEIGHTS)},
        {"model": str(WEIGHTS), "backend": "onnx"},
        {"model": str(tmp_path / "first_generation.pt")},
        {"model": str(tmp_path / "program.pt")},
    ]
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, json.dumps(cases)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    messages = json.loads(process.stdout)
    assert messages.pop("works") == "onnx"
    assert len(messages) == len(cases)
    for message in messages.values():
        assert message.endswith('pip install "ase-student[torch]"')
        assert "\n" not in message
