"""The examples in the top-level folder ``export`` run and give correct results."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import write

from ase_student import StudentCalculator
from ase_student.backends.self_check import TOLERANCES
from ase_student.checkpoint import student_folder
from ase_student.neighbors import neighbor_matrix
from ase_student.testing import structure

EXAMPLES = Path(__file__).resolve().parents[2] / "export"
BUNDLED = student_folder("tiny") / "tiny.onnx"
CUTOFF = 5.0
NAMES = ("crystal", "small_triclinic", "wire", "slab", "slab_zero_vector", "outside", "aspirin")


def small_structure(name):
    if name != "outside":
        return structure(name)
    # The example tries all pairs, which takes too long if atoms are many cells apart.
    atoms = structure("triclinic")
    shifts = np.random.default_rng(0).integers(-1, 2, size=(len(atoms), 3))
    atoms.positions += shifts @ atoms.cell.array
    return atoms


def test_numpy_example_passes_every_reference_without_ase_and_torch():
    code = (
        "import runpy, sys\n"
        f"sys.argv = ['example', {str(BUNDLED)!r}]\n"
        "try:\n"
        f"    runpy.run_path({str(EXAMPLES / 'numpy_onnxruntime.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    assert not {'ase', 'ase_student', 'torch'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-I", "-c", code]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr) == (0, "")
    heading, _, *rows = process.stdout.splitlines()
    assert heading.startswith("tiny: H, C, N, O")
    assert len(rows) >= 8
    assert any("TTT" in row for row in rows)


def test_numpy_example_fails_on_a_wrong_result(monkeypatch):
    example = runpy.run_path(str(EXAMPLES / "numpy_onnxruntime.py"))
    monkeypatch.setitem(example["main"].__globals__, "LARGEST_DIFFERENCE", 0.0)
    assert example["main"](str(BUNDLED)) == 1


@pytest.mark.usefixtures("engine")
@pytest.mark.parametrize("name", ["aspirin", "triclinic"])
def test_engine_example_agrees_and_needs_only_numpy(name, tmp_path):
    atoms = structure(name)
    weights = student_folder("ultra-tiny") / "weights.safetensors"
    np.savez(tmp_path / "structure.npz", atoms.numbers, atoms.positions, atoms.cell.array)
    heavy = ("ase", "scipy", "onnxruntime", "safetensors", "vesin", "torch")
    code = (
        "import runpy, sys\n"
        f"sys.modules.update(dict.fromkeys({heavy}))\n"
        "import numpy as np\n"
        f"example = runpy.run_path({str(EXAMPLES / 'numpy_engine.py')!r})\n"
        f"numbers, positions, cell = np.load({str(tmp_path / 'structure.npz')!r}).values()\n"
        f"cell = cell if {bool(atoms.pbc.all())} else None\n"
        f"energy, forces = example['evaluate']({str(weights)!r}, numbers, positions, cell)\n"
        f"np.savez({str(tmp_path / 'found.npz')!r}, energy, forces)\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert (process.returncode, process.stderr) == (0, "")
    energy, forces = np.load(tmp_path / "found.npz").values()
    atoms.calc = StudentCalculator("ultra-tiny", backend="native", guard="off")
    assert abs(energy - atoms.get_potential_energy()) <= 1e-6
    np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-6)


@pytest.mark.usefixtures("engine")
def test_engine_example_reads_xyz_files(tmp_path, capsys):
    atoms = structure("aspirin")
    write(tmp_path / "aspirin.xyz", atoms)
    example = runpy.run_path(str(EXAMPLES / "numpy_engine.py"))
    example["main"](student_folder("ultra-tiny") / "weights.safetensors", tmp_path / "aspirin.xyz")
    lines = capsys.readouterr().out.splitlines()
    atoms.calc = StudentCalculator("ultra-tiny", guard="off")
    assert float(lines[0].split()[1]) == pytest.approx(atoms.get_potential_energy(), abs=1e-4)
    assert len(lines) == 1 + len(atoms)


@pytest.mark.parametrize("name", NAMES)
def test_numpy_example_finds_the_neighbors_of_the_package(name):
    example = runpy.run_path(str(EXAMPLES / "numpy_onnxruntime.py"))
    atoms = small_structure(name)
    of_example = example["neighbor_matrix"](atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
    matrix = neighbor_matrix(atoms.positions, atoms.cell.array, atoms.pbc, CUTOFF)
    of_package = (matrix.neighbors, matrix.offsets(atoms.cell.array))
    assert of_example[0].shape == of_package[0].shape
    for rows in zip(*of_example, *of_package, strict=True):
        example_pairs, package_pairs = (
            sorted((index, *np.round(offset, 6)) for index, offset in zip(*row, strict=True))
            for row in (rows[:2], rows[2:])
        )
        np.testing.assert_allclose(example_pairs, package_pairs, rtol=0, atol=1e-6)


@pytest.fixture(scope="module")
def torchscript(exported_tiny):
    """TorchScript file of the bundled student."""
    return exported_tiny("float32")[0] / "tiny.pt"


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return the compiled C++ example; the compilation takes about 20 seconds."""
    torch = pytest.importorskip("torch")
    if not shutil.which("cmake") or not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("needs cmake and a C++ compiler")
    if torch.version.cuda and not shutil.which("nvcc"):
        pytest.skip("this torch can only be linked where the CUDA toolkit is")
    build = tmp_path_factory.mktemp("build")
    torch_path = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for command in (
        ["cmake", "-S", EXAMPLES / "cpp", "-B", build, torch_path],
        ["cmake", "--build", build],
    ):
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
    return build / "run_student"


