"""The installed package: its content, its imports, and its use without the extras."""

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

import ase_student
from ase_student import StudentCalculator
from ase_student.checkpoint import available_students
from ase_student.engine.library import why_missing
from ase_student.testing import TOLERANCES, structure

ROOT = Path(__file__).parents[1]
EXTRAS = ("h5py", "onnx", "onnxscript", "rdkit", "so3krates_torch", "tblite", "torch", "tqdm")
WITHOUT_EXTRAS = f"import sys; sys.modules.update(dict.fromkeys({EXTRAS})); "
LARGEST_WHEEL_MB = 10.0


def run(code: str, folder: Path = ROOT, **environment: str) -> str:
    """Return the output of a new interpreter in a folder; every warning is an error there."""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_the_first_energy_imports_few_modules():
    """Modules that only commands, versions and exports need are imported when they are used."""
    unneeded = (
        "{'argparse', 'importlib.metadata', 'importlib.resources', 'numpy.ma', 'onnxruntime', "
        "'tempfile', 'torch', 'vesin', 'zipfile'}"
    )
    code = (
        "import sys; from ase import Atoms; import ase.calculators.calculator; "
        f"before = {unneeded} & set(sys.modules); from ase_student import StudentCalculator; "
        "water = Atoms('OHH', [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]); "
        "StudentCalculator('tiny', 'native').calculate(water); "
        f"print({unneeded} & set(sys.modules) - before)"
    )
    if why_missing() is None:
        assert run(code) == "set()"


def test_importing_the_package_imports_no_framework():
    heavy = "{'ase.calculators', 'onnxruntime', 'torch'}"
    code = f"import sys, ase_student; print({heavy} & set(sys.modules))"
    assert run(code) == "set()"


def test_public_names_of_the_package_can_be_imported():
    assert set(ase_student.__all__) <= set(dir(ase_student))
    assert all(getattr(ase_student, name).__name__ == name for name in ase_student.__all__)
    with pytest.raises(AttributeError, match="'ase_student' has no attribute 'Teacher'"):
        ase_student.Teacher  # noqa: B018


def declared() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


@pytest.mark.usefixtures("installed")
def test_the_version_is_that_of_the_metadata():
    assert ase_student.__version__ == version("ase-student") == declared()["metadata"]["version"]


def test_changelog_has_the_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{declared()['metadata']['version']}]" in text


def test_constraints_are_for_declared_packages():
    config = declared()
    listed = config["options"]["install_requires"] + "".join(
        requirements for _, requirements in config["options.extras_require"].items()
    )
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, _, pinned = line.partition("==")
        if not line.startswith("#"):
            assert pinned
            assert name in listed


@pytest.mark.parametrize("name", available_students())
def test_student_runs_without_the_extras(name):
    code = WITHOUT_EXTRAS + (
        "from ase_student import StudentCalculator; from ase_student.testing import structure; "
        f"atoms = structure('aspirin'); atoms.calc = StudentCalculator({name!r}); "
        "print(atoms.calc.backend, atoms.get_potential_energy())"
    )
    backend, energy = run(code).split()
    assert backend == ("onnx" if why_missing() else "native")
    atoms = structure("aspirin")
    atoms.calc = StudentCalculator(name, backend="onnx")
    error = abs(float(energy) - atoms.get_potential_energy())
    assert error <= TOLERANCES.backend_energy_per_atom * len(atoms)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        ("'tiny', backend='torch'", "torch"),
        ("'tiny', backend='torchscript'", "torch"),
    ],
)
def test_a_missing_extra_is_named_with_its_installation(arguments, extra):
    code = WITHOUT_EXTRAS + (
        "from ase_student import StudentCalculator\n"
        f"try: StudentCalculator({arguments})\n"
        "except ImportError as error: print(error)"
    )
    assert f'pip install "ase-student[{extra}]"' in run(code)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Build a wheel from a copy of the sources."""
    setuptools = pytest.importorskip("setuptools", reason="building a wheel needs setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 71:
        pytest.skip("this setuptools is too old to build a wheel")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    generated = shutil.ignore_patterns("__pycache__", "*.partial.*")
    shutil.copytree(ROOT / "ase_student", source / "ase_student", ignore=generated)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--quiet"]
    process = subprocess.run(
        [*command, "--wheel-dir", str(folder), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stdout + process.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_every_module_and_all_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        entry_points = archive.read(
            next(name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        ).decode()
    sources = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "ase_student").rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and ".partial" not in path.name
        # The wheel holds the library built from these sources; this one is built without it.
        and not path.is_relative_to(ROOT / "ase_student" / "engine" / "src")
        and not path.name.startswith("_library")
    }
    assert names == sources
    assert {f"ase_student/students/{name}/{name}.onnx" for name in available_students()} <= names
    assert "ase_student = ase_student.plugin" in entry_points


def test_wheel_is_small(wheel):
    assert wheel.stat().st_size / 1e6 <= LARGEST_WHEEL_MB


def test_wheel_works_elsewhere_without_the_extras(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = WITHOUT_EXTRAS + (
        "import ase_student; from ase_student.testing import structure; "
        "atoms = structure('water_box'); "
        "atoms.calc = ase_student.StudentCalculator('tiny', guard='off'); "
        "print(atoms.get_potential_energy(), ase_student.__version__, ase_student.__file__)"
    )
    energy, installed_version, file = run(code, tmp_path, PYTHONPATH=str(tmp_path)).split(
        maxsplit=2
    )
    assert np.isfinite(float(energy))
    assert installed_version == declared()["metadata"]["version"]
    assert Path(file).is_relative_to(tmp_path)
