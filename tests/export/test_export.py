import contextlib
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

import ase_student  # noqa: E402
from ase_student import StudentCalculator, load_student, save_student  # noqa: E402
from ase_student.backends import (  # noqa: E402
    onnx_export,
    self_check,
)
from ase_student.backends.metadata import METADATA_KEY  # noqa: E402
from ase_student.backends.onnx_safety import seal  # noqa: E402
from ase_student.backends.torchscript import save_torchscript  # noqa: E402
from ase_student.checkpoint import student_folder  # noqa: E402
from ase_student.export import export_student, verify_file  # noqa: E402
from ase_student.export.__main__ import main  # noqa: E402
from ase_student.legacy import LegacyArchitecture  # noqa: E402
from ase_student.networks.painn import PaiNN  # noqa: E402
from ase_student.student import Architecture, Student  # noqa: E402
from ase_student.testing import TOLERANCES, structure  # noqa: E402

FILES = {"onnx": "tiny.onnx", "torchscript": "tiny.pt"}
# One atom without neighbors, one with many, two that do not interact, and larger structures.
SIZES = ("atom", "crystal", "far_pair", "wire", "small_triclinic", "slab", "thousand_atoms")

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def run(*arguments):
    """Return exit status, output and errors of the command."""
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        status = main([str(argument) for argument in arguments])
    return status, output.getvalue(), errors.getvalue()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(path, status):
    """Return the one line that `verify` prints about an invalid file; check its exit status."""
    exit_status, output, errors = run("verify", path)
    assert (exit_status, output) == (status, "")
    assert re.fullmatch(r"(error|wrong): [^\n]+\n", errors), errors
    assert path.name in errors
    return errors


def refused_everywhere(path, status):
    """Return the line that `verify` prints, after a calculator has refused the file too."""
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        StudentCalculator(path, device="cpu")
    assert path.name in str(caught.value)
    return refused(path, status)


def random_student(seed=0, elements=(1, 6, 8)):
    shape = Architecture(
        elements, features=8, hidden=8, n_rbf=4, element_channels=3, message_channels=8,
        tensor_channels=5,
    )  # fmt: skip
    references = dict(zip(elements, (-13.6, -1029.4, -2041.3), strict=True))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state = PaiNN(shape, references).state_dict()
    tensors = {name: tensor.numpy().copy() for name, tensor in state.items()}
    return Student(shape, tensors, references)


def perturbed(student):
    tensors = {name: np.float32(1.01) * tensor for name, tensor in student.tensors.items()}
    return Student(student.architecture, tensors, student.reference_energies)


@pytest.fixture(scope="module")
def tiny(exported_tiny):
    """Folder with both files of the bundled student, written by the command."""
    folder, output = exported_tiny("float32")
    lines = output.splitlines()
    assert [line.split(":")[0] for line in lines] == [str(folder / name) for name in FILES.values()]
    assert all("kB, within " in line for line in lines)
    return folder


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """ONNX file in float64 of a checkpoint that is named after its folder."""
    folder = tmp_path_factory.mktemp("checkpoint") / "run-7"
    save_student(random_student(), folder / "weights.safetensors")
    arguments = ("-o", folder, "--formats", "onnx", "--dtype", "float64")
    assert run(folder / "weights.safetensors", *arguments)[0] == 0
    return folder / "run-7.onnx"


