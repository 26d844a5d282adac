"""Settings and fixtures of all tests."""

import functools
import os
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from hypothesis import settings

# Structures here are small: threads that wait for one another cost more than they bring.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no error; and where everybody's changes meet, every run has the same examples.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def compiler():
    """Skip tests of what a C++ compiler is needed for."""
    pytest.importorskip("torch")
    from ase_student.networks.kernels.build import find_compiler

    try:
        find_compiler()
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def engine():
    """Skip tests of the C++ engine where the package was installed without it."""
    from ase_student.engine.library import why_missing

    reason = why_missing()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def installed():
    """Skip tests of what only an installed package has."""
    try:
        distribution("ase-student")
    except PackageNotFoundError:
        pytest.skip("the package is not installed")


@pytest.fixture(scope="session")
def calculators(request):
    """Return a function that makes a calculator of the bundled student, once of each kind.

    Its guard is off: many structures of the tests lie outside of what training saw.
    """
    from ase_student import StudentCalculator

    @functools.cache
    def make(backend, dtype="float32"):
        if backend == "native":
            request.getfixturevalue("engine")
        elif backend != "onnx":
            pytest.importorskip("torch")
        return StudentCalculator(
            "tiny", backend=backend, device="cpu", dtype=dtype, skin=0.0, guard="off"
        )

    return make
