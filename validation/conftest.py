"""Fixtures of the acceptance tests: bundled students on reference data, or any model and data."""

from pathlib import Path
from typing import Any

import pytest

from ase_student.checkpoint import available_students
from ase_student.data.readers.opening import open_frames
from ase_student.validation.accuracy.evaluation import Selection, run_pass
from ase_student.validation.accuracy.metrics import Pass, metrics
from ase_student.validation.models import ModelSpec
from ase_student.validation.validate import file_sha256

REFERENCES = Path(__file__).parent / "reference"
REFERENCE = REFERENCES / "nci-so3lr-test.h5"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("validation")
    group.addoption(
        "--structures", type=Path, metavar="FILE",
        help="labeled structures (HDF5, extended XYZ or ASE database) instead of the reference",
    )  # fmt: skip
    group.addoption(
        "--model", action="append", metavar="MODEL",
        help="student by name or file, instead of all bundled ones; repeatable",
    )  # fmt: skip
    group.addoption(
        "--force-rmse", type=float, metavar="X", help="largest allowed force RMSE, eV/Å"
    )
    group.addoption(
        "--energy-mae", type=float, metavar="X", help="largest allowed energy MAE, meV/atom"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "model" in metafunc.fixturenames:
        models = metafunc.config.getoption("--model") or available_students()
        metafunc.parametrize("model", models, scope="session")


@pytest.fixture(scope="session")
def structures(request: pytest.FixtureRequest) -> Path:
    file = request.config.getoption("--structures")
    # A test may select another reference by its name.
    reference = REFERENCES / f"{getattr(request, 'param', REFERENCE.stem)}.h5"
    return reference if file is None else file


@pytest.fixture(scope="session")
def spec(model: str) -> ModelSpec:
    return ModelSpec(model)


@pytest.fixture(scope="session")
def results(spec: ModelSpec, structures: Path, tmp_path_factory: pytest.TempPathFactory) -> Pass:
    info = spec.open().info
    selection = Selection(structures, elements=info.elements)
    folder = tmp_path_factory.mktemp("pieces")
    sha256 = file_sha256(structures)
    return Pass.of(
        run_pass(spec, info.weights_sha256, selection, data_sha256=sha256, folder=folder)
    )


@pytest.fixture(scope="session")
def accuracy(results: Pass) -> dict[str, Any]:
    return metrics(results, seed=0)


@pytest.fixture(scope="session")
def frames(structures: Path) -> Any:
    opened = open_frames(structures)
    yield opened
    opened.close()
