"""Open a student for evaluation: choose the file, the backend and the device.

Backends are modules of their own, which are imported only when they are needed, as are torch and
onnxruntime.
"""

import importlib.util
import os
from numbers import Integral
from pathlib import Path
from typing import Any

from ase_student.backends.accelerators import has_torch, torch_takes_gpu
from ase_student.backends.interface import BACKENDS, DTYPES, Backend
from ase_student.backends.self_check import check_opened
from ase_student.checkpoint import available_students, load_student, resolve_model, student_name
from ase_student.student import Student


def open_backend(
    model: str | os.PathLike[str],
    backend: str = "auto",
    device: str = "auto",
    dtype: str = "float32",
    threads: int | None = None,
    trust: bool = False,
) -> Backend:
    """Open a bundled student, a checkpoint or an exported file.

    Parameters and errors are those of :class:`ase_student.StudentCalculator`.
    """
    if backend == "compiled":
        raise ValueError(
            "backend 'compiled' is gone: pass backend='native', the C++ engine, which gives the "
            "same results and is faster."
        )
    _check_choice("backend", backend, ("auto", *BACKENDS))
    _check_choice("dtype", dtype, DTYPES)
    if not isinstance(device, str):
        raise TypeError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N'; given {device!r}.")
    if threads is not None and not (isinstance(threads, Integral) and threads >= 1):
        raise ValueError(f"threads must be a whole number of at least 1; given {threads!r}.")
    exported = _exported_file(model)
    if exported is not None:
        path, kind = exported
        if backend not in ("auto", kind):
            raise ValueError(f"'{path}' runs in backend '{kind}', not '{backend}'.")
        opened = _open_checked(path, kind, device, threads, trust)
        if opened.info.dtype != dtype:
            raise ValueError(
                f"'{path}' computes in {opened.info.dtype}, not {dtype}; "
                f"pass dtype='{opened.info.dtype}' or export it again with --dtype {dtype}."
            )
        return opened
    if backend in ("auto", "native"):
        from ase_student.backends.native import open_native

        native = open_native(model, backend, device, dtype, threads)
        if native is not None:
            return native
    bundled = model in available_students()
    if backend == "auto":
        backend = _fastest(device, dtype, bundled)
    if backend == "onnx" and bundled and dtype == "float32":
        name = str(model)
        return _open_checked(resolve_model(name, f"{name}.onnx"), "onnx", device, threads)
    student = load_student(model)
    return _open_student(student, student_name(model), backend, device, dtype, threads)


def _check_choice(parameter: str, given: str, allowed: tuple[str, ...]) -> None:
    if given not in allowed:
        choices = ", ".join(f"'{choice}'" for choice in allowed)
        raise ValueError(f"unknown {parameter} '{given}'; available: {choices}.")


def _exported_file(model: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """Return path and backend of an exported file; None if the model is a student."""
    if model in available_students():
        return None
    path = resolve_model(model)
    if path.suffix == ".onnx":
        return path, "onnx"
    # Imported here, because bundled students do not need it. Checkpoints and programs of torch are
    # both zip archives, but only programs have code.
    import zipfile

    if not zipfile.is_zipfile(path):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            is_program = any("/code/" in name for name in archive.namelist())
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{path}' is a damaged archive: {error}.") from error
    if is_program and path.suffix != ".pt":
        raise ValueError(
            f"'{path}' is a TorchScript program, which is code; it is opened only from a file "
            "whose name ends in '.pt'."
        )
    return (path, "torchscript") if is_program else None


def _fastest(device: str, dtype: str, bundled: bool) -> str:
    """Return the fastest backend, except the engine, that is installed and can run a student."""
    if bundled and dtype == "float32" and not torch_takes_gpu(device):
        return "onnx"
    return "torchscript" if has_torch() else "onnx"


def _open_checked(
    path: Path, kind: str, device: str, threads: int | None, trust: bool = False
) -> Backend:
    opened = open_exported(path, device, threads, kind, trust)
    check_opened(opened, str(path))
    return opened


def open_exported(
    path: Path,
    device: str = "auto",
    threads: int | None = None,
    kind: str | None = None,
    trust: bool = False,
) -> Backend:
    """Open an exported ONNX or TorchScript file.

    With `trust`, the file may contain any program; see :class:`ase_student.StudentCalculator`.

    Raises
    ------
    ValueError
        If the file is not an exported student, or damaged.
    FileNotFoundError, ImportError
        If there is no such file, or the package that runs it is not installed.
    """
    if kind is None:
        exported = _exported_file(path)
        if exported is None:
            raise ValueError(f"'{path}' is not an exported ONNX or TorchScript file.")
        path, kind = exported
    if kind == "onnx":
        from ase_student.backends.onnx import OnnxBackend

        return OnnxBackend(path.read_bytes(), str(path), device, threads, trust)
    torchscript = _import_torch_backend("torchscript", path)
    return torchscript.TorchScriptBackend.from_file(path, device, threads, trust)


def _open_student(
    student: Student, name: str, backend: str, device: str, dtype: str, threads: int | None
) -> Backend:
    if backend == "onnx":
        from ase_student.backends.onnx import OnnxBackend

        onnx_export = _import_torch_backend("onnx_export", name)
        content = onnx_export.to_onnx(student, name, dtype)
        return OnnxBackend(content, name, device, threads)
    if backend == "torchscript":
        torchscript = _import_torch_backend("torchscript", name)
        return torchscript.TorchScriptBackend.from_student(student, name, device, dtype, threads)
    eager = _import_torch_backend("eager", name)
    return eager.TorchBackend(student, name, device, dtype, threads)


def _import_torch_backend(module: str, model: object) -> Any:
    try:
        return importlib.import_module(f"ase_student.backends.{module}")
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "onnx", "onnxscript"):
            raise
        raise ImportError(
            f"'{model}' cannot run in this way without {error.name}: "
            'pip install "ase-student[torch]"'
        ) from error
