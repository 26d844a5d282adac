"""Find, read and write students: bundled ones, checkpoints and first-generation files."""

import hashlib
import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from ase_student.callers import stacklevel
from ase_student.files import reason_of, replaced_when_complete
from ase_student.student import FORMAT_VERSION, Architecture, Student

#: The bundled students, from large to small.
STUDENT_NAMES = ("original", "tiny", "ultra-tiny")
_METADATA_KEY = "ase_student"
#: End of the document of a file: the SHA-256 of all other content of the file.
_SEAL = re.compile(r', "sha256": "([0-9a-f]{64})"\}$')


def student_folder(name: str) -> Path:
    """Return the folder of a bundled student."""
    return Path(__file__).parent / "students" / name


def available_students() -> tuple[str, ...]:
    """Return the names of the bundled students."""
    return tuple(
        name for name in STUDENT_NAMES if (student_folder(name) / "weights.safetensors").is_file()
    )


def check_model(model: object) -> None:
    """Raise TypeError if a model is neither a name nor a path."""
    if not isinstance(model, (str, os.PathLike)):
        raise TypeError(
            "the model must be the name of a student, such as 'tiny', or a path; "
            f"given {'None' if model is None else f'an object of type {type(model).__name__!r}'}."
        )


def resolve_model(model: str | os.PathLike[str], filename: str = "weights.safetensors") -> Path:
    """Return the path of a bundled student's file, or the given path if the file exists.

    A folder stands for the file ``weights.safetensors`` in it, which training writes there.

    Raises
    ------
    ValueError
        If ``model`` is not a bundled student and does not look like a path.
    FileNotFoundError
        If ``model`` looks like a path and the file does not exist.
    TypeError
        If ``model`` is neither a name nor a path.
    """
    check_model(model)
    available = available_students()
    if isinstance(model, str) and model in available:
        bundled = student_folder(model)
        local = Path(model, "weights.safetensors")
        if local.is_file() and not local.samefile(bundled / "weights.safetensors"):
            warnings.warn(
                f"'{model}' is the bundled student; for the one in the folder '{model}' here, "
                f"write '{local.as_posix()}'.",
                stacklevel=stacklevel(),
            )
        return bundled / filename
    path = Path(model)
    for file in (path, path / "weights.safetensors"):
        if file.is_file():
            return file
    names = ", ".join(f"'{name}'" for name in available)
    if path.suffix or len(path.parts) > 1 or not isinstance(model, str):
        is_folder = path.is_dir()
        reason = "it is a folder without weights" if is_folder else "there is no such file"
        raise FileNotFoundError(f"cannot read '{model}': {reason}. Bundled students: {names}.")
    # Imported here: opening a student needs no command line.
    from ase_student.cli import suggestion

    raise ValueError(
        f"no student named '{model}'; available: {names}.{suggestion(model, available)} "
        "To load a file, give its path."
    )


def student_name(model: str | os.PathLike[str]) -> str:
    """Return the name of a bundled student or of a student in a file.

    The name of a file is that without the suffix; for ``weights`` it is the name of the folder.

    Examples
    --------
    >>> student_name("tiny"), student_name("runs/mine/weights.safetensors"), student_name("old.pt")
    ('tiny', 'mine', 'old')
    """
    if model in available_students():
        return str(model)
    path = Path(model).absolute()
    if path.is_dir():
        return path.name
    return path.parent.name if path.stem == "weights" else path.stem


def load_student(model: str | os.PathLike[str]) -> Student:
    """Load a student by name or from a checkpoint.

    Parameters
    ----------
    model : str or path
        Name of a bundled student, a ``weights.safetensors`` file, or a first-generation ``.pt``
        checkpoint, which needs torch and causes a warning.

    Raises
    ------
    ValueError
        If the name is unknown, or the file is not a checkpoint, or is damaged, which its hash
        shows; older files without a hash cause a warning.
    FileNotFoundError
        If there is no such file.
    ImportError
        If the file needs torch and torch is not installed.

    Examples
    --------
    >>> student = load_student("tiny")
    >>> student.n_parameters <= 77203
    True
    >>> student.cutoff
    5.0
    """
    path = resolve_model(model)
    with open(path, "rb") as file:
        head = file.read(9)
    if path.suffix == ".onnx":
        raise ValueError(
            f"{path}: an exported file has no trainable weights; "
            "load the checkpoint that it was made from."
        )
    # A safetensors file is the header's length in 8 bytes, then the header, a JSON object.
    if len(head) == 9 and head[8:] == b"{":
        return _read_safetensors(path)
    if path.suffix == ".safetensors":
        raise ValueError(f"{path}: not a safetensors file, or a truncated one.")
    try:
        from ase_student.legacy import load_legacy_student
    except ImportError as error:
        raise ImportError(
            f'{path}: reading this checkpoint needs torch: pip install "ase-student[torch]"'
        ) from error
    return load_legacy_student(path)