@pytest.fixture(scope="module")
def first_generation(tmp_path_factory):
    """Folder with a small checkpoint of the first generation and both of its files."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, shape in LegacyArchitecture(16, 1, 6, max_z=20).shapes.items():
        scale = 0.1 if len(shape) == 1 else shape[1] ** -0.5
        tensors[name] = torch.from_numpy(rng.normal(scale=scale, size=shape)).float()
    tensors["rbf.centers"] = torch.linspace(0, 5, 6)
    tensors["rbf.widths"] = torch.full((6,), 0.8)
    folder = tmp_path_factory.mktemp("first")
    torch.save({"model_state_dict": tensors}, folder / "best_model.pt")
    with pytest.warns(UserWarning, match="first-generation"):
        assert run(folder / "best_model.pt", "-o", folder / "out")[0] == 0
    return folder


def expected(model, atoms):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*first-generation")
        reference = StudentCalculator(model, backend="torch", device="cpu", dtype="float64")
    reference.calculate(atoms)
    return reference.results


def assert_same(results, reference, forces, energy_per_atom):
    assert abs(results["energy"] - reference["energy"]) <= energy_per_atom * len(results["forces"])
    np.testing.assert_allclose(results["forces"], reference["forces"], rtol=0, atol=forces)
    assert ("stress" in results) == ("stress" in reference)
    if "stress" in results:
        np.testing.assert_allclose(results["stress"], reference["stress"], rtol=0, atol=1e-5)


# --- written files -----------------------------------------------------------------------------


def test_folder_holds_the_files_and_a_summary_of_them(tiny):
    assert names(tiny) == ["export.json", "tiny.onnx", "tiny.pt"]
    summary = json.loads((tiny / "export.json").read_text())
    student = load_student("tiny")
    assert summary["name"] == "tiny"
    assert summary["dtype"] == "float32"
    assert summary["weights_sha256"] == student.sha256
    assert summary["n_parameters"] == student.n_parameters
    assert {"python", "torch", "onnx", "onnxruntime"} <= summary["versions"].keys()
    assert set(summary["files"]) == set(FILES.values())
    assert summary["files"]["tiny.onnx"]["opset"] == onnx_export.OPSET
    for name, entry in summary["files"].items():
        assert entry["bytes"] == (tiny / name).stat().st_size
        assert 0 < entry["energy_per_atom"] <= TOLERANCES.backend_energy_per_atom
        assert 0 < entry["forces"] <= TOLERANCES.backend_forces
        assert entry["n_structures"] >= 8


@pytest.mark.parametrize("name", FILES.values())
def test_files_verify(tiny, name):
    status, output, errors = run("verify", tiny / name)
    assert (status, errors) == (0, "")
    assert re.fullmatch(r"\S+: right on \d+ structures, within [^\n]+ reference\n", output)


def test_files_verify_in_another_process(tiny):
    command = [sys.executable, "-m", "ase_student.export", "verify", str(tiny / "tiny.onnx")]
    environment = {**os.environ, "PYTHONPATH": str(Path(ase_student.__file__).parents[1])}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    assert ": right on " in process.stdout


def test_bundled_file_belongs_to_the_bundled_weights():
    path = student_folder("tiny") / "tiny.onnx"
    assert run("verify", path)[0] == 0
    info = StudentCalculator("tiny", backend="onnx", device="cpu").info
    assert info.weights_sha256 == load_student("tiny").sha256


@pytest.mark.parametrize("name", FILES.values())
def test_metadata_hold_inputs_outputs_and_units(tiny, name):
    metadata = StudentCalculator(tiny / name, device="cpu").info.metadata
    student = load_student("tiny")
    assert metadata["weights_sha256"] == student.sha256
    assert metadata["cutoff"] == student.cutoff
    assert metadata["inputs"] == ["numbers", "positions", "neighbors", "offsets"]
    assert metadata["outputs"] == ["energies", "forces", "virials"]
    assert metadata["units"]["forces"] == "eV/Å"
    assert len(metadata["references"]) >= 8
    largest = max(len(reference["numbers"]) for reference in metadata["references"])
    assert largest > 20


def test_onnx_file_names_its_inputs_and_outputs(tiny):
    model = onnx.load(tiny / "tiny.onnx")
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, strict_mode=True, check_type=True, data_prop=True)
    assert model.producer_name == "ase-student"
    assert model.producer_version == ase_student.__version__
    assert "cutoff of 5 Å" in model.doc_string
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    assert not model.functions
    values = {
        value.name: [size.dim_param or size.dim_value for size in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert values == {
        "numbers": ["atoms"],
        "positions": ["atoms", 3],
        "neighbors": ["atoms", "neighbors"],
        "offsets": ["atoms", "neighbors", 3],
        "energies": ["atoms"],
        "forces": ["atoms", 3],
        "virials": ["atoms", 3, 3],
    }
    docs = {value.name: value.doc_string for value in (*model.graph.input, *model.graph.output)}
    assert docs["positions"] == "Å"
    assert docs["forces"] == "eV/Å"


def test_onnx_graph_has_no_unused_parts(tiny):
    graph = onnx.load(tiny / "tiny.onnx").graph
    used = {name for node in graph.node for name in node.input}
    outputs = {value.name for value in graph.output}
    for node in graph.node:
        assert used & set(node.output) or outputs & set(node.output), node.name
    assert all(weights.name in used for weights in graph.initializer)
    assert not {"Constant", "Identity"} & {node.op_type for node in graph.node}
    assert len({node.name for node in graph.node}) == len(graph.node)


@pytest.mark.parametrize("name", FILES.values())
def test_files_hold_no_paths_of_the_machine(tiny, name):
    content = (tiny / name).read_bytes()
    package_file = Path(ase_student.__file__)
    for trace in (*package_file.parents[:2], Path(sys.prefix), Path.home(), tiny.parent):
        if len(trace.parts) > 1:
            assert os.fsencode(str(trace)) not in content
    for trace in (b"site-packages", b".partial"):
        assert trace not in content


def test_float64_files_are_exact(exact):
    report = verify_file(exact)
    assert max(report.energy_per_atom, report.forces, report.virial_per_atom) <= 1e-9
    with pytest.raises(ValueError, match="computes in float64, not float32"):
        StudentCalculator(exact, device="cpu")
    atoms = structure("small_triclinic")
    atoms.numbers[:] = (6, 8)
    calculator = StudentCalculator(exact, device="cpu", dtype="float64")
    calculator.calculate(atoms)
    assert_same(
        calculator.results, expected(exact.with_name("weights.safetensors"), atoms), 1e-9, 1e-9
    )


def test_checkpoint_called_weights_is_named_after_its_folder(exact):
    assert names(exact.parent) == ["export.json", "run-7.onnx", "weights.safetensors"]
    assert StudentCalculator(exact, device="cpu", dtype="float64").info.name == "run-7"


def test_other_checkpoints_give_their_own_name(tmp_path):
    save_student(random_student(), tmp_path / "mine.safetensors")
    summary = export_student(
        tmp_path / "mine.safetensors", tmp_path, ["torchscript"], dtype="float64"
    )
    assert summary["name"] == "mine"
    assert list(summary["files"]) == ["mine.pt"]
    assert summary["files"]["mine.pt"]["forces"] <= 1e-9


# --- results of the files --------------------------------------------------------------------


@pytest.fixture(scope="module")
def reference_of_tiny():
    return {name: expected("tiny", structure(name)) for name in SIZES}


@pytest.mark.parametrize("backend", FILES)
@pytest.mark.parametrize("name", SIZES)
def test_files_give_the_results_of_the_student_at_any_size(tiny, reference_of_tiny, backend, name):
    calculator = StudentCalculator(tiny / FILES[backend], device="cpu", skin=0.0)
    assert calculator.backend == backend
    calculator.calculate(structure(name))
    forces, energy = TOLERANCES.backend_forces, TOLERANCES.backend_energy_per_atom
    assert_same(calculator.results, reference_of_tiny[name], forces, energy)


@pytest.mark.parametrize("name", ["best_model.onnx", "best_model.pt"])
def test_first_generation_files_give_the_results_of_the_checkpoint(first_generation, name):
    path = first_generation / "out" / name
    assert run("verify", path)[0] == 0
    calculator = StudentCalculator(path, device="cpu")
    for atoms in (structure("atom"), structure("aspirin"), structure("slab")):
        calculator.calculate(atoms)
        reference = expected(first_generation / "best_model.pt", atoms)
        assert_same(calculator.results, reference, 1e-4, 1e-5)
    assert np.abs(calculator.results["forces"]).max() > 0.1


def test_checkpoint_is_not_replaced_by_its_export(first_generation):
    content = (first_generation / "best_model.pt").read_bytes()
    with pytest.warns(UserWarning, match="first-generation"):
        status, _, errors = run(
            first_generation / "best_model.pt", "-o", first_generation, "--formats", "torchscript"
        )
    assert status == 2
    assert "would replace the checkpoint" in errors
    assert (first_generation / "best_model.pt").read_bytes() == content


# --- damaged and forged files ------------------------------------------------------------------


def weights_region(path):
    """Return start and end of the bytes that hold weights."""
    if path.suffix == ".onnx":
        content = path.read_bytes()
        graph = onnx.load(path).graph
        largest = max((weights.raw_data for weights in graph.initializer), key=len)
        return content.index(largest), content.index(largest) + len(largest)
    with zipfile.ZipFile(path) as archive:
        records = [item for item in archive.infolist() if "/constants/" in item.filename]
    largest = max(records, key=lambda item: item.file_size)
    start = largest.header_offset + 30 + len(largest.filename)
    return start, start + largest.file_size


@pytest.mark.parametrize("name", FILES.values())
@pytest.mark.parametrize("where", [0.0, 0.31, 0.5, 0.77, 1.0])
def test_one_changed_bit_in_the_weights_is_detected(tiny, tmp_path, name, where):
    content = bytearray((tiny / name).read_bytes())
    start, end = weights_region(tiny / name)
    content[start + round(where * (end - start - 1))] ^= 1
    (tmp_path / name).write_bytes(content)
    assert "damaged" in refused_everywhere(tmp_path / name, status=2)


@pytest.mark.parametrize("name", FILES.values())
@pytest.mark.parametrize("where", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_files_are_refused(tiny, tmp_path, name, where):
    content = (tiny / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(where * len(content))])
    refused_everywhere(tmp_path / name, status=2)


def metadata_of(path):
    return {METADATA_KEY: onnx.load(path).metadata_props[0].value}


@pytest.mark.parametrize("sealed", [False, True])
def test_onnx_file_with_other_weights_is_refused(tiny, tmp_path, sealed):
    model = onnx.load(tiny / "tiny.onnx")
    # Without the last entry, the seal, as if the file had been converted.
    del model.metadata_props[1:]
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT and len(weights.raw_data) > 1000:
            values = onnx.numpy_helper.to_array(weights) * np.float32(1.01)
            weights.raw_data = values.tobytes()
    content = model.SerializeToString()
    path = tmp_path / "other.onnx"
    path.write_bytes(seal(content) if sealed else content)
    assert "does not compute what its student does" in refused_everywhere(path, status=1)


def test_onnx_file_of_another_student_is_refused(tiny, first_generation, tmp_path):
    model = onnx.load(first_generation / "out" / "best_model.onnx")
    onnx.helper.set_model_props(model, metadata_of(tiny / "tiny.onnx"))
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    assert "does not compute what its student does" in refused_everywhere(path, status=1)


def test_torchscript_file_with_other_weights_is_refused(tiny, tmp_path):
    metadata = json.loads(metadata_of(tiny / "tiny.onnx")[METADATA_KEY])
    path = tmp_path / "other.pt"
    student = load_student("tiny")
    save_torchscript(student, "tiny", path, metadata=metadata)
    assert run("verify", path)[0] == 0
    save_torchscript(perturbed(student), "tiny", path, metadata=metadata)
    assert "does not compute what its student does" in refused_everywhere(path, status=1)


def test_converted_onnx_file_without_a_seal_still_verifies(tiny, tmp_path):
    model = onnx.load(tiny / "tiny.onnx")
    del model.metadata_props[1:]
    model.graph.name = "converted"
    onnx.save(model, tmp_path / "converted.onnx")
    assert run("verify", tmp_path / "converted.onnx")[0] == 0


def test_references_that_cannot_be_read_are_refused(tiny, tmp_path):
    model = onnx.load(tiny / "tiny.onnx")
    metadata = json.loads(model.metadata_props[0].value)
    path = tmp_path / "model.onnx"
    for references, message in (
        ([{"numbers": [1]}], "carries reference structures that cannot be read"),
        ([], "has no reference structures"),
    ):
        text = json.dumps({**metadata, "references": references})
        onnx.helper.set_model_props(model, {METADATA_KEY: text})
        onnx.save(model, path)
        assert message in refused(path, status=2)


class Module(torch.nn.Module):
    def forward(self, x):
        return x + 1


def script(path, metadata=None):
    extra = {} if metadata is None else {METADATA_KEY: metadata}
    torch.jit.save(torch.jit.script(Module()), str(path), _extra_files=extra)


def adding_model(**metadata):
    value = onnx.helper.make_tensor_value_info
    float64 = onnx.TensorProto.DOUBLE
    x, y = (value(name, float64, ["n", 3]) for name in ("x", "y"))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=8
    )
    onnx.helper.set_model_props(model, metadata)
    return model.SerializeToString()


def write_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/code/readme.txt", "not a program")


FOREIGN = {
    "notes.txt": lambda path: path.write_text("just some text\n"),
    "text.onnx": lambda path: path.write_text("just some text\n"),
    "text.pt": lambda path: path.write_text("just some text\n"),
    "empty.onnx": lambda path: path.write_bytes(b""),
    "empty.pt": lambda path: path.write_bytes(b""),
    "document.json": lambda path: path.write_text("{}"),
    "document.onnx": lambda path: path.write_text("{}"),
    "archive.zip": write_zip,
    "archive.pt": write_zip,
    "other.onnx": lambda path: path.write_bytes(adding_model()),
    "wrong_metadata.onnx": lambda path: path.write_bytes(adding_model(ase_student='{"a": 1}')),
    "other.pt": script,
    "wrong_metadata.pt": lambda path: script(path, '{"a": 1}'),
    "array.pt": lambda path: torch.save({"x": torch.zeros(3)}, path),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_other_formats_are_refused(tmp_path, name):
    FOREIGN[name](tmp_path / name)
    refused(tmp_path / name, status=2)


def test_programs_with_forged_metadata_are_refused(tiny, tmp_path):
    metadata = metadata_of(tiny / "tiny.onnx")
    (tmp_path / "forged.onnx").write_bytes(adding_model(**metadata))
    assert "has inputs ('x',)" in refused_everywhere(tmp_path / "forged.onnx", status=2)
    script(tmp_path / "forged.pt", metadata[METADATA_KEY])
    assert "has signed" in refused_everywhere(tmp_path / "forged.pt", status=2)


def test_missing_files_and_folders_are_named(tmp_path):
    assert "there is no such file" in refused(tmp_path / "nothing.onnx", status=2)
    (tmp_path / "folder.onnx").mkdir()
    assert "it is a folder" in refused(tmp_path / "folder.onnx", status=2)


# --- errors while exporting -----------------------------------------------------------


@pytest.fixture
def older(tmp_path):
    """Folder with files of an earlier export."""
    for name in ("tiny.onnx", "tiny.pt", "export.json"):
        (tmp_path / name).write_text("older")
    return tmp_path


def assert_untouched(folder):
    assert names(folder) == ["export.json", "tiny.onnx", "tiny.pt"]
    assert all(path.read_text() == "older" for path in folder.iterdir())


def test_a_file_that_fails_its_check_leaves_nothing_behind(older, monkeypatch):
    tolerances = dict.fromkeys(("energy_per_atom", "forces", "virial_per_atom"), 1e-12)
    monkeypatch.setitem(self_check.TOLERANCES, "float32", tolerances)
    status, output, errors = run("tiny", "-o", older, "--formats", "torchscript")
    assert (status, output) == (1, "")
    assert re.fullmatch(r"wrong: '[^']*tiny.pt' does not compute [^\n]*\n", errors)
    assert_untouched(older)


def test_no_file_is_replaced_if_one_fails(older, monkeypatch):
    monkeypatch.setattr(onnx_export, "to_onnx", lambda *arguments: b"broken")
    status, _, errors = run("tiny", "-o", older, "--formats", "torchscript", "onnx")
    assert status == 2
    assert re.fullmatch(r"error: '[^']*tiny.onnx' is not a readable ONNX file[^\n]*\n", errors)
    assert_untouched(older)


def test_an_interrupted_export_leaves_nothing_behind(older, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("ase_student.export.verify_file", interrupt)
    assert main(["tiny", "-o", str(older), "--formats", "torchscript"]) == 130
    assert_untouched(older)


def test_folders_that_cannot_be_used_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        status, _, errors = run("tiny", "-o", folder)
        assert status == 2
        assert f"cannot make folder '{folder}': " in errors
    # A superuser may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    status, _, errors = run("tiny", "-o", tmp_path)
    assert status == 2
    assert f"cannot write into folder '{tmp_path}'" in errors


def test_unknown_arguments_are_named(tmp_path, capsys):
    with pytest.raises(ValueError, match="unknown format 'coreml'; available: 'onnx'"):
        export_student("tiny", tmp_path, formats=["coreml"])
    with pytest.raises(ValueError, match="unknown format ''"):
        export_student("tiny", tmp_path, formats=[])
    with pytest.raises(ValueError, match="unknown dtype 'float16'; available: 'float32'"):
        export_student("tiny", tmp_path, dtype="float16")
    with pytest.raises(SystemExit, match="2"):
        main(["tiny", "-o", str(tmp_path), "--formats", "coreml"])
    assert "coreml" in capsys.readouterr().err
    status, _, errors = run("tiney", "-o", tmp_path)
    assert (status, errors.count("\n")) == (2, 1)
    assert "no student named 'tiney'; available: " in errors


def test_missing_packages_are_named_before_the_work(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    missing = "torch"
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else find_spec(name)
    )
    status, _, errors = run("tiny", "-o", tmp_path / "folder")
    assert (status, errors) == (
        2,
        'error: exporting needs torch: pip install "ase-student[torch]"\n',
    )
    missing = "onnxscript"
    assert run("tiny", "-o", tmp_path / "folder")[0] == 2
    assert not (tmp_path / "folder").exists()


def test_reference_structures_suit_any_elements():
    from ase_student.export.references import reference_structures

    for elements in ((1,), (1, 6, 8), (14,), tuple(range(1, 18))):
        for atoms in reference_structures(elements):
            assert isinstance(atoms, Atoms)
            assert set(atoms.numbers) <= set(elements)
