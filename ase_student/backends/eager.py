"""Run students in torch: the reference with which every other backend is compared."""

import numpy as np
import torch
from numpy.typing import NDArray

from ase_student.backends.devices import run_module, set_threads, torch_device
from ase_student.backends.interface import Results
from ase_student.backends.metadata import info_of
from ase_student.networks import build_potential
from ase_student.student import Student


class TorchBackend:
    """A potential as a torch module.

    Parameters
    ----------
    student : Student
    name : str
    device : str
    dtype : str
    threads : int or None
    """

    backend = "torch"

    def __init__(
        self,
        student: Student,
        name: str,
        device: str = "auto",
        dtype: str = "float32",
        threads: int | None = None,
    ):
        set_threads(threads)
        self._device = torch_device(device)
        self.device = str(self._device)
        self.info = info_of(student, name, dtype)
        self._potential = build_potential(student, getattr(torch, dtype)).to(self._device)

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies, forces and virials; see :class:`ase_student.backends.Backend`."""
        return run_module(self._potential, self._device, numbers, positions, neighbors, offsets)
