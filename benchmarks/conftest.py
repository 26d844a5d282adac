"""What all benchmarks share: the students, backends and threads that are measured."""

import pytest

from ase_student import StudentCalculator
from ase_student.student import available_students


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=2, help="CPU threads of the backends")


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--threads"))


@pytest.fixture(scope="session", params=available_students())
def student(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", params=["onnx", "torchscript", "torch"])
def calculator(request: pytest.FixtureRequest, student: str, threads: int) -> StudentCalculator:
    """Return every student in every backend; one that needs torch is skipped without it."""
    if request.param != "onnx":
        pytest.importorskip("torch")
    return StudentCalculator(student, backend=request.param, threads=threads)


@pytest.fixture(scope="session")
def reference(student: str) -> StudentCalculator:
    pytest.importorskip("torch")
    return StudentCalculator(student, backend="torch", dtype="float64", skin=0.0)
