"""Settings and fixtures of all tests."""

import contextlib
import functools
import io
import os
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from hypothesis import settings

# Structures of the tests are small: several threads would be slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A slow machine is no error. On the CI server every run has the same examples.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")


@pytest.fixture(scope="session")
def compiler():
    """Skip tests that need a C++ compiler."""
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
    """Skip tests that need an installed package."""
    try:
        distribution("ase-student")
    except PackageNotFoundError:
        pytest.skip("the package is not installed")


@pytest.fixture(scope="session")
def calculators(request):
    """Return a function that makes calculators of the bundled student, one for each kind.

    The guard is off: many structures of the tests are outside of the training's ranges.
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


@pytest.fixture(scope="session")
def exported_tiny(tmp_path_factory):
    """Return a function that exports the bundled student, once in all processes of a test run.

    The argument of the function is the precision. It returns a folder with ``tiny.onnx``,
    ``tiny.pt`` and ``export.json``, which tests only read, and the output of the command.
    """
    pytest.importorskip("torch")
    pytest.importorskip("onnxscript")
    filelock = pytest.importorskip("filelock")
    from ase_student.export.__main__ import main

    root = tmp_path_factory.getbasetemp()
    # Each process of pytest-xdist has its own folder within a shared one.
    shared = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "exported-tiny"
    shared.mkdir(exist_ok=True)

    @functools.cache
    def export(dtype):
        folder, printed = shared / dtype / "folder", shared / f"{dtype}.txt"
        with filelock.FileLock(shared / f"{dtype}.lock"):
            # Written last: without this file, no process has exported yet, or the export failed.
            if not printed.exists():
                output, errors = io.StringIO(), io.StringIO()
                with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
                    status = main(["tiny", "-o", str(folder), "--dtype", dtype])
                assert (status, errors.getvalue()) == (0, "")
                printed.write_text(output.getvalue(), encoding="utf-8")
            return folder, printed.read_text(encoding="utf-8")

    return export