def _read_safetensors(path: Path) -> Student:
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    # SafetensorError is safetensors' own; the others come from types that NumPy does not have.
    except (SafetensorError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not a readable safetensors file ({error}).") from error
    if text is None:
        raise ValueError(f"{path}: a safetensors file, but not a student (no '{_METADATA_KEY}').")
    is_sealed = _check_seal(path, text, tensors)
    for name, tensor in tensors.items():
        if tensor.dtype.kind != "f":
            raise ValueError(f"{path}: tensor '{name}' is of {tensor.dtype}; expected floats.")
        if not np.isfinite(tensor).all():
            raise ValueError(f"{path}: tensor '{name}' has values that are not finite.")
    try:
        document = json.loads(text)
        student = _read_document(document, tensors)
        unknown = sorted(document.keys() - student.header().keys() - {"metadata"})
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: incomplete student metadata ({reason_of(error)}).") from error
    except (RecursionError, OverflowError) as error:
        raise ValueError(f"{path}: has metadata that no student has ({error}).") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if unknown != ["sha256"] * is_sealed:
        raise ValueError(f"{path}: was damaged or changed: no student has {unknown[0]!r}.")
    if not is_sealed:
        warnings.warn(
            f"'{path}' was written without a hash, so that damage to it cannot be noticed; "
            "write it again with save_student(load_student(path), path).",
            stacklevel=stacklevel(),
        )
    return student


def _sealed(text: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Return a document with the SHA-256 of itself and the tensors as its last entry."""
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype.str} {tensor.shape}".encode())
        digest.update(np.ascontiguousarray(tensor).tobytes())
    return f'{text[:-1]}, "sha256": "{digest.hexdigest()}"}}'


def _check_seal(path: Path, text: str, tensors: Mapping[str, np.ndarray]) -> bool:
    """Return whether a file has a hash; raise ValueError if the hash does not fit the content."""
    seal = _SEAL.search(text)
    if seal is None:
        return False
    if text != _sealed(text[: seal.start()] + "}", tensors):
        raise ValueError(
            f"{path}: was damaged or changed after it was written: its SHA-256 differs; "
            "use an undamaged copy."
        )
    return True


def _read_document(document: dict[str, Any], tensors: dict[str, np.ndarray]) -> Student:
    """Return the student of a file's JSON document."""
    version, family = document["format_version"], document["family"]
    if version != FORMAT_VERSION:
        raise ValueError(f"format version {version}; this release reads version {FORMAT_VERSION}.")
    if family != Architecture.family:
        raise ValueError(f"unknown family of networks '{family}'.")
    shape = document["architecture"]
    architecture = Architecture(**{**shape, "elements": tuple(shape["elements"])})
    references = {
        atomic_numbers[symbol]: float(energy)
        for symbol, energy in document["reference_energies"].items()
    }
    for number in architecture.elements:
        symbol = chemical_symbols[number]
        if number not in references:
            raise ValueError(f"no reference energy for {symbol}.")
        if not np.isfinite(references[number]):
            raise ValueError(f"the reference energy of {symbol} is {references[number]} eV.")
    return Student(architecture, tensors, references, document.get("metadata", {}))


def save_student(student: Student, path: str | os.PathLike[str]) -> None:
    """Write a student as a safetensors file; an existing file is replaced at the end.

    Parameters
    ----------
    student : Student
    path : str or path
        Ends in ``.safetensors``.
    """
    if Path(path).suffix != ".safetensors":
        raise ValueError(f"'{path}': a student is saved under a name that ends in '.safetensors'.")
    if student.architecture.family != Architecture.family:
        raise ValueError("first-generation checkpoints are read and exported, but not written.")
    document = {**student.header(), "metadata": student.metadata}
    tensors = {name: np.asarray(tensor, order="C") for name, tensor in student.tensors.items()}
    metadata = {_METADATA_KEY: _sealed(json.dumps(document), tensors)}
    with replaced_when_complete(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)
