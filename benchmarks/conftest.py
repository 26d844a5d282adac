"""Options and fixtures of all benchmarks: devices, students, backends, threads."""

import pytest

from ase_student import StudentCalculator
from ase_student.backends import BACKENDS
from ase_student.checkpoint import available_students
from ase_student.engine.library import why_missing


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--threads", type=int, default=2, help="CPU threads of the backends")
    parser.addoption(
        "--budget", type=float, default=2.0, help="time limit for the rounds of a case, s"
    )
    parser.addoption(
        "--small", action="store_true", help="leave out large structures, for a quick trial run"
    )


@pytest.fixture(scope="session")
def threads(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--threads"))


@pytest.fixture(scope="session")
def budget(request: pytest.FixtureRequest) -> float:
    return float(request.config.getoption("--budget"))


@pytest.fixture
def only_small(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--small"))


@pytest.fixture(scope="session", params=["cpu", "cuda"])
def device(request: pytest.FixtureRequest) -> str:
    if request.param == "cuda":
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("no GPU")
    return str(request.param)


@pytest.fixture(scope="session", params=available_students())
def student(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session", params=BACKENDS)
def backend(request: pytest.FixtureRequest, device: str) -> str:
    """Return every backend; a backend that cannot run here is skipped."""
    if request.param == "native":
        reason = why_missing() if device == "cpu" else "the engine is for the CPU"
        if reason is not None:
            pytest.skip(reason)
    elif request.param != "onnx":
        pytest.importorskip("torch")
    elif device != "cpu":
        import onnxruntime

        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            pytest.skip("this onnxruntime has no CUDA")
    return str(request.param)


@pytest.fixture(scope="session")
def calculator(student: str, backend: str, device: str, threads: int) -> StudentCalculator:
    """Return a calculator of every student in every backend on every device.

    The guard is off, because some structures lie outside the training data.
    """
    return StudentCalculator(student, backend=backend, device=device, threads=threads, guard="off")


@pytest.fixture(scope="session")
def reference(student: str) -> StudentCalculator:
    pytest.importorskip("torch")
    return StudentCalculator(
        student, backend="torch", device="cpu", dtype="float64", skin=0.0, guard="off"
    )
