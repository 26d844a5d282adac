"""Compile the sums over pairs for one shape of network on this processor, and call them."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("pairs.cpp")
# Sums may be reordered, so that they become vector instructions. -ffast-math would do so too, but a
# library linked with it makes the whole process take subnormal numbers for zero.
FLAGS = (
    "-O3", "-march=native", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
    "-fno-math-errno", "-std=c++17", "-shared", "-fPIC",
)  # fmt: skip
COMPILERS = ("c++", "g++", "clang++")
FUNCTIONS = ("element_moments", "element_gradients", "messages", "message_gradients")


class PairKernels:
    """The functions of ``pairs.cpp`` with their loops of constant length.

    They are compiled anew by every process, which takes a second or less, so that no file from
    another processor can ever be run.

    Parameters
    ----------
    n_rbf, element_channels, message_channels : int
    n_components : 3 or 8
        Of a direction: itself, or its quadrics too.

    Raises
    ------
    ImportError
        If there is no C++ compiler, one of `COMPILERS` or what the variable CXX names, or it does
        not compile the source.
    """

    def __init__(
        self, n_rbf: int, element_channels: int, message_channels: int, n_components: int = 3
    ):
        self.n_rbf, self.n_components = n_rbf, n_components
        sizes = {
            "RADIAL": n_rbf,
            "CHANNELS": element_channels,
            "WIDTH": message_channels,
            "COMPONENTS": n_components,
        }
        with tempfile.TemporaryDirectory() as folder:
            library = Path(folder) / "pairs.so"
            definitions = [f"-D{name}={size}" for name, size in sizes.items()]
            command = [find_compiler(), *FLAGS, *definitions, str(SOURCE), "-o", str(library)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ImportError(
                    "compiled sums are not to be had here; take another backend, or train with "
                    f"gradient = 'autograd': {' '.join(command)} failed:\n{done.stderr.strip()}"
                )
            self._library = ctypes.CDLL(str(library))
        for name in FUNCTIONS:
            getattr(self._library, name).restype = None

    def call(self, name: str, pairs: Tensor, *arrays: Tensor) -> None:
        """Run a function over all pairs, on arrays in the order of ``pairs.cpp``.

        Parameters
        ----------
        name : str
            One of `FUNCTIONS`.
        pairs : (2, n_pairs) int64
        arrays : Tensor
            Contiguous float32; outputs come last, those of atoms are added to, of pairs are set.

        Raises
        ------
        TypeError
            If an array is not as the function reads it: that would be a crash, or worse.
        """
        for array in arrays:
            if array.dtype != torch.float32 or array.device.type != "cpu":
                raise TypeError(
                    f"compiled kernels take float32 on the CPU; given {array.dtype} on "
                    f"{array.device}."
                )
            if not array.is_contiguous():
                raise TypeError("compiled kernels take contiguous arrays.")
        first, second = pairs.contiguous().unbind()
        pointers = [ctypes.c_void_p(array.data_ptr()) for array in (first, second, *arrays)]
        getattr(self._library, name)(ctypes.c_int64(pairs.shape[1]), *pointers)


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
        "compiled sums need a C++ compiler, and none was found among "
        f"{', '.join(COMPILERS)}: install one (Debian and Ubuntu: apt-get install g++), name it in "
        "the variable CXX, or take another backend, or train with gradient = 'autograd'."
    )
