"""Write students as TorchScript files, and read and run these files.

TorchScript is deprecated in torch, but many engines load no other format. All calls of
``torch.jit`` are in this file, and its deprecation warnings are suppressed only here.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_student.archives import check_archive
from ase_student.backends.devices import run_module, set_threads, torch_device
from ase_student.backends.interface import Results
from ase_student.backends.metadata import METADATA_KEY, decode, describe, encode, info_of
from ase_student.backends.program_check import check_program, seal_program
from ase_student.backends.tracing import example_inputs
from ase_student.networks import build_potential
from ase_student.student import Student


def save_torchscript(
    student: Student,
    name: str,
    path: Path,
    dtype: str = "float32",
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write a student as a TorchScript file with energies, forces and virials.

    Parameters
    ----------
    student : Student
    name : str
    path : path
    dtype : str
        Precision of the network.
    metadata : dict, optional
        More entries for the file's metadata.
    """
    described = {**describe(student, name, dtype), **(metadata or {})}
    module = _trace(student, dtype, torch.device("cpu"))
    with _without_deprecation_warnings():
        torch.jit.save(module, str(path), _extra_files={METADATA_KEY: encode(described)})
    seal_program(path, name)


def _trace(student: Student, dtype: str, device: torch.device) -> Any:
    # Freezing turns the weights into constants, which cannot be moved afterwards.
    potential = build_potential(student, getattr(torch, dtype)).to(device)
    inputs = tuple(tensor.to(device) for tensor in example_inputs(student))
    with _without_deprecation_warnings(), torch.no_grad():
        traced = torch.jit.trace(potential, inputs, check_trace=False)
        return torch.jit.freeze(traced.eval())


class TorchScriptBackend:
    """A potential as a TorchScript program."""

    backend = "torchscript"

    def __init__(self, module: Any, info: Any, device: torch.device):
        self.info = info
        self.device = str(device)
        self._device = device
        self._module = module

    @classmethod
    def from_file(
        cls, path: Path, device: str, threads: int | None, trust: bool = False
    ) -> "TorchScriptBackend":
        """Load an exported file; with `trust`, it may contain any program.

        Raises
        ------
        ValueError
            If the file is damaged, or has code that no student has and is not trusted.
        """
        set_threads(threads)
        target = torch_device(device)
        check_archive(path, str(path))
        if not trust:
            check_program(path)
        extra = {METADATA_KEY: ""}
        try:
            with _without_deprecation_warnings():
                module = torch.jit.load(str(path), map_location=target, _extra_files=extra)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"'{path}' is not a readable TorchScript file: {reason}") from error
        text: str | bytes = extra[METADATA_KEY]
        text = text.decode() if isinstance(text, bytes) else text
        return cls(module, decode(text or None, str(path)), target)

    @classmethod
    def from_student(
        cls, student: Student, name: str, device: str, dtype: str, threads: int | None
    ) -> "TorchScriptBackend":
        """Make a student's program in memory."""
        set_threads(threads)
        target = torch_device(device)
        info = info_of(student, name, dtype)
        return cls(_trace(student, dtype, target), info, target)

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies, forces and virials; see :class:`ase_student.backends.Backend`."""
        # Specializing the program for the sizes of its inputs takes seconds in the first calls
        # for every new size, and hardly makes programs of matrix products faster.
        with torch.jit.optimized_execution(False):  # type: ignore[attr-defined]
            return run_module(self._module, self._device, numbers, positions, neighbors, offsets)


@contextmanager
def _without_deprecation_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
        warnings.filterwarnings("ignore", message=".*torch.jit.*", category=FutureWarning)
        yield
