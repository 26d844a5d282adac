"""Compilation of the network of an architecture for this processor."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ase_student.student import Architecture

SOURCE = Path(__file__).with_name("network.cpp")
FLAGS = (
    "-O3", "-march=native", "-ffp-contract=fast", "-fno-trapping-math", "-fno-math-errno",
    "-std=c++17", "-shared", "-fPIC",
)  # fmt: skip
COMPILERS = ("c++", "g++", "clang++")


def compile_network(shape: Architecture) -> ctypes.CDLL:
    """Return the compiled library of ``network.cpp``, in which all loops have constant lengths.

    Every process compiles it again, which takes some seconds, so that a file that was compiled for
    another processor is never run.

    Parameters
    ----------
    shape : Architecture

    Raises
    ------
    ImportError
        If there is no C++ compiler (one of `COMPILERS`, or that of the variable CXX), or if it
        cannot compile the source.
    """
    sizes = {
        "ELEMENTS": len(shape.elements),
        "FEATURES": shape.features,
        "HIDDEN": shape.hidden,
        "RADIAL": shape.n_rbf,
        "ELEMENT_CHANNELS": shape.element_channels,
        "MESSAGES": shape.message_channels,
        "TENSORS": shape.tensor_channels,
        "N_BLOCKS": shape.blocks,
    }
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "network.so"
        definitions = [f"-D{name}={size}" for name, size in sizes.items()]
        command = [find_compiler(), *FLAGS, *definitions, str(SOURCE), "-o", str(library)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise ImportError(
                "the network could not be compiled here; train with "
                f"gradient = 'autograd': {' '.join(command)} failed:\n{result.stderr.strip()}"
            )
        return _with_signatures(ctypes.CDLL(str(library)))


def _with_signatures(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, real = ctypes.c_void_p, ctypes.c_float
    library.network_new.restype = pointer
    library.network_new.argtypes = [real, real, real, pointer, pointer, pointer, ctypes.c_int]
    library.network_delete.restype = None
    library.network_delete.argtypes = [pointer]
    library.network_set_weights.argtypes = [pointer, pointer]
    library.network_evaluate.argtypes = [pointer, ctypes.c_int64, *[pointer] * 12]
    library.soap_step.argtypes = [ctypes.c_int64, pointer, pointer]
    library.soap_project_means.argtypes = [ctypes.c_int64, pointer]
    return library


def find_compiler() -> str:
    """Return the path of a C++ compiler.

    Raises
    ------
    ImportError
        If there is none.
    """
    for name in filter(None, (os.environ.get("CXX"), *COMPILERS)):
        path = shutil.which(name)
        if path is not None:
            return path
    raise ImportError(
        "compiled networks need a C++ compiler, and none was found among "
        f"{', '.join(COMPILERS)}: install one (Debian and Ubuntu: apt-get install g++), name it in "
        "the variable CXX, or take another backend, or train with gradient = 'autograd'."
    )
