"""Find and load the engine's shared library, and declare its C interface to ctypes.

The library is plain C++ with a C interface (``ase_student.h``) and does not use Python: one build
serves every version of Python.
"""

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "OptionsRecord",
    "ResultsRecord",
    "StructuresRecord",
    "UsualRecord",
    "load_library",
    "why_missing",
]

# The first number of the versions of the library that this module works with.
INTERFACE = "1"
# Names that build tools give to a shared library.
SUFFIXES = (".so", ".dylib", ".dll", ".pyd")


class OptionsRecord(ctypes.Structure):
    """``ase_student_options``."""

    _fields_ = (
        ("precision", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("isa", ctypes.c_char_p),
    )


class StructuresRecord(ctypes.Structure):
    """``ase_student_structures``."""

    _fields_ = (
        ("n_structures", ctypes.c_int64),
        ("n_atoms", ctypes.c_void_p),
        ("numbers", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("cells", ctypes.c_void_p),
        ("pbc", ctypes.c_void_p),
        ("skin", ctypes.c_double),
    )


class ResultsRecord(ctypes.Structure):
    """``ase_student_results``."""

    _fields_ = (
        ("energies", ctypes.c_void_p),
        ("forces", ctypes.c_void_p),
        ("virials", ctypes.c_void_p),
        ("atom_virials", ctypes.c_void_p),
        ("outside", ctypes.c_int32),
        ("rebuilt", ctypes.c_int32),
        ("structures_outside", ctypes.c_void_p),
    )


class UsualRecord(ctypes.Structure):
    """``ase_student_usual``."""

    _fields_ = (
        ("radius_sums", ctypes.c_void_p),
        ("bonded", ctypes.c_double),
        ("reach", ctypes.c_double),
        ("decay", ctypes.c_double),
        ("most_bonds", ctypes.c_int32),
        ("atom_keys", ctypes.c_void_p),
        ("bond_keys", ctypes.c_void_p),
        ("n_environments", ctypes.c_int64),
        ("environments", ctypes.c_void_p),
        ("orders", ctypes.c_void_p),
        ("other_orders", ctypes.c_void_p),
        ("n_bins", ctypes.c_int32),
        ("bin_width", ctypes.c_double),
        ("gaps", ctypes.c_void_p),
    )


def _library_file() -> Path | None:
    """Return the file of the library that was built with the package, None if there is none.

    The environment variable ASE_STUDENT_ENGINE_LIBRARY names another file, for tests.
    """
    if chosen := os.environ.get("ASE_STUDENT_ENGINE_LIBRARY"):
        return Path(chosen)
    folder = Path(__file__).parent
    for path in sorted(folder.glob("_library*")):
        if path.suffix in SUFFIXES:
            return path
    return None


@cache
def load_library() -> ctypes.CDLL:
    """Load the library.

    Raises
    ------
    ImportError
        If the package was installed without it, it cannot be loaded, or it has another version.
    """
    path = _library_file()
    if path is None:
        raise ImportError(
            "ase-student was installed without its C++ engine, because no compiler was found; "
            "install a C++ compiler and ase-student again, or use backend='onnx'."
        )
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"the C++ engine '{path}' cannot be loaded: {error}.") from error
    _declare(library)
    version = library.ase_student_version().decode()
    if version.partition(".")[0] != INTERFACE:
        raise ImportError(
            f"the C++ engine '{path}' has version {version}; this package works with version "
            f"{INTERFACE}: install ase-student again."
        )
    return library


def why_missing() -> str | None:
    """Return why the engine cannot be used here; None if it can."""
    try:
        library = load_library()
    except ImportError as error:
        return str(error)
    if not library.ase_student_isas():
        return "the C++ engine needs a processor with x86-64-v2 (2009 or newer)."
    return None


def _declare(library: ctypes.CDLL) -> None:
    """Declare the types of the functions that are called to ctypes."""
    pointer, status = ctypes.c_void_p, ctypes.c_int
    text, size = ctypes.c_char_p, ctypes.c_size_t
    signatures: dict[str, tuple[Any, list[Any]]] = {
        "version": (text, []),
        "isas": (text, []),
        "open_memory": (status, [text, size, pointer, pointer]),
        "share": (status, [pointer, pointer]),
        "close": (None, [pointer]),
        "last_error": (text, [pointer]),
        "isa": (text, [pointer]),
        "table_error": (ctypes.c_double, [pointer]),
        "set_limits": (status, [pointer] * 4),
        "set_usual": (status, [pointer] * 2),
        "compute": (status, [pointer] * 3),
        "set_list": (status, [pointer, ctypes.c_int64, ctypes.c_int64, *[pointer] * 4]),
        "set_cell": (status, [pointer] * 2),
        "evaluate": (status, [pointer] * 5),
        "n_phases": (ctypes.c_int32, [pointer]),
        "begin": (status, [pointer] * 2),
        "exchange": (status, [pointer, ctypes.c_int32, pointer, pointer]),
        "phase": (status, [pointer, ctypes.c_int32]),
        "finish": (status, [pointer] * 4),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"ase_student_{name}")
        function.restype, function.argtypes = result, arguments
