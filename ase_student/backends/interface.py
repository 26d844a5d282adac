"""The interface of every backend, and what an exported file says about its potential."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BACKENDS = ("native", "onnx", "torchscript", "torch")
DTYPES = ("float32", "float64")
Results = tuple[NDArray[np.float64], NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class PotentialInfo:
    """What a file says about the potential in it.

    Attributes
    ----------
    name : str
    elements : tuple of int
        Atomic numbers that it knows.
    cutoff : float, Å
    dtype : str
        'float32' or 'float64', the precision of the network.
    weights_sha256 : str
        Of the student that the file was made from.
    metadata : dict
        All that the file carries, in the layout of :mod:`ase_student.export`.
    """

    name: str
    elements: tuple[int, ...]
    cutoff: float
    dtype: str
    weights_sha256: str
    metadata: dict[str, Any]


class Backend(Protocol):
    """A potential that is ready to run."""

    backend: str
    device: str
    info: PotentialInfo

    def evaluate(
        self,
        numbers: NDArray[np.int64],
        positions: NDArray[np.float64],
        neighbors: NDArray[np.int64],
        offsets: NDArray[np.float64],
    ) -> Results:
        """Return energies (N,) in eV, forces (N, 3) in eV/Å and virials (N, 3, 3) in eV.

        Parameters
        ----------
        numbers : (N,) int64
        positions : (N, 3) float64, Å
        neighbors : (N, K) int64
        offsets : (N, K, 3) float64, Å
        """
        ...