def run(program, *arguments):
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


def test_cpp_example_agrees_with_the_package(program, torchscript, tmp_path):
    from ase_student import StudentCalculator

    reference = StudentCalculator("tiny", backend="torch", device="cpu", dtype="float64")
    tolerances = TOLERANCES["float32"]
    for name in NAMES:
        atoms = small_structure(name)
        # The file has eight decimals.
        atoms.positions = atoms.positions.round(8)
        write(tmp_path / "atoms.xyz", atoms, format="extxyz")
        process = run(program, torchscript, tmp_path / "atoms.xyz")
        assert (process.returncode, process.stderr) == (0, "")
        rows = {}
        for line in process.stdout.splitlines():
            label, *values = line.split()
            rows.setdefault(label, []).append([float(value) for value in values])
        reference.calculate(atoms)
        expected = reference.results
        assert abs(rows["energy"][0][0] - expected["energy"]) <= (
            tolerances["energy_per_atom"] * len(atoms)
        )
        np.testing.assert_allclose(
            rows["force"], expected["forces"], rtol=0, atol=tolerances["forces"]
        )
        # The program gives a stress only for three periodic axes, ASE for three cell vectors.
        assert ("stress" in rows) == atoms.pbc.all()
        if atoms.pbc.all():
            (xx, xy, xz), (_, yy, yz), (_, _, zz) = rows["stress"]
            np.testing.assert_allclose(
                [xx, yy, zz, yz, xz, xy], expected["stress"], rtol=0, atol=1e-5
            )


def test_cpp_example_names_invalid_input(program, torchscript, tmp_path):
    (tmp_path / "text").write_text("no structure\n")
    (tmp_path / "short.xyz").write_text("2\n\nH 0 0 0\n")
    (tmp_path / "element.xyz").write_text("1\n\nUuo 0 0 0\n")
    for arguments, message in (
        ((), "usage: run_student MODEL.pt STRUCTURE.xyz"),
        ((torchscript, tmp_path / "text"), "not an XYZ file"),
        ((torchscript, tmp_path / "short.xyz"), "atoms are missing"),
        ((torchscript, tmp_path / "element.xyz"), "unknown element 'Uuo'"),
        ((tmp_path / "text", tmp_path / "short.xyz"), "PytorchStreamReader failed"),
    ):
        process = run(program, *arguments)
        assert (process.returncode, process.stdout) == (1, "")
        assert process.stderr.startswith(f"error: {message}")


def test_readme_names_the_metadata_of_the_files():
    from ase_student.backends.onnx import OnnxBackend

    text = (EXAMPLES / "README.md").read_text()
    info = OnnxBackend(BUNDLED.read_bytes(), "tiny.onnx", "cpu").info
    for key in ("format_version", "name", "cutoff", "elements", "dtype", "weights_sha256"):
        assert f"`{key}`" in text
        assert key in info.metadata
    for key in info.metadata["references"][0]:
        assert f"`{key}`" in text
