"""The interface of every backend, and the description of a potential in an exported file."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BACKENDS = ("native", "onnx", "torchscript", "torch")
DTYPES = ("float32", "float64")
Results = tuple[NDArray[np.float64], NDArray[np.floating], NDArray[np.floating]]


@dataclass(frozen=True)
class PotentialInfo:
    """Description of the potential in a file.

    Attributes
    ----------
    name : str
    elements : tuple of int
        Atomic numbers of the elements that the potential knows.
    cutoff : float, Å
    dtype : str
        'float32' or 'float64', the precision of the network.
    weights_sha256 : str
        SHA-256 of the weights of the student from which the file was made.
    metadata : dict
        All metadata of the file, in the layout of :mod:`ase_student.export`.
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
            Atomic numbers.
        positions : (N, 3) float64, Å
        neighbors : (N, K) int64
            Index of each neighbor; padding repeats the atom's own index.
        offsets : (N, K, 3) float64, Å
            Translation of the neighbor's image; padding points beyond the cutoff.
        """
        ...
