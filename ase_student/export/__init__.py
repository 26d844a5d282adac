"""Export students to files that other programs run; each file is checked before it is kept.

An ONNX or TorchScript file has the potential signature (inputs numbers, positions, neighbors and
offsets; outputs energies, forces and virials; atoms and neighbors are dynamic) and holds, as JSON
under the key ``ase_student`` of its metadata, everything that is needed to run it and to check it
again: elements, cutoff, units, dtype, the SHA-256 of the weights and reference structures with
results in float64.
"""

import importlib.util
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ase_student.backends import DTYPES
from ase_student.backends.self_check import Report, VerificationError
from ase_student.checkpoint import load_student, student_name
from ase_student.export.references import reference_results, reference_structures
from ase_student.export.verification import verify_file
from ase_student.files import folder_for_output, replaced_when_complete
from ase_student.provenance import with_python
from ase_student.student import Student

__all__ = ["FORMATS", "Report", "VerificationError", "export_student", "verify_file"]

FORMATS = {"onnx": ".onnx", "torchscript": ".pt"}


def export_student(
    model: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    formats: Sequence[str] = tuple(FORMATS),
    *,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Write a student's exported files and a summary, ``export.json``, into a folder.

    The files are named after the student. All of them are written under temporary names, verified
    at sizes that they were not traced with, and renamed only if all are correct.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, or a checkpoint.
    folder : path
        Created if it does not exist.
    formats : sequence of str
        'onnx', 'torchscript' or both.
    dtype : str
        Precision of the network in the files.

    Returns
    -------
    dict
        The content of ``export.json``: per file its size in bytes, and the largest differences
        from the float64 reference in eV per atom, eV/Å and eV.

    Raises
    ------
    ValueError
        If an argument is unknown, or the checkpoint is damaged or would be replaced.
    VerificationError
        If a file does not compute what the student does.
    FileNotFoundError, ImportError
        As in :func:`ase_student.load_student`.
    OSError
        If the folder cannot be created or is not writable.
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ValueError(
            f"unknown format '{unknown[0] if unknown else ''}'; available: 'onnx', 'torchscript'."
        )
    if dtype not in DTYPES:
        raise ValueError(f"unknown dtype '{dtype}'; available: 'float32', 'float64'.")
    check_installed(formats)
    student = load_student(model)
    name = student_name(model)
    paths = {file_format: Path(folder) / f"{name}{FORMATS[file_format]}" for file_format in formats}
    for path in paths.values():
        if path.exists() and Path(model).exists() and path.samefile(model):
            raise ValueError(f"'{path}' would replace the checkpoint; give another folder with -o.")
    with _output_folder(folder):
        structures = reference_structures(student.elements)
        metadata = {"references": reference_results(student, structures)}
        summary: dict[str, Any] = {
            "name": name,
            "weights_sha256": student.sha256,
            "n_parameters": student.n_parameters,
            "dtype": dtype,
            "versions": _versions(),
            "files": {},
        }
        with ExitStack() as stack:
            for format_name, path in paths.items():
                temporary = stack.enter_context(replaced_when_complete(path))
                entry = _write(student, name, format_name, temporary, dtype, metadata)
                report = verify_file(temporary, called=str(path))
                report.raise_if_wrong()
                entry.update(bytes=temporary.stat().st_size, **report.as_dict())
                summary["files"][path.name] = entry
            temporary = stack.enter_context(replaced_when_complete(Path(folder, "export.json")))
            temporary.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        return summary


@contextmanager
def _output_folder(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Create a folder before any slow work; remove it at the end if it is empty."""
    folder = Path(folder)
    with ExitStack() as stack:
        try:
            stack.enter_context(folder_for_output(folder))
        except OSError as error:
            raise OSError(f"cannot make folder '{folder}': {error.strerror}.") from error
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(f"cannot write into folder '{folder}': give another with -o.")
        yield


def check_installed(formats: Sequence[str]) -> None:
    """Raise ImportError if a package that the export needs is missing, before any slow work."""
    needed = ["torch", *(("onnx", "onnxscript") if "onnx" in formats else ())]
    for package in needed:
        if importlib.util.find_spec(package) is None:
            raise ImportError(f'exporting needs {package}: pip install "ase-student[torch]"')


def _write(
    student: Student, name: str, format_name: str, path: Path, dtype: str, metadata: dict[str, Any]
) -> dict[str, Any]:
    if format_name == "onnx":
        from ase_student.backends.onnx_export import OPSET, to_onnx

        path.write_bytes(to_onnx(student, name, dtype, metadata))
        return {"format": "onnx", "opset": OPSET}
    from ase_student.backends.torchscript import save_torchscript

    save_torchscript(student, name, path, dtype, metadata)
    return {"format": "torchscript"}


def _versions() -> dict[str, str]:
    return with_python(("ase-student", "torch", "onnx", "onnxscript", "onnxruntime", "numpy"))
